//! Everything of one VPC side by side, and what follows from it.

use super::id::EndpointId;
use super::id::{AclId, GroupId, InterfaceId, InternetGatewayId, NatGatewayId, RouteTableId, SubnetId};
use super::route_table::Targets;
use super::{
    ElasticIp, InternetGateway, NatGateway, NetworkAcl, NetworkInterface, RouteState, RouteTable, RouteTarget,
    SecurityGroup, Subnet, Vpc, VpcEndpoint,
};
use std::collections::BTreeMap;

/// The records of one VPC, read at one moment. The API shows them and the reconciler makes the network's intent of them;
/// what follows from several records is decided here, once for both.
#[derive(Clone, Debug)]
pub struct Parts {
    pub vpc: Vpc,
    pub subnets: BTreeMap<SubnetId, Subnet>,
    pub route_tables: BTreeMap<RouteTableId, RouteTable>,
    pub acls: BTreeMap<AclId, NetworkAcl>,
    pub groups: BTreeMap<GroupId, SecurityGroup>,
    /// The attached one.
    pub internet_gateway: Option<InternetGateway>,
    pub nat_gateways: BTreeMap<NatGatewayId, NatGateway>,
    pub interfaces: BTreeMap<InterfaceId, NetworkInterface>,
    /// Those associated with an interface of the VPC, by interface.
    pub elastic_ips: BTreeMap<InterfaceId, Vec<ElasticIp>>,
    pub endpoints: BTreeMap<EndpointId, VpcEndpoint>,
}

impl Parts {
    /// The table of a subnet: the associated one, or the main one (NET-24).
    pub fn table_of(&self, subnet: SubnetId) -> Option<&RouteTable> {
        let own = self
            .route_tables
            .values()
            .find(|table| table.subnets().any(|one| one == subnet));
        own.or_else(|| self.main_table())
    }

    /// The main table.
    pub fn main_table(&self) -> Option<&RouteTable> {
        self.route_tables.values().find(|table| table.is_main())
    }

    /// The ACL of a subnet (NET-22).
    pub fn acl_of(&self, subnet: SubnetId) -> Option<&NetworkAcl> {
        let own = self
            .acls
            .values()
            .find(|acl| acl.associations.values().any(|one| *one == subnet));
        own.or_else(|| self.acls.values().find(|acl| acl.is_default))
    }

    /// Whether a route leads anywhere (NET-26).
    pub fn route_state(&self, target: RouteTarget) -> RouteState {
        target.state(self)
    }
}

impl Targets for Parts {
    fn attached(&self, gateway: InternetGatewayId) -> bool {
        self.internet_gateway.as_ref().is_some_and(|one| one.id == gateway)
    }

    fn serves(&self, gateway: NatGatewayId) -> bool {
        self.nat_gateways.get(&gateway).is_some_and(|nat| nat.state.serves())
    }

    fn held(&self, interface: InterfaceId) -> bool {
        let found = self.interfaces.get(&interface);
        found.is_some_and(|interface| interface.attachment.is_some())
    }
}
