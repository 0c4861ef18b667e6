//! Requests and answers as the trail may keep them: without secrets and bodies, of bounded size.

use isolarium_wire::Document;
use isolarium_wire::catalog::Service;
use isolarium_wire::catalog::service::{Kind, ShapeId};
use serde_json::value::RawValue;

/// Bytes of JSON that one request or one answer may take, about.
const MOST: usize = 8 << 10;
/// Longest text that is kept whole, bytes.
const LONGEST_TEXT: usize = 1 << 10;
/// CloudTrail's word for what it does not tell.
pub const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";

/// Members that are secrets whatever the model says of them.
const SECRETS: &[&str] = &[
    "SecretAccessKey",
    "SessionToken",
    "Password",
    "NewPassword",
    "OldPassword",
    "TokenCode",
    "authorizationToken",
    "AuthorizationUrl",
    "WebIdentityToken",
    "SAMLAssertion",
    "Environment",
    "Plaintext",
    "EncodedMessage",
    "DecodedMessage",
];
/// Members that are a request's body: its contents are no part of a trail.
const BODIES: &[&str] = &["logEvents", "Body", "layerPartBlob", "MetricData", "Record"];

/// The members of a request or an answer, `null` without any.
pub fn render(service: &Service, shape: Option<ShapeId>, document: &Document) -> Option<Box<RawValue>> {
    let Document::Map(members) = document else { return None };
    if members.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(256);
    value(service, shape, document, &mut text, service.name() == "sts");
    RawValue::from_string(text).ok()
}

fn value(service: &Service, shape: Option<ShapeId>, document: &Document, out: &mut String, sts: bool) {
    let shape = shape.map(|id| service.shape(id));
    if shape.is_some_and(|shape| shape.sensitive) {
        return string(HIDDEN, out);
    }
    match document {
        Document::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Document::Integer(value) => out.push_str(&value.to_string()),
        Document::Timestamp(at) => string(&crate::iam::iso_time(isolarium_model::Timestamp(*at)), out),
        Document::Float(value) if value.is_finite() => out.push_str(&value.to_string()),
        Document::Float(value) => string(&value.to_string(), out),
        Document::String(text) => string(text, out),
        Document::Blob(bytes) => string(&format!("{} bytes", bytes.len()), out),
        Document::List(items) => {
            let of = match shape.map(|shape| &shape.kind) {
                Some(Kind::List(list)) => Some(list.member),
                _ => None,
            };
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                if out.len() > MOST {
                    string(&format!("{} more", items.len().saturating_sub(index)), out);
                    break;
                }
                value(service, of, item, out, sts);
            }
            out.push(']');
        }
        Document::Map(members) => {
            let structure = match shape.map(|shape| &shape.kind) {
                Some(Kind::Structure(structure)) => Some(structure),
                _ => None,
            };
            let of_map = match shape.map(|shape| &shape.kind) {
                Some(Kind::Map(map)) => Some(map.value),
                _ => None,
            };
            out.push('{');
            let mut first = true;
            for (name, member) in members {
                if !std::mem::replace(&mut first, false) {
                    out.push(',');
                }
                if out.len() > MOST {
                    out.push_str("\"membersLeftOut\":true");
                    break;
                }
                if structure.is_some() {
                    key(name, out);
                } else {
                    string(name, out);
                }
                out.push(':');
                let session_policy = sts && name == "Policy";
                if structure.is_some() && (SECRETS.contains(&name.as_str()) || session_policy) {
                    string(HIDDEN, out);
                } else if structure.is_some() && BODIES.contains(&name.as_str()) {
                    string("left out", out);
                } else {
                    let of = structure
                        .and_then(|structure| structure.member(name))
                        .map(|member| member.shape)
                        .or(of_map);
                    value(service, of, member, out, sts);
                }
            }
            out.push('}');
        }
    }
}

/// A member's name as CloudTrail writes it: `TrainingJobName` is `trainingJobName`.
fn key(name: &str, out: &mut String) {
    let mut letters = name.chars();
    out.push('"');
    if let Some(first) = letters.next() {
        out.push(first.to_ascii_lowercase());
    }
    out.push_str(letters.as_str());
    out.push('"');
}

fn string(text: &str, out: &mut String) {
    let cut;
    let kept = if text.len() > LONGEST_TEXT {
        cut = format!("{}… ({} bytes)", beginning(text, LONGEST_TEXT), text.len());
        cut.as_str()
    } else {
        text
    };
    quoted(kept, out);
}

