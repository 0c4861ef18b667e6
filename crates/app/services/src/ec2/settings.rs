//! What the operator decides about networks (NET-30, NET-86).

use ipnet::Ipv4Net;
use isolarium_model::Region;
use isolarium_model::ec2::zone::{Zone, zones};
use std::net::Ipv4Addr;

/// The operator's choices for EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Settings {
    /// Served regions, in the configuration's order.
    pub regions: Vec<Region>,
    /// Letters of the Availability Zones of every region.
    pub zone_letters: String,
    /// Elastic IPs come from here (NET-30).
    pub public_pool: Ipv4Net,
    /// The prefix list of S3 (NET-33).
    pub s3_prefix_list: Ipv4Net,
    /// Where public service names are served; no VPC can have these addresses either.
    pub services: Ipv4Net,
    /// Other ranges of the engine's own that no VPC can have: the platform network, the links of VPCs to the uplink.
    pub reserved: Vec<Ipv4Net>,
    /// Whether notebook instances may be reached by interface endpoints too (D-12).
    pub notebook_endpoints: bool,
    pub quotas: Quotas,
}

/// Most of each noun (NET-86).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// VPCs of an account in a region.
    pub vpcs: usize,
    pub subnets_per_vpc: usize,
    pub route_tables_per_vpc: usize,
    pub routes_per_table: usize,
    /// Gateway endpoints of an account in a region.
    pub gateway_endpoints: usize,
    pub interface_endpoints_per_vpc: usize,
    /// Elastic IPs of an account in a region.
    pub elastic_ips: usize,
    pub nat_gateways_per_zone: usize,
    /// Internet gateways of an account in a region.
    pub internet_gateways: usize,
    /// Network interfaces of an account in a region.
    pub network_interfaces: usize,
    pub security_groups_per_vpc: usize,
    /// Rules of one direction of a security group (NET-20).
    pub rules_per_direction: usize,
    /// Groups of an interface (NET-20).
    pub groups_per_interface: usize,
    pub acls_per_vpc: usize,
    /// Entries of one direction of a network ACL.
    pub entries_per_direction: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            vpcs: 5,
            subnets_per_vpc: 200,
            route_tables_per_vpc: 200,
            routes_per_table: 50,
            gateway_endpoints: 20,
            interface_endpoints_per_vpc: 50,
            elastic_ips: 5,
            nat_gateways_per_zone: 5,
            internet_gateways: 5,
            network_interfaces: 5000,
            security_groups_per_vpc: 2500,
            rules_per_direction: 60,
            groups_per_interface: 5,
            acls_per_vpc: 200,
            entries_per_direction: 20,
        }
    }
}

impl Default for Ec2Settings {
    fn default() -> Self {
        Self {
            regions: "us-east-1".parse().into_iter().collect(),
            zone_letters: "abc".into(),
            public_pool: Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 16),
            s3_prefix_list: Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 128, 0), 20),
            services: Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 17),
            reserved: Vec::new(),
            notebook_endpoints: false,
            quotas: Quotas::default(),
        }
    }
}

impl Ec2Settings {
    /// The Availability Zones of a region (NET-2).
    pub fn zones(&self, region: &Region) -> Vec<Zone> {
        zones(region, &self.zone_letters)
    }
}
