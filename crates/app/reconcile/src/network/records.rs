//! The records of VPCs, read as they stand together.

use isolarium_model::ec2::id::VpcId;
use isolarium_model::ec2::{
    self, DhcpOptions, ElasticIp, InternetGateway, NatGateway, NetworkAcl, NetworkInterface, Parts, Resource,
    RouteTable, SecurityGroup, Subnet, Vpc, VpcEndpoint,
};
use isolarium_model::{Key, Record, Scope};
use isolarium_store::{StateStore, StoreError};
use std::collections::BTreeMap;

/// Readings of a VPC whose parts change meanwhile are begun again this often.
const TRIES: usize = 8;

/// Every kind of record of which a VPC's plan is made.
pub(crate) const KINDS: [&str; 11] = [
    Vpc::KIND,
    Subnet::KIND,
    RouteTable::KIND,
    NetworkAcl::KIND,
    SecurityGroup::KIND,
    InternetGateway::KIND,
    NatGateway::KIND,
    NetworkInterface::KIND,
    ElasticIp::KIND,
    VpcEndpoint::KIND,
    DhcpOptions::KIND,
];

/// Everything of one VPC.
pub(crate) struct VpcRecords {
    pub parts: Parts,
    pub dhcp: Option<DhcpOptions>,
}

/// One VPC. `None` when there is none.
pub(crate) fn of_vpc(store: &dyn StateStore, scope: &Scope, vpc: VpcId) -> Result<Option<VpcRecords>, StoreError> {
    let key = ec2::key(scope, vpc);
    let mut tries = 0;
    loop {
        let Some(before) = store.get::<Vpc>(&key)? else {
            return Ok(None);
        };
        let generation = before.record.generation;
        let found = read(store, scope, before.record)?;
        tries += 1;
        // INVARIANT (vpc-generation): unchanged before and after means that the parts fit together. A reading that never
        // settles is used all the same: the next commit wakes whoever made a plan of it.
        let after = store.get::<Vpc>(&key)?;
        if tries >= TRIES || after.is_some_and(|after| after.record.generation == generation) {
            return Ok(Some(found));
        }
    }
}

fn read(store: &dyn StateStore, scope: &Scope, vpc: Vpc) -> Result<VpcRecords, StoreError> {
    let id = vpc.id;
    let interfaces = own::<NetworkInterface>(store, scope, id)?.map(|one| (one.id, one));
    let interfaces: BTreeMap<_, NetworkInterface> = interfaces.collect();
    let mut elastic_ips: BTreeMap<_, Vec<ElasticIp>> = BTreeMap::new();
    let ids: Vec<String> = interfaces.keys().map(ToString::to_string).collect();
    for ip in store.parts::<ElasticIp>(scope, &ids)? {
        if let Some(association) = ip.record.association {
            elastic_ips.entry(association.interface).or_default().push(ip.record);
        }
    }
    let dhcp = match vpc.dhcp_options {
        None => None,
        Some(options) => store
            .get::<DhcpOptions>(&ec2::key(scope, options))?
            .map(|stored| stored.record),
    };
    Ok(VpcRecords {
        parts: Parts {
            subnets: own(store, scope, id)?.map(|one: Subnet| (one.id, one)).collect(),
            route_tables: own(store, scope, id)?.map(|one: RouteTable| (one.id, one)).collect(),
            acls: own(store, scope, id)?.map(|one: NetworkAcl| (one.id, one)).collect(),
            groups: own(store, scope, id)?.map(|one: SecurityGroup| (one.id, one)).collect(),
            internet_gateway: own(store, scope, id)?.next(),
            nat_gateways: own(store, scope, id)?.map(|one: NatGateway| (one.id, one)).collect(),
            endpoints: own(store, scope, id)?.map(|one: VpcEndpoint| (one.id, one)).collect(),
            vpc,
            interfaces,
            elastic_ips,
        },
        dhcp,
    })
}

