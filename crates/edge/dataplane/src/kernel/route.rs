//! Steps as route-netlink requests.

use super::netlink::{CREATE_NEW, CREATE_OR_REPLACE, Request, Socket, attribute, errno, number};
use isolarium_netplan::Step;
use isolarium_netplan::plan::{LinkName, Mac, Neighbour, Place, PolicyRule, Route, RouteKind};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// Who made a route: this engine. Free for use by the kernel's list of protocol numbers.
pub(super) const OUR_PROTOCOL: u8 = 73;

pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTN_LOCAL: u8 = 2;
pub(super) const RTN_BLACKHOLE: u8 = 6;
pub(super) const RTN_UNREACHABLE: u8 = 7;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const RTNH_F_ONLINK: u32 = 4;
pub(super) const NUD_PERMANENT: u16 = 0x80;
const IFF_UP: u32 = 1;
/// Group of links in routers, so that all of them can go at once.
const OUR_GROUP: u32 = 0x0069_736c;
const VETH_INFO_PEER: u16 = 1;
const NESTED: u16 = 0x8000;

type Peers<'a> = dyn Fn(Place) -> Option<BorrowedFd<'a>> + 'a;

/// Takes steps of one namespace as one batch. The error names the step by its position.
pub(super) fn take(socket: &mut Socket, steps: &[Step], peers: &Peers<'_>) -> Result<(), (usize, io::Error)> {
    let mut indexes = BTreeMap::new();
    let mut requests = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        requests.push(request(socket, step, peers, &mut indexes).map_err(|error| (at, error))?);
    }
    let (positions, batch): (Vec<usize>, Vec<Request>) = requests
        .into_iter()
        .enumerate()
        .filter_map(|(at, request)| Some((at, request?)))
        .unzip();
    if batch.is_empty() {
        return Ok(());
    }
    for (refused, error) in socket.carry_out(&batch).map_err(|error| (0, error))? {
        let at = positions.get(refused).copied().unwrap_or(0);
        // Deleting what is gone already is a success: both ends of a pair go together, a route goes with its interface.
        if !(steps.get(at).is_some_and(is_deletion) && is_absent(&error)) {
            return Err((at, error));
        }
    }
    Ok(())
}

fn is_deletion(step: &Step) -> bool {
    matches!(
        step,
        Step::DeleteLink { .. }
            | Step::DeleteRoute { .. }
            | Step::DeleteNeighbour { .. }
            | Step::DeleteAddress { .. }
            | Step::DeleteRule { .. }
    )
}

/// What was named is not there.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
    )
}

/// The number of an interface in the socket's namespace.
pub(super) fn index_of(socket: &mut Socket, name: &LinkName) -> io::Result<i32> {
    let request = Request::new(libc::RTM_GETLINK, 0, &[0; 16]).with(libc::IFLA_IFNAME, &zero_ended(name));
    let message = socket.get(request)?;
    let [_, _, _, _, a, b, c, d, ..] = message.fixed::<16>();
    Ok(i32::from_ne_bytes([a, b, c, d]))
}

