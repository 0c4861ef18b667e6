//! GetMetricStatistics.

use super::{begin, combination, invalid, key, period, shapes, value};
use crate::{Ctx, Operation};
use isolarium_model::Timestamp;
use isolarium_policy::{Granted, Question};
use isolarium_store::metrics::Span;
use isolarium_wire::ApiError;

/// Most data points of an answer.
const MOST_POINTS: i64 = 1440;

impl Operation for shapes::GetMetricStatisticsInput {
    const SERVICE: &'static str = "cloudwatch";
    const NAME: &'static str = "GetMetricStatistics";
    type Output = shapes::GetMetricStatisticsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("cloudwatch:GetMetricStatistics")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.extended_statistics.is_some() {
            return Err(invalid(
                "The parameter ExtendedStatistics is not supported: percentiles are not kept. Use Statistics.",
            ));
        }
        let Some(wanted) = request.statistics.filter(|all| !all.is_empty()) else {
            return Err(combination(
                "At least one of the parameters Statistics and ExtendedStatistics must be specified.",
            ));
        };
        if request.start_time >= request.end_time {
            return Err(combination(
                "The parameter StartTime must be less than the parameter EndTime.",
            ));
        }
        let length = period(request.period)?;
        let from = begin(request.start_time, length, ctx.clock.now());
        let points = request.end_time.saturating_sub(from.0) / length;
        if points > MOST_POINTS {
            return Err(combination(format!(
                "You have requested up to {points} datapoints, which exceeds the limit of {MOST_POINTS}. You may reduce \
                 the datapoints requested by increasing Period, or decreasing the time range."
            )));
        }
        let series = key(&request.namespace, &request.metric_name, request.dimensions.as_ref())?;
        let span = Span {
            from,
            to: Timestamp(request.end_time),
            period: length,
            unit: request.unit.map(shapes::StandardUnit::as_str),
        };
        let found = ctx
            .metrics
            .read(&ctx.caller.scope, &series, span)
            .map_err(ApiError::internal)?;
        let datapoints = found.into_iter().map(|point| {
            let one =
                |statistic: shapes::Statistic| wanted.contains(&statistic).then(|| value(point.statistics, statistic));
            shapes::Datapoint {
                timestamp: Some(point.at.0),
                sample_count: one(shapes::Statistic::SampleCount),
                average: one(shapes::Statistic::Average),
                sum: one(shapes::Statistic::Sum),
                minimum: one(shapes::Statistic::Minimum),
                maximum: one(shapes::Statistic::Maximum),
                unit: point.unit.parse().ok(),
                extended_statistics: None,
            }
        });
        Ok(shapes::GetMetricStatisticsOutput {
            label: Some(request.metric_name),
            datapoints: Some(datapoints.collect()),
        })
    }
}
