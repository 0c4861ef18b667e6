//! The queue as a value: what is held, who waits, and who comes next. Nothing here looks at a clock or a host.

use isolarium_model::{AccountId, Key, Timestamp, WorkloadId};
use std::collections::BTreeMap;

/// What one instance takes of the machine, or several together do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub accelerators: u64,
}

impl Amount {
    fn and(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_add(other.vcpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            accelerators: self.accelerators.saturating_add(other.accelerators),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            accelerators: self.accelerators.saturating_sub(other.accelerators),
        }
    }
}

/// What may be held together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `None`: without limit.
    pub vcpus: Option<u64>,
    /// `None`: without limit.
    pub memory_mib: Option<u64>,
    /// Devices of the machine: these are never shared.
    pub accelerators: u64,
    /// How much of it one account may hold, 1 to 100.
    pub account_percent: u64,
}

impl Default for Capacity {
    /// Without limit.
    fn default() -> Self {
        Self {
            vcpus: None,
            memory_mib: None,
            accelerators: 0,
            account_percent: 100,
        }
    }
}

impl Capacity {
    fn holds(&self, amount: Amount, percent: u64) -> bool {
        let fits = |limit: Option<u64>, wanted: u64| {
            limit.is_none_or(|limit| u128::from(wanted) * 100 <= u128::from(limit) * u128::from(percent))
        };
        fits(self.vcpus, amount.vcpus)
            && fits(self.memory_mib, amount.memory_mib)
            && amount.accelerators <= self.accelerators
    }

    /// The largest share of the three, in millionths.
    fn share(&self, amount: Amount) -> u128 {
        let of = |limit: Option<u64>, held: u64| {
            limit.map_or(0, |limit| u128::from(held) * 1_000_000 / u128::from(limit.max(1)))
        };
        let parts = [
            of(self.vcpus, amount.vcpus),
            of(self.memory_mib, amount.memory_mib),
            of(Some(self.accelerators), amount.accelerators),
        ];
        parts.into_iter().max().unwrap_or(0)
    }
}

/// The record that asks: its kind and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub kind: &'static str,
    pub key: Key,
}

impl Owner {
    fn account(&self) -> &AccountId {
        &self.key.scope.account
    }
}

/// Room for several instances of one type, all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub owner: Owner,
    /// Its place in the order: when the owner was asked for.
    pub since: Timestamp,
    pub instances: Vec<Wanted>,
}

/// One instance that is to get room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub workload: WorkloadId,
    pub instance_type: String,
    pub amount: Amount,
}

impl Request {
    fn amount(&self) -> Amount {
        let all = self.instances.iter();
        all.fold(Amount::default(), |sum, one| sum.and(one.amount))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every instance has room.
    Granted,
    /// None has got any yet; the owner is told when they have.
    Waits,
    /// The machine is too small for it, or the account's part of it.
    Never,
}

/// One instance that has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub owner: Owner,
    pub instance_type: String,
    pub amount: Amount,
}

/// What is held and who waits. Room is given to the account that holds the smallest share, among equals and within an
/// account in the order of requests; whoever comes first is waited for, so that small requests do not overtake a large one
/// for ever.
#[derive(Debug, Default)]
pub struct Queue {
    capacity: Capacity,
    held: BTreeMap<WorkloadId, Hold>,
    /// Sum of `held`.
    total: Amount,
    /// The part of each account; no account without any.
    by_account: BTreeMap<AccountId, Amount>,
    waiting: BTreeMap<AccountId, BTreeMap<(Timestamp, Owner), Request>>,
}

impl Queue {
    /// An empty queue.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Asks for room; a request of the same owner that waits is replaced. The owners that got room meanwhile are added to
    /// `granted`.
    pub fn ask(&mut self, mut request: Request, granted: &mut Vec<Owner>) -> Answer {
        self.withdraw(&request.owner);
        request.instances.retain(|one| !self.held.contains_key(&one.workload));
        if request.instances.is_empty() {
            return Answer::Granted;
        }
        let percent = self.capacity.account_percent;
        if !self.capacity.holds(request.amount(), percent) {
            return Answer::Never;
        }
        let owner = request.owner.clone();
        let workloads: Vec<WorkloadId> = request.instances.iter().map(|one| one.workload.clone()).collect();
        self.enrol(request);
        granted.extend(self.admit().into_iter().filter(|one| *one != owner));
        if workloads.iter().all(|workload| self.held.contains_key(workload)) {
            Answer::Granted
        } else {
            Answer::Waits
        }
    }

    /// Puts a request into its place in the order, without giving room to anybody.
    pub fn enrol(&mut self, request: Request) {
        let account = request.owner.account().clone();
        let place = (request.since, request.owner.clone());
        self.waiting.entry(account).or_default().insert(place, request);
    }

