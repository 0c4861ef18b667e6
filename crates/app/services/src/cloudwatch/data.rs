//! GetMetricData: several series at once, and arithmetic over them.

use super::math::{Budget, Expression, Series, Spent};
use super::{begin, invalid, key, period, shapes, statistic, value};
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::Timestamp;
use isolarium_policy::{Granted, Question};
use isolarium_store::StoreError;
use isolarium_store::metrics::{Most, Span};
use isolarium_wire::ApiError;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Most queries of a request.
const MOST_QUERIES: usize = 500;
/// Most data points of an answer, and of all that is read and computed for it.
const MOST_POINTS: i64 = 100_800;
/// Most stored points that a request reads: those of long periods stand for many.
const MOST_READ: usize = 2_000_000;

/// The answer to a request whose queries and expressions together are too much.
fn too_much(_: Spent) -> ApiError {
    wrong(format!(
        "You have requested more datapoints than the limit of {MOST_POINTS}, which counts those of every query and of each \
         step of an expression. You may reduce the datapoints requested by increasing Period, or decreasing the time range."
    ))
}

/// The words of this operation for a request that makes no sense.
fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationException", message)
}

impl Operation for shapes::GetMetricDataInput {
    const SERVICE: &'static str = "cloudwatch";
    const NAME: &'static str = "GetMetricData";
    type Output = shapes::GetMetricDataOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("cloudwatch:GetMetricData")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.start_time >= request.end_time {
            return Err(wrong("The parameter EndTime must be greater than StartTime."));
        }
        if request.metric_data_queries.is_empty() || request.metric_data_queries.len() > MOST_QUERIES {
            return Err(wrong(format!(
                "The collection MetricDataQueries must have 1 to {MOST_QUERIES} members."
            )));
        }
        let most = request.max_datapoints.unwrap_or(MOST_POINTS);
        if !(1..=MOST_POINTS).contains(&most) {
            return Err(wrong(format!(
                "The parameter MaxDatapoints must be 1 to {MOST_POINTS}."
            )));
        }
        let skip = request.next_token.as_deref().map(offset).transpose()?.unwrap_or(0);
        let series = evaluated(&request, ctx)?;
        let descending = request.scan_by != Some(shapes::ScanBy::TimestampAscending);
        let mut results = Vec::new();
        let (mut passed, mut given, mut more) = (0_usize, 0_usize, false);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        for query in &request.metric_data_queries {
            if query.return_data == Some(false) {
                continue;
            }
            let points = series.get(query.id.as_str());
            let whole = points.map_or(0, BTreeMap::len);
            let first = skip.saturating_sub(passed).min(whole);
            let room = most.saturating_sub(given);
            let points = points.into_iter().flatten().map(|(at, value)| (*at, *value));
            let page: Vec<(i64, f64)> = match descending {
                true => points.rev().skip(first).take(room).collect(),
                false => points.skip(first).take(room).collect(),
            };
            passed = passed.saturating_add(whole);
            given = given.saturating_add(page.len());
            let partial = first.saturating_add(page.len()) < whole;
            more |= partial;
            let (timestamps, values) = page.into_iter().unzip();
            results.push(shapes::MetricDataResult {
                id: Some(query.id.clone()),
                label: Some(label(query)),
                timestamps: Some(timestamps),
                values: Some(values),
                status_code: Some(match partial {
                    true => shapes::StatusCode::PartialData,
                    false => shapes::StatusCode::Complete,
                }),
                messages: None,
            });
        }
        let next = skip.saturating_add(given);
        Ok(shapes::GetMetricDataOutput {
            metric_data_results: Some(results),
            next_token: more.then(|| URL_SAFE_NO_PAD.encode(next.to_string())),
            messages: Some(Vec::new()),
        })
    }
}

fn offset(token: &str) -> Result<usize, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| ApiError::client("InvalidNextToken", "The NextToken that was given is not valid."))
}

fn label(query: &shapes::MetricDataQuery) -> String {
    let own = query
        .metric_stat
        .as_ref()
        .and_then(|stat| stat.metric.metric_name.clone());
    query.label.clone().or(own).unwrap_or_else(|| query.id.clone())
}

