//! The networks in which the containers of one job find each other (NI-9, CC-85).
//!
//! Isolated containers get a network of their own job: a router as a VPC has one, without a way out. In a VPC the owner's
//! groups and ACLs count there too, as they are at any moment (D-24). Containers of the platform network are let through to
//! each other by pairs of addresses. All of it follows from the jobs' records.

use super::{NetworkError, ServiceRanges, intent, records};
use crate::job;
use isolarium_model::ec2::id::{AclId, GroupId, InterfaceId, RouteTableId, SubnetId, VpcId};
use isolarium_model::sagemaker::network::PEER_BLOCK;
use isolarium_model::sagemaker::training_job::JobRun;
use isolarium_model::sagemaker::{Attachment, Placement, ProcessingJob, TrainingJob};
use isolarium_model::{Scope, WorkloadId};
use isolarium_netplan::intent::Tunnel;
use isolarium_netplan::intent::vpc::{
    AclEntry, CheckedVpc, Dns, GroupRule, Holder, Interface, Match, NetworkAcl, Peer, RangeInclusive16, RouteTable,
    SecurityGroup, Subnet, Vpc,
};
use isolarium_store::{StateStore, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The network of one job's isolated containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerNetwork {
    pub id: VpcId,
    scope: Scope,
    members: Vec<Member>,
    /// Whose groups and ACLs count.
    vpc: Option<VpcId>,
    /// Nothing but encrypted packets passes.
    encrypted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    workload: WorkloadId,
    interface: InterfaceId,
    address: Ipv4Addr,
    /// In the owner's VPC.
    subnet: Option<SubnetId>,
}

impl PeerNetwork {
    /// Whether the groups and ACLs of this VPC count.
    pub(crate) fn follows(&self, vpc: VpcId) -> bool {
        self.vpc == Some(vpc)
    }
}

/// The network of a job's containers, if it has one and every instance has its place.
pub(crate) fn of(scope: &Scope, run: &JobRun) -> Option<PeerNetwork> {
    let mut found: Option<PeerNetwork> = None;
    for placement in run.placements() {
        let id = placement.peer_network()?;
        let (vpc, member) = match &placement.attachment {
            Attachment::Peers { interface, address, .. } => (None, (*interface, *address, None)),
            Attachment::Vpc(place) => (Some(place.vpc), (place.container, place.address, Some(place.subnet))),
            Attachment::Isolated | Attachment::ServiceNetwork { .. } | Attachment::Unattached { .. } => return None,
        };
        let (interface, address, subnet) = member;
        let network = found.get_or_insert_with(|| PeerNetwork {
            id,
            scope: scope.clone(),
            members: Vec::new(),
            vpc,
            encrypted: run.encrypted,
        });
        network.members.push(Member {
            workload: placement.workload.clone(),
            interface,
            address,
            subnet,
        });
    }
    found
}

/// Runs of jobs that have not ended, of every noun. Costs nothing for those that have.
fn runs(store: &dyn StateStore) -> Result<Vec<(Scope, JobRun)>, StoreError> {
    let mut all = job::runs::<TrainingJob>(store)?;
    all.extend(job::runs::<ProcessingJob>(store)?);
    Ok(all)
}

/// The networks of all jobs that have not ended.
pub(crate) fn all(store: &dyn StateStore) -> Result<Vec<PeerNetwork>, StoreError> {
    let all = runs(store)?;
    Ok(all.iter().filter_map(|(scope, run)| of(scope, run)).collect())
}

/// Addresses of the platform network whose holders belong to one job, by job.
pub(crate) fn platform(store: &dyn StateStore) -> Result<BTreeSet<BTreeSet<Ipv4Addr>>, StoreError> {
    let groups = runs(store)?.into_iter().map(|(_, run)| {
        let addresses = run.placements().filter_map(Placement::platform_address);
        addresses.collect::<BTreeSet<_>>()
    });
    Ok(groups.filter(|group| group.len() > 1).collect())
}

/// What the network lets pass.
pub(crate) fn wanted(
    network: &PeerNetwork,
    store: &dyn StateStore,
    ranges: &ServiceRanges,
) -> Result<CheckedVpc, NetworkError> {
    let wanted = match network.vpc {
        None => own(network),
        Some(vpc) => {
            let read = records::of_vpc(store, &network.scope, vpc)?.ok_or(NetworkError::Gone(vpc))?;
            within(network, intent(&read.parts, read.dhcp.as_ref(), ranges))
        }
    };
    let vpc = network.id;
    wanted.check().map_err(|cause| NetworkError::Plan { vpc, cause })
}

/// Between the members passes everything, or what they encrypt.
fn own(network: &PeerNetwork) -> Vpc {
    let ports = RangeInclusive16::try_from((Tunnel::PORT, Tunnel::PORT)).unwrap_or(RangeInclusive16::ALL);
    let traffic = match network.encrypted {
        true => Match::Udp { ports },
        false => Match::All,
    };
    let (subnet, table, acl) = (SubnetId::of(1), RouteTableId::of(1), AclId::of(1));
    let group = GroupId::of(1);
    let everything = BTreeMap::from([(
        100,
        AclEntry {
            allow: true,
            traffic: Match::All,
            peer: ipnet::Ipv4Net::default(),
        },
    )]);
    let members = BTreeSet::from([GroupRule {
        traffic,
        peer: Peer::Group(group),
    }]);
    let interfaces = network.members.iter().map(|member| {
        let interface = interface(member, subnet, BTreeSet::from([group]));
        (member.interface, interface)
    });
    Vpc {
        id: network.id,
        blocks: vec![PEER_BLOCK],
        dns: no_names(),
        subnets: BTreeMap::from([(
            subnet,
            Subnet {
                block: PEER_BLOCK,
                zone: String::new(),
                route_table: table,
                acl,
            },
        )]),
        acls: BTreeMap::from([(
            acl,
            NetworkAcl {
                ingress: everything.clone(),
                egress: everything,
            },
        )]),
        groups: BTreeMap::from([(
            group,
            SecurityGroup {
                ingress: members.clone(),
                egress: members,
            },
        )]),
        prefix_lists: BTreeMap::new(),
        route_tables: BTreeMap::from([(table, RouteTable::default())]),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces: interfaces.collect(),
        s3_endpoints: BTreeMap::new(),
        interface_endpoints: BTreeMap::new(),
        peers_only: true,
    }
}

/// What passes between the members in the owner's VPC: nothing else of it is there.
fn within(network: &PeerNetwork, vpc: Vpc) -> Vpc {
    let interfaces = network.members.iter().filter_map(|member| {
        // Without its record an interface has no groups, and reaches nobody.
        let record = vpc.interfaces.get(&member.interface)?;
        Some((
            member.interface,
            interface(member, member.subnet?, record.groups.clone()),
        ))
    });
    let interfaces = interfaces.collect();
    let tables = vpc.route_tables.into_keys().map(|id| (id, RouteTable::default()));
    Vpc {
        id: network.id,
        dns: no_names(),
        route_tables: tables.collect(),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces,
        s3_endpoints: BTreeMap::new(),
        interface_endpoints: BTreeMap::new(),
        peers_only: true,
        ..vpc
    }
}

fn interface(member: &Member, subnet: SubnetId, groups: BTreeSet<GroupId>) -> Interface {
    Interface {
        subnet,
        primary: member.address,
        secondary: BTreeSet::new(),
        groups,
        source_dest_check: true,
        public: None,
        holder: Holder::Container(member.workload.clone()),
    }
}

fn no_names() -> Dns {
    Dns {
        support: false,
        hostnames: false,
        domain_name: None,
        servers: Vec::new(),
    }
}
