use super::*;
use crate::deps::Deps;
use crate::fake::{World, scope};
use crate::gc;
use isolarium_model::ec2::address::assignable;
use isolarium_model::ec2::gateway::NatState;
use isolarium_model::ec2::group::{Direction, Peer, Rule};
use isolarium_model::ec2::id::{
    AclAssociationId, AclId, AllocationId, CidrAssociationId, EipAssociationId, EndpointId, GroupId, GroupRuleId,
    InternetGatewayId, NatGatewayId, RouteTableAssociationId, RouteTableId, SubnetId,
};
use isolarium_model::ec2::route_table::{Associated, RouteTarget};
use isolarium_model::ec2::subnet::LaunchNames;
use isolarium_model::ec2::traffic::{Match, RangeInclusive16};
use isolarium_model::ec2::vpc::{Block as VpcBlock, Tenancy};
use isolarium_model::ec2::zone::Zone;
use isolarium_model::ec2::{
    EndpointKind, EndpointState, Holder, NatGateway, NetworkAcl, NetworkInterface, Resource, RouteTable, SecurityGroup,
    Subnet, Tags, Vpc, VpcEndpoint, prefix_list,
};
use isolarium_model::sagemaker::VpcAttachment;
use isolarium_model::{Timestamp, WorkloadId};
use isolarium_store::{Batch, Expect};
use std::net::Ipv4Addr;

pub(crate) const VPC: u128 = 1;

fn zone() -> Zone {
    Zone {
        name: "us-east-1a".into(),
        id: "use1-az1".into(),
    }
}

pub(crate) fn put<R: Resource>(world: &World, record: &R) {
    put_in(world, &scope(), record);
}

fn put_in<R: Resource>(world: &World, scope: &Scope, record: &R) {
    let batch = Batch::default().put(&key(scope, record.id_text()), Expect::Any, record);
    world.store.commit(batch.unwrap()).unwrap();
}

pub(crate) fn get<R: Resource>(world: &World, id: impl std::fmt::Display) -> Option<R> {
    world
        .state()
        .get::<R>(&key(&scope(), id))
        .unwrap()
        .map(|stored| stored.record)
}

/// A VPC with the parts that every VPC has, and one subnet of the given length.
pub(crate) fn vpc_with(world: &World, length: u8) -> VpcAttachment {
    vpc_of(world, &scope(), VPC, length)
}

