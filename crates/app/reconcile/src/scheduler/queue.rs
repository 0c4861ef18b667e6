//! The queue as a value: what is held, who waits, and who comes next. Nothing here looks at a clock or a host; the time is
//! told ([`Queue::at`]).

use isolarium_model::sagemaker::Endpoint;
use isolarium_model::{AccountId, Key, Record, Timestamp, WorkloadId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a request that would fit is kept back for another account's that comes first and does not fit yet.
const TURN: Duration = Duration::from_secs(600);

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

    /// Whether an amount takes anything that is limited.
    fn counts(&self, amount: Amount) -> bool {
        let counts = |limit: Option<u64>, wanted: u64| limit.is_some() && wanted > 0;
        counts(self.vcpus, amount.vcpus) || counts(self.memory_mib, amount.memory_mib) || amount.accelerators > 0
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

    /// Whether what it holds is given back by nobody but its user: endpoints serve until they are deleted, all else ends.
    fn lasts(&self) -> bool {
        self.kind == Endpoint::KIND
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

/// Room that nobody uses, kept for a job like the one that left it. It is part of no sum that decides who gets room: whoever
/// needs it gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Since when it is kept.
    pub since: Timestamp,
    pub instance_type: String,
    pub instances: u64,
    /// Of all instances together.
    pub amount: Amount,
}

/// A place in the order of an account: when the owner was asked for, then who it is.
type Place = (Timestamp, Owner);

/// What is held and who waits. Room is given to the account that holds the smallest share, among equals and within an
/// account in the order of requests; whoever comes first is waited for, so that small requests do not overtake a large one
/// for ever. Waiting has two bounds, or one request could stop all accounts: what does not fit beside the endpoints that
/// serve is set aside until one of these gives room back, and a request that fits is kept back for ten minutes at most.
#[derive(Debug, Default)]
pub struct Queue {
    capacity: Capacity,
    held: BTreeMap<WorkloadId, Hold>,
    /// Sum of `held`.
    total: Amount,
    /// The part of each account; no account without any.
    by_account: BTreeMap<AccountId, Amount>,
    /// The part of `total` that endpoints hold.
    lasting: Amount,
    waiting: BTreeMap<AccountId, BTreeMap<Place, Request>>,
    /// Those that cannot fit beside `lasting`.
    aside: BTreeMap<Place, Request>,
    /// Where each owner stands in `waiting` or `aside`.
    places: BTreeMap<Owner, Timestamp>,
    now: Duration,
    /// Since when a request that fits is kept back for one that does not.
    kept_back: Option<Duration>,
    /// Room kept for jobs that fit. INVARIANT (pools-fit): with `total` it is never more than there is.
    pools: BTreeMap<Owner, Pool>,
    /// Those whose pool was needed by others since [`Self::take_given_up`].
    given_up: Vec<Owner>,
}

impl Queue {
    /// An empty queue.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Tells the time, from any fixed moment on.
    pub fn at(&mut self, now: Duration) {
        self.now = now;
    }

    /// Whether [`Self::admit`] would let somebody in for no other reason than that time went by.
    pub fn overdue(&self) -> bool {
        self.kept_back
            .is_some_and(|since| self.now.saturating_sub(since) >= TURN)
    }

    /// Asks for room; a request of the same owner that waits is replaced. The owners that got room meanwhile are added to
    /// `granted`.
    pub fn ask(&mut self, mut request: Request, granted: &mut Vec<Owner>) -> Answer {
        request.instances.retain(|one| !self.held.contains_key(&one.workload));
        let amount = request.amount();
        let never = !self.capacity.holds(amount, self.capacity.account_percent);
        if request.instances.is_empty() || never {
            if self.withdraw(&request.owner) {
                granted.extend(self.admit());
            }
            return if never { Answer::Never } else { Answer::Granted };
        }
        if !self.capacity.counts(amount) {
            // It takes nothing that anybody waits for.
            self.withdraw(&request.owner);
            for one in request.instances {
                self.keep(&request.owner, one);
            }
            return Answer::Granted;
        }
        if self.waits(&request) {
            // Everybody asks whenever anything happens on the host; whatever gives room back admits by itself.
            return Answer::Waits;
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
        self.withdraw(&request.owner);
        let account = request.owner.account().clone();
        let place = (request.since, request.owner.clone());
        self.places.insert(request.owner.clone(), request.since);
        self.waiting.entry(account).or_default().insert(place, request);
    }

    /// Notes an instance that has its room already, whatever there is.
    pub fn keep(&mut self, owner: &Owner, one: Wanted) {
        self.release(&one.workload);
        self.total = self.total.and(one.amount);
        if owner.lasts() {
            self.lasting = self.lasting.and(one.amount);
        }
        let account = self.by_account.entry(owner.account().clone()).or_default();
        *account = account.and(one.amount);
        let hold = Hold {
            owner: owner.clone(),
            instance_type: one.instance_type,
            amount: one.amount,
        };
        self.held.insert(one.workload, hold);
        self.squeeze();
    }

    /// Lets an instance take over the room of another of the same owner. Without that room nothing happens.
    pub fn succeed(&mut self, old: &WorkloadId, new: &WorkloadId) {
        if let Some(hold) = self.held.remove(old) {
            self.held.insert(new.clone(), hold);
        }
    }

    /// Gives the room of an owner's `old` instances to those of a request of its own, and what is free where that is not
    /// enough, ahead of all who wait. What the old ones have more is kept with the new ones until [`Self::trim`], so that
    /// the way back is open too. Says whether it did; else nothing changes. What has room already stays as it is.
    pub fn exchange(&mut self, old: &[WorkloadId], request: &Request) -> bool {
        let fresh: Vec<&Wanted> = request
            .instances
            .iter()
            .filter(|one| !self.held.contains_key(&one.workload))
            .collect();
        if fresh.is_empty() {
            // What waited is wanted no more.
            self.withdraw(&request.owner);
            return true;
        }
        let own = |workload: &&WorkloadId| self.held.get(*workload).is_some_and(|hold| hold.owner == request.owner);
        let given = old.iter().filter(own).filter_map(|workload| self.held.get(workload));
        let given = given.fold(Amount::default(), |sum, hold| sum.and(hold.amount));
        let wanted = fresh.iter().fold(Amount::default(), |sum, one| sum.and(one.amount));
        let excess = given.without(wanted);
        let after = |sum: Amount| sum.without(given).and(wanted).and(excess);
        let part = self
            .by_account
            .get(request.owner.account())
            .copied()
            .unwrap_or_default();
        let more = wanted.without(given);
        let fits = self.capacity.holds(after(self.total), 100)
            && self.capacity.holds(after(part), self.capacity.account_percent);
        if more != Amount::default() && !fits {
            return false;
        }
        self.withdraw(&request.owner);
        for workload in old {
            if self.held.get(workload).is_some_and(|hold| hold.owner == request.owner) {
                self.release(workload);
            }
        }
        let mut excess = excess;
        for one in fresh {
            let amount = one.amount.and(std::mem::take(&mut excess));
            self.keep(&request.owner, Wanted { amount, ..one.clone() });
        }
        true
    }

    /// Gives back what an instance holds above `amount`. [`Self::admit`] says who gets it.
    pub fn trim(&mut self, workload: &WorkloadId, amount: Amount) {
        let Some(hold) = self.held.get(workload) else { return };
        if hold.amount == amount {
            return;
        }
        let (owner, instance_type) = (hold.owner.clone(), hold.instance_type.clone());
        let workload = workload.clone();
        self.keep(
            &owner,
            Wanted {
                workload,
                instance_type,
                amount,
            },
        );
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
        if hold.owner.lasts() {
            self.lasting = self.lasting.without(hold.amount);
            self.take_back();
        }
    }

    /// Puts those back into the order that were set aside and fit beside what serves now.
    fn take_back(&mut self) {
        let (able, aside) = std::mem::take(&mut self.aside)
            .into_iter()
            .partition(|(_, request)| self.capacity.holds(self.lasting.and(request.amount()), 100));
        self.aside = aside;
        let able: BTreeMap<Place, Request> = able;
        for (place, request) in able {
            let account = place.1.account().clone();
            self.waiting.entry(account).or_default().insert(place, request);
        }
    }

    /// Takes back all that an owner has and waits for.
    pub fn leave(&mut self, owner: &Owner) {
        self.withdraw(owner);
        self.pools.remove(owner);
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

    fn waits(&self, request: &Request) -> bool {
        let place = (request.since, request.owner.clone());
        let waiting = self.waiting.get(request.owner.account());
        let found = waiting
            .and_then(|own| own.get(&place))
            .or_else(|| self.aside.get(&place));
        found.is_some_and(|found| found == request)
    }

    /// Takes an owner out of the order; says whether it was there.
    fn withdraw(&mut self, owner: &Owner) -> bool {
        let since = self.places.remove(owner);
        since.is_some_and(|since| self.take(&(since, owner.clone())).is_some())
    }

    /// Takes a request out of the order.
    fn take(&mut self, place: &Place) -> Option<Request> {
        let account = place.1.account();
        let Some(waiting) = self.waiting.get_mut(account) else {
            return self.aside.remove(place);
        };
        let found = waiting.remove(place);
        if waiting.is_empty() {
            self.waiting.remove(account);
        }
        found.or_else(|| self.aside.remove(place))
    }

    /// Gives room to those who are next, as long as there is some; says to whom.
    pub fn admit(&mut self) -> Vec<Owner> {
        let mut granted = Vec::new();
        let overdue = self.overdue();
        // Accounts whose first request does not fit yet.
        let mut waited_for = BTreeSet::new();
        while let Some((place, amount)) = next(&self.capacity, &self.waiting, &self.by_account, &waited_for) {
            if self.capacity.holds(self.total.and(amount), 100) {
                if !waited_for.is_empty() && !overdue {
                    self.kept_back.get_or_insert(self.now);
                    self.give_up_pools();
                    return granted;
                }
                self.places.remove(&place.1);
                let Some(request) = self.take(&place) else { break };
                for one in request.instances {
                    self.keep(&request.owner, one);
                }
                granted.push(request.owner);
            } else if self.capacity.holds(self.lasting.and(amount), 100) {
                waited_for.insert(place.1.account().clone());
            } else if let Some(request) = self.take(&place) {
                self.aside.insert(place, request);
            }
        }
        self.kept_back = None;
        if !waited_for.is_empty() {
            self.give_up_pools();
        }
        granted
    }

    /// Makes the room of an owner that has ended a pool. Without any nothing happens.
    pub fn shelve(&mut self, owner: &Owner, since: Timestamp) {
        let own = self.held.iter().filter(|(_, hold)| hold.owner == *owner);
        let own: Vec<(WorkloadId, Hold)> = own.map(|(workload, hold)| (workload.clone(), hold.clone())).collect();
        let Some((_, first)) = own.first() else { return };
        let instance_type = first.instance_type.clone();
        let mut pool = Pool {
            since,
            instance_type,
            instances: 0,
            amount: Amount::default(),
        };
        for (workload, hold) in own {
            pool.instances = pool.instances.saturating_add(1);
            pool.amount = pool.amount.and(hold.amount);
            self.release(&workload);
        }
        self.pools.insert(owner.clone(), pool);
        self.squeeze();
    }

    /// Notes a pool that was kept already.
    pub fn keep_pool(&mut self, request: Request, since: Timestamp) {
        let instance_type = request.instances.first().map(|one| one.instance_type.clone());
        let pool = Pool {
            since,
            instance_type: instance_type.unwrap_or_default(),
            instances: u64::try_from(request.instances.len()).unwrap_or(u64::MAX),
            amount: request.amount(),
        };
        self.pools.insert(request.owner, pool);
        self.squeeze();
    }

    /// Gives the room of a pool to a request that asks for no more, ahead of all who wait: they did not need it, or the pool
    /// would be gone. Says whether it did.
    pub fn reuse(&mut self, pool: &Owner, request: &Request) -> bool {
        let amount = request.amount();
        let part = self.by_account.get(request.owner.account()).copied();
        let may = self
            .capacity
            .holds(part.unwrap_or_default().and(amount), self.capacity.account_percent);
        if !may || self.pools.get(pool).is_none_or(|kept| kept.amount != amount) {
            return false;
        }
        self.pools.remove(pool);
        self.withdraw(&request.owner);
        for one in &request.instances {
            self.keep(&request.owner, one.clone());
        }
        true
    }

    /// Owners whose room is kept, the longest kept first.
    pub fn pools(&self) -> Vec<Owner> {
        let mut pools: Vec<(Timestamp, &Owner)> = self.pools.iter().map(|(owner, pool)| (pool.since, owner)).collect();
        pools.sort_unstable();
        pools.into_iter().map(|(_, owner)| owner.clone()).collect()
    }

    /// Every pool with its owner.
    pub fn kept(&self) -> impl Iterator<Item = (&Owner, &Pool)> {
        self.pools.iter()
    }

    /// Owners whose pools were given up since the last call.
    pub fn take_given_up(&mut self) -> Vec<Owner> {
        std::mem::take(&mut self.given_up)
    }

    /// Gives up pools, the longest kept first, until the others have room beside what is held.
    fn squeeze(&mut self) {
        for owner in self.pools() {
            let kept = self.pools.values().fold(self.total, |sum, pool| sum.and(pool.amount));
            if self.capacity.holds(kept, 100) {
                return;
            }
            self.pools.remove(&owner);
            self.given_up.push(owner);
        }
    }

    /// Somebody waits for room: none is kept any more that counts.
    fn give_up_pools(&mut self) {
        let capacity = self.capacity;
        let (needed, kept) = std::mem::take(&mut self.pools)
            .into_iter()
            .partition(|(_, pool)| capacity.counts(pool.amount));
        self.pools = kept;
        let needed: BTreeMap<Owner, Pool> = needed;
        self.given_up.extend(needed.into_keys());
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

    /// Those who wait, in the order in which they would get room if nothing else came and nothing were given back; last those
    /// for whom there is no room beside what serves.
    pub fn order(&self) -> Vec<Request> {
        let (mut waiting, mut parts) = (self.waiting.clone(), self.by_account.clone());
        // An account that has its part already comes last.
        let whole = Capacity {
            account_percent: 100,
            ..self.capacity
        };
        let (mut order, nobody) = (Vec::new(), BTreeSet::new());
        loop {
            let found = next(&self.capacity, &waiting, &parts, &nobody).or_else(|| {
                let unlimited = BTreeMap::new();
                next(&whole, &waiting, &unlimited, &nobody)
            });
            let Some((place, _)) = found else { break };
            let account = place.1.account().clone();
            let Some(own) = waiting.get_mut(&account) else { break };
            if let Some(request) = own.remove(&place) {
                let part = parts.entry(account.clone()).or_default();
                *part = part.and(request.amount());
                order.push(request);
            }
            if own.is_empty() {
                waiting.remove(&account);
            }
        }
        order.extend(self.aside.values().cloned());
        order
    }
}

/// Who is next, and what it asks for: of the accounts that may have more and are not among `but`, the one with the smallest
/// share; of equals the one whose first request is the oldest.
fn next(
    capacity: &Capacity,
    waiting: &BTreeMap<AccountId, BTreeMap<Place, Request>>,
    parts: &BTreeMap<AccountId, Amount>,
    but: &BTreeSet<AccountId>,
) -> Option<(Place, Amount)> {
    let others = waiting.iter().filter(|(account, _)| !but.contains(account));
    let heads = others.filter_map(|(account, own)| {
        let (place, request) = own.first_key_value()?;
        let part = parts.get(account).copied().unwrap_or_default();
        let may = capacity.holds(part.and(request.amount()), capacity.account_percent);
        may.then(|| (capacity.share(part), place, request))
    });
    let first = heads.min_by_key(|(share, place, _)| (*share, *place));
    first.map(|(_, place, request)| (place.clone(), request.amount()))
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