fn zero_ended(name: &LinkName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// `None`: the interface that a deletion names is gone, and the object with it.
fn request(
    socket: &mut Socket,
    step: &Step,
    peers: &Peers<'_>,
    indexes: &mut BTreeMap<LinkName, i32>,
) -> io::Result<Option<Request>> {
    let link = match step {
        Step::DeleteAddress { link, .. }
        | Step::AddAddress { link, .. }
        | Step::SetUp { link, .. }
        | Step::DeleteLink { link, .. } => Some(link),
        Step::AddNeighbour { neighbour, .. } | Step::DeleteNeighbour { neighbour, .. } => Some(&neighbour.link),
        Step::AddRoute { route, .. } | Step::DeleteRoute { route, .. } => route.link.as_ref(),
        _ => None,
    };
    let index = match link {
        None => 0,
        Some(link) => match indexes.get(link) {
            Some(index) => *index,
            None => match index_of(socket, link) {
                Err(error) if is_deletion(step) && is_absent(&error) => return Ok(None),
                found => {
                    let found = found?;
                    indexes.insert(link.clone(), found);
                    found
                }
            },
        },
    };
    Ok(Some(match step {
        Step::AddPair {
            link,
            mac,
            peer_place,
            peer,
            peer_mac,
            ..
        } => {
            let netns = peers(*peer_place)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the peer's namespace does not exist"))?;
            add_pair(link, *mac, peer, *peer_mac, netns)
        }
        Step::DeleteLink { .. } => Request::new(libc::RTM_DELLINK, 0, &link_header(index, 0)),
        Step::SetUp { .. } => set_up(index),
        Step::AddAddress { address, .. } => address_request(libc::RTM_NEWADDR, CREATE_NEW, index, *address),
        Step::DeleteAddress { address, .. } => address_request(libc::RTM_DELADDR, 0, index, *address),
        Step::AddNeighbour { neighbour, .. } => {
            neighbour_request(libc::RTM_NEWNEIGH, CREATE_OR_REPLACE, index, neighbour)
        }
        Step::DeleteNeighbour { neighbour, .. } => neighbour_request(libc::RTM_DELNEIGH, 0, index, neighbour),
        Step::AddRoute { place, route } => {
            // A public address that moves is taken over, whoever is told first; it leads to one VPC.
            let shared = matches!(place, Place::Platform | Place::Uplink | Place::Host);
            let public = shared && route.via.is_some() && route.destination.prefix_len() == 32;
            let flags = if public { CREATE_OR_REPLACE } else { CREATE_NEW };
            route_request(libc::RTM_NEWROUTE, flags, index, route)
        }
        Step::DeleteRoute { route, .. } => route_request(libc::RTM_DELROUTE, 0, index, route),
        Step::AddRule { rule, .. } => rule_request(libc::RTM_NEWRULE, CREATE_NEW, rule),
        Step::DeleteRule { rule, .. } => rule_request(libc::RTM_DELRULE, 0, rule),
        Step::CreateNamespace { .. }
        | Step::ReplaceTable { .. }
        | Step::DeleteTable { .. }
        | Step::SetSysctl { .. }
        | Step::AddTun { .. }
        | Step::Refuse { .. } => return Err(io::Error::other("not a step of route netlink")),
    }))
}

/// Removes the links that [`add_pair`] made in this namespace, all in one turn of the kernel.
pub(crate) fn delete_links(socket: &mut Socket) -> io::Result<()> {
    let group = Request::new(libc::RTM_DELLINK, 0, &link_header(0, 0)).with(libc::IFLA_GROUP, &OUR_GROUP.to_ne_bytes());
    gone(socket.carry_out(&[group])?)
}

/// Whether there is such a link.
pub(crate) fn has_link(socket: &mut Socket, name: &LinkName) -> io::Result<bool> {
    match index_of(socket, name) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a link; one that is not there is a success.
pub(crate) fn delete_link(socket: &mut Socket, name: &LinkName) -> io::Result<()> {
    match index_of(socket, name) {
        Err(error) if is_absent(&error) => Ok(()),
        index => gone(socket.carry_out(&[Request::new(libc::RTM_DELLINK, 0, &link_header(index?, 0))])?),
    }
}

fn gone(refused: Vec<(usize, io::Error)>) -> io::Result<()> {
    let other = refused.into_iter().find(|(_, error)| !is_absent(error));
    other.map_or(Ok(()), |(_, error)| Err(error))
}

pub(super) fn link_header(index: i32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let (_, rest) = header.split_at_mut(4);
    let (index_place, rest) = rest.split_at_mut(4);
    let (flags_place, change_place) = rest.split_at_mut(4);
    index_place.copy_from_slice(&index.to_ne_bytes());
    flags_place.copy_from_slice(&flags.to_ne_bytes());
    change_place.copy_from_slice(&flags.to_ne_bytes());
    header
}

/// Both ends are made down: a peer that is created up is refused by the kernel.
fn add_pair(link: &LinkName, mac: Mac, peer: &LinkName, peer_mac: Mac, netns: BorrowedFd<'_>) -> Request {
    Request::new(libc::RTM_NEWLINK, CREATE_NEW, &link_header(0, 0))
        .with(libc::IFLA_IFNAME, &zero_ended(link))
        .with(libc::IFLA_ADDRESS, &mac.0)
        .with(libc::IFLA_GROUP, &OUR_GROUP.to_ne_bytes())
        .nested(libc::IFLA_LINKINFO, |info| {
            attribute(info, libc::IFLA_INFO_KIND, |kind| kind.extend_from_slice(b"veth"));
            attribute(info, libc::IFLA_INFO_DATA, |data| {
                attribute(data, VETH_INFO_PEER, |end| {
                    end.extend_from_slice(&link_header(0, 0));
                    attribute(end, libc::IFLA_IFNAME, |name| name.extend(zero_ended(peer)));
                    attribute(end, libc::IFLA_GROUP, |group| {
                        group.extend_from_slice(&OUR_GROUP.to_ne_bytes())
                    });
                    attribute(end, libc::IFLA_ADDRESS, |address| {
                        address.extend_from_slice(&peer_mac.0)
                    });
                    attribute(end, libc::IFLA_NET_NS_FD, |fd| {
                        fd.extend_from_slice(&netns.as_raw_fd().to_ne_bytes())
                    });
                });
            });
        })
}

pub(super) const IFLA_INET_CONF: u16 = 1;
/// Settings of an interface that are off: `proxy_arp`, `accept_source_route`, `route_localnet` (the kernel's numbers from 1).
pub(super) const STRICT: [u16; 3] = [3, 9, 26];

fn set_up(index: i32) -> Request {
    let request = Request::new(libc::RTM_NEWLINK, 0, &link_header(index, IFF_UP));
    request.nested(NESTED | libc::IFLA_AF_SPEC, |families| {
        attribute(families, NESTED | u16::from(AF_INET), |inet| {
            attribute(inet, NESTED | IFLA_INET_CONF, |settings| {
                for number in STRICT {
                    attribute(settings, number, |value| value.extend_from_slice(&0_u32.to_ne_bytes()));
                }
            });
        });
    })
}

fn address_request(kind: u16, flags: u16, index: i32, address: Ipv4Addr) -> Request {
    let [a, b, c, d] = index.to_ne_bytes();
    Request::new(kind, flags, &[AF_INET, 32, 0, SCOPE_UNIVERSE, a, b, c, d])
        .with(libc::IFA_LOCAL, &address.octets())
        .with(libc::IFA_ADDRESS, &address.octets())
}

fn neighbour_request(kind: u16, flags: u16, index: i32, neighbour: &Neighbour) -> Request {
    let [a, b, c, d] = index.to_ne_bytes();
    let [s, t] = NUD_PERMANENT.to_ne_bytes();
    Request::new(kind, flags, &[AF_INET, 0, 0, 0, a, b, c, d, s, t, 0, 0])
        .with(libc::NDA_DST, &neighbour.address.octets())
        .with(libc::NDA_LLADDR, &neighbour.mac.0)
}

fn route_request(kind: u16, flags: u16, index: i32, route: &Route) -> Request {
    let (route_type, scope) = match route.kind {
        RouteKind::Unicast if route.via.is_some() => (RTN_UNICAST, SCOPE_UNIVERSE),
        RouteKind::Unicast => (RTN_UNICAST, SCOPE_LINK),
        RouteKind::Local => (RTN_LOCAL, SCOPE_HOST),
        RouteKind::Unreachable => (RTN_UNREACHABLE, SCOPE_UNIVERSE),
        RouteKind::Blackhole => (RTN_BLACKHOLE, SCOPE_UNIVERSE),
    };
    let onlink = if route.via.is_some() { RTNH_F_ONLINK } else { 0 };
    let [f, g, h, i] = onlink.to_ne_bytes();
    let header = [
        AF_INET,
        route.destination.prefix_len(),
        0,
        0,
        0,
        OUR_PROTOCOL,
        scope,
        route_type,
        f,
        g,
        h,
        i,
    ];
    let mut request = Request::new(kind, flags, &header).with(libc::RTA_TABLE, &route.table.to_ne_bytes());
    if route.destination.prefix_len() > 0 {
        request = request.with(libc::RTA_DST, &route.destination.network().octets());
    }
    if index != 0 {
        request = request.with(libc::RTA_OIF, &index.to_ne_bytes());
    }
    if let Some(via) = route.via {
        request = request.with(libc::RTA_GATEWAY, &via.octets());
    }
    if let Some(source) = route.source {
        request = request.with(libc::RTA_PREFSRC, &source.octets());
    }
    request
}

const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_MARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_MASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

fn rule_request(kind: u16, flags: u16, rule: &PolicyRule) -> Request {
    let from = rule.from.map_or(0, |from| from.prefix_len());
    let mut request = Request::new(kind, flags, &[AF_INET, 0, from, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0])
        .with(FRA_PRIORITY, &rule.priority.to_ne_bytes())
        .with(FRA_TABLE, &rule.table.to_ne_bytes())
        .with(FRA_PROTOCOL, &[OUR_PROTOCOL]);
    if let Some(from) = rule.from {
        request = request.with(FRA_SRC, &from.network().octets());
    }
    if let Some(mark) = rule.mark {
        request = request.with(FRA_MARK, &mark.to_ne_bytes());
    }
    request
}

pub(super) fn rule_of(header: [u8; 12], attributes: super::netlink::Attributes<'_>) -> Result<PolicyRule, String> {
    let [_, to_len, from_len, tos, table, _, _, action, ..] = header;
    let priority = attributes.find(FRA_PRIORITY).map_or(0, number);
    let table = attributes.find(FRA_TABLE).map_or(u32::from(table), number);
    let described = || format!("routing rule {priority}");
    let known = |kind: u16| {
        matches!(
            kind,
            FRA_SRC | FRA_PRIORITY | FRA_MARK | FRA_TABLE | FRA_MASK | FRA_PROTOCOL | 13 | 14
        )
    };
    // A part of a mark is nothing that a plan asks for.
    let mark = attributes.find(FRA_MARK).map(number);
    let whole = attributes
        .find(FRA_MASK)
        .is_none_or(|mask| mark.is_none() || number(mask) == u32::MAX);
    if to_len != 0
        || tos != 0
        || action != FR_ACT_TO_TBL
        || !whole
        || attributes.into_iter().any(|(kind, _)| !known(kind))
    {
        return Err(described());
    }
    let from = match attributes.find(FRA_SRC) {
        None => None,
        Some(octets) => {
            let octets: [u8; 4] = octets.try_into().map_err(|_| described())?;
            Some(ipnet::Ipv4Net::new(Ipv4Addr::from(octets), from_len).map_err(|_| described())?)
        }
    };
    Ok(PolicyRule {
        priority,
        from,
        mark,
        table,
    })
}