/// Every VPC of every account and region, each kind of record read once.
pub(crate) fn every_vpc(store: &dyn StateStore) -> Result<Vec<(Scope, VpcRecords)>, StoreError> {
    let before = store.all::<Vpc>()?;
    let mut found: BTreeMap<(Scope, VpcId), VpcRecords> = BTreeMap::new();
    for vpc in before {
        let (scope, id) = (vpc.key.scope, vpc.record.id);
        let dhcp = match vpc.record.dhcp_options {
            None => None,
            Some(options) => store.get::<DhcpOptions>(&ec2::key(&scope, options))?,
        };
        let parts = Parts {
            vpc: vpc.record,
            subnets: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            acls: BTreeMap::new(),
            groups: BTreeMap::new(),
            internet_gateway: None,
            nat_gateways: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            elastic_ips: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        };
        let dhcp = dhcp.map(|stored| stored.record);
        found.insert((scope, id), VpcRecords { parts, dhcp });
    }
    each(store, &mut found, |parts, one: Subnet| {
        parts.subnets.insert(one.id, one);
    })?;
    each(store, &mut found, |parts, one: RouteTable| {
        parts.route_tables.insert(one.id, one);
    })?;
    each(store, &mut found, |parts, one: NetworkAcl| {
        parts.acls.insert(one.id, one);
    })?;
    each(store, &mut found, |parts, one: SecurityGroup| {
        parts.groups.insert(one.id, one);
    })?;
    each(store, &mut found, |parts, one: InternetGateway| {
        parts.internet_gateway = Some(one);
    })?;
    each(store, &mut found, |parts, one: NatGateway| {
        parts.nat_gateways.insert(one.id, one);
    })?;
    each(store, &mut found, |parts, one: VpcEndpoint| {
        parts.endpoints.insert(one.id, one);
    })?;
    let mut homes = BTreeMap::new();
    for interface in store.all::<NetworkInterface>()? {
        let at = (interface.key.scope, interface.record.vpc);
        if let Some(read) = found.get_mut(&at) {
            homes.insert((at.0.clone(), interface.record.id), at);
            read.parts.interfaces.insert(interface.record.id, interface.record);
        }
    }
    for ip in store.all::<ElasticIp>()? {
        if let Some(association) = ip.record.association
            && let Some(at) = homes.get(&(ip.key.scope, association.interface))
            && let Some(read) = found.get_mut(at)
        {
            let own = read.parts.elastic_ips.entry(association.interface).or_default();
            own.push(ip.record);
        }
    }
    Ok(found.into_iter().map(|((scope, _), read)| (scope, read)).collect())
}

fn each<R: Resource>(
    store: &dyn StateStore,
    found: &mut BTreeMap<(Scope, VpcId), VpcRecords>,
    mut add: impl FnMut(&mut Parts, R),
) -> Result<(), StoreError> {
    for stored in store.all::<R>()? {
        if let Some(vpc) = stored.record.vpc_id()
            && let Some(read) = found.get_mut(&(stored.key.scope, vpc))
        {
            add(&mut read.parts, stored.record);
        }
    }
    Ok(())
}

/// The VPC that a record of one of [`KINDS`] belongs to now. `None`: to none, or it is gone.
pub(super) fn home(store: &dyn StateStore, kind: &str, key: &Key) -> Result<Option<VpcId>, StoreError> {
    fn of<R: Resource>(store: &dyn StateStore, key: &Key) -> Result<Option<VpcId>, StoreError> {
        Ok(store.shared::<R>(key)?.and_then(|stored| stored.record.vpc_id()))
    }
    match kind {
        Vpc::KIND => Ok(key.name.parse().ok()),
        Subnet::KIND => of::<Subnet>(store, key),
        RouteTable::KIND => of::<RouteTable>(store, key),
        NetworkAcl::KIND => of::<NetworkAcl>(store, key),
        SecurityGroup::KIND => of::<SecurityGroup>(store, key),
        InternetGateway::KIND => of::<InternetGateway>(store, key),
        NatGateway::KIND => of::<NatGateway>(store, key),
        NetworkInterface::KIND => of::<NetworkInterface>(store, key),
        VpcEndpoint::KIND => of::<VpcEndpoint>(store, key),
        ElasticIp::KIND => {
            let held = store.shared::<ElasticIp>(key)?.and_then(|ip| ip.record.association);
            held.map_or(Ok(None), |held| {
                of::<NetworkInterface>(store, &ec2::key(&key.scope, held.interface))
            })
        }
        // Sets of options do not change; that a VPC has another one is written in its own record.
        _ => Ok(None),
    }
}

fn own<R: Resource>(
    store: &dyn StateStore,
    scope: &Scope,
    vpc: VpcId,
) -> Result<impl Iterator<Item = R> + use<R>, StoreError> {
    let parts = store.parts::<R>(scope, &[vpc.to_string()])?;
    Ok(parts.into_iter().map(|stored| stored.record))
}
