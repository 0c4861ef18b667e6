//! Log streams.

use super::{Noun, ask_group, ask_stream, chosen_group, invalid, page_size, position, refuse, shapes, token};
use crate::{Ctx, Operation};
use isolarium_model::logs::{GroupName, LogStream};
use isolarium_policy::{Granted, Question};
use isolarium_store::logs::{StreamPosition, StreamQuery};
use isolarium_wire::ApiError;
use serde::{Deserialize, Serialize};

const PAGE: usize = 50;

impl Operation for shapes::CreateLogStreamRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "CreateLogStream";
    type Output = shapes::CreateLogStreamOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(ctx, Some(&self.log_group_name), None);
        ask_stream("logs:CreateLogStream", group, &self.log_stream_name)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.get();
        let group = GroupName::new(&ctx.caller.scope, &request.log_group_name);
        let now = ctx.clock.now();
        ctx.logs
            .create_stream(&group, &request.log_stream_name, now)
            .map_err(|error| refuse(error, Noun::Stream))?;
        Ok(shapes::CreateLogStreamOutput {})
    }
}

impl Operation for shapes::DeleteLogStreamRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DeleteLogStream";
    type Output = shapes::DeleteLogStreamOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(ctx, Some(&self.log_group_name), None);
        ask_stream("logs:DeleteLogStream", group, &self.log_stream_name)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.get();
        let group = GroupName::new(&ctx.caller.scope, &request.log_group_name);
        ctx.logs
            .delete_stream(&group, &request.log_stream_name)
            .map_err(|error| refuse(error, Noun::Stream))?;
        Ok(shapes::DeleteLogStreamOutput {})
    }
}

/// A token of DescribeLogStreams: where the page ended, and the order it was in.
#[derive(Serialize, Deserialize)]
struct Bookmark {
    by_last_event: bool,
    descending: bool,
    last_event: i64,
    name: String,
}

impl Operation for shapes::DescribeLogStreamsRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DescribeLogStreams";
    type Output = shapes::DescribeLogStreamsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = chosen_group(
            ctx,
            self.log_group_name.as_deref(),
            self.log_group_identifier.as_deref(),
        );
        ask_group("logs:DescribeLogStreams", group)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = chosen_group(
            ctx,
            request.log_group_name.as_deref(),
            request.log_group_identifier.as_deref(),
        )?;
        let by_last_event = request.order_by == Some(shapes::OrderBy::LastEventTime);
        if by_last_event && request.log_stream_name_prefix.is_some() {
            return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        let descending = request.descending.unwrap_or(false);
        let bookmark: Option<Bookmark> = position(request.next_token.as_deref())?;
        let fits = |mark: &Bookmark| mark.by_last_event == by_last_event && mark.descending == descending;
        if bookmark.as_ref().is_some_and(|mark| !fits(mark)) {
            return Err(super::bad_token());
        }
        let query = StreamQuery {
            prefix: request.log_stream_name_prefix,
            by_last_event,
            descending,
            after: bookmark.map(|mark| StreamPosition {
                last_event: mark.last_event,
                name: mark.name,
            }),
            limit: page_size(request.limit, PAGE),
        };
        let page = ctx
            .logs
            .streams(&group, &query)
            .map_err(|error| refuse(error, Noun::Group))?;
        // A token only when more exist: one SDK asks again and again while it sees one.
        let next_token = page.rows.last().filter(|_| page.more).and_then(|stream| {
            let last_event = stream.last_event.map_or(0, |time| time.0);
            token(&Bookmark {
                by_last_event,
                descending,
                last_event,
                name: stream.name.to_string(),
            })
        });
        let log_streams = page.rows.into_iter().map(|stream| described(&group, stream)).collect();
        Ok(shapes::DescribeLogStreamsResponse {
            log_streams: Some(log_streams),
            next_token,
        })
    }
}

fn described(group: &GroupName, stream: LogStream) -> shapes::LogStream {
    shapes::LogStream {
        arn: Some(group.stream_arn(&stream.name).to_string()),
        log_stream_name: Some(stream.name.into()),
        creation_time: Some(stream.created.0),
        first_event_timestamp: stream.first_event.map(|time| time.0),
        last_event_timestamp: stream.last_event.map(|time| time.0),
        last_ingestion_time: stream.last_ingestion.map(|time| time.0),
        upload_sequence_token: None,
        stored_bytes: Some(0), // AWS reports sizes for groups only
    }
}
