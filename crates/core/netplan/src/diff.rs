//! From what the kernel holds to the steps that make it hold what it should. Order is part of the answer: a table stands
//! before a packet can arrive, and goes after the last interface.

use crate::plan::{
    HostSeen, KindSeen, Link, LinkKind, LinkName, LinkSeen, Mac, NamespacePlan, NamespaceSeen, Neighbour, Place,
    PolicyRule, Route, Scope,
};
use crate::ruleset::Table;
use crate::ruleset::change::Change;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

/// One change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Makes the namespace and keeps it findable.
    CreateNamespace {
        place: Place,
    },
    /// Makes a table what `table` says, in one transaction.
    ReplaceTable {
        place: Place,
        name: String,
        table: Table,
        /// The smallest transaction that does it, if the table is there and only elements, sets and rules differ. Whoever
        /// applies it may replace the table as a whole instead, which costs more and forgets what packets recorded.
        #[serde(default)]
        changes: Option<Vec<Change>>,
    },
    SetSysctl {
        place: Place,
        path: String,
        value: String,
    },
    DeleteRule {
        place: Place,
        rule: PolicyRule,
    },
    DeleteRoute {
        place: Place,
        route: Route,
    },
    DeleteNeighbour {
        place: Place,
        neighbour: Neighbour,
    },
    DeleteAddress {
        place: Place,
        link: LinkName,
        address: Ipv4Addr,
    },
    DeleteLink {
        place: Place,
        link: LinkName,
    },
    /// Makes a veth pair, both ends down.
    AddPair {
        place: Place,
        link: LinkName,
        mac: Mac,
        peer_place: Place,
        peer: LinkName,
        peer_mac: Mac,
    },
    /// Makes a tun device that stays without a process, down.
    AddTun {
        place: Place,
        link: LinkName,
        mtu: u16,
    },
    AddAddress {
        place: Place,
        link: LinkName,
        address: Ipv4Addr,
    },
    /// Makes an interface strict ([`LinkSeen::strict`]) and brings it up.
    SetUp {
        place: Place,
        link: LinkName,
    },
    AddNeighbour {
        place: Place,
        neighbour: Neighbour,
    },
    AddRoute {
        place: Place,
        route: Route,
    },
    AddRule {
        place: Place,
        rule: PolicyRule,
    },
    DeleteTable {
        place: Place,
        name: String,
    },
    /// Nothing that a plan can put right: a person or another program put something there. It is refused, not removed.
    Refuse {
        place: Place,
        what: String,
    },
}

impl Step {
    /// The namespace in which the step takes place.
    pub fn place(&self) -> Place {
        match self {
            Self::CreateNamespace { place }
            | Self::ReplaceTable { place, .. }
            | Self::SetSysctl { place, .. }
            | Self::DeleteRule { place, .. }
            | Self::DeleteRoute { place, .. }
            | Self::DeleteNeighbour { place, .. }
            | Self::DeleteAddress { place, .. }
            | Self::DeleteLink { place, .. }
            | Self::AddPair { place, .. }
            | Self::AddTun { place, .. }
            | Self::AddAddress { place, .. }
            | Self::SetUp { place, .. }
            | Self::AddNeighbour { place, .. }
            | Self::AddRoute { place, .. }
            | Self::AddRule { place, .. }
            | Self::DeleteTable { place, .. }
            | Self::Refuse { place, .. } => *place,
        }
    }

    /// When the step's turn comes; steps of one rank keep their order.
    fn rank(&self) -> u8 {
        match self {
            Self::Refuse { .. } => 0,
            Self::CreateNamespace { .. } => 1,
            // INVARIANT (deny-first): rules stand before anything can carry a packet ...
            Self::ReplaceTable { .. } => 2,
            Self::SetSysctl { path, .. } if !path.contains("/conf/") || is_general(path) => 3,
            Self::DeleteRule { .. } => 4,
            Self::DeleteRoute { .. } => 5,
            Self::DeleteNeighbour { .. } => 6,
            Self::DeleteAddress { .. } => 7,
            Self::DeleteLink { .. } => 8,
            Self::AddPair { .. } | Self::AddTun { .. } => 9,
            Self::SetSysctl { .. } => 10,
            Self::AddAddress { .. } => 11,
            Self::SetUp { .. } => 12,
            Self::AddNeighbour { .. } => 13,
            Self::AddRoute { .. } => 14,
            Self::AddRule { .. } => 15,
            // ... and go after the last that could.
            Self::DeleteTable { .. } => 16,
        }
    }
}

