//! ListTrainingJobsForHyperParameterTuningJob: filters, sorting and paging over the trials of one record.

use super::super::shapes;
use super::view;
use crate::Ctx;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::sagemaker::tuning_job::TuningJob as Job;
use isolarium_wire::ApiError;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Size of a page when the request names none (SM-10).
const PAGE: usize = 10;

/// What trials are sorted by; ties are broken by the order in which they were started.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Place {
    Text(String),
    Time(i64),
    /// The objective's value; trials without one come last, whatever the order.
    Value(Option<f64>),
}

/// Where a page ended: place and number of its last trial, and the order they count in.
#[derive(Serialize, Deserialize)]
struct Token {
    by: String,
    place: Place,
    trial: usize,
}

fn bad_token() -> ApiError {
    ApiError::validation("The NextToken that was given is not valid.")
}

fn compare(a: &Place, b: &Place, descending: bool) -> Ordering {
    let order = match (a, b) {
        (Place::Text(a), Place::Text(b)) => a.cmp(b),
        (Place::Time(a), Place::Time(b)) => a.cmp(b),
        (Place::Value(Some(a)), Place::Value(Some(b))) => a.total_cmp(b),
        (Place::Value(Some(_)), Place::Value(None)) => return Ordering::Less,
        (Place::Value(None), Place::Value(Some(_))) => return Ordering::Greater,
        _ => Ordering::Equal,
    };
    if descending { order.reverse() } else { order }
}

/// One page of a tuning job's training jobs.
pub(super) fn list(
    ctx: &Ctx<'_>,
    job: &Job,
    request: &shapes::ListTrainingJobsForHyperParameterTuningJobRequest,
) -> Result<shapes::ListTrainingJobsForHyperParameterTuningJobResponse, ApiError> {
    use shapes::TrainingJobSortByOptions as By;
    let descending = request.sort_order == Some(shapes::SortOrder::Descending);
    // By name and ascending unless asked otherwise, as the API reference says.
    let by = request.sort_by.unwrap_or(By::Name);
    let order = format!("{} {descending}", by.as_str());
    let after = match request.next_token.as_deref() {
        Some(text) => Some(parse(text).filter(|token| token.by == order).ok_or_else(bad_token)?),
        None => None,
    };
    let mut rows = Vec::new();
    for (number, trial) in job.trials.iter().enumerate() {
        let shown = view::child(ctx, job, trial)?;
        if request
            .status_equals
            .is_some_and(|wanted| wanted != shown.training_job_status)
        {
            continue;
        }
        let place = match by {
            By::Name => Place::Text(shown.training_job_name.clone()),
            By::CreationTime => Place::Time(shown.creation_time),
            By::Status => Place::Text(shown.training_job_status.as_str().into()),
            By::FinalObjectiveMetricValue => Place::Value(trial.objective()),
        };
        rows.push((place, number, shown));
    }
    let between = |a: &Place, m: usize, b: &Place, n: usize| compare(a, b, descending).then(m.cmp(&n));
    rows.sort_by(|(a, m, _), (b, n, _)| between(a, *m, b, *n));
    if let Some(token) = after {
        rows.retain(|(place, number, _)| between(place, *number, &token.place, token.trial) == Ordering::Greater);
    }
    let size = request
        .max_results
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(PAGE);
    let more = rows.len() > size;
    rows.truncate(size);
    let next_token = match rows.last() {
        Some((place, number, _)) if more => Some(written(&Token {
            by: order,
            place: place.clone(),
            trial: *number,
        })?),
        Some(_) | None => None,
    };
    Ok(shapes::ListTrainingJobsForHyperParameterTuningJobResponse {
        training_job_summaries: rows.into_iter().map(|(_, _, shown)| shown).collect(),
        next_token,
    })
}

fn written(token: &Token) -> Result<String, ApiError> {
    let json = serde_json::to_vec(token).map_err(ApiError::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn parse(text: &str) -> Option<Token> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
