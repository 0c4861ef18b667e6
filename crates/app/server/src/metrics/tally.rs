//! What invocations were like, counted where they run: each lane has its own counters, so that no invocation waits for
//! another one's, and `take` gathers them now and then.

use isolarium_model::Key;
use isolarium_model::metrics::StatisticSet;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the latency histogram, microseconds; longer ones are counted behind the last.
pub const BOUNDS: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// Counts of the invocations of one variant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub invocations: u64,
    /// The model answered with a status of 400 to 499.
    pub model_4xx: u64,
    /// The model answered with a status of 500 or more.
    pub model_5xx: u64,
    /// The model answered with no success, or not at all.
    pub model_errors: u64,
    /// Microseconds that the model took, of those that it answered.
    pub model: Option<StatisticSet>,
    /// Microseconds of everything else.
    pub overhead: Option<StatisticSet>,
    /// Model latencies by [`BOUNDS`], and those beyond.
    pub histogram: [u64; BOUNDS.len() + 1],
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.invocations = self.invocations.saturating_add(other.invocations);
        self.model_4xx = self.model_4xx.saturating_add(other.model_4xx);
        self.model_5xx = self.model_5xx.saturating_add(other.model_5xx);
        self.model_errors = self.model_errors.saturating_add(other.model_errors);
        self.model = both(self.model, other.model);
        self.overhead = both(self.overhead, other.overhead);
        for (own, more) in self.histogram.iter_mut().zip(other.histogram) {
            *own = own.saturating_add(more);
        }
    }

    fn one(&mut self, model: Option<Duration>, whole: Duration, status: Option<u16>) {
        let good = status.is_some_and(|status| (200..300).contains(&status));
        self.invocations = self.invocations.saturating_add(1);
        self.model_errors = self.model_errors.saturating_add(u64::from(!good));
        self.model_4xx = self
            .model_4xx
            .saturating_add(u64::from(status.is_some_and(|status| (400..500).contains(&status))));
        self.model_5xx = self
            .model_5xx
            .saturating_add(u64::from(status.is_some_and(|status| status >= 500)));
        let Some(model) = model else { return };
        self.model = both(self.model, Some(microseconds(model)));
        self.overhead = both(self.overhead, Some(microseconds(whole.saturating_sub(model))));
        let took = u64::try_from(model.as_micros()).unwrap_or(u64::MAX);
        let slot = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        if let Some(slot) = self.histogram.get_mut(slot) {
            *slot = slot.saturating_add(1);
        }
    }
}

fn microseconds(time: Duration) -> StatisticSet {
    StatisticSet::of(time.as_secs_f64() * 1e6, 1.0)
}

fn both(left: Option<StatisticSet>, right: Option<StatisticSet>) -> Option<StatisticSet> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.and(right)),
        (one, None) | (None, one) => one,
    }
}

/// The variants of one endpoint. An endpoint has few, so they are searched one by one.
#[derive(Debug)]
pub struct OfEndpoint {
    /// In the case that it was created with.
    pub name: String,
    pub variants: Vec<(String, Counts)>,
}

impl OfEndpoint {
    /// The counts of a variant, made where they are missing.
    pub fn variant(&mut self, name: &str) -> &mut Counts {
        let at = self.variants.iter().position(|(own, _)| own == name);
        let at = at.unwrap_or_else(|| {
            self.variants.push((name.to_owned(), Counts::default()));
            self.variants.len().saturating_sub(1)
        });
        // There is one at this place, found or just made.
        #[expect(clippy::indexing_slicing, reason = "the place was found or made in the lines before")]
        &mut self.variants[at].1
    }
}

/// Counts by endpoint.
pub type Counted = HashMap<Key, OfEndpoint, foldhash::fast::RandomState>;

/// The counters of all lanes.
pub struct Tally {
    shards: Vec<Mutex<Counted>>,
}

/// Shards; more lanes than this share some.
const SHARDS: usize = 16;

impl Default for Tally {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Tally {
    /// Begins to count an invocation that a variant was picked for; it is counted when the value is dropped, also when
    /// its caller went away.
    pub fn begin<'a>(&'a self, endpoint: &'a Key, name: &'a str, variant: &str) -> Lap<'a> {
        Lap {
            tally: self,
            endpoint,
            name,
            variant: variant.to_owned(),
            begun: Instant::now(),
            model: None,
            status: None,
        }
    }

    /// Takes everything that was counted since the last time.
    pub fn take(&self) -> Vec<Counted> {
        let shards = self.shards.iter();
        shards
            .map(|shard| std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner)))
            .collect()
    }
}

/// An invocation that runs.
pub struct Lap<'a> {
    tally: &'a Tally,
    endpoint: &'a Key,
    name: &'a str,
    variant: String,
    begun: Instant,
    model: Option<Duration>,
    status: Option<u16>,
}

impl Lap<'_> {
    /// The model has answered with this status.
    pub fn answered(&mut self, status: u16) {
        self.model = Some(self.begun.elapsed());
        self.status = Some(status);
    }
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        let shards = &self.tally.shards;
        let Some(shard) = crate::lanes::here()
            .checked_rem(shards.len())
            .and_then(|at| shards.get(at))
        else {
            return;
        };
        let mut counted = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = self.begun.elapsed();
        if let Some(endpoint) = counted.get_mut(self.endpoint) {
            endpoint.variant(&self.variant).one(self.model, whole, self.status);
            return;
        }
        let mut endpoint = OfEndpoint {
            name: self.name.to_owned(),
            variants: Vec::new(),
        };
        endpoint.variant(&self.variant).one(self.model, whole, self.status);
        counted.insert(self.endpoint.clone(), endpoint);
    }
}