/// Settings of all interfaces or of future ones exist before any interface does.
fn is_general(path: &str) -> bool {
    path.contains("/conf/all/") || path.contains("/conf/default/")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        match self {
            Self::CreateNamespace { .. } => write!(f, "create {place}"),
            Self::ReplaceTable { name, .. } => write!(f, "load table {name} in {place}"),
            Self::SetSysctl { path, value, .. } => write!(f, "set {path} to {value:?} in {place}"),
            Self::DeleteRule { rule, .. } => write!(f, "delete rule {} in {place}", rule.priority),
            Self::DeleteRoute { route, .. } => write!(f, "delete the route to {} in {place}", route.destination),
            Self::DeleteNeighbour { neighbour, .. } => write!(f, "delete neighbour {} in {place}", neighbour.address),
            Self::DeleteAddress { link, address, .. } => write!(f, "delete {address} from {link} in {place}"),
            Self::DeleteLink { link, .. } => write!(f, "delete interface {link} in {place}"),
            Self::AddPair {
                link, peer, peer_place, ..
            } => {
                write!(
                    f,
                    "add interface {link} in {place} with its peer {peer} in {peer_place}"
                )
            }
            Self::AddTun { link, .. } => write!(f, "add interface {link} in {place}"),
            Self::AddAddress { link, address, .. } => write!(f, "add {address} to {link} in {place}"),
            Self::SetUp { link, .. } => write!(f, "set {link} up in {place}"),
            Self::AddNeighbour { neighbour, .. } => write!(f, "add neighbour {} in {place}", neighbour.address),
            Self::AddRoute { route, .. } => write!(f, "add the route to {} in {place}", route.destination),
            Self::AddRule { rule, .. } => write!(f, "add rule {} in {place}", rule.priority),
            Self::DeleteTable { name, .. } => write!(f, "delete table {name} in {place}"),
            Self::Refuse { what, .. } => write!(f, "{what} in {place} is not ours"),
        }
    }
}

/// The steps that lead from `seen` to `plan`, in the order in which they must be taken. Empty when nothing is to do.
pub fn diff(seen: &HostSeen, plan: &BTreeMap<Place, NamespacePlan>) -> Vec<Step> {
    let mut steps = Vec::new();
    let nothing = NamespaceSeen::default();
    let broken = broken_pairs(seen, plan);
    for (place, want) in plan {
        let here = seen.places.get(place);
        if here.is_none() {
            steps.push(Step::CreateNamespace { place: *place });
        }
        one_place(*place, here.unwrap_or(&nothing), want, &broken, &mut steps);
    }
    for (place, link) in &broken {
        if seen.places.get(place).is_some_and(|here| here.links.contains_key(link)) {
            steps.push(Step::DeleteLink {
                place: *place,
                link: link.clone(),
            });
        }
        let Some(Link {
            kind: LinkKind::Veth { peer_place, peer },
            mac: Some(mac),
            ..
        }) = link_of(plan, *place, link)
        else {
            continue;
        };
        let peer_mac = link_of(plan, *peer_place, peer).and_then(|link| link.mac);
        // One end makes both; the one whose place sorts first does it.
        if let (Some(peer_mac), true) = (peer_mac, place < peer_place) {
            steps.push(Step::AddPair {
                place: *place,
                link: link.clone(),
                mac: *mac,
                peer_place: *peer_place,
                peer: peer.clone(),
                peer_mac,
            });
        }
    }
    steps.sort_by_key(Step::rank);
    steps
}

/// [`diff`] for a single namespace.
pub fn diff_place(place: Place, seen: NamespaceSeen, plan: NamespacePlan) -> Vec<Step> {
    diff(
        &HostSeen {
            places: BTreeMap::from([(place, seen)]),
        },
        &BTreeMap::from([(place, plan)]),
    )
}

fn link_of<'a>(plan: &'a BTreeMap<Place, NamespacePlan>, place: Place, link: &LinkName) -> Option<&'a Link> {
    plan.get(&place)?.links.get(link)
}

/// Planned veth ends that are not there as planned, together with their peers: a pair is made anew as a whole.
fn broken_pairs(seen: &HostSeen, plan: &BTreeMap<Place, NamespacePlan>) -> BTreeSet<(Place, LinkName)> {
    let sound = |place: &Place, name: &LinkName, mac: Option<Mac>| {
        let link = seen.places.get(place).and_then(|here| here.links.get(name));
        link.is_some_and(|link| link.kind == KindSeen::Veth && link.mac == mac)
    };
    let mut broken = BTreeSet::new();
    for (place, want) in plan {
        for (name, link) in &want.links {
            if let LinkKind::Veth { peer_place, peer } = &link.kind
                && !sound(place, name, link.mac)
            {
                broken.insert((*place, name.clone()));
                broken.insert((*peer_place, peer.clone()));
            }
        }
    }
    broken
}