    /// Notes an instance that has its room already, whatever there is.
    pub fn keep(&mut self, owner: &Owner, one: Wanted) {
        self.release(&one.workload);
        self.total = self.total.and(one.amount);
        let account = self.by_account.entry(owner.account().clone()).or_default();
        *account = account.and(one.amount);
        let hold = Hold {
            owner: owner.clone(),
            instance_type: one.instance_type,
            amount: one.amount,
        };
        self.held.insert(one.workload, hold);
    }

    /// Lets an instance take over the room of another of the same owner. Without that room nothing happens.
    pub fn succeed(&mut self, old: &WorkloadId, new: &WorkloadId) {
        if let Some(hold) = self.held.remove(old) {
            self.held.insert(new.clone(), hold);
        }
    }

    /// Takes the room of one instance back. [`Self::admit`] says who gets it.
    pub fn release(&mut self, workload: &WorkloadId) {
        let Some(hold) = self.held.remove(workload) else { return };
        self.total = self.total.without(hold.amount);
        let account = hold.owner.account();
        if let Some(part) = self.by_account.get_mut(account) {
            *part = part.without(hold.amount);
            if *part == Amount::default() {
                self.by_account.remove(account);
            }
        }
    }

    /// Takes back all that an owner has and waits for.
    pub fn leave(&mut self, owner: &Owner) {
        self.withdraw(owner);
        let own: Vec<WorkloadId> = self
            .held
            .iter()
            .filter(|(_, hold)| hold.owner == *owner)
            .map(|(workload, _)| workload.clone())
            .collect();
        for workload in own {
            self.release(&workload);
        }
    }

    fn withdraw(&mut self, owner: &Owner) {
        let account = owner.account();
        if let Some(waiting) = self.waiting.get_mut(account) {
            waiting.retain(|(_, waits), _| waits != owner);
            if waiting.is_empty() {
                self.waiting.remove(account);
            }
        }
    }

    /// Gives room to those who are next, as long as there is some; says to whom.
    pub fn admit(&mut self) -> Vec<Owner> {
        let mut granted = Vec::new();
        while let Some(place) = next(&self.capacity, &self.waiting, &self.by_account) {
            let account = place.1.account().clone();
            let Some(waiting) = self.waiting.get_mut(&account) else {
                break;
            };
            let fits = |request: &Request| self.capacity.holds(self.total.and(request.amount()), 100);
            if !waiting.get(&place).is_some_and(fits) {
                break;
            }
            let Some(request) = waiting.remove(&place) else { break };
            if waiting.is_empty() {
                self.waiting.remove(&account);
            }
            for one in request.instances {
                self.keep(&request.owner, one);
            }
            granted.push(request.owner);
        }
        granted
    }

    /// What may be held.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// What is held.
    pub fn total(&self) -> Amount {
        self.total
    }

    /// Every instance with room.
    pub fn held(&self) -> &BTreeMap<WorkloadId, Hold> {
        &self.held
    }

    /// Those who wait, in the order in which they would get room if nothing else came and nothing were given back.
    pub fn order(&self) -> Vec<Request> {
        let (mut waiting, mut parts) = (self.waiting.clone(), self.by_account.clone());
        // An account that has its part already comes last.
        let whole = Capacity {
            account_percent: 100,
            ..self.capacity
        };
        let mut order = Vec::new();
        loop {
            let found = next(&self.capacity, &waiting, &parts).or_else(|| {
                let unlimited = BTreeMap::new();
                next(&whole, &waiting, &unlimited)
            });
            let Some(place) = found else { return order };
            let account = place.1.account().clone();
            let Some(own) = waiting.get_mut(&account) else {
                return order;
            };
            if let Some(request) = own.remove(&place) {
                let part = parts.entry(account.clone()).or_default();
                *part = part.and(request.amount());
                order.push(request);
            }
            if own.is_empty() {
                waiting.remove(&account);
            }
        }
    }
}

/// Who is next: of the accounts that may have more, the one with the smallest share; of equals the one whose first request is
/// the oldest.
fn next(
    capacity: &Capacity,
    waiting: &BTreeMap<AccountId, BTreeMap<(Timestamp, Owner), Request>>,
    parts: &BTreeMap<AccountId, Amount>,
) -> Option<(Timestamp, Owner)> {
    let heads = waiting.iter().filter_map(|(account, own)| {
        let (place, request) = own.first_key_value()?;
        let part = parts.get(account).copied().unwrap_or_default();
        let may = capacity.holds(part.and(request.amount()), capacity.account_percent);
        may.then(|| (capacity.share(part), place))
    });
    heads.min().map(|(_, place)| place.clone())
}

impl Wanted {
    /// Several equal instances.
    pub fn each(workloads: impl IntoIterator<Item = WorkloadId>, instance_type: &str, amount: Amount) -> Vec<Self> {
        let one = |workload| Self {
            workload,
            instance_type: instance_type.to_owned(),
            amount,
        };
        workloads.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
