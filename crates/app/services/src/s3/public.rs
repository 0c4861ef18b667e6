//! Whether a bucket policy is public: BlockPublicPolicy and RestrictPublicBuckets look at it.

use serde_json::Value;

/// Condition keys that narrow a statement to callers the owner has named.
const NARROWING: [&str; 9] = [
    "aws:sourceip",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourcearn",
    "aws:sourceaccount",
    "aws:principalarn",
    "aws:principalaccount",
    "aws:principalorgid",
    "aws:userid",
];

fn everybody(principal: &Value) -> bool {
    let star = |value: &Value| match value {
        Value::String(text) => text == "*",
        Value::Array(items) => items.iter().any(|item| item == "*"),
        _ => false,
    };
    star(principal) || principal.get("AWS").is_some_and(star)
}

fn narrowed(condition: Option<&Value>) -> bool {
    let Some(Value::Object(operators)) = condition else {
        return false;
    };
    operators.iter().any(|(operator, keys)| {
        let negated = operator.to_ascii_lowercase().contains("not") || operator.eq_ignore_ascii_case("null");
        let open = |value: &Value| value.to_string().contains("\"*\"") || value.to_string().contains("0.0.0.0/0");
        !negated
            && !operator.ends_with("IfExists")
            && keys.as_object().is_some_and(|keys| {
                keys.iter()
                    .any(|(key, value)| NARROWING.contains(&key.to_ascii_lowercase().as_str()) && !open(value))
            })
    })
}

/// Whether a statement allows something to everybody. A text that cannot be read counts as public: fail closed.
pub(super) fn is_public(policy: &str) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(policy) else {
        return true;
    };
    let statements = match document.get("Statement") {
        Some(Value::Array(statements)) => statements.clone(),
        Some(one) => vec![one.clone()],
        None => return false,
    };
    statements.iter().any(|statement| {
        statement.get("Effect").is_some_and(|effect| effect == "Allow")
            && (statement.get("NotPrincipal").is_some() || statement.get("Principal").is_some_and(everybody))
            && !narrowed(statement.get("Condition"))
    })
}

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn a_policy_is_public_when_it_allows_everybody() {
        let policy = |statement: &str| format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
        let open = r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*"}"#;
        assert!(is_public(&policy(open)));
        assert!(is_public(&policy(
            &open.replace("\"*\",\"Action", "{\"AWS\":[\"*\"]},\"Action")
        )));
        assert!(is_public("not json"));
        assert!(!is_public(&policy(&open.replace("Allow", "Deny"))));
        assert!(!is_public(&policy(&open.replace(
            "\"Principal\":\"*\"",
            "\"Principal\":{\"AWS\":\"123456789012\"}"
        ))));
        let with =
            |condition: &str| policy(&open.replace("\"Effect\"", &format!("\"Condition\":{condition},\"Effect\"")));
        assert!(!is_public(&with(r#"{"StringEquals":{"aws:SourceVpce":"vpce-1"}}"#)));
        assert!(is_public(&with(r#"{"StringNotEquals":{"aws:SourceVpce":"vpce-1"}}"#)));
        assert!(is_public(&with(r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#)));
    }
}