fn one_place(
    place: Place,
    seen: &NamespaceSeen,
    want: &NamespacePlan,
    broken: &BTreeSet<(Place, LinkName)>,
    steps: &mut Vec<Step>,
) {
    let whole = matches!(want.scope, Scope::Whole { .. });
    let attached = |name: &LinkName| {
        matches!(want.scope, Scope::Whole { attachments: true })
            && name.as_str().starts_with(LinkName::WORKLOAD_PREFIX)
            && !want.links.contains_key(name)
    };
    // What hangs on an interface goes with it.
    let gone = |name: &LinkName| broken.contains(&(place, name.clone()));
    let kept = |name: &LinkName| !gone(name) && !attached(name);

    if whole {
        steps.extend(seen.foreign.iter().map(|what| Step::Refuse {
            place,
            what: what.clone(),
        }));
    }
    for (name, table) in &want.tables {
        if seen.tables.get(name) != Some(&table.seen()) {
            steps.push(Step::ReplaceTable {
                place,
                name: name.clone(),
                table: table.clone(),
                changes: seen.tables.get(name).and_then(|held| table.changes_from(held)),
            });
        }
    }
    if whole {
        let stale = seen.tables.keys().filter(|name| !want.tables.contains_key(*name));
        steps.extend(stale.map(|name| Step::DeleteTable {
            place,
            name: name.clone(),
        }));
    }
    for (path, value) in want
        .sysctls
        .iter()
        .chain(want.links.values().flat_map(|link| &link.sysctls))
    {
        if seen.sysctls.get(path) != Some(value) {
            steps.push(Step::SetSysctl {
                place,
                path: path.clone(),
                value: value.clone(),
            });
        }
    }
    links(place, seen, want, whole, &kept, &gone, steps);

    let unwanted = |link: Option<&LinkName>| link.is_none_or(kept);
    let stale = seen
        .routes
        .difference(&want.routes)
        .filter(|route| unwanted(route.link.as_ref()));
    steps.extend(stale.map(|route| Step::DeleteRoute {
        place,
        route: route.clone(),
    }));
    let missing = want
        .routes
        .iter()
        .filter(|route| !seen.routes.contains(route) || route.link.as_ref().is_some_and(gone));
    steps.extend(missing.map(|route| Step::AddRoute {
        place,
        route: route.clone(),
    }));

    let stale = seen
        .neighbours
        .difference(&want.neighbours)
        .filter(|neighbour| kept(&neighbour.link));
    steps.extend(stale.map(|neighbour| Step::DeleteNeighbour {
        place,
        neighbour: neighbour.clone(),
    }));
    let missing = want
        .neighbours
        .iter()
        .filter(|one| !seen.neighbours.contains(one) || gone(&one.link));
    steps.extend(missing.map(|neighbour| Step::AddNeighbour {
        place,
        neighbour: neighbour.clone(),
    }));

    let stale = seen.rules.difference(&want.rules);
    steps.extend(stale.map(|rule| Step::DeleteRule {
        place,
        rule: rule.clone(),
    }));
    let missing = want.rules.difference(&seen.rules);
    steps.extend(missing.map(|rule| Step::AddRule {
        place,
        rule: rule.clone(),
    }));
}

fn links(
    place: Place,
    seen: &NamespaceSeen,
    want: &NamespacePlan,
    whole: bool,
    kept: &dyn Fn(&LinkName) -> bool,
    gone: &dyn Fn(&LinkName) -> bool,
    steps: &mut Vec<Step>,
) {
    for (name, link) in &seen.links {
        if want.links.contains_key(name) || !kept(name) {
            continue;
        }
        match (whole, link.kind) {
            (false, _) => {}
            (true, KindSeen::Veth | KindSeen::Tun) => steps.push(Step::DeleteLink {
                place,
                link: name.clone(),
            }),
            (true, KindSeen::Loopback | KindSeen::Other) => {
                steps.push(Step::Refuse {
                    place,
                    what: format!("interface {name}"),
                });
            }
        }
    }
    let absent = LinkSeen {
        kind: KindSeen::Other,
        up: false,
        strict: false,
        mac: None,
        addresses: BTreeSet::new(),
    };
    for (name, link) in &want.links {
        let here = seen.links.get(name).filter(|_| !gone(name)).unwrap_or(&absent);
        if let LinkKind::Tun { mtu } = link.kind
            && here.kind != KindSeen::Tun
        {
            steps.push(Step::AddTun {
                place,
                link: name.clone(),
                mtu,
            });
        }
        let stale = here.addresses.difference(&link.addresses);
        steps.extend(stale.map(|address| Step::DeleteAddress {
            place,
            link: name.clone(),
            address: *address,
        }));
        let missing = link.addresses.difference(&here.addresses);
        steps.extend(missing.map(|address| Step::AddAddress {
            place,
            link: name.clone(),
            address: *address,
        }));
        if !here.up || !here.strict {
            steps.push(Step::SetUp {
                place,
                link: name.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
