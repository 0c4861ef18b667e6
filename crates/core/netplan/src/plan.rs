//! What the kernel must hold, and what it was seen to hold. Both are plain values of the same nouns, so that a plan can
//! be compared, printed, kept and sent.

use crate::id::{InterfaceId, VpcId};
use crate::ruleset::{Table, TableSeen};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A namespace that plans talk about. As text (it is a key of JSON objects) the first four are their names in lower case,
/// the others the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The router of the platform network.
    Platform,
    /// The machine's own namespace.
    Host,
    /// The namespace that plays the internet (`Uplink::Netns`).
    Uplink,
    /// The namespace of the workload that is being sealed.
    Workload,
    /// The router of a VPC.
    Vpc(VpcId),
    /// The namespace of whoever holds a network interface of a VPC.
    Interface(InterfaceId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("the platform namespace"),
            Self::Host => f.write_str("the host"),
            Self::Uplink => f.write_str("the uplink namespace"),
            Self::Workload => f.write_str("the workload's namespace"),
            Self::Vpc(vpc) => write!(f, "the router of {vpc}"),
            Self::Interface(interface) => write!(f, "the namespace of {interface}"),
        }
    }
}

/// The text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no namespace of a plan")]
pub struct BadPlace(String);

impl TryFrom<String> for Place {
    type Error = BadPlace;
    fn try_from(text: String) -> Result<Self, BadPlace> {
        let vpc = || text.parse().ok().map(Self::Vpc);
        let interface = || text.parse().ok().map(Self::Interface);
        match text.as_str() {
            "platform" => Ok(Self::Platform),
            "host" => Ok(Self::Host),
            "uplink" => Ok(Self::Uplink),
            "workload" => Ok(Self::Workload),
            _ => vpc().or_else(interface).ok_or_else(|| BadPlace(text.clone())),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        match place {
            Place::Platform => "platform".into(),
            Place::Host => "host".into(),
            Place::Uplink => "uplink".into(),
            Place::Workload => "workload".into(),
            Place::Vpc(vpc) => vpc.to_string(),
            Place::Interface(interface) => interface.to_string(),
        }
    }
}

/// A network interface's name: 1 to 15 bytes, no slash, no white space, not `.` or `..`, as the kernel demands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(Box<str>);

/// The text cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an interface name has 1 to 15 bytes without slash, colon or white space")]
pub struct BadLinkName;

impl FromStr for LinkName {
    type Err = BadLinkName;
    fn from_str(text: &str) -> Result<Self, BadLinkName> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let clean = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        (fits && clean).then(|| Self(text.into())).ok_or(BadLinkName)
    }
}

impl TryFrom<String> for LinkName {
    type Error = BadLinkName;
    fn try_from(text: String) -> Result<Self, BadLinkName> {
        text.parse()
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.0.into()
    }
}

impl LinkName {
    /// The loopback interface.
    pub fn lo() -> Self {
        Self("lo".into())
    }

    /// The only interface of a connected workload besides loopback.
    pub fn eth0() -> Self {
        Self("eth0".into())
    }

    /// The way to the other containers of an encrypted job (see [`crate::intent::Tunnel`]).
    pub fn tunnel() -> Self {
        Self("peers0".into())
    }

    /// The platform's side of the uplink.
    pub fn uplink() -> Self {
        Self("up0".into())
    }

    /// The platform's side of the workload that holds `address`. The name follows from the address, so two workloads
    /// with one address collide in the kernel and the second is refused.
    pub fn of_workload(address: Ipv4Addr) -> Self {
        Self(format!("{}{:08x}", Self::WORKLOAD_PREFIX, u32::from(address)).into())
    }

    /// What every name of [`Self::of_workload`] begins with; no other interface of the platform namespace does.
    pub const WORKLOAD_PREFIX: &'static str = "w";

    /// The router's side of a network interface. The name follows from the id, not from an address: rules name links, and
    /// an address may be another interface's tomorrow. 14 digits of the id tell the interfaces of a VPC apart.
    pub fn of_interface(interface: InterfaceId) -> Self {
        Self(
            format!(
                "{}{:014x}",
                Self::WORKLOAD_PREFIX,
                interface.number() & 0xff_ffff_ffff_ffff
            )
            .into(),
        )
    }

    /// What every name of [`Self::of_vpc`] begins with; no workload of the platform network has such a name.
    pub const VPC_PREFIX: &'static str = "wv";

    /// The far side of a VPC's uplink, in a namespace it shares with others. Begins with the workload prefix: there it
    /// comes and goes like a workload. Ten digits of the id tell VPCs apart.
    pub fn of_vpc(vpc: VpcId) -> Self {
        Self(format!("{}v{:010x}", Self::WORKLOAD_PREFIX, vpc.number() & 0xff_ffff_ffff).into())
    }

