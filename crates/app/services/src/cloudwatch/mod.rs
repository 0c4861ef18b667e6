//! Handlers of the `cloudwatch` service: metrics, those that callers put and those of the platform (`platform`).

mod data;
mod list;
mod math;
pub mod platform;
mod put;
mod statistics;

use crate::dispatch::{Handler, handler};
use isolarium_model::Timestamp;
use isolarium_model::metrics::{MetricKey, StatisticSet};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::cloudwatch as shapes;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::GetMetricDataInput>(),
        handler::<shapes::GetMetricStatisticsInput>(),
        handler::<shapes::ListMetricsInput>(),
        handler::<shapes::PutMetricDataInput>(),
    ]
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterValueException", message)
}

fn combination(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterCombinationException", message)
}

fn lacking(member: &str) -> ApiError {
    ApiError::client(
        "MissingRequiredParameterException",
        format!("The parameter {member} is required."),
    )
}

/// The series that a request means.
fn key(namespace: &str, name: &str, dimensions: Option<&Vec<shapes::Dimension>>) -> Result<MetricKey, ApiError> {
    let mut key = MetricKey::of(namespace, name, &[]);
    for dimension in dimensions.into_iter().flatten() {
        let twice = key.dimensions.insert(dimension.name.clone(), dimension.value.clone());
        if twice.is_some() {
            return Err(invalid(format!(
                "The value {} for parameter Dimensions is invalid: a dimension may be given once.",
                dimension.name
            )));
        }
    }
    Ok(key)
}

fn shown(key: MetricKey) -> shapes::Metric {
    let dimensions = key.dimensions.into_iter();
    shapes::Metric {
        namespace: Some(key.namespace),
        metric_name: Some(key.name),
        dimensions: Some(
            dimensions
                .map(|(name, value)| shapes::Dimension { name, value })
                .collect(),
        ),
    }
}

/// A statistic that is kept. Percentiles and trimmed means would need every single value.
fn statistic(name: &str) -> Option<shapes::Statistic> {
    name.parse().ok()
}

fn value(set: StatisticSet, statistic: shapes::Statistic) -> f64 {
    match statistic {
        shapes::Statistic::SampleCount => set.count,
        shapes::Statistic::Average => set.sum / set.count,
        shapes::Statistic::Sum => set.sum,
        shapes::Statistic::Minimum => set.min,
        shapes::Statistic::Maximum => set.max,
    }
}

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// A period in milliseconds, from the seconds of a request.
fn period(seconds: i64) -> Result<i64, ApiError> {
    let sound = matches!(seconds, 1 | 5 | 10 | 20 | 30) || (seconds > 0 && seconds % MINUTE == 0 && seconds <= DAY);
    if sound {
        return Ok(seconds.saturating_mul(1000));
    }
    Err(invalid(format!(
        "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60, and not more than {DAY}: {seconds}."
    )))
}

/// Where the first period begins: a whole minute, and coarser for times whose fine values are gone.
fn begin(start: i64, period: i64, now: Timestamp) -> Timestamp {
    let age = now.0.saturating_sub(start);
    let step = match age / 1000 {
        age if age > 63 * DAY => 3600 * 1000,
        age if age > 15 * DAY => 300 * 1000,
        _ => period.min(MINUTE * 1000),
    };
    Timestamp(start.div_euclid(step).saturating_mul(step))
}

#[cfg(test)]
mod tests;
