//! What a namespace holds, as far as its plan answers for it.

use super::handle::Handle;
use super::netlink::{Message, Request, Socket, errno, number};
use super::nft;
use super::route::{
    self, AF_INET, AF_INET6, NUD_PERMANENT, OUR_PROTOCOL, RTN_BLACKHOLE, RTN_LOCAL, RTN_UNICAST, RTN_UNREACHABLE,
};
use crate::net_host::ObserveError;
use ipnet::Ipv4Net;
use isolarium_netplan::plan::{
    KindSeen, LinkName, LinkSeen, Mac, NamespacePlan, NamespaceSeen, Neighbour, Place, Route, RouteKind, Scope,
};
use isolarium_netplan::ruleset::{self, TableSeen};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

const IFF_UP: u32 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
/// An interface without link-layer headers.
const ARPHRD_NONE: u16 = 0xfffe;
const RTPROT_KERNEL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTM_F_CLONED: u32 = 0x200;
/// Leaves counters out of an interface's description (`RTEXT_FILTER_SKIP_STATS`).
const SKIP_STATS: [u8; 4] = 8_u32.to_ne_bytes();
const PERMANENT_RULES: [u32; 3] = [0, 32766, 32767];

/// Names of interfaces by number.
type Names = BTreeMap<i32, LinkName>;

pub(super) fn namespace(
    place: Place,
    handle: &Handle,
    want: &NamespacePlan,
    known: Option<&BTreeMap<String, TableSeen>>,
) -> Result<NamespaceSeen, ObserveError> {
    let failed = |what| move |source| ObserveError { what, place, source };
    let mut seen = NamespaceSeen::default();
    let whole = matches!(want.scope, Scope::Whole { .. });
    {
        let mut socket = handle.socket();
        let names = links(&mut socket, want, whole, &mut seen).map_err(failed("interfaces"))?;
        let filter = (!whole).then(|| names.keys().copied().collect::<Vec<_>>());
        let filters: Vec<Option<i32>> = filter.map_or_else(|| vec![None], |all| all.into_iter().map(Some).collect());
        for filter in filters {
            addresses(&mut socket, filter, &names, &mut seen).map_err(failed("addresses"))?;
            routes(&mut socket, filter, &names, &mut seen).map_err(failed("routes"))?;
        }
        // A list passes all neighbours of the machine, whatever namespace they are of.
        let neighbours = if whole && !handle.is_resident() {
            neighbours(&mut socket, &names, &mut seen)
        } else {
            let mut all = names.keys();
            all.try_for_each(|index| wanted_neighbours(&mut socket, *index, &names, want, &mut seen))
        };
        neighbours.map_err(failed("neighbours"))?;
        if whole {
            rules(&mut socket, &mut seen).map_err(failed("routing rules"))?;
        }
    }
    let paths: Vec<&String> = want
        .sysctls
        .keys()
        .chain(want.links.values().flat_map(|link| link.sysctls.keys()))
        .collect();
    // A namespace without tables and without any use for them is not asked: that would be a process for every workload.
    let asks_nft = !want.tables.is_empty() && known.is_none();
    if let Some(known) = known {
        seen.tables = known.clone();
    }
    if !paths.is_empty() || asks_nft {
        let (values, listings) = handle
            .run(|| {
                let values: Vec<(String, String)> = paths
                    .iter()
                    .filter_map(|path| Some(((*path).clone(), handle.setting(path).ok()?)))
                    .collect();
                (values, if asks_nft { tables(want, whole) } else { Ok(Vec::new()) })
            })
            .map_err(failed("settings"))?;
        seen.sysctls.extend(values);
        for listing in listings.map_err(failed("nftables tables"))? {
            let (found, foreign) = ruleset::read_listing(&listing).map_err(|bad| ObserveError {
                what: "nftables tables",
                place,
                source: io::Error::other(bad),
            })?;
            seen.tables.extend(found);
            seen.foreign.extend(foreign);
        }
    }
    Ok(seen)
}

