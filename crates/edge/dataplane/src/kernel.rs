//! The real kernel behind [`NetHost`](crate::NetHost).

pub(crate) mod elements;
pub mod frames;
pub mod handle;
pub mod netlink;
pub mod netns;
pub(crate) mod nft;
pub(crate) mod observe;
pub(crate) mod route;
pub(crate) mod sysctl;
mod timeouts;
pub(crate) mod tun;

use crate::net_host::{ApplyError, NetHost, ObserveError};
use elements::Elements;
use handle::Handle;
use isolarium_netplan::Step;
use isolarium_netplan::plan::{HostSeen, NamespacePlan, Place};
use isolarium_netplan::ruleset::change::Change;
use isolarium_netplan::ruleset::{self, TableSeen};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use timeouts::Timeout;

/// Namespaces of this machine by their place in a plan.
#[derive(Debug, Default)]
pub struct KernelHost {
    /// Absent places do not exist; [`Step::CreateNamespace`] cannot make them here, their owner does.
    pub places: BTreeMap<Place, Arc<Handle>>,
    /// Tables that were read before, with the generation of that time: while it is the namespace's, they are not read
    /// again. Steps that need no more than elements are refused by the kernel when it is not.
    pub known: BTreeMap<Place, Known>,
    /// The last table was changed element by element, and each was asked for afterwards.
    pub by_elements: Cell<bool>,
    /// How much is still done before the kernel is made to refuse, for tests of what is left then.
    #[cfg(test)]
    pub(crate) left: Cell<Option<usize>>,
}

/// The tables of a namespace as they were read back.
#[derive(Clone, Debug)]
pub struct Known {
    /// The generation of nftables that holds them.
    pub generation: u32,
    /// The tables.
    pub tables: BTreeMap<String, TableSeen>,
}

impl NetHost for KernelHost {
    fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError> {
        let mut seen = HostSeen::default();
        for (place, want) in plan {
            if let Some(handle) = self.places.get(place) {
                let known = self.known.get(place).map(|known| &known.tables);
                seen.places
                    .insert(*place, observe::namespace(*place, handle, want, known)?);
            }
        }
        Ok(seen)
    }

    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut rest = steps;
        #[cfg(test)]
        if self.left.get().is_some() {
            // One by one, so that it can end between any two.
            for step in steps {
                self.permit().map_err(|source| ApplyError::Refused {
                    step: Box::new(step.clone()),
                    source,
                })?;
                self.take(Class::of(step), step, std::slice::from_ref(step))?;
            }
            return Ok(());
        }
        while let Some(first) = rest.first() {
            let class = Class::of(first);
            let alike = rest
                .iter()
                .take_while(|step| Class::of(step) == class && step.place() == first.place())
                .count();
            let (now, later) = rest.split_at(alike);
            self.take(class, first, now)?;
            rest = later;
        }
        Ok(())
    }
}

/// Steps that travel together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Refused,
    Sysctl,
    Table,
    /// An interface must exist before a batch can name it.
    Pair,
    Tun,
    Route,
}

impl Class {
    fn of(step: &Step) -> Self {
        match step {
            Step::Refuse { .. } | Step::CreateNamespace { .. } => Self::Refused,
            Step::SetSysctl { .. } => Self::Sysctl,
            Step::ReplaceTable { .. } | Step::DeleteTable { .. } => Self::Table,
            Step::AddPair { .. } => Self::Pair,
            Step::AddTun { .. } => Self::Tun,
            _ => Self::Route,
        }
    }
}

