//! Metrics as CloudWatch keeps them: numbers under a namespace, a name and dimensions, folded into statistics.

use crate::Timestamp;
use std::collections::BTreeMap;

/// What a series of numbers is about. Two series with different dimensions are two series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricKey {
    pub namespace: String,
    pub name: String,
    pub dimensions: BTreeMap<String, String>,
}

impl MetricKey {
    /// A series of the platform's own.
    pub fn of(namespace: &str, name: &str, dimensions: &[(&str, &str)]) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            dimensions: dimensions
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
        }
    }
}

/// What is kept of any number of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatisticSet {
    /// How many values; not always a whole number, because callers may count in fractions.
    pub count: f64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl StatisticSet {
    /// Of one value that was seen `count` times.
    pub fn of(value: f64, count: f64) -> Self {
        Self {
            count,
            sum: value * count,
            min: value,
            max: value,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// Statistics of a series at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub key: MetricKey,
    pub at: Timestamp,
    /// AWS's name of the unit, `None` in words where there is none.
    pub unit: String,
    /// Kept to the second for a while, not only to the minute.
    pub fine: bool,
    pub statistics: StatisticSet,
}