/// Every query's values by its id. Expressions may name queries that come later, but not themselves.
fn evaluated<'a>(
    request: &'a shapes::GetMetricDataInput,
    ctx: &Ctx<'_>,
) -> Result<BTreeMap<&'a str, BTreeMap<i64, f64>>, ApiError> {
    let mut known: BTreeMap<&str, BTreeMap<i64, f64>> = BTreeMap::new();
    let mut parsed: Vec<(&str, Expression)> = Vec::new();
    let mut ids = BTreeSet::new();
    let mut budget = Budget::new(usize::try_from(MOST_POINTS).unwrap_or(usize::MAX));
    let mut reads = MOST_READ;
    for query in &request.metric_data_queries {
        let id = query.id.as_str();
        let sound = id.starts_with(|c: char| c.is_ascii_lowercase())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !sound || !ids.insert(id) {
            return Err(wrong(format!(
                "The value {id} for parameter MetricDataQueries.member.N.Id is not matching the expected pattern \
                 ^[a-z][a-zA-Z0-9_]*$, or is given twice."
            )));
        }
        if query
            .account_id
            .as_deref()
            .is_some_and(|account| account != ctx.caller.scope.account.as_str())
        {
            return Err(wrong("There are no linked accounts: AccountId must be the caller's."));
        }
        match (&query.metric_stat, &query.expression) {
            (Some(stat), None) => {
                let values = values(request, stat, ctx, &budget, &mut reads)?;
                budget.pay(values.len()).map_err(too_much)?;
                known.insert(id, values);
            }
            (None, Some(text)) => {
                let read = Expression::parse(text);
                let read = read.map_err(|why| wrong(format!("Error in expression '{id}': {why}")))?;
                parsed.push((id, read));
            }
            _ => {
                return Err(wrong(
                    "Each of MetricDataQueries needs exactly one of the parameters MetricStat and Expression.",
                ));
            }
        }
    }
    // Names that are not known yet, taken from the end as they become so.
    let mut waiting: Vec<(&str, &Expression, Vec<&str>)> = Vec::new();
    for (id, expression) in &parsed {
        let names = expression.names();
        if let Some(missing) = names.iter().find(|name| !ids.contains(*name)) {
            return Err(wrong(format!(
                "Error in expression '{id}': there is no query {missing}."
            )));
        }
        waiting.push((id, expression, names.into_iter().collect()));
    }
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut left = Vec::new();
        for (id, expression, mut names) in waiting {
            while names.last().is_some_and(|name| known.contains_key(name)) {
                names.pop();
            }
            if !names.is_empty() {
                left.push((id, expression, names));
                continue;
            }
            let worth = |name: &str| {
                known
                    .get(name)
                    .map_or(Series::Scalar(0.0), |of| Series::Values(Cow::Borrowed(of)))
            };
            match expression.evaluate(&worth, &mut budget).map_err(too_much)? {
                Series::Values(Cow::Owned(values)) => known.insert(id, values),
                // The expression is another query's id alone.
                Series::Values(Cow::Borrowed(values)) => {
                    budget.pay(values.len()).map_err(too_much)?;
                    let values = values.clone();
                    known.insert(id, values)
                }
                Series::Scalar(_) => {
                    return Err(wrong(format!("Error in expression '{id}': it must use a metric.")));
                }
            };
        }
        if left.len() == before {
            return Err(wrong("Expressions may not depend on themselves."));
        }
        waiting = left;
    }
    Ok(known)
}

/// The values of one statistic of a series, by the begin of their period in milliseconds.
fn values(
    request: &shapes::GetMetricDataInput,
    stat: &shapes::MetricStat,
    ctx: &Ctx<'_>,
    budget: &Budget,
    reads: &mut usize,
) -> Result<BTreeMap<i64, f64>, ApiError> {
    let Some(wanted) = statistic(&stat.stat) else {
        return Err(invalid(format!(
            "The value {} for parameter Stat is not supported: SampleCount, Average, Sum, Minimum and Maximum are.",
            stat.stat
        )));
    };
    let (Some(namespace), Some(name)) = (&stat.metric.namespace, &stat.metric.metric_name) else {
        return Err(wrong("A MetricStat needs a Metric with Namespace and MetricName."));
    };
    let length = period(stat.period)?;
    let span = Span {
        from: begin(request.start_time, length, ctx.clock.now()),
        to: Timestamp(request.end_time),
        period: length,
        unit: stat.unit.map(shapes::StandardUnit::as_str),
    };
    let series = key(namespace, name, stat.metric.dimensions.as_ref())?;
    let scope = &ctx.caller.scope;
    let most = Most {
        points: budget.left(),
        read: *reads,
    };
    let (points, read) = match ctx.metrics.read_within(scope, &series, span, most) {
        Ok(found) => found,
        Err(StoreError::TooMany) => return Err(too_much(Spent)),
        Err(error) => return Err(ApiError::internal(error)),
    };
    *reads = reads.saturating_sub(read);
    // Values of different units at the same time count together: the answer has no place for a unit.
    let mut sets = BTreeMap::new();
    for point in points {
        sets.entry(point.at.0)
            .and_modify(|set: &mut isolarium_model::metrics::StatisticSet| *set = set.and(point.statistics))
            .or_insert(point.statistics);
    }
    Ok(sets.into_iter().map(|(at, set)| (at, value(set, wanted))).collect())
}
