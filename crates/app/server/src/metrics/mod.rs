//! The platform's own metrics: of invocations, for CloudWatch once a minute and for the operator's Prometheus.

pub mod listener;
pub mod prometheus;
pub mod tally;

use isolarium_model::Key;
use isolarium_model::metrics::{MetricKey, Sample, StatisticSet};
use isolarium_model::time::Clock;
use isolarium_services::cloudwatch::platform::INVOCATIONS;
use isolarium_store::Metrics;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tally::{Counted, Counts, Tally};

/// Gathers what the lanes counted.
pub struct Collector {
    tally: Arc<Tally>,
    store: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    /// Since the start.
    totals: Counted,
    /// Since the metrics were last put.
    fresh: Counted,
}

impl Collector {
    /// Over the lanes' counters and a store.
    pub fn new(tally: Arc<Tally>, store: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self {
            tally,
            store,
            clock,
            gathered: Mutex::default(),
        }
    }

    fn gather(&self) -> MutexGuard<'_, Gathered> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        for counted in self.tally.take() {
            add(&mut gathered.totals, &counted);
            add(&mut gathered.fresh, &counted);
        }
        gathered
    }

    /// Every variant's counts since the start.
    pub fn totals(&self) -> Vec<(Key, String, String, Counts)> {
        let gathered = self.gather();
        let mut all: Vec<_> = flat(&gathered.totals)
            .map(|(key, name, variant, counts)| (key.clone(), name.to_owned(), variant.to_owned(), counts.clone()))
            .collect();
        all.sort_by(|a, b| (&a.0, &a.2).cmp(&(&b.0, &b.2)));
        all
    }

    /// Puts what came since the last time into the metrics of the endpoints' accounts. What cannot be put is lost: metrics
    /// are no records. Blocks.
    pub fn put(&self) {
        let fresh = std::mem::take(&mut self.gather().fresh);
        let now = self.clock.now();
        let mut by_scope = std::collections::BTreeMap::new();
        for (key, name, variant, counts) in flat(&fresh) {
            let samples: &mut Vec<Sample> = by_scope.entry(key.scope.clone()).or_default();
            samples.extend(told(counts).map(|(metric, unit, statistics)| Sample {
                key: MetricKey::of(INVOCATIONS, metric, &[("EndpointName", name), ("VariantName", variant)]),
                at: now,
                unit: unit.into(),
                fine: false,
                statistics,
            }));
        }
        for (scope, samples) in by_scope {
            if let Err(error) = self.store.put(&scope, samples) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the metrics of invocations could not be kept");
            }
        }
    }

    /// Puts the metrics every `interval`, for ever.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let collector = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || collector.put()).await {
                tracing::error!(%error, "collecting metrics failed");
            }
        }
    }
}

fn add(onto: &mut Counted, more: &Counted) {
    for (key, endpoint) in more {
        let own = onto.entry(key.clone()).or_insert_with(|| tally::OfEndpoint {
            name: endpoint.name.clone(),
            variants: Vec::new(),
        });
        own.name.clone_from(&endpoint.name);
        for (variant, counts) in &endpoint.variants {
            own.variant(variant).add(counts);
        }
    }
}

fn flat(counted: &Counted) -> impl Iterator<Item = (&Key, &str, &str, &Counts)> {
    counted.iter().flat_map(|(key, endpoint)| {
        let variants = endpoint.variants.iter();
        variants.map(move |(variant, counts)| (key, endpoint.name.as_str(), variant.as_str(), counts))
    })
}

/// AWS's names of the metrics of a variant, their units and statistics. Errors are 0 or 1 for each invocation, so that
/// their average is the rate of failure.
fn told(counts: &Counts) -> impl Iterator<Item = (&'static str, &'static str, StatisticSet)> {
    let all = amount(counts.invocations);
    let share = move |of: u64| StatisticSet {
        count: all,
        sum: amount(of),
        min: if of < counts.invocations { 0.0 } else { 1.0 },
        max: if of > 0 { 1.0 } else { 0.0 },
    };
    let each = [
        ("Invocations", "None", Some(StatisticSet::of(1.0, all))),
        ("Invocation4XXErrors", "None", Some(share(counts.model_4xx))),
        ("Invocation5XXErrors", "None", Some(share(counts.model_5xx))),
        ("InvocationModelErrors", "None", Some(share(counts.model_errors))),
        ("ModelLatency", "Microseconds", counts.model),
        ("OverheadLatency", "Microseconds", counts.overhead),
    ];
    each.into_iter()
        .filter_map(|(name, unit, statistics)| Some((name, unit, statistics?)))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a minute are far below 2 to the power of 53"
)]
fn amount(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
