//! Handlers of the `cloudtrail` service: what happened, told from the audit trail.

use crate::dispatch::{Handler, handler};
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::Timestamp;
use isolarium_policy::{Granted, Question};
use isolarium_store::audit::{Attribute, Lookup, Recorded, lookup_horizon};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::cloudtrail as shapes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

#[cfg(test)]
mod tests;

/// Events per page unless asked for fewer; also the most that can be asked for.
const PAGE: usize = 50;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![handler::<shapes::LookupEventsRequest>()]
}

impl Operation for shapes::LookupEventsRequest {
    const SERVICE: &'static str = "cloudtrail";
    const NAME: &'static str = "LookupEvents";
    type Output = shapes::LookupEventsResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("cloudtrail:LookupEvents")]
    }

    /// Management events of the caller's account and region in the last 90 days, newest first.
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.event_category.is_some() {
            // Insights are made by statistics that the engine does not keep: there are none.
            return Ok(shapes::LookupEventsResponse {
                events: Some(Vec::new()),
                next_token: None,
            });
        }
        let attribute = attribute(request.lookup_attributes.as_deref().unwrap_or_default())?;
        let horizon = lookup_horizon(ctx.clock.now());
        let (start, end) = (request.start_time, request.end_time);
        if let (Some(start), Some(end)) = (start, end)
            && start > end
        {
            let text = "The start time must be before the end time.";
            return Err(ApiError::client("InvalidTimeRangeException", text));
        }
        let limit = request
            .max_results
            .map_or(Ok(PAGE), |wanted| match usize::try_from(wanted) {
                Ok(wanted) if (1..=PAGE).contains(&wanted) => Ok(wanted),
                _ => Err(ApiError::client(
                    "InvalidMaxResultsException",
                    "MaxResults must be between 1 and 50.",
                )),
            })?;
        let scope = &ctx.caller.scope;
        let asked = digest(&format!("{scope:?} {attribute:?} {start:?} {end:?}"));
        let before = request.next_token.map(|token| resume(&token, &asked)).transpose()?;
        let lookup = Lookup {
            account: scope.account.to_string(),
            region: scope.region.to_string(),
            attribute,
            from: Timestamp(start.unwrap_or(i64::MIN).max(horizon.0)),
            to: Timestamp(end.unwrap_or(i64::MAX)),
            before,
            // One more tells whether there is a next page.
            limit: limit.saturating_add(1),
        };
        let mut found = ctx.trail.lookup(&lookup).map_err(ApiError::internal)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next_token = found.last().filter(|_| more).map(|last| token(last.n, &asked));
        Ok(shapes::LookupEventsResponse {
            events: Some(found.into_iter().map(shown).collect()),
            next_token,
        })
    }
}

/// CloudTrail takes one attribute.
fn attribute(asked: &[shapes::LookupAttribute]) -> Result<Option<Attribute>, ApiError> {
    use shapes::LookupAttributeKey as Key;
    let invalid = |text: &str| ApiError::client("InvalidLookupAttributesException", text);
    let (first, rest) = match asked {
        [] => return Ok(None),
        [first, rest @ ..] => (first, rest),
    };
    if !rest.is_empty() {
        return Err(invalid("You can specify only one lookup attribute."));
    }
    let value = first.attribute_value.clone();
    if value.is_empty() {
        return Err(invalid("The value of a lookup attribute must not be empty."));
    }
    Ok(Some(match &first.attribute_key {
        Key::EventId => Attribute::EventId(value),
        Key::EventName => Attribute::EventName(value),
        Key::ReadOnly => match value.as_str() {
            "true" => Attribute::ReadOnly(true),
            "false" => Attribute::ReadOnly(false),
            _ => return Err(invalid("The value of ReadOnly must be true or false.")),
        },
        Key::Username => Attribute::Username(value),
        Key::ResourceType => Attribute::ResourceType(value),
        Key::ResourceName => Attribute::ResourceName(value),
        Key::EventSource => Attribute::EventSource(value),
        Key::AccessKeyId => Attribute::AccessKeyId(value),
    }))
}

fn digest(text: &str) -> String {
    let mut hash = hex::encode(Sha256::digest(text));
    hash.truncate(16);
    hash
}

/// Where the next page begins, and what was asked: a token fits no other question.
fn token(last: u64, asked: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{last} {asked}"))
}

fn resume(token: &str, asked: &str) -> Result<u64, ApiError> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (last, of) = text.split_once(' ')?;
        (of == asked).then_some(last.parse().ok()?)
    };
    read().ok_or_else(|| {
        let text = "The next token is not valid, or was made for another lookup.";
        ApiError::client("InvalidNextTokenException", text)
    })
}

/// An event as a caller sees it: the record alone, without the engine's part.
fn shown(found: Recorded) -> shapes::Event {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct About {
        #[serde(rename = "eventID")]
        event_id: Option<String>,
        event_name: Option<String>,
        event_source: Option<String>,
        read_only: Option<bool>,
        #[serde(default)]
        user_identity: Who,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Who {
        access_key_id: Option<String>,
    }
    let about: About = serde_json::from_str(&found.event).unwrap_or_default();
    let resources = found.resources.iter().map(|resource| shapes::Resource {
        resource_type: resource.kind.clone(),
        resource_name: Some(resource.name().to_owned()),
    });
    shapes::Event {
        event_id: about.event_id,
        event_name: about.event_name,
        read_only: about.read_only.map(|value| value.to_string()),
        access_key_id: about.user_identity.access_key_id,
        // CloudTrail's times have seconds.
        event_time: Some(found.at.0.div_euclid(1000).saturating_mul(1000)),
        event_source: about.event_source,
        username: found.username,
        resources: Some(resources.collect()),
        cloud_trail_event: Some(found.event),
    }
}