/// The same in any account; the ids of its parts are made of `n`.
pub(crate) fn vpc_of(world: &World, scope: &Scope, n: u128, length: u8) -> VpcAttachment {
    let (vpc, subnet, group) = (VpcId::of(n), SubnetId::of(n), GroupId::of(n));
    put_in(
        world,
        scope,
        &Vpc {
            id: vpc,
            blocks: vec![VpcBlock {
                id: CidrAssociationId::of(n),
                block: "10.0.0.0/16".parse().unwrap(),
            }],
            tenancy: Tenancy::Default,
            dns_support: true,
            dns_hostnames: false,
            address_usage_metrics: false,
            dhcp_options: None,
            is_default: false,
            generation: 1,
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    put_in(
        world,
        scope,
        &Subnet {
            id: subnet,
            vpc,
            block: format!("10.0.1.0/{length}").parse().unwrap(),
            zone: zone(),
            addresses: BTreeMap::new(),
            map_public_ip: false,
            launch_names: LaunchNames::default(),
            is_default: false,
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    put_in(
        world,
        scope,
        &RouteTable {
            id: RouteTableId::of(n),
            vpc,
            routes: BTreeMap::new(),
            associations: BTreeMap::from([(RouteTableAssociationId::of(n), Associated::Main)]),
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    put_in(
        world,
        scope,
        &NetworkAcl {
            id: AclId::of(n),
            vpc,
            is_default: true,
            ingress: NetworkAcl::allow_all(),
            egress: NetworkAcl::allow_all(),
            associations: BTreeMap::from([(AclAssociationId::of(n), subnet)]),
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    put_in(
        world,
        scope,
        &SecurityGroup {
            id: group,
            vpc,
            name: "jobs".into(),
            description: "jobs".into(),
            rules: BTreeMap::from([(GroupRuleId::of(n), Rule::everything_out())]),
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    VpcAttachment {
        vpc,
        subnets: vec![subnet],
        groups: vec![group],
    }
}

pub(crate) fn interface(world: &World, id: u128, last: u8, holder: Holder) -> NetworkInterface {
    let interface = NetworkInterface {
        id: InterfaceId::of(id),
        vpc: VpcId::of(VPC),
        subnet: SubnetId::of(1),
        zone: zone(),
        primary: Ipv4Addr::new(10, 0, 1, last),
        secondary: BTreeSet::new(),
        groups: match holder {
            Holder::Nat(_) => BTreeSet::new(),
            _ => BTreeSet::from([GroupId::of(1)]),
        },
        description: String::new(),
        source_dest_check: !matches!(holder, Holder::Nat(_)),
        requester: None,
        holder,
        attachment: None,
        created: Timestamp(0),
        tags: Tags::new(),
    };
    put(world, &interface);
    interface
}

pub(crate) fn workload() -> WorkloadId {
    "w-0123456789abcdef0".parse().unwrap()
}

fn read(world: &World) -> records::VpcRecords {
    records::of_vpc(world.state(), &scope(), VpcId::of(VPC))
        .unwrap()
        .unwrap()
}

fn ranges() -> ServiceRanges {
    let list = prefix_list::s3(&scope().region);
    ServiceRanges {
        prefix_lists: BTreeMap::from([(list, BTreeSet::from(["198.18.128.0/20".parse().unwrap()]))]),
        public: Vec::new(),
    }
}

fn planned(world: &World) -> isolarium_netplan::intent::vpc::Vpc {
    let read = read(world);
    intent(&read.parts, read.dhcp.as_ref(), &ranges())
}

#[test]
fn both_ways_of_reading_give_the_same_vpc() {
    let world = World::new();
    vpc_with(&world, 24);
    interface(&world, 1, 9, Holder::Container(workload()));
    let all = records::every_vpc(world.state()).unwrap();
    let (at, one) = &all[0];
    assert_eq!((all.len(), at), (1, &scope()));
    assert_eq!(intent(&one.parts, one.dhcp.as_ref(), &ranges()), planned(&world));
    assert_eq!(planned(&world).interfaces.len(), 1);
}

/// Records that contradict each other allow less; they never make a plan impossible, and never panic.
#[test]
fn what_leads_nowhere_lets_nobody_through() {
    let world = World::new();
    vpc_with(&world, 24);
    let whole = planned(&world).check().unwrap();
    let mut table: RouteTable = get(&world, RouteTableId::of(1)).unwrap();
    let default = "0.0.0.0/0".parse().unwrap();
    table
        .routes
        .insert(default, RouteTarget::InternetGateway(InternetGatewayId::of(9)));
    let nat = "203.0.113.0/24".parse().unwrap();
    table.routes.insert(nat, RouteTarget::NatGateway(NatGatewayId::of(9)));
    put(&world, &table);
    let mut group: SecurityGroup = get(&world, GroupId::of(1)).unwrap();
    let rule = |peer| Rule {
        direction: Direction::Ingress,
        traffic: Match::All,
        peer,
        description: None,
        tags: Tags::new(),
    };
    group
        .rules
        .insert(GroupRuleId::of(2), rule(Peer::Group(GroupId::of(77))));
    let unknown = isolarium_model::ec2::id::PrefixListId::of(5);
    group.rules.insert(GroupRuleId::of(3), rule(Peer::PrefixList(unknown)));
    put(&world, &group);
    // An interface of a subnet that is gone, and one of a NAT gateway that is gone.
    let mut lost = interface(&world, 3, 9, Holder::Container(workload()));
    lost.subnet = SubnetId::of(88);
    put(&world, &lost);
    interface(&world, 4, 10, Holder::Nat(NatGatewayId::of(9)));
    let planned = planned(&world).check().unwrap();
    let routes = &planned.route_tables[&RouteTableId::of(1)].routes;
    let blackhole = isolarium_netplan::intent::vpc::Target::Blackhole;
    assert_eq!((routes[&default], routes[&nat]), (blackhole, blackhole));
    assert_eq!(planned.groups, whole.groups, "rules about nobody admit nobody");
    assert!(planned.interfaces.is_empty());
    let mut subnet: Subnet = get(&world, SubnetId::of(1)).unwrap();
    subnet.block = "192.168.0.0/24".parse().unwrap();
    put(&world, &subnet);
    let broken = Networks::new(world.store.clone(), world.vpcs.clone(), Arc::new(NoDoors), ranges());
    let failed = broken.ensure(&scope(), VpcId::of(VPC));
    assert!(matches!(failed, Err(NetworkError::Plan { .. })), "{failed:?}");
    assert!(world.vpcs.state().vpcs.is_empty(), "nothing reached the host");
}

/// Proves: NET-32
#[test]
fn a_gateway_endpoint_is_in_the_plan_with_its_tables() {
    let world = World::new();
    vpc_with(&world, 24);
    let list = prefix_list::s3(&scope().region);
    let mut endpoint = VpcEndpoint {
        id: EndpointId::of(1),
        vpc: VpcId::of(VPC),
        service_name: "com.amazonaws.us-east-1.s3".into(),
        kind: EndpointKind::Gateway {
            prefix_list: list,
            route_tables: BTreeSet::from([RouteTableId::of(1), RouteTableId::of(9)]),
        },
        state: EndpointState::Available,
        policy: String::new(),
        created: Timestamp(0),
        tags: Tags::new(),
    };
    put(&world, &endpoint);
    let with = planned(&world).check().unwrap();
    assert_eq!(
        with.s3_endpoints[&EndpointId::of(1)].route_tables,
        BTreeSet::from([RouteTableId::of(1)])
    );
    assert!(with.prefix_lists.contains_key(&list));
    endpoint.state = EndpointState::Deleting;
    put(&world, &endpoint);
    assert!(planned(&world).s3_endpoints.is_empty());
}

/// Proves: NET-72
#[test]
fn a_vpc_comes_to_the_host_with_its_first_interface_and_goes_with_its_record() {
    let world = World::new();
    let deps = world.deps();
    vpc_with(&world, 24);
    step(&deps).unwrap();
    assert!(world.vpcs.state().vpcs.is_empty(), "nothing in it needs the kernel");
    interface(&world, 1, 9, Holder::Transfer(workload()));
    step(&deps).unwrap();
    let calls = |name: &str| {
        let state = world.vpcs.state();
        state.calls.iter().filter(|(call, _)| *call == name).count()
    };
    assert_eq!(world.vpcs.state().vpcs.len(), 1);
    assert_eq!(calls("apply_vpc"), 1);
    step(&deps).unwrap();
    assert_eq!(calls("apply_vpc"), 1, "what is in line is left alone");
    let compared = || deps.networks.compare().unwrap();
    let told = |differences: &[&str]| {
        let differences = differences.iter().map(ToString::to_string).collect();
        let vpc = VpcId::of(VPC);
        vec![Compared { vpc, differences }]
    };
    assert_eq!(compared(), told(&[]));
    // The host has something else, or lost it.
    let own = world.vpcs.state().vpcs.remove(&VpcId::of(VPC)).unwrap();
    assert_eq!(compared(), told(&["it is not on the host"]));
    let mut other = (*own).clone();
    other.dns.support = !other.dns.support;
    let other = other.check().unwrap();
    world.vpcs.state().vpcs.insert(VpcId::of(VPC), other);
    assert_eq!(compared(), told(&["apply the intent"]));
    world.vpcs.state().vpcs.clear();
    step(&deps).unwrap();
    assert_eq!(calls("apply_vpc"), 2);
    assert_eq!(compared(), told(&[]));
    // Another process finds it there, and applies it once, to be sure.
    let next = world.deps();
    step(&next).unwrap();
    assert_eq!(calls("apply_vpc"), 3);
    let batch = Batch::default().delete::<Vpc>(&key(&scope(), VpcId::of(VPC)), Expect::Any);
    world.store.commit(batch).unwrap();
    assert_eq!(compared(), told(&["it is on the host without a record"]));
    step(&next).unwrap();
    assert!(world.vpcs.state().vpcs.is_empty());
    assert_eq!(compared(), []);
}

/// Notes what is asked of it.
#[derive(Default)]
struct Noted(std::sync::Mutex<Vec<&'static str>>);

impl Doors for Noted {
    fn open(&self, _: &Scope, _: &Arc<CheckedVpc>) -> Result<(), ExecutorError> {
        self.0.lock().unwrap().push("open");
        Ok(())
    }

    fn close(&self, _: VpcId) {
        self.0.lock().unwrap().push("close");
    }
}

/// Proves: NET-72
#[test]
fn a_vpc_that_the_host_lost_gets_new_doors() {
    let world = World::new();
    let doors = Arc::new(Noted::default());
    let mut deps = world.deps();
    deps.networks = Networks::new(
        world.store.clone(),
        world.vpcs.clone(),
        doors.clone(),
        ServiceRanges::default(),
    );
    vpc_with(&world, 24);
    interface(&world, 1, 9, Holder::Transfer(workload()));
    step(&deps).unwrap();
    step(&deps).unwrap();
    assert_eq!(
        *doors.0.lock().unwrap(),
        ["open"],
        "control: what stands keeps its doors"
    );
    world.vpcs.state().vpcs.clear();
    step(&deps).unwrap();
    assert_eq!(*doors.0.lock().unwrap(), ["open", "close", "open"]);
}

#[test]
fn a_host_that_fails_is_asked_again_and_believed_only_when_it_succeeds() {
    let world = World::new();
    let deps = world.deps();
    vpc_with(&world, 24);
    interface(&world, 1, 9, Holder::Transfer(workload()));
    world.vpcs.state().failing.insert("apply_vpc", "nft is missing".into());
    let next = step(&deps).unwrap();
    assert_eq!(next, crate::deps::Next::At(deps.now().after(deps.settings.retry)));
    assert!(deps.networks.known(VpcId::of(VPC)).is_none());
    world.vpcs.state().failing.clear();
    step(&deps).unwrap();
    assert!(deps.networks.known(VpcId::of(VPC)).is_some(), "control");
}

fn nat(world: &World, state: NatState) -> NatGateway {
    let nat = NatGateway {
        id: NatGatewayId::of(1),
        vpc: VpcId::of(VPC),
        subnet: SubnetId::of(1),
        interface: InterfaceId::of(5),
        private_address: Ipv4Addr::new(10, 0, 1, 20),
        allocation: AllocationId::of(1),
        association: EipAssociationId::of(1),
        public_address: Ipv4Addr::new(198, 19, 0, 7),
        state,
        failure: None,
        ended: None,
        created: Timestamp(0),
        tags: Tags::new(),
    };
    put(world, &nat);
    nat
}

/// Proves: NET-29, NET-85
#[test]
fn a_nat_gateway_is_available_when_the_host_has_it_and_deleted_when_it_has_not() {
    let world = World::new();
    let deps = world.deps();
    vpc_with(&world, 24);
    interface(&world, 5, 20, Holder::Nat(NatGatewayId::of(1)));
    nat(&world, NatState::Pending);
    let state = || get::<NatGateway>(&world, NatGatewayId::of(1)).unwrap().state;
    put(
        &world,
        &isolarium_model::ec2::InternetGateway {
            id: InternetGatewayId::of(1),
            attached: Some(VpcId::of(VPC)),
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    world.vpcs.state().failing.insert("apply_vpc", "no".into());
    step(&deps).unwrap();
    assert_eq!(state(), NatState::Pending, "the host does not have it yet");
    world.vpcs.state().failing.clear();
    step(&deps).unwrap();
    assert_eq!(state(), NatState::Available);
    nat(&world, NatState::Deleting);
    step(&deps).unwrap();
    assert_eq!(state(), NatState::Deleted);
    assert!(get::<NetworkInterface>(&world, InterfaceId::of(5)).is_none());
    let host = world.vpcs.state();
    assert!(host.vpcs[&VpcId::of(VPC)].nat_gateways.is_empty());
    drop(host);
    let bare = World::new();
    let deps = bare.deps();
    vpc_with(&bare, 24);
    interface(&bare, 5, 20, Holder::Nat(NatGatewayId::of(1)));
    nat(&bare, NatState::Pending);
    step(&deps).unwrap();
    let failed: NatGateway = get(&bare, NatGatewayId::of(1)).unwrap();
    assert_eq!(failed.state, NatState::Failed, "there is no internet gateway");
    assert_eq!(failed.failure.unwrap().code, "Gateway.NotAttached");
}

/// Proves: NET-72
#[test]
fn interfaces_of_workloads_that_nobody_wants_are_swept_with_their_addresses() {
    let world = World::new();
    let deps = world.deps();
    vpc_with(&world, 24);
    for (id, last, holder) in [
        (1, 9, Holder::Container(workload())),
        (2, 10, Holder::Transfer(workload())),
        (3, 11, Holder::Nobody),
    ] {
        let made = interface(&world, id, last, holder);
        let mut subnet: Subnet = get(&world, SubnetId::of(1)).unwrap();
        subnet.addresses.insert(made.primary, made.id);
        put(&world, &subnet);
    }
    step(&deps).unwrap();
    deps.networks
        .attach(&scope(), VpcId::of(VPC), InterfaceId::of(2))
        .unwrap();
    gc::sweep(&deps).unwrap();
    assert!(world.vpcs.state().attached.is_empty());
    let subnet: Subnet = get(&world, SubnetId::of(1)).unwrap();
    assert_eq!(subnet.available(), 250, "the owner's own interface stays");
    assert!(get::<NetworkInterface>(&world, InterfaceId::of(3)).is_some(), "control");
    assert!(get::<NetworkInterface>(&world, InterfaceId::of(1)).is_none());
}

/// Proves: SM-64
#[test]
fn every_setting_that_keeps_s3_away_is_named() {
    let world = World::new();
    vpc_with(&world, 24);
    let from = interface(&world, 1, 9, Holder::Transfer(workload())).id;
    let s3 = Ipv4Addr::new(198, 18, 128, 1);
    let said = |world: &World| {
        let vpc = planned(world).check().unwrap();
        blocked(&vpc, &["198.18.0.0/15".parse().unwrap()], from, s3, Port::Tcp(443))
    };
    let text = said(&world).unwrap();
    assert_eq!(
        text,
        format!("the route table {} has no route to {s3}", RouteTableId::of(1))
    );
    put(
        &world,
        &VpcEndpoint {
            id: EndpointId::of(1),
            vpc: VpcId::of(VPC),
            service_name: "com.amazonaws.us-east-1.s3".into(),
            kind: EndpointKind::Gateway {
                prefix_list: prefix_list::s3(&scope().region),
                route_tables: BTreeSet::from([RouteTableId::of(1)]),
            },
            state: EndpointState::Available,
            policy: String::new(),
            created: Timestamp(0),
            tags: Tags::new(),
        },
    );
    assert_eq!(said(&world), None, "control: an endpoint opens the way");
    let mut group: SecurityGroup = get(&world, GroupId::of(1)).unwrap();
    let ports = RangeInclusive16::try_from((80, 80)).unwrap();
    group.rules.values_mut().next().unwrap().traffic = Match::Tcp { ports };
    put(&world, &group);
    let text = said(&world).unwrap();
    assert_eq!(text, format!("no egress rule of {} allows it", GroupId::of(1)));
    let mut acl: NetworkAcl = get(&world, AclId::of(1)).unwrap();
    acl.ingress.clear();
    put(&world, &acl);
    let text = said(&world).unwrap();
    assert!(
        text.contains(&format!(
            "no ingress entry of {} allows it for the answers",
            AclId::of(1)
        )),
        "{text}"
    );
}

/// Proves: NET-66, D-16
#[test]
fn the_subnet_with_the_most_free_addresses_is_chosen() {
    let subnet = |id: u128, length: u8, taken: u8| {
        let block: Ipv4Net = format!("10.0.{id}.0/{length}").parse().unwrap();
        Subnet {
            id: SubnetId::of(id),
            vpc: VpcId::of(VPC),
            block,
            zone: zone(),
            addresses: block
                .hosts()
                .filter(|address| assignable(block, *address))
                .take(taken.into())
                .map(|address| (address, InterfaceId::of(1)))
                .collect(),
            map_public_ip: false,
            launch_names: LaunchNames::default(),
            is_default: false,
            created: Timestamp(0),
            tags: Tags::new(),
        }
    };
    let chosen = |all: &[Subnet]| place::roomiest(all).map(|subnet| subnet.id);
    let (small, large) = (subnet(1, 28, 0), subnet(2, 24, 0));
    assert_eq!(chosen(&[small.clone(), large]), Some(SubnetId::of(2)));
    assert_eq!(chosen(&[subnet(3, 28, 9), subnet(4, 28, 10)]), Some(SubnetId::of(3)));
    assert_eq!(
        chosen(&[subnet(5, 28, 10), subnet(6, 28, 11)]),
        None,
        "both addresses are in one subnet"
    );
    assert_eq!(
        chosen(&[small.clone(), subnet(7, 28, 0)]),
        Some(small.id),
        "the first of those that tie"
    );
}

/// A store that notes the bodies of all records that are read from it.
struct Reading {
    store: Arc<dyn StateStore>,
    read: std::sync::Mutex<Vec<String>>,
}

impl Reading {
    fn of(store: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            read: Default::default(),
        })
    }

    fn noted(&self, bodies: impl Iterator<Item = Vec<u8>>) {
        let texts = bodies.map(|body| String::from_utf8(body).unwrap());
        self.read.lock().unwrap().extend(texts);
    }

    /// How many bodies name any of these, and how many there were, since this was asked last.
    fn about(&self, ids: &[String]) -> (usize, usize) {
        let read = std::mem::take(&mut *self.read.lock().unwrap());
        let about = read.iter().filter(|body| ids.iter().any(|id| body.contains(id)));
        (about.count(), read.len())
    }
}

impl StateStore for Reading {
    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.counts()
    }

    fn get_raw(
        &self,
        kind: &'static str,
        key: &Key,
    ) -> Result<Option<(isolarium_store::Revision, Vec<u8>)>, StoreError> {
        let found = self.store.get_raw(kind, key)?;
        self.noted(found.iter().map(|(_, body)| body.clone()));
        Ok(found)
    }

    fn query_raw(
        &self,
        kind: &'static str,
        query: &isolarium_store::Query,
    ) -> Result<isolarium_store::state::RawPage, StoreError> {
        let page = self.store.query_raw(kind, query)?;
        self.noted(page.rows.iter().map(|(.., body)| body.clone()));
        Ok(page)
    }

    fn all_raw(
        &self,
        kind: &'static str,
        statuses: &[&str],
    ) -> Result<Vec<(Key, isolarium_store::Revision, Vec<u8>)>, StoreError> {
        let all = self.store.all_raw(kind, statuses)?;
        self.noted(all.iter().map(|(.., body)| body.clone()));
        Ok(all)
    }

    fn commit(&self, batch: Batch) -> Result<isolarium_store::Revision, StoreError> {
        self.store.commit(batch)
    }

    fn subscribe(&self, listener: isolarium_store::state::Listener) {
        self.store.subscribe(listener);
    }

    fn recent(&self) -> &isolarium_store::state::Recent {
        self.store.recent()
    }
}

/// The loop over a store, with what it reads noted and commits told to it, as the driver does.
fn watched(world: &Arc<World>, store: Arc<dyn StateStore>) -> (Deps, Arc<Reading>) {
    let reading = Reading::of(store);
    let mut deps = world.deps();
    deps.store = reading.clone();
    deps.networks = Networks::new(
        reading.clone(),
        world.vpcs.clone(),
        Arc::new(NoDoors),
        ServiceRanges::default(),
    );
    let networks = deps.networks.clone();
    reading.subscribe(Box::new(move |changes| {
        for (kind, key) in changes.iter().filter(|(kind, _)| concerns(kind)) {
            networks.note(kind, key);
        }
    }));
    (deps, reading)
}

/// Proves: NET-16
#[test]
fn a_change_of_one_vpc_reads_nothing_of_another() {
    let world = World::new();
    let (deps, reading) = watched(&world, world.store.clone());
    vpc_with(&world, 24);
    vpc_of(&world, &scope(), 2, 24);
    interface(&world, 1, 9, Holder::Transfer(workload()));
    let other = NetworkInterface {
        id: InterfaceId::of(2),
        vpc: VpcId::of(2),
        subnet: SubnetId::of(2),
        groups: BTreeSet::from([GroupId::of(2)]),
        ..get(&world, InterfaceId::of(1)).unwrap()
    };
    put(&world, &other);
    let job = crate::job::tests::new_job(&world, "long-ago");
    let batch = Batch::default()
        .put(&crate::fake::key("long-ago"), Expect::Any, &job)
        .unwrap();
    world.store.commit(batch).unwrap();
    step(&deps).unwrap();
    assert_eq!(world.vpcs.state().vpcs.len(), 2);
    let others = [
        VpcId::of(2).to_string(),
        InterfaceId::of(2).to_string(),
        job.arn.as_str().to_owned(),
    ];
    assert!(reading.about(&others).0 > 0, "control: the first look reads everything");
    let mut group: SecurityGroup = get(&world, GroupId::of(1)).unwrap();
    group.rules.clear();
    put(&world, &group);
    let seen = |world: &World| {
        let state = world.vpcs.state();
        let asked = state.calls.iter().filter(|(call, _)| *call == "list_vpcs").count();
        let groups = &state.vpcs[&VpcId::of(VPC)].groups;
        (asked, groups[&GroupId::of(1)].egress.len())
    };
    let before = seen(&world);
    step(&deps).unwrap();
    assert_eq!(
        (before.1, seen(&world).1),
        (1, 0),
        "the revoked rule is gone from the host"
    );
    let (about, read) = reading.about(&others);
    assert_eq!(about, 0, "of {read} records");
    assert!(read > 0, "control");
    assert_eq!(seen(&world).0, before.0, "the host is not asked what it has");
    // A part that goes says so by the record of its VPC; so does the VPC itself.
    let batch = Batch::default().delete::<NetworkInterface>(&key(&scope(), InterfaceId::of(1)), Expect::Any);
    let vpc: Vpc = get(&world, VpcId::of(VPC)).unwrap();
    let batch = batch.put(&key(&scope(), VpcId::of(VPC)), Expect::Any, &vpc).unwrap();
    world.store.commit(batch).unwrap();
    step(&deps).unwrap();
    assert!(world.vpcs.state().vpcs[&VpcId::of(VPC)].interfaces.is_empty());
    let batch = Batch::default().delete::<Vpc>(&key(&scope(), VpcId::of(VPC)), Expect::Any);
    world.store.commit(batch).unwrap();
    step(&deps).unwrap();
    let left: Vec<VpcId> = world.vpcs.state().vpcs.keys().copied().collect();
    assert_eq!(left, [VpcId::of(2)]);
    assert_eq!(reading.about(&others).0, 0);
    // What the host lost is found by the look at everything that comes with time.
    world.vpcs.state().vpcs.clear();
    world.clock.advance(deps.settings.gc_interval);
    step(&deps).unwrap();
    assert_eq!(world.vpcs.state().vpcs.len(), 1);
}