    pub(crate) fn of_tag(tag: &str) -> Self {
        Self(format!("isl{tag}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Which end of a link a hardware address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Near,
    Far,
}

impl Mac {
    /// A locally administered address that follows from an IPv4 address and the end of the link, so that neighbours can
    /// be static and nothing has to be asked.
    pub fn of(address: Ipv4Addr, end: End) -> Self {
        let [a, b, c, d] = address.octets();
        let second = match end {
            End::Near => 0x69,
            End::Far => 0x6a,
        };
        Self([0x06, second, a, b, c, d])
    }
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LinkKind {
    Loopback,
    /// One end of a pair; `peer` is the other.
    Veth {
        peer_place: Place,
        peer: LinkName,
    },
    /// What is routed here is read by a process, or by nobody.
    Tun {
        /// Longest packet, in bytes.
        mtu: u16,
    },
}

/// An interface as planned. Every planned interface is up and strict ([`LinkSeen::strict`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    #[serde(flatten)]
    pub kind: LinkKind,
    /// `None` on loopback.
    pub mac: Option<Mac>,
    /// Addresses besides 127.0.0.1/8. Never wider than /32: an address must not bring a route with it.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Settings below `net/ipv4/conf/<link>` and `net/ipv6/conf/<link>`, as whole paths below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    Unicast,
    /// Delivered here, whatever address it is (AnyIP).
    Local,
    Unreachable,
    Blackhole,
}

/// A route that plans may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub kind: RouteKind,
    pub destination: Ipv4Net,
    /// Routing table; [`Route::MAIN`] or [`Route::LOCAL`] or one of a policy rule.
    pub table: u32,
    pub link: Option<LinkName>,
    /// Next hop, always taken to be on the link.
    pub via: Option<Ipv4Addr>,
    /// Preferred source address.
    pub source: Option<Ipv4Addr>,
}

impl Route {
    /// The main routing table.
    pub const MAIN: u32 = 254;
    /// The kernel's table of its own addresses.
    pub const LOCAL: u32 = 255;
}

/// A static neighbour: no address resolution takes place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    pub link: LinkName,
    pub address: Ipv4Addr,
    pub mac: Mac,
}

/// A routing policy rule besides the three that every namespace has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRule {
    pub priority: u32,
    /// Source network; `None` is any.
    pub from: Option<Ipv4Net>,
    /// Mark of the packets it is about; `None` is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Table to look up.
    pub table: u32,
}

/// How much of a namespace a plan answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All of it: what is not planned must not be there. `attachments` are the exception: interfaces with the workload
    /// prefix, and what hangs on them, come and go with their workloads.
    Whole { attachments: bool },
    /// Only the named interfaces and tables; the rest is somebody else's.
    Named,
}

/// What one namespace must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    pub scope: Scope,
    /// Paths below `/proc/sys` and their values, white space as the kernel prints it.
    pub sysctls: BTreeMap<String, String>,
    pub links: BTreeMap<LinkName, Link>,
    pub neighbours: BTreeSet<Neighbour>,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<PolicyRule>,
    /// nftables tables of family `inet` by name.
    pub tables: BTreeMap<String, Table>,
}

/// The shared network of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    pub places: BTreeMap<Place, NamespacePlan>,
}

/// The network of one workload: its own namespace, and its side in the platform namespace if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPlan {
    pub places: BTreeMap<Place, NamespacePlan>,
}

/// An interface as seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSeen {
    pub kind: KindSeen,
    pub up: bool,
    /// It follows no source routes, answers for no neighbour's address and leads no loopback address outside: what a
    /// namespace inherits of the host may say otherwise. Every planned interface is like that.
    pub strict: bool,
    pub mac: Option<Mac>,
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// The sorts of interfaces that matter to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindSeen {
    Loopback,
    Veth,
    Tun,
    Other,
}

/// What one namespace was seen to hold, within the scope of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSeen {
    /// Values of the settings that the plan names, those of its links included.
    pub sysctls: BTreeMap<String, String>,
    pub links: BTreeMap<LinkName, LinkSeen>,
    pub neighbours: BTreeSet<Neighbour>,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<PolicyRule>,
    pub tables: BTreeMap<String, TableSeen>,
    /// What no plan can hold (an IPv6 route, an address with a prefix, an unknown route type), described for people.
    /// Within [`Scope::Whole`] it is refused.
    pub foreign: BTreeSet<String>,
}

/// What one machine was seen to hold. A place that does not exist is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSeen {
    pub places: BTreeMap<Place, NamespaceSeen>,
}