/// A text as JSON writes it.
pub(super) fn quoted(text: &str, out: &mut String) {
    // To its end, whatever it holds: so many bytes are looked at together.
    let plain = text.bytes().fold(true, |plain, byte| {
        plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\')
    });
    if !plain {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    // Most texts have nothing to escape.
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// At most `most` bytes of a text, whole characters.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_wire::catalog;

    fn shown(service: &str, operation: &str, input: bool, document: serde_json::Value) -> serde_json::Value {
        let service = catalog::by_name(service).unwrap().model();
        let operation = service.operation(operation).unwrap();
        let shape = if input { operation.input } else { operation.output };
        let document: Document = serde_json::from_value(document).unwrap();
        render(service, shape, &document).map_or(serde_json::Value::Null, |text| {
            serde_json::from_str(text.get()).unwrap()
        })
    }

    #[test]
    fn names_are_cloudtrails_and_keys_of_maps_stay() {
        let request = serde_json::json!({
            "TrainingJobName": "j", "HyperParameters": {"Epochs": "3"}, "EnableNetworkIsolation": true,
        });
        let want = serde_json::json!({
            "trainingJobName": "j", "hyperParameters": {"Epochs": "3"}, "enableNetworkIsolation": true,
        });
        assert_eq!(shown("sagemaker", "CreateTrainingJob", true, request), want);
        assert!(shown("sts", "GetCallerIdentity", true, serde_json::json!({})).is_null());
    }

    #[test]
    fn secrets_are_hidden_and_what_is_beside_them_is_not() {
        let key =
            serde_json::json!({"AccessKey": {"UserName": "u", "AccessKeyId": "AKIA", "SecretAccessKey": "s3cret"}});
        let told = shown("iam", "CreateAccessKey", false, key);
        assert_eq!(
            told["accessKey"],
            serde_json::json!({"userName": "u", "accessKeyId": "AKIA", "secretAccessKey": HIDDEN})
        );
        let session = serde_json::json!({"Credentials": {
            "AccessKeyId": "ASIA", "SecretAccessKey": "s3cret", "SessionToken": "t0ken", "Expiration": 0,
        }});
        let told = shown("sts", "AssumeRole", false, session).to_string();
        assert!(
            told.contains("ASIA") && !told.contains("s3cret") && !told.contains("t0ken"),
            "{told}"
        );
        let request = serde_json::json!({"RoleArn": "r", "RoleSessionName": "n", "Policy": "{secret-policy}"});
        let told = shown("sts", "AssumeRole", true, request).to_string();
        assert!(
            told.contains("\"roleSessionName\":\"n\"") && !told.contains("secret-policy"),
            "{told}"
        );
        let model = serde_json::json!({"ModelName": "m", "PrimaryContainer": {"Image": "i", "Environment": {"API_KEY": "s3cret"}}});
        let told = shown("sagemaker", "CreateModel", true, model).to_string();
        assert!(told.contains("\"image\":\"i\"") && !told.contains("s3cret"), "{told}");
        let token = serde_json::json!({"authorizationData": [{"authorizationToken": "s3cret", "proxyEndpoint": "e"}]});
        let told = shown("ecr", "GetAuthorizationToken", false, token).to_string();
        assert!(told.contains("proxyEndpoint") && !told.contains("s3cret"), "{told}");
    }

    #[test]
    fn sizes_are_bounded() {
        let parameters: serde_json::Map<_, _> = (0..100)
            .map(|n| (format!("k{n}"), serde_json::Value::from("v".repeat(2500))))
            .collect();
        let request = serde_json::json!({"TrainingJobName": "j", "HyperParameters": parameters});
        let told = shown("sagemaker", "CreateTrainingJob", true, request).to_string();
        assert!(told.len() < MOST + 4096, "{}", told.len());
        assert!(
            told.contains("(2500 bytes)") && told.contains("membersLeftOut"),
            "{told}"
        );
        let logs = serde_json::json!({"logGroupName": "g", "logStreamName": "s", "logEvents": [{"timestamp": 1, "message": "private"}]});
        let told = shown("logs", "PutLogEvents", true, logs).to_string();
        assert!(
            told.contains("\"logGroupName\":\"g\"") && !told.contains("private"),
            "{told}"
        );
    }
}