fn tables(want: &NamespacePlan, whole: bool) -> io::Result<Vec<serde_json::Value>> {
    if whole {
        return Ok(nft::list(None)?.into_iter().collect());
    }
    want.tables
        .keys()
        .map(|name| nft::list(Some(name)))
        .filter_map(Result::transpose)
        .collect()
}

fn is_absent(error: &io::Error) -> bool {
    errno(error) == Some(libc::ENODEV)
}

fn links(socket: &mut Socket, want: &NamespacePlan, whole: bool, seen: &mut NamespaceSeen) -> io::Result<Names> {
    let mut names = Names::new();
    let messages = if whole {
        socket.dump(&Request::new(libc::RTM_GETLINK, 0, &[0; 16]).with(libc::IFLA_EXT_MASK, &SKIP_STATS))?
    } else {
        let mut found = Vec::new();
        for name in want.links.keys() {
            let mut zero_ended = name.as_str().as_bytes().to_vec();
            zero_ended.push(0);
            match socket.get(Request::new(libc::RTM_GETLINK, 0, &[0; 16]).with(libc::IFLA_IFNAME, &zero_ended)) {
                Err(error) if is_absent(&error) => {}
                other => found.push(other?),
            }
        }
        found
    };
    for message in messages {
        let (index, name, link) = link_of(&message)?;
        names.insert(index, name.clone());
        seen.links.insert(name, link);
    }
    Ok(names)
}

fn link_of(message: &Message) -> io::Result<(i32, LinkName, LinkSeen)> {
    let [_, _, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, ..] = message.fixed::<16>();
    let attributes = message.attributes(16);
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an interface without a readable name");
    let name = attributes.find(libc::IFLA_IFNAME).ok_or_else(bad)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name))
        .ok()
        .and_then(|text| text.parse().ok());
    let info = attributes.find(libc::IFLA_LINKINFO).map(super::netlink::Attributes);
    let kind = info.and_then(|info| info.find(libc::IFLA_INFO_KIND));
    let kind = match kind {
        Some(kind) if kind.strip_suffix(&[0]).unwrap_or(kind) == b"veth" => KindSeen::Veth,
        // A tap device has the same kind and carries frames.
        Some(kind)
            if kind.strip_suffix(&[0]).unwrap_or(kind) == b"tun" && u16::from_ne_bytes([t0, t1]) == ARPHRD_NONE =>
        {
            KindSeen::Tun
        }
        None if u16::from_ne_bytes([t0, t1]) == ARPHRD_LOOPBACK => KindSeen::Loopback,
        _ => KindSeen::Other,
    };
    let mac = attributes
        .find(libc::IFLA_ADDRESS)
        .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    let mac = mac.filter(|_| kind != KindSeen::Loopback).map(Mac);
    let up = u32::from_ne_bytes([f0, f1, f2, f3]) & IFF_UP != 0;
    let link = LinkSeen {
        kind,
        up,
        strict: strict(attributes.find(libc::IFLA_AF_SPEC)),
        mac,
        addresses: BTreeSet::new(),
    };
    Ok((i32::from_ne_bytes([i0, i1, i2, i3]), name.ok_or_else(bad)?, link))
}

/// See [`LinkSeen::strict`]. What is not told is not believed.
fn strict(families: Option<&[u8]>) -> bool {
    let inet = families.and_then(|families| super::netlink::Attributes(families).find(u16::from(AF_INET)));
    let all = inet.and_then(|inet| super::netlink::Attributes(inet).find(route::IFLA_INET_CONF));
    let off = |number: u16| {
        let at = (usize::from(number) - 1) * 4;
        all.and_then(|all| all.get(at..at + 4))
            .is_some_and(|value| value == [0; 4])
    };
    route::STRICT.into_iter().all(off)
}

