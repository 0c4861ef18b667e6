//! PutMetricData.

use super::{combination, invalid, key, lacking, shapes};
use crate::{Ctx, Operation};
use isolarium_model::Timestamp;
use isolarium_model::metrics::{Sample, StatisticSet};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;

/// Most metrics of a request.
const MOST_METRICS: usize = 1000;
/// Most different values of one metric.
const MOST_VALUES: usize = 150;
/// How far a time may lie back, and ahead: milliseconds.
const PAST: i64 = 14 * 86_400_000;
const AHEAD: i64 = 2 * 3_600_000;
/// Values beyond this size are refused: 2 to the power of 360.
const LARGEST: f64 = 2.348_542_582_773_833e108;

impl Operation for shapes::PutMetricDataInput {
    const SERVICE: &'static str = "cloudwatch";
    const NAME: &'static str = "PutMetricData";
    type Output = shapes::PutMetricDataOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("cloudwatch:PutMetricData").with("cloudwatch:namespace", self.namespace.clone())]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.entity_metric_data.is_some() {
            return Err(invalid("EntityMetricData is not supported; give MetricData."));
        }
        if request.namespace.starts_with("AWS/") {
            return Err(invalid(format!(
                "The value {} for parameter Namespace is invalid: namespaces beginning with AWS/ are reserved.",
                request.namespace
            )));
        }
        let data = request.metric_data.unwrap_or_default();
        if data.is_empty() {
            return Err(lacking("MetricData"));
        }
        if data.len() > MOST_METRICS {
            return Err(invalid(format!(
                "The collection MetricData must not have a size greater than {MOST_METRICS}."
            )));
        }
        let now = ctx.clock.now();
        let samples: Result<Vec<Sample>, ApiError> = data
            .iter()
            .map(|datum| sample(&request.namespace, datum, now))
            .collect();
        let samples = samples?;
        ctx.metrics
            .put(&ctx.caller.scope, samples)
            .map_err(ApiError::internal)?;
        Ok(shapes::PutMetricDataOutput {})
    }
}

fn sample(namespace: &str, datum: &shapes::MetricDatum, now: Timestamp) -> Result<Sample, ApiError> {
    let at = datum.timestamp.unwrap_or(now.0);
    if at < now.0.saturating_sub(PAST) || at > now.0.saturating_add(AHEAD) {
        return Err(invalid(
            "The parameter MetricData.member.N.Timestamp must specify a time within the past two weeks and not more \
             than two hours in the future.",
        ));
    }
    if datum
        .storage_resolution
        .is_some_and(|seconds| seconds != 1 && seconds != 60)
    {
        return Err(invalid("The parameter StorageResolution must be 1 or 60."));
    }
    Ok(Sample {
        key: key(namespace, &datum.metric_name, datum.dimensions.as_ref())?,
        at: Timestamp(at),
        unit: datum.unit.unwrap_or(shapes::StandardUnit::None).to_string(),
        fine: datum.storage_resolution == Some(1),
        statistics: statistics(datum)?,
    })
}

/// The one of the three ways to give values that the datum uses.
fn statistics(datum: &shapes::MetricDatum) -> Result<StatisticSet, ApiError> {
    let set = match (datum.value, &datum.statistic_values, &datum.values) {
        (Some(value), None, None) => StatisticSet::of(value, 1.0),
        (None, Some(given), None) => StatisticSet {
            count: given.sample_count,
            sum: given.sum,
            min: given.minimum,
            max: given.maximum,
        },
        (None, None, Some(values)) => counted(values, datum.counts.as_deref())?,
        (None, None, None) => return Err(lacking("MetricData.member.N.Value")),
        _ => {
            return Err(combination(
                "The parameters Value, StatisticValues and Values are mutually exclusive.",
            ));
        }
    };
    let sound = |value: f64| value.is_finite() && value.abs() <= LARGEST;
    if ![set.count, set.sum, set.min, set.max].into_iter().all(sound) || set.count <= 0.0 || set.min > set.max {
        return Err(invalid(format!(
            "The values of the metric {} are out of range.",
            datum.metric_name
        )));
    }
    Ok(set)
}

fn counted(values: &[f64], counts: Option<&[f64]>) -> Result<StatisticSet, ApiError> {
    if values.len() > MOST_VALUES {
        return Err(invalid(format!(
            "The collection Values must not have a size greater than {MOST_VALUES}."
        )));
    }
    if counts.is_some_and(|counts| counts.len() != values.len()) {
        return Err(invalid("The parameters Values and Counts must have the same size."));
    }
    let counts = counts.unwrap_or_default().iter().copied().chain(std::iter::repeat(1.0));
    let sets: Vec<(f64, f64)> = values.iter().copied().zip(counts).collect();
    if sets
        .iter()
        .any(|(value, count)| !value.is_finite() || count.is_nan() || *count <= 0.0)
    {
        return Err(invalid("Values must be numbers, and Counts must be above zero."));
    }
    let sets = sets.into_iter().map(|(value, count)| StatisticSet::of(value, count));
    sets.reduce(StatisticSet::and)
        .ok_or_else(|| lacking("MetricData.member.N.Values"))
}
