//! A machine in memory: keeps what the steps made, so that plans, order and recovery are tested without a kernel.

use crate::net_host::{ApplyError, NetHost, ObserveError};
use isolarium_netplan::Step;
use isolarium_netplan::plan::{HostSeen, KindSeen, LinkName, LinkSeen, NamespacePlan, NamespaceSeen, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// State of the machine, and when it fails.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    /// What there is.
    pub network: HostSeen,
    /// Number of steps that succeed before one is refused.
    pub fail_after: Option<usize>,
    /// Ends of pairs, so that both go together.
    pairs: BTreeMap<(Place, LinkName), (Place, LinkName)>,
}

impl FakeHost {
    /// A machine on which these namespaces exist, each with loopback down.
    pub fn with(places: &[Place]) -> Self {
        let mut host = Self::default();
        for place in places {
            host.network.places.insert(*place, fresh());
        }
        host
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        if let Step::CreateNamespace { place } = step {
            self.network.places.insert(*place, fresh());
            return Ok(());
        }
        if let Step::AddPair {
            place,
            link,
            mac,
            peer_place,
            peer,
            peer_mac,
        } = step
        {
            for (place, name, mac) in [(place, link, mac), (peer_place, peer, peer_mac)] {
                let here = self.place(*place)?;
                if here.links.contains_key(name) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let end = LinkSeen {
                    kind: KindSeen::Veth,
                    up: false,
                    strict: false,
                    mac: Some(*mac),
                    addresses: BTreeSet::new(),
                };
                here.links.insert(name.clone(), end);
            }
            self.pairs.insert((*place, link.clone()), (*peer_place, peer.clone()));
            self.pairs.insert((*peer_place, peer.clone()), (*place, link.clone()));
            return Ok(());
        }
        if let Step::AddTun { place, link, .. } = step {
            let device = LinkSeen {
                kind: KindSeen::Tun,
                up: false,
                strict: false,
                mac: None,
                addresses: BTreeSet::new(),
            };
            self.place(*place)?.links.insert(link.clone(), device);
            return Ok(());
        }
        if let Step::DeleteLink { place, link } = step {
            let end = (*place, link.clone());
            if let Some(other) = self.pairs.remove(&end) {
                self.pairs.remove(&other);
                self.unlink(&other);
            }
            self.unlink(&end);
            return Ok(());
        }
        let here = self.place(step.place())?;
        let link_is_there = |here: &NamespaceSeen, link: &LinkName| {
            here.links
                .contains_key(link)
                .then_some(())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        match step {
            Step::ReplaceTable { name, table, .. } => {
                here.tables.insert(name.clone(), table.seen());
            }
            Step::DeleteTable { name, .. } => {
                here.tables.remove(name).ok_or(io::ErrorKind::NotFound)?;
            }
            Step::SetSysctl { path, value, .. } => {
                here.sysctls.insert(path.clone(), value.clone());
            }
            Step::AddRule { rule, .. } => {
                here.rules.insert(rule.clone());
            }
            Step::DeleteRule { rule, .. } => {
                here.rules.remove(rule);
            }
            Step::AddRoute { route, .. } => {
                if let Some(link) = &route.link {
                    link_is_there(here, link)?;
                }
                here.routes.insert(route.clone());
            }
            Step::DeleteRoute { route, .. } => {
                here.routes.remove(route);
            }
            Step::AddNeighbour { neighbour, .. } => {
                link_is_there(here, &neighbour.link)?;
                here.neighbours.insert(neighbour.clone());
            }
            Step::DeleteNeighbour { neighbour, .. } => {
                here.neighbours.remove(neighbour);
            }
            Step::AddAddress { link, address, .. } => {
                here.links
                    .get_mut(link)
                    .ok_or(io::ErrorKind::NotFound)?
                    .addresses
                    .insert(*address);
            }
            Step::DeleteAddress { link, address, .. } => {
                here.links
                    .get_mut(link)
                    .ok_or(io::ErrorKind::NotFound)?
                    .addresses
                    .remove(address);
            }
            Step::SetUp { link, .. } => {
                let link = here.links.get_mut(link).ok_or(io::ErrorKind::NotFound)?;
                (link.up, link.strict) = (true, true);
            }
            Step::Refuse { .. }
            | Step::CreateNamespace { .. }
            | Step::AddPair { .. }
            | Step::AddTun { .. }
            | Step::DeleteLink { .. } => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(())
    }

    fn place(&mut self, place: Place) -> io::Result<&mut NamespaceSeen> {
        self.network
            .places
            .get_mut(&place)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn unlink(&mut self, (place, name): &(Place, LinkName)) {
        if let Some(here) = self.network.places.get_mut(place) {
            here.links.remove(name);
            here.routes.retain(|route| route.link.as_ref() != Some(name));
            here.neighbours.retain(|neighbour| neighbour.link != *name);
        }
    }
}

fn fresh() -> NamespaceSeen {
    let lo = LinkSeen {
        kind: KindSeen::Loopback,
        up: false,
        strict: false,
        mac: None,
        addresses: BTreeSet::new(),
    };
    NamespaceSeen {
        links: BTreeMap::from([(LinkName::lo(), lo)]),
        ..NamespaceSeen::default()
    }
}

impl NetHost for FakeHost {
    fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError> {
        let seen = plan
            .keys()
            .filter_map(|place| Some((*place, self.network.places.get(place)?.clone())));
        Ok(HostSeen { places: seen.collect() })
    }

    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        for (at, step) in steps.iter().enumerate() {
            let refused = |source| ApplyError::Refused {
                step: Box::new(step.clone()),
                source,
            };
            if let Step::Refuse { place, what } = step {
                return Err(ApplyError::Foreign {
                    what: what.clone(),
                    place: *place,
                });
            }
            if self.fail_after == Some(at) {
                return Err(refused(io::Error::other("told to fail")));
            }
            self.perform(step).map_err(refused)?;
        }
        Ok(())
    }
}