fn addresses(socket: &mut Socket, filter: Option<i32>, names: &Names, seen: &mut NamespaceSeen) -> io::Result<()> {
    let [a, b, c, d] = filter.unwrap_or(0).to_ne_bytes();
    for message in socket.dump(&Request::new(libc::RTM_GETADDR, 0, &[0, 0, 0, 0, a, b, c, d]))? {
        let [family, len, _, _, i0, i1, i2, i3] = message.fixed::<8>();
        let Some(name) = names.get(&i32::from_ne_bytes([i0, i1, i2, i3])) else {
            continue;
        };
        let attributes = message.attributes(8);
        let octets = attributes
            .find(libc::IFA_LOCAL)
            .or_else(|| attributes.find(libc::IFA_ADDRESS))
            .unwrap_or_default();
        match (family, <[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
            (AF_INET, Ok([127, 0, 0, 1]), _) if *name == LinkName::lo() && len == 8 => {}
            (AF_INET, Ok(octets), _) if len == 32 => {
                if let Some(link) = seen.links.get_mut(name) {
                    link.addresses.insert(Ipv4Addr::from(octets));
                }
            }
            (AF_INET, Ok(octets), _) => {
                seen.foreign
                    .insert(format!("address {}/{len} on {name}", Ipv4Addr::from(octets)));
            }
            (AF_INET6, _, Ok(octets)) if Ipv6Addr::from(octets).is_loopback() && *name == LinkName::lo() => {}
            (AF_INET6, _, Ok(octets)) => {
                seen.foreign
                    .insert(format!("address {}/{len} on {name}", Ipv6Addr::from(octets)));
            }
            _ => {
                seen.foreign.insert(format!("an address of family {family} on {name}"));
            }
        }
    }
    Ok(())
}

fn routes(socket: &mut Socket, filter: Option<i32>, names: &Names, seen: &mut NamespaceSeen) -> io::Result<()> {
    for family in [AF_INET, AF_INET6] {
        let mut request = Request::new(libc::RTM_GETROUTE, 0, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        if let Some(index) = filter {
            request = request.with(libc::RTA_OIF, &index.to_ne_bytes());
        }
        let messages = match socket.dump(&request) {
            // Kernels without IPv6 have no IPv6 routes.
            Err(error)
                if family == AF_INET6 && matches!(errno(&error), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) =>
            {
                continue;
            }
            other => other?,
        };
        for message in messages {
            one_route(&message, names, seen);
        }
    }
    Ok(())
}

fn one_route(message: &Message, names: &Names, seen: &mut NamespaceSeen) {
    let [family, len, src_len, tos, table, protocol, _, kind, f0, f1, f2, f3] = message.fixed::<12>();
    if u32::from_ne_bytes([f0, f1, f2, f3]) & RTM_F_CLONED != 0 {
        return;
    }
    let attributes = message.attributes(12);
    let table = attributes.find(libc::RTA_TABLE).map_or(u32::from(table), number);
    let index = attributes
        .find(libc::RTA_OIF)
        .and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    let link = index.and_then(|index| names.get(&index)).cloned();
    let on_lo = link == Some(LinkName::lo());
    if family == AF_INET6 {
        // ::1 and the rest of loopback; anything else is somebody's path.
        if !on_lo {
            let through = link.map_or_else(|| "no interface".to_owned(), |link| link.to_string());
            seen.foreign.insert(format!("an IPv6 route through {through}"));
        }
        return;
    }
    let octets = |kind: u16| {
        attributes
            .find(kind)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .map(Ipv4Addr::from)
    };
    let destination = Ipv4Net::new(octets(libc::RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED), len).unwrap_or_default();
    let known = |kind: u16| {
        matches!(
            kind,
            libc::RTA_DST
                | libc::RTA_OIF
                | libc::RTA_GATEWAY
                | libc::RTA_PREFSRC
                | libc::RTA_TABLE
                | libc::RTA_CACHEINFO
        )
    };
    let odd = attributes.into_iter().any(|(kind, _)| !known(kind)) || tos != 0 || src_len != 0;
    let foreign = || format!("the route to {destination} in table {table}");
    if protocol == RTPROT_KERNEL {
        // The kernel's own: made with an address, gone with it.
        let own = matches!(kind, RTN_LOCAL | RTN_BROADCAST) && table == Route::LOCAL && !odd;
        let mine = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).contains(&destination.network())
            || seen
                .links
                .values()
                .any(|link| link.addresses.contains(&destination.addr()) && len == 32);
        if !(own && mine) {
            seen.foreign.insert(foreign());
        }
        return;
    }
    let kind = match kind {
        RTN_UNICAST => Some(RouteKind::Unicast),
        RTN_LOCAL => Some(RouteKind::Local),
        RTN_UNREACHABLE => Some(RouteKind::Unreachable),
        RTN_BLACKHOLE => Some(RouteKind::Blackhole),
        _ => None,
    };
    match kind {
        Some(kind) if protocol == OUR_PROTOCOL && !odd => {
            seen.routes.insert(Route {
                kind,
                destination,
                table,
                link,
                via: octets(libc::RTA_GATEWAY),
                source: (kind != RouteKind::Local).then(|| octets(libc::RTA_PREFSRC)).flatten(),
            });
        }
        _ => {
            seen.foreign.insert(foreign());
        }
    }
}

fn neighbours(socket: &mut Socket, names: &Names, seen: &mut NamespaceSeen) -> io::Result<()> {
    let request = Request::new(libc::RTM_GETNEIGH, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for message in socket.dump(&request)? {
        seen.neighbours.extend(neighbour_of(&message, names));
    }
    Ok(())
}

/// Those of one link that its plan names, asked for one by one: the kernel has no list of a single link's neighbours, so a
/// dump passes all of a router's. One too many is seen when the whole router is; without a route it leads nothing anywhere.
/// A namespace that was made just now has none that was not asked for.
fn wanted_neighbours(
    socket: &mut Socket,
    index: i32,
    names: &Names,
    want: &NamespacePlan,
    seen: &mut NamespaceSeen,
) -> io::Result<()> {
    let name = names.get(&index);
    for wanted in want.neighbours.iter().filter(|one| Some(&one.link) == name) {
        let [i0, i1, i2, i3] = index.to_ne_bytes();
        let request = Request::new(libc::RTM_GETNEIGH, 0, &[AF_INET, 0, 0, 0, i0, i1, i2, i3, 0, 0, 0, 0]);
        match socket.get(request.with(libc::NDA_DST, &wanted.address.octets())) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => {}
            other => seen.neighbours.extend(neighbour_of(&other?, names)),
        }
    }
    Ok(())
}

/// A permanent neighbour of one of these links.
fn neighbour_of(message: &Message, names: &Names) -> Option<Neighbour> {
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = message.fixed::<12>();
    if u16::from_ne_bytes([s0, s1]) & NUD_PERMANENT == 0 {
        return None;
    }
    let attributes = message.attributes(12);
    let address = <[u8; 4]>::try_from(attributes.find(libc::NDA_DST)?).ok()?;
    let mac = <[u8; 6]>::try_from(attributes.find(libc::NDA_LLADDR)?).ok()?;
    Some(Neighbour {
        link: names.get(&i32::from_ne_bytes([i0, i1, i2, i3]))?.clone(),
        address: address.into(),
        mac: Mac(mac),
    })
}

fn rules(socket: &mut Socket, seen: &mut NamespaceSeen) -> io::Result<()> {
    for message in socket.dump(&Request::new(
        libc::RTM_GETRULE,
        0,
        &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ))? {
        match route::rule_of(message.fixed(), message.attributes(12)) {
            Ok(rule) if rule.from.is_none() && PERMANENT_RULES.contains(&rule.priority) => {}
            Ok(rule) => {
                seen.rules.insert(rule);
            }
            Err(described) => {
                seen.foreign.insert(described);
            }
        }
    }
    Ok(())
}

/// Destinations of the IPv4 routes of a namespace that are not its own addresses.
pub(crate) fn destinations(handle: &Handle) -> io::Result<BTreeSet<Ipv4Net>> {
    let request = Request::new(libc::RTM_GETROUTE, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut found = BTreeSet::new();
    for message in handle.socket().dump(&request)? {
        let [_, len, _, _, _, protocol, ..] = message.fixed::<12>();
        let octets = message
            .attributes(12)
            .find(libc::RTA_DST)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        if let (Some(octets), true) = (octets, protocol != OUR_PROTOCOL)
            && !Ipv4Addr::from(octets).is_loopback()
        {
            found.extend(Ipv4Net::new(octets.into(), len));
        }
    }
    Ok(found)
}
