//! Log events: put, get, filter.

use super::{Noun, ask_group, ask_stream, chosen_group, invalid, page_size, refuse, shapes};
use crate::{Ctx, Operation};
use isolarium_model::Timestamp;
use isolarium_model::logs::{GroupName, LogEvent};
use isolarium_policy::{Granted, Question};
use isolarium_store::LogError;
use isolarium_store::logs::{FilterQuery, PAGE_EVENTS, Pattern, ReadFrom, TimeRange};
use isolarium_wire::ApiError;

/// Largest batch: the messages' bytes and 26 for each event.
const BATCH_BYTES: usize = 1_048_576;
const EVENT_OVERHEAD: usize = 26;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Events older than this are rejected, as are those further ahead than [`AHEAD`].
const BEHIND: i64 = 14 * DAY;
const AHEAD: i64 = 2 * HOUR;

impl Operation for shapes::PutLogEventsRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "PutLogEvents";
    type Output = shapes::PutLogEventsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(ctx, Some(&self.log_group_name), None);
        ask_stream("logs:PutLogEvents", group, &self.log_stream_name)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        check_batch(&request.log_events)?;
        let name = GroupName::new(&ctx.caller.scope, &request.log_group_name);
        let refused = |error| refuse(error, Noun::Stream);
        let group = ctx
            .logs
            .group(&name)
            .map_err(refused)?
            .ok_or_else(|| refused(LogError::NoGroup))?;
        let now = ctx.clock.now();
        let expiry = group
            .retention_days
            .map_or(i64::MIN, |days| now.0 - i64::from(days) * DAY);
        // The batch is in order of time, so each kind of rejection is a run at one of its ends.
        let run = |reject: &dyn Fn(i64) -> bool| request.log_events.iter().take_while(|e| reject(e.timestamp)).count();
        let too_old = run(&|time| time < now.0 - BEHIND);
        let expired = run(&|time| time < expiry);
        let first_too_new = run(&|time| time <= now.0 + AHEAD);
        let total = request.log_events.len();
        let index = |index: usize, when: bool| when.then(|| i64::try_from(index).unwrap_or(i64::MAX));
        let rejected = shapes::RejectedLogEventsInfo {
            too_old_log_event_end_index: index(too_old, too_old > 0),
            expired_log_event_end_index: index(expired, expired > 0),
            too_new_log_event_start_index: index(first_too_new, first_too_new < total),
        };
        let rejects = too_old > 0 || expired > 0 || first_too_new < total;
        let first = too_old.max(expired);
        let events: Vec<LogEvent> = request
            .log_events
            .into_iter()
            .take(first_too_new)
            .skip(first)
            .map(|event| LogEvent {
                timestamp: Timestamp(event.timestamp),
                message: event.message,
            })
            .collect();
        ctx.logs
            .append(&name, &request.log_stream_name, &events, now)
            .map_err(refused)?;
        Ok(shapes::PutLogEventsResponse {
            rejected_log_events_info: rejects.then_some(rejected),
            ..Default::default()
        })
    }
}

fn check_batch(events: &[shapes::InputLogEvent]) -> Result<(), ApiError> {
    let bytes: usize = events.iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum();
    if bytes > BATCH_BYTES {
        return Err(invalid(format!(
            "Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES}"
        )));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    let span = events
        .first()
        .zip(events.last())
        .map_or(0, |(first, last)| last.timestamp - first.timestamp);
    if span > DAY {
        return Err(invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    Ok(())
}

impl Operation for shapes::GetLogEventsRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "GetLogEvents";
    type Output = shapes::GetLogEventsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(
            ctx,
            self.log_group_name.as_deref(),
            self.log_group_identifier.as_deref(),
        );
        ask_stream("logs:GetLogEvents", group, &self.log_stream_name)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = chosen_group(
            ctx,
            request.log_group_name.as_deref(),
            request.log_group_identifier.as_deref(),
        )?;
        let from = match request.next_token {
            Some(token) => ReadFrom::Token(token),
            None if request.start_from_head == Some(true) => ReadFrom::Head,
            None => ReadFrom::Tail,
        };
        let range = TimeRange {
            start: request.start_time.map(Timestamp),
            end: request.end_time.map(Timestamp),
        };
        let limit = page_size(request.limit, PAGE_EVENTS);
        let page = ctx
            .logs
            .read(&group, &request.log_stream_name, &from, range, limit, ctx.clock.now())
            .map_err(|error| refuse(error, Noun::Stream))?;
        let events = page.events.into_iter().map(|stored| shapes::OutputLogEvent {
            timestamp: Some(stored.event.timestamp.0),
            message: Some(stored.event.message),
            ingestion_time: Some(stored.ingested.0),
        });
        Ok(shapes::GetLogEventsResponse {
            events: Some(events.collect()),
            next_forward_token: Some(page.forward),
            next_backward_token: Some(page.backward),
        })
    }
}

impl Operation for shapes::FilterLogEventsRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "FilterLogEvents";
    type Output = shapes::FilterLogEventsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(
            ctx,
            self.log_group_name.as_deref(),
            self.log_group_identifier.as_deref(),
        );
        ask_group("logs:FilterLogEvents", group)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = chosen_group(
            ctx,
            request.log_group_name.as_deref(),
            request.log_group_identifier.as_deref(),
        )?;
        if request.log_stream_names.is_some() && request.log_stream_name_prefix.is_some() {
            return Err(invalid(
                "logStreamNames and logStreamNamePrefix are mutually exclusive parameters.",
            ));
        }
        if request
            .start_time
            .zip(request.end_time)
            .is_some_and(|(start, end)| start > end)
        {
            return Err(invalid("End time should not be before start time."));
        }
        if request.start_from_head == Some(false) {
            return Err(invalid("Filtering from the latest event backwards is not supported."));
        }
        let pattern = Pattern::parse(request.filter_pattern.as_deref().unwrap_or(""))
            .map_err(|error| invalid(format!("Invalid filter pattern: {error}")))?;
        let query = FilterQuery {
            streams: request.log_stream_names.unwrap_or_default(),
            stream_prefix: request.log_stream_name_prefix,
            range: TimeRange {
                start: request.start_time.map(Timestamp),
                end: request.end_time.map(Timestamp),
            },
            pattern,
            after: request.next_token,
            limit: page_size(request.limit, PAGE_EVENTS),
        };
        let page = ctx
            .logs
            .filter(&group, &query, ctx.clock.now())
            .map_err(|error| refuse(error, Noun::Stream))?;
        let events = page.events.into_iter().map(|stored| shapes::FilteredLogEvent {
            log_stream_name: Some(stored.stream.into()),
            timestamp: Some(stored.event.timestamp.0),
            message: Some(stored.event.message),
            ingestion_time: Some(stored.ingested.0),
            event_id: Some(stored.id),
        });
        Ok(shapes::FilterLogEventsResponse {
            events: Some(events.collect()),
            // AWS always answers an empty list here; clients read the member without asking whether it is there.
            searched_log_streams: Some(Vec::new()),
            next_token: page.next,
        })
    }
}
