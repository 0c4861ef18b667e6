//! Intent to plan. Total and deterministic: the same intent gives the same plan, and an intent that cannot be carried
//! out is refused here, before the kernel is touched.

mod platform;
mod tunnel;
mod uplink;
pub mod vpc;
mod workload;

use crate::id::InterfaceId;
use crate::intent::{HostNetwork, Uplink, WorkloadNetwork};
use crate::plan::{HostPlan, NamespacePlan, Place, Scope, WorkloadPlan};
use ipnet::Ipv4Net;
use isolarium_model::sagemaker::AddressLease;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Tells installations on one machine apart in the names of what they put into shared namespaces: 8 lower-case
/// hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Box<str>);

impl FromStr for Tag {
    type Err = BadNetwork;
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let good = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(text.into())).ok_or(BadNetwork::Tag)
    }
}

impl TryFrom<String> for Tag {
    type Error = BadNetwork;
    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.into()
    }
}

impl Tag {
    /// The tag of a number: its lower 32 bits.
    pub fn of(number: u64) -> Self {
        Self(format!("{:08x}", number & 0xffff_ffff).into())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the table in the host's namespace (`Uplink::Host`).
    pub fn host_table(&self) -> String {
        format!("isolarium_{}", self.0)
    }
}

/// The intent cannot be carried out. The text names the configuration key to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// Two configured ranges overlap.
    #[error("the address ranges {0} ({1}) and {2} ({3}) overlap; change one of them in the configuration")]
    Overlap(&'static str, Ipv4Net, &'static str, Ipv4Net),
    /// A configured range overlaps something that it must not.
    #[error("the address range {0} ({1}) overlaps {2}, which is reserved; change it in the configuration")]
    Reserved(&'static str, Ipv4Net, Ipv4Net),
    /// A configured range is too small.
    #[error("the address range {0} ({1}) is too small; it needs a prefix of at most /{2}")]
    Small(&'static str, Ipv4Net, u8),
    /// A configured range overlaps a route of the host.
    #[error("the address range {0} ({1}) overlaps the host's route to {2}; change the range in the configuration")]
    HostRoute(&'static str, Ipv4Net, Ipv4Net),
    /// A workload's address is not one that workloads may have.
    #[error("{0} is not a workload address of the platform network {1}")]
    Address(Ipv4Addr, Ipv4Net),
    /// A container that has no interface, or another address, is to have encrypted peers.
    #[error("a container at {0} has no peers to encrypt")]
    Tunnel(Ipv4Addr),
    /// The network is an interface of a VPC, which is compiled with that VPC.
    #[error("{0} belongs to a VPC, which has not been applied")]
    Vpc(InterfaceId),
    /// NAT gateways would forget connections at once, or never.
    #[error("the idle time-out of NAT gateways ({0} s) must be 1 s to a day; change it in the configuration")]
    NatIdle(u32),
    /// Not a tag.
    #[error("a tag is 8 lower-case hexadecimal digits")]
    Tag,
}

/// Ranges that no container reaches through the platform network, whatever the uplink offers (NI-25, NI-8): "this
/// network", private, shared, loopback, link-local, benchmarking, multicast and reserved addresses.
pub const REFUSED: [Ipv4Net; 10] = [
    net(0, 0, 0, 0, 8),
    net(10, 0, 0, 0, 8),
    net(100, 64, 0, 0, 10),
    net(127, 0, 0, 0, 8),
    net(169, 254, 0, 0, 16),
    net(172, 16, 0, 0, 12),
    net(192, 168, 0, 0, 16),
    net(198, 18, 0, 0, 15),
    net(224, 0, 0, 0, 4),
    net(240, 0, 0, 0, 4),
];

const fn net(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

/// Address of the container-credentials service.
pub const CREDENTIALS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

impl HostNetwork {
    fn nth(range: Ipv4Net, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(range.network()).saturating_add(n))
    }

    /// The platform network's router, the next hop of every workload: its first address.
    pub fn gateway(&self) -> Ipv4Addr {
        Self::nth(self.platform, 1)
    }

    /// The resolver of the platform network: its second address (by default 100.64.0.2).
    pub fn resolver(&self) -> Ipv4Addr {
        Self::nth(self.platform, 2)
    }

    /// The platform's end of the uplink.
    pub fn uplink_near(&self) -> Ipv4Addr {
        Self::nth(self.uplink_links, 1)
    }

    /// The far end of the uplink.
    pub fn uplink_far(&self) -> Ipv4Addr {
        Self::nth(self.uplink_links, 2)
    }

    /// Where the routers of VPCs meet the platform namespace, which leads on to the uplink. Every VPC has the same two
    /// addresses: each link is alone in its router, and no route leads to either.
    pub fn vpc_edge(&self) -> vpc::Edge {
        vpc::Edge {
            place: Place::Platform,
            near: Self::nth(self.uplink_links, 3),
            far: Self::nth(self.uplink_links, 4),
            services: vec![self.services.trunc(), self.s3_prefix_list.trunc()],
            nat_idle: self.nat_idle,
        }
    }

    /// Whether a workload may have this address, see [`AddressLease::may_hold`].
    pub fn is_workload_address(&self, address: Ipv4Addr) -> bool {
        AddressLease::may_hold(self.platform, address)
    }

    fn ranges(&self) -> [(&'static str, Ipv4Net); 5] {
        [
            ("platform", self.platform.trunc()),
            ("services", self.services.trunc()),
            ("s3_prefix_list", self.s3_prefix_list.trunc()),
            ("uplink_links", self.uplink_links.trunc()),
            ("elastic_ips", self.elastic_ips.trunc()),
        ]
    }

    /// Checks the configured ranges against each other and against what they may never contain.
    ///
    /// # Errors
    /// The first contradiction, in a fixed order.
    pub fn check(&self) -> Result<(), BadNetwork> {
        let ranges = self.ranges();
        let forbidden = [
            net(0, 0, 0, 0, 8),
            net(127, 0, 0, 0, 8),
            net(169, 254, 169, 254, 32),
            net(169, 254, 170, 2, 32),
            net(224, 0, 0, 0, 3),
        ];
        for (at, (name, range)) in ranges.iter().enumerate() {
            if let Some(bad) = forbidden.iter().find(|bad| overlap(bad, range)) {
                return Err(BadNetwork::Reserved(name, *range, *bad));
            }
            if let Some((other, with)) = ranges.iter().skip(at + 1).find(|(_, with)| overlap(range, with)) {
                return Err(BadNetwork::Overlap(name, *range, other, *with));
            }
        }
        if !(1..=86_400).contains(&self.nat_idle) {
            return Err(BadNetwork::NatIdle(self.nat_idle));
        }
        if self.platform.prefix_len() > 28 {
            return Err(BadNetwork::Small("platform", self.platform, 28));
        }
        if self.uplink_links.prefix_len() > 29 {
            return Err(BadNetwork::Small("uplink_links", self.uplink_links, 29));
        }
        Ok(())
    }

    /// Checks the configured ranges against the host's routes (its default route left out). Only an uplink through the
    /// host shares a routing table with it; the other kinds of uplink cannot clash.
    ///
    /// # Errors
    /// [`BadNetwork::HostRoute`] for the first clash.
    pub fn check_host_routes(&self, routes: &BTreeSet<Ipv4Net>) -> Result<(), BadNetwork> {
        if self.uplink != Uplink::Host {
            return Ok(());
        }
        for (name, range) in self.ranges() {
            if let Some(route) = routes
                .iter()
                .find(|route| route.prefix_len() > 0 && overlap(route, &range))
            {
                return Err(BadNetwork::HostRoute(name, range, *route));
            }
        }
        Ok(())
    }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Compiles the shared network of a machine.
///
/// # Errors
/// See [`HostNetwork::check`].
pub fn compile_host(network: &HostNetwork, tag: &Tag) -> Result<HostPlan, BadNetwork> {
    compile_host_with(network, tag, &BTreeSet::new())
}

/// As [`compile_host`], with groups of workload addresses whose holders may talk to each other: those of one job (CC-85).
///
/// # Errors
/// As [`compile_host`]; [`BadNetwork::Address`] for an address that no workload may have.
pub fn compile_host_with(
    network: &HostNetwork,
    tag: &Tag,
    peers: &BTreeSet<BTreeSet<Ipv4Addr>>,
) -> Result<HostPlan, BadNetwork> {
    network.check()?;
    if let Some(address) = peers.iter().flatten().find(|one| !network.is_workload_address(**one)) {
        return Err(BadNetwork::Address(*address, network.platform));
    }
    let mut places = BTreeMap::from([(Place::Platform, platform::compile(network, tag, peers))]);
    match network.uplink {
        Uplink::None => {}
        Uplink::Host => {
            places.insert(Place::Host, uplink::host(network, tag));
        }
        Uplink::Netns { .. } => {
            places.insert(Place::Uplink, uplink::internet(network, tag));
        }
    }
    Ok(HostPlan { places })
}

/// The groups of [`compile_host_with`] that a machine was seen to hold, as pairs.
pub fn peers_seen(seen: &crate::plan::HostSeen) -> BTreeSet<BTreeSet<Ipv4Addr>> {
    let platform = seen.places.get(&Place::Platform);
    platform.map(platform::peers_seen).unwrap_or_default()
}

/// Compiles the network of one workload.
///
/// # Errors
/// [`BadNetwork::Address`] when its address is not one for workloads, [`BadNetwork::Vpc`] for an interface of a VPC
/// ([`vpc::compile_interface`] compiles those).
pub fn compile_workload(network: &HostNetwork, workload: &WorkloadNetwork) -> Result<WorkloadPlan, BadNetwork> {
    workload::compile(network, workload)
}

/// Encrypts what a workload says to its peers: nothing else reaches them, and nothing else of theirs is let in.
///
/// # Errors
/// [`BadNetwork::Tunnel`] when the workload's namespace has no interface with the tunnel's address.
pub fn encrypt(plan: &mut WorkloadPlan, tunnel: &crate::intent::Tunnel) -> Result<(), BadNetwork> {
    tunnel::encrypt(plan, tunnel)
}

/// Compiles isolation; needs no shared network (NI-6, NI-11).
pub fn compile_nothing() -> WorkloadPlan {
    WorkloadPlan {
        places: BTreeMap::from([(Place::Workload, workload::nothing())]),
    }
}

fn empty(scope: Scope) -> NamespacePlan {
    NamespacePlan {
        scope,
        sysctls: BTreeMap::new(),
        links: BTreeMap::new(),
        neighbours: BTreeSet::new(),
        routes: BTreeSet::new(),
        rules: BTreeSet::new(),
        tables: BTreeMap::new(),
    }
}

fn sysctls<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
