//! What the doors know of a VPC: pure, from its intent.

use crate::resolver::answer::Zone;
use crate::resolver::private::VpcNames;
use ipnet::Ipv4Net;
use isolarium_model::{Region, Scope};
use isolarium_netplan::compile::vpc::LINK_LOCAL_RESOLVER;
use isolarium_netplan::id::{EndpointId, InterfaceId};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::{CheckedVpc, Interface};
use isolarium_runtime::vpcs::Door;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The public names that containers see, and where they lead.
#[derive(Clone, Debug)]
pub struct PublicNames {
    pub regions: Vec<Region>,
    pub services: Ipv4Net,
    pub s3_prefix_list: Ipv4Net,
}

/// One VPC at one moment.
#[derive(Debug)]
pub struct View {
    scope: Scope,
    vpc: Arc<CheckedVpc>,
    by_address: HashMap<Ipv4Addr, InterfaceId>,
    zone: Option<Arc<Zone>>,
}

impl View {
    /// The view of a VPC of `scope`.
    pub fn of(scope: &Scope, vpc: &Arc<CheckedVpc>, public: &PublicNames) -> Self {
        let addresses = || {
            let all = vpc.interfaces.iter();
            all.flat_map(|(id, one)| one.addresses().map(|address| (address, *id)))
        };
        let zone = vpc.dns.support.then(|| {
            Arc::new(Zone {
                regions: public.regions.clone(),
                services: public.services,
                s3_prefix_list: public.s3_prefix_list,
                vpc: Some(VpcNames {
                    region: scope.region.clone(),
                    blocks: vpc.blocks.clone(),
                    hostnames: vpc.dns.hostnames,
                    addresses: addresses().map(|(address, _)| address).collect(),
                }),
            })
        });
        Self {
            scope: scope.clone(),
            vpc: vpc.clone(),
            by_address: addresses().collect(),
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
        doors.insert(Door::Credentials);
        doors
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
