//! What the doors know of a VPC: pure, from its intent.

use crate::resolver::answer::Zone;
use crate::resolver::endpoints::{Addresses, EndpointNames, Published};
use crate::resolver::private::{PrivateZone, VpcNames};
use ipnet::Ipv4Net;
use isolarium_model::{Region, Scope};
use isolarium_netplan::compile::vpc::LINK_LOCAL_RESOLVER;
use isolarium_netplan::id::{EndpointId, InterfaceId};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::{CheckedVpc, Holder, Interface, InterfaceEndpoint};
use isolarium_runtime::vpcs::Door;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The public names that containers see, and where they lead.
#[derive(Clone, Debug)]
pub struct PublicNames {
    pub regions: Vec<Region>,
    pub services: Ipv4Net,
    pub s3_prefix_list: Ipv4Net,
    /// The own names of every VPC's interface endpoints.
    pub endpoints: Arc<EndpointNames>,
    /// Whether private DNS knows Runtime in the zones where the endpoint has an interface alone (D-10).
    pub zone_rule: bool,
}

/// One VPC at one moment.
#[derive(Debug)]
pub struct View {
    scope: Scope,
    vpc: Arc<CheckedVpc>,
    by_address: HashMap<Ipv4Addr, InterfaceId>,
    /// Where interface endpoints serve, by Availability Zone.
    endpoints: BTreeMap<EndpointId, Addresses>,
    zone: Option<Arc<Zone>>,
}

impl View {
    /// The view of a VPC of `scope`.
    pub fn of(scope: &Scope, vpc: &Arc<CheckedVpc>, public: &PublicNames) -> Self {
        let addresses = || {
            let all = vpc.interfaces.iter();
            all.flat_map(|(id, one)| one.addresses().map(|address| (address, *id)))
        };
        let endpoints = endpoint_addresses(vpc);
        let zone = vpc.dns.support.then(|| {
            Arc::new(Zone {
                regions: public.regions.clone(),
                services: public.services,
                s3_prefix_list: public.s3_prefix_list,
                endpoints: public.endpoints.clone(),
                vpc: Some(VpcNames {
                    region: scope.region.clone(),
                    blocks: vpc.blocks.clone(),
                    hostnames: vpc.dns.hostnames,
                    addresses: addresses().map(|(address, _)| address).collect(),
                    endpoints: private_zones(scope, vpc, &endpoints, public.zone_rule),
                }),
            })
        });
        Self {
            scope: scope.clone(),
            vpc: vpc.clone(),
            by_address: addresses().collect(),
            endpoints,
            zone,
        }
    }

    /// The VPC's account and region.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The VPC.
    pub fn vpc(&self) -> &CheckedVpc {
        &self.vpc
    }

    /// The names that its interfaces see; none while `enableDnsSupport` is false (NET-50).
    pub fn zone(&self) -> Option<Arc<Zone>> {
        self.zone.clone()
    }

    /// The sockets that the engine needs in the VPC's router.
    pub fn doors(&self) -> BTreeSet<Door> {
        let resolvers = [self.vpc.resolver(), Some(LINK_LOCAL_RESOLVER)];
        let resolvers = resolvers.into_iter().flatten().filter(|_| self.vpc.dns.support);
        let mut doors: BTreeSet<Door> = resolvers
            .flat_map(|address| [Transport::Udp, Transport::Tcp].map(|transport| Door::Resolver { address, transport }))
            .collect();
        if !self.vpc.s3_endpoints.is_empty() {
            doors.extend([Door::S3 { port: 80 }, Door::S3 { port: 443 }]);
        }
        let served = self.endpoints.values().flat_map(BTreeMap::values).flatten();
        doors.extend(served.map(|address| Door::Endpoint { address: *address }));
        doors.insert(Door::Credentials);
        doors
    }

    /// The Availability Zone of the interface that has an address and sends by it.
    pub fn zone_at(&self, address: IpAddr) -> Option<&str> {
        let (_, interface) = self.interface_at(address)?;
        Some(&self.vpc.subnets.get(&interface.subnet)?.zone)
    }

    /// The interface endpoint that serves at an address.
    pub fn endpoint_at(&self, address: Ipv4Addr) -> Option<(EndpointId, &InterfaceEndpoint)> {
        let interface = self.vpc.interfaces.get(self.by_address.get(&address)?)?;
        let Holder::Endpoint(id) = interface.holder else {
            return None;
        };
        Some((id, self.vpc.interface_endpoints.get(&id)?))
    }

    /// The Availability Zones in which an interface endpoint has interfaces.
    pub fn endpoint_zones(&self, id: EndpointId) -> Vec<&str> {
        let zones = self.endpoints.get(&id).into_iter().flat_map(BTreeMap::keys);
        zones.map(String::as_str).collect()
    }

    /// The own names of its interface endpoints.
    pub fn published(&self) -> Vec<(EndpointId, Published)> {
        let all = self.vpc.interface_endpoints.iter();
        all.map(|(id, endpoint)| {
            let one = Published {
                service: endpoint.service,
                region: self.scope.region.clone(),
                suffix: endpoint.suffix.clone(),
                addresses: self.endpoints.get(id).cloned().unwrap_or_default(),
            };
            (*id, one)
        })
        .collect()
    }

    /// The interface that has an address and sends by it.
    pub fn interface_at(&self, address: IpAddr) -> Option<(InterfaceId, &Interface)> {
        let IpAddr::V4(address) = address else { return None };
        let id = self.by_address.get(&address)?;
        let interface = self.vpc.interfaces.get(id)?;
        interface.is_attached().then_some((*id, interface))
    }

    /// The gateway endpoint that a route table leads the interface with this address to: the one associated with the
    /// table of its subnet (NET-32).
    pub fn s3_endpoint_of(&self, address: IpAddr) -> Option<EndpointId> {
        let (_, interface) = self.interface_at(address)?;
        let table = self.vpc.subnets.get(&interface.subnet)?.route_table;
        let mut all = self.vpc.s3_endpoints.iter();
        all.find(|(_, endpoint)| endpoint.route_tables.contains(&table))
            .map(|(id, _)| *id)
    }
}

fn endpoint_addresses(vpc: &CheckedVpc) -> BTreeMap<EndpointId, Addresses> {
    let mut all: BTreeMap<EndpointId, Addresses> = BTreeMap::new();
    for interface in vpc.interfaces.values() {
        let Holder::Endpoint(id) = interface.holder else {
            continue;
        };
        if let (true, Some(subnet)) = (
            vpc.interface_endpoints.contains_key(&id),
            vpc.subnets.get(&interface.subnet),
        ) {
            let zones = all.entry(id).or_default();
            zones
                .entry(subnet.zone.clone())
                .or_default()
                .extend(interface.addresses());
        }
    }
    all
}

/// NET-44: default names lead to endpoints with private DNS where the VPC has both attributes. One without interfaces has no
/// names to give.
fn private_zones(
    scope: &Scope,
    vpc: &CheckedVpc,
    addresses: &BTreeMap<EndpointId, Addresses>,
    zone_rule: bool,
) -> Vec<PrivateZone> {
    let wanted = vpc
        .interface_endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.private_dns && vpc.dns.hostnames);
    let zones = wanted.filter_map(|(id, endpoint)| {
        Some(PrivateZone {
            names: endpoint.service.private_names(&scope.region),
            zonal: zone_rule && endpoint.service.is_zonal(),
            addresses: addresses.get(id)?.clone(),
        })
    });
    zones.collect()
}