impl KernelHost {
    /// Fails where a test wants it to.
    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests make it fail")
    )]
    pub(crate) fn permit(&self) -> io::Result<()> {
        #[cfg(test)]
        match self.left.get() {
            Some(0) => return Err(io::Error::other("told to fail")),
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
        Ok(())
    }

    fn take(&self, class: Class, first: &Step, steps: &[Step]) -> Result<(), ApplyError> {
        if let Step::Refuse { place, what } = first {
            return Err(ApplyError::Foreign {
                what: what.clone(),
                place: *place,
            });
        }
        let refused = |step: &Step, source| ApplyError::Refused {
            step: Box::new(step.clone()),
            source,
        };
        let absent = || io::Error::new(io::ErrorKind::NotFound, "the namespace does not exist");
        let handle = self
            .places
            .get(&first.place())
            .ok_or_else(|| refused(first, absent()))?;
        match class {
            Class::Refused => Err(refused(first, absent())),
            Class::Sysctl => handle
                .run(|| {
                    for step in steps {
                        if let Step::SetSysctl { path, value, .. } = step {
                            handle.set(path, value).map_err(|source| (step, source))?;
                        }
                    }
                    Ok(())
                })
                .map_err(|source| refused(first, source))?
                .map_err(|(step, source): (&Step, io::Error)| refused(step, source)),
            Class::Table => {
                if let Some(done) = self.elements(handle, first, steps) {
                    return done.map_err(|source| refused(first, source));
                }
                self.by_elements.set(false);
                // INVARIANT (sets-before-rules): the kernel makes rules visible before it fills large new sets of the same
                // transaction, so a rule that names a new set waits for a second one.
                let mut sets = Vec::new();
                let mut rest = Vec::new();
                let mut last = Vec::new();
                // `nft` cannot make time-outs (`Table::replace_commands`).
                let (mut made, mut unused) = (Vec::new(), Vec::new());
                for step in steps {
                    match step {
                        Step::ReplaceTable {
                            name,
                            changes: Some(changes),
                            ..
                        } => {
                            let adds =
                                |change: &&Change| matches!(change, Change::AddChain { .. } | Change::AddSet { .. });
                            let (first, later): (Vec<_>, Vec<_>) = changes.iter().partition(adds);
                            for change in changes {
                                match change {
                                    Change::AddTimeout { name: own, seconds } => {
                                        made.push(Timeout::new(name, own, *seconds))
                                    }
                                    Change::DeleteTimeout { name: own } => unused.push(Timeout::new(name, own, 0)),
                                    _ => {}
                                }
                            }
                            sets.extend(ruleset::change::commands(name, first));
                            rest.extend(ruleset::change::commands(name, later));
                        }
                        Step::ReplaceTable { name, table, .. } => {
                            sets.extend(table.replace_commands(name));
                            let own = table.timeouts.iter();
                            made.extend(own.map(|(own, seconds)| Timeout::new(name, own, *seconds)));
                            last.extend(table.timeout_commands(name));
                        }
                        Step::DeleteTable { name, .. } => rest.push(ruleset::delete_command(name)),
                        _ => {}
                    }
                }
                let load = |commands: Vec<_>| {
                    if commands.is_empty() {
                        return Ok(());
                    }
                    self.permit()?;
                    let input = ruleset::transaction(commands);
                    handle.run(|| nft::load(&input)).and_then(|done| done)
                };
                let done = load(sets)
                    .and_then(|()| self.permit())
                    .and_then(|()| timeouts::make(handle, &made))
                    .and_then(|()| load(rest))
                    .and_then(|()| load(last))
                    .and_then(|()| timeouts::delete(handle, &unused));
                done.map_err(|source| refused(first, source))
            }
            Class::Tun => {
                for step in steps {
                    let Step::AddTun { link, mtu, .. } = step else { continue };
                    handle
                        .run(|| tun::make(link))
                        .and_then(|made| made)
                        .and_then(|()| tun::set_mtu(&mut handle.socket(), link, *mtu))
                        .map_err(|source| refused(step, source))?;
                }
                Ok(())
            }
            Class::Pair | Class::Route => {
                let peers = |place: Place| self.places.get(&place).map(|handle| handle.netns());
                let mut socket = handle.socket();
                route::take(&mut socket, steps, &peers)
                    .map_err(|(at, source)| refused(steps.get(at).unwrap_or(first), source))
            }
        }
    }

    /// Takes the one step that only adds and deletes elements of a table that is known. `None`: it is not such a step.
    fn elements(&self, handle: &Handle, first: &Step, steps: &[Step]) -> Option<io::Result<()>> {
        let (
            Step::ReplaceTable {
                place,
                name,
                table,
                changes,
            },
            [_],
        ) = (first, steps)
        else {
            return None;
        };
        let elements = Elements::of(table, changes.as_deref()?)?;
        let known = self.known.get(place)?;
        self.by_elements.set(true);
        Some(elements.apply(handle, name, known.generation).and_then(|()| {
            // Nothing else was changed, so this is all there is to read back.
            let stands = elements.stand(handle, name)?;
            stands
                .then_some(())
                .ok_or_else(|| io::Error::other("the kernel does not hold the elements it accepted"))
        }))
    }
}
