//! An event as its line holds it. Every request writes one: what the derived form of [`AuditEvent`] would write, in one pass
//! over each of its texts and without the machinery for what could be anything.

use super::event::{AuditEvent, EventResource, UserIdentity};
use serde::Serialize;
use serde_json::value::RawValue;

/// Writes an event behind `out`.
///
/// # Errors
/// When a part has no JSON form.
pub(super) fn write(event: &AuditEvent<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    // By name and without a rest: a member that is added has to be written too.
    let AuditEvent {
        event_version,
        user_identity,
        event_time,
        event_source,
        event_name,
        aws_region,
        source_ip_address,
        user_agent,
        error_code,
        error_message,
        request_parameters,
        response_elements,
        additional_event_data,
        request_id,
        event_id,
        read_only,
        resources,
        event_type,
        management_event,
        recipient_account_id,
        event_category,
        vpc_endpoint_id,
        tls_details,
        service_event_details,
        engine: _,
        at: _,
    } = event;
    text(out, "{\"eventVersion\":", event_version)?;
    identity(out, user_identity)?;
    text(out, ",\"eventTime\":", event_time)?;
    text(out, ",\"eventSource\":", event_source)?;
    text(out, ",\"eventName\":", event_name)?;
    text(out, ",\"awsRegion\":", aws_region)?;
    text(out, ",\"sourceIPAddress\":", source_ip_address)?;
    text(out, ",\"userAgent\":", user_agent)?;
    given(out, ",\"errorCode\":", error_code.as_deref())?;
    given(out, ",\"errorMessage\":", error_message.as_deref())?;
    raw(out, ",\"requestParameters\":", request_parameters.as_deref());
    raw(out, ",\"responseElements\":", response_elements.as_deref());
    if additional_event_data.is_some() {
        raw(out, ",\"additionalEventData\":", additional_event_data.as_deref());
    }
    text(out, ",\"requestID\":", request_id)?;
    text(out, ",\"eventID\":", event_id)?;
    truth(out, ",\"readOnly\":", *read_only);
    list(out, resources)?;
    text(out, ",\"eventType\":", event_type)?;
    truth(out, ",\"managementEvent\":", *management_event);
    text(out, ",\"recipientAccountId\":", recipient_account_id)?;
    text(out, ",\"eventCategory\":", event_category)?;
    given(out, ",\"vpcEndpointId\":", vpc_endpoint_id.as_deref())?;
    seldom(out, ",\"tlsDetails\":", tls_details.as_ref())?;
    if service_event_details.is_some() {
        raw(out, ",\"serviceEventDetails\":", service_event_details.as_deref());
    }
    out.push(b'}');
    Ok(())
}

fn identity(out: &mut Vec<u8>, identity: &UserIdentity<'_>) -> Result<(), serde_json::Error> {
    let UserIdentity {
        kind,
        principal_id,
        arn,
        account_id,
        access_key_id,
        user_name,
        session_context,
        invoked_by,
    } = identity;
    text(out, ",\"userIdentity\":{\"type\":", kind)?;
    given(out, ",\"principalId\":", principal_id.as_deref())?;
    given(out, ",\"arn\":", arn.as_deref())?;
    given(out, ",\"accountId\":", account_id.as_deref())?;
    given(out, ",\"accessKeyId\":", access_key_id.as_deref())?;
    given(out, ",\"userName\":", user_name.as_deref())?;
    seldom(out, ",\"sessionContext\":", session_context.as_ref())?;
    given(out, ",\"invokedBy\":", invoked_by.as_deref())?;
    out.push(b'}');
    Ok(())
}

fn list(out: &mut Vec<u8>, resources: &[EventResource]) -> Result<(), serde_json::Error> {
    for (at, EventResource { arn, account_id, kind }) in resources.iter().enumerate() {
        let begin = if at == 0 {
            ",\"resources\":[{\"ARN\":"
        } else {
            ",{\"ARN\":"
        };
        text(out, begin, arn)?;
        given(out, ",\"accountId\":", account_id.as_deref())?;
        given(out, ",\"type\":", kind.as_deref())?;
        out.push(b'}');
    }
    if !resources.is_empty() {
        out.push(b']');
    }
    Ok(())
}

/// What stands before a text, and the text.
fn text(out: &mut Vec<u8>, before: &str, text: &str) -> Result<(), serde_json::Error> {
    out.extend_from_slice(before.as_bytes());
    // To its end, whatever it holds: so many bytes are looked at together.
    let plain = text.bytes().fold(true, |plain, byte| {
        plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\')
    });
    if !plain {
        return serde_json::to_writer(out, text);
    }
    out.reserve(text.len().saturating_add(2));
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

fn given(out: &mut Vec<u8>, before: &str, value: Option<&str>) -> Result<(), serde_json::Error> {
    value.map_or(Ok(()), |value| text(out, before, value))
}

fn raw(out: &mut Vec<u8>, before: &str, value: Option<&RawValue>) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.map_or("null", RawValue::get).as_bytes());
}

fn truth(out: &mut Vec<u8>, before: &str, value: bool) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn seldom(out: &mut Vec<u8>, before: &str, value: Option<&impl Serialize>) -> Result<(), serde_json::Error> {
    let Some(value) = value else { return Ok(()) };
    out.extend_from_slice(before.as_bytes());
    serde_json::to_writer(out, value)
}

#[cfg(test)]
mod tests {
    use super::super::event::{SessionAttributes, SessionContext, SessionIssuer, TlsDetails};
    use super::super::tests::event;
    use super::*;

    fn written(event: &AuditEvent<'_>) -> String {
        let mut out = Vec::new();
        write(event, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_line_is_the_events_derived_form() {
        let odd = "a \"quoted\" \\ line\n with \u{1} control, \u{7f}, é and \u{2028}";
        let json = |text: &str| Some(RawValue::from_string(text.into()).unwrap());
        let plain = event(7);
        let mut full = event(8);
        full.user_identity = UserIdentity {
            kind: "AssumedRole".into(),
            principal_id: Some("AROA:session".into()),
            arn: Some(odd.into()),
            account_id: Some("123456789012".into()),
            access_key_id: Some("ASIA".into()),
            user_name: Some("u".into()),
            session_context: Some(SessionContext {
                session_issuer: Some(SessionIssuer {
                    kind: "Role",
                    principal_id: "AROA".into(),
                    arn: odd.into(),
                    account_id: "123456789012".into(),
                    user_name: "r".into(),
                }),
                attributes: SessionAttributes {
                    creation_date: "2026-01-01T00:00:00Z".into(),
                    mfa_authenticated: "false",
                },
            }),
            invoked_by: Some("sagemaker.amazonaws.com".into()),
        };
        full.user_agent = odd.into();
        full.error_code = Some("AccessDenied".into());
        full.error_message = Some(odd.into());
        full.request_parameters = json("{\"a\":[1,null]}");
        full.response_elements = json("{}");
        full.additional_event_data = json("[2]");
        full.read_only = true;
        full.resources.push(EventResource {
            arn: odd.into(),
            account_id: None,
            kind: None,
        });
        full.vpc_endpoint_id = Some("vpce-1".into());
        full.tls_details = Some(TlsDetails {
            client_provided_host_header: odd.into(),
        });
        full.service_event_details = json("{\"x\":\"y\"}");
        let bare = AuditEvent {
            resources: Vec::new(),
            ..event(9)
        };
        for event in [plain, full, bare.clone(), bare.as_data()] {
            assert_eq!(written(&event), serde_json::to_string(&event).unwrap());
        }
    }
}
