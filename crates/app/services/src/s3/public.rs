//! Whether a bucket policy is public: BlockPublicPolicy and RestrictPublicBuckets look at it.

use ipnet::IpNet;
use serde_json::Value;

/// Condition keys that narrow a statement to callers the owner has named.
const NARROWING: [&str; 9] = [
    SOURCE_IP,
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourcearn",
    "aws:sourceaccount",
    "aws:principalarn",
    "aws:principalaccount",
    "aws:principalorgid",
    USER_ID,
];
const SOURCE_IP: &str = "aws:sourceip";
const USER_ID: &str = "aws:userid";

/// A network with a shorter prefix is no set of callers that somebody has named.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 32;
/// What comes before the IPv4 addresses that are written as IPv6.
const MAPPED: u8 = 96;

fn everybody(principal: &Value) -> bool {
    let star = |value: &Value| match value {
        Value::String(text) => text == "*",
        Value::Array(items) => items.iter().any(|item| item == "*"),
        _ => false,
    };
    star(principal) || principal.as_object().is_some_and(|kinds| kinds.values().any(star))
}

/// Whether a statement's condition holds for callers alone whom fixed values name.
fn narrowed(condition: Option<&Value>) -> bool {
    let Some(Value::Object(operators)) = condition else {
        return false;
    };
    operators.iter().any(|(operator, keys)| {
        let operator = operator.to_ascii_lowercase();
        // Each of these also holds for a request that lacks the key.
        let holds_without = operator.contains("not")
            || operator == "null"
            || operator.ends_with("ifexists")
            || operator.starts_with("forallvalues:");
        !holds_without
            && keys
                .as_object()
                .is_some_and(|keys| keys.iter().any(|(key, values)| names_callers(key, values)))
    })
}

/// Whether every value of a condition key is a fixed one that names callers.
fn names_callers(key: &str, values: &Value) -> bool {
    let key = key.to_ascii_lowercase();
    let fixed = |value: &Value| value.as_str().is_some_and(|value| is_fixed(&key, value));
    let all = match values {
        Value::Array(values) => !values.is_empty() && values.iter().all(fixed),
        one => fixed(one),
    };
    all && NARROWING.contains(&key.as_str())
}

/// A wildcard or a variable can stand for anybody, whichever operator reads it. `AROAID:*`, every session of one role, is
/// the one form that names somebody all the same.
fn is_fixed(key: &str, value: &str) -> bool {
    let named = match key {
        SOURCE_IP => return is_narrow(value),
        USER_ID => value.strip_suffix(":*").filter(|id| !id.is_empty()).unwrap_or(value),
        _ => value,
    };
    !named.contains(['*', '?', '$'])
}

fn is_narrow(network: &str) -> bool {
    match network.parse::<IpNet>() {
        Ok(IpNet::V4(net)) => net.prefix_len() >= WIDEST_V4,
        Ok(IpNet::V6(net)) => {
            let mapped = net.addr().to_ipv4_mapped().is_some() && net.prefix_len() >= MAPPED;
            net.prefix_len() >= if mapped { MAPPED + WIDEST_V4 } else { WIDEST_V6 }
        }
        Err(_) => network.parse::<std::net::IpAddr>().is_ok(),
    }
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

    /// Proves: IAM-65
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
        for narrow in [
            r#"{"StringEquals":{"aws:SourceVpce":"vpce-1"}}"#,
            r#"{"StringEquals":{"aws:PrincipalAccount":["123456789012","999988887777"]}}"#,
            r#"{"IpAddress":{"aws:SourceIp":["203.0.113.0/24","10.0.0.0/8","2001:db8::/32","192.0.2.7"]}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"::ffff:203.0.113.0/120"}}"#,
            r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::123456789012:role/reader"}}"#,
            r#"{"StringLike":{"aws:userid":"AROAEXAMPLE:*"}}"#,
            // One key that narrows is enough: all of a block must hold.
            r#"{"StringLike":{"aws:SourceVpc":"vpc-*"},"StringEquals":{"aws:SourceVpce":"vpce-1"}}"#,
        ] {
            assert!(!is_public(&with(narrow)), "{narrow}");
        }
        for open in [
            "{}",
            r#"{"StringNotEquals":{"aws:SourceVpce":"vpce-1"}}"#,
            r#"{"StringEqualsIfExists":{"aws:SourceVpce":"vpce-1"}}"#,
            r#"{"ForAllValues:StringEquals":{"aws:SourceVpce":"vpce-1"}}"#,
            r#"{"Null":{"aws:SourceVpce":"true"}}"#,
            r#"{"StringEquals":{"s3:prefix":"in/"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":["0.0.0.0/1","128.0.0.0/1"]}}"#,
            r#"{"IpAddress":{"aws:SourceIp":["203.0.113.0/24","64.0.0.0/7"]}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"::/0"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"2000::/3"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"::ffff:0:0/96"}}"#,
            r#"{"StringLike":{"aws:SourceIp":"*.*.*.*"}}"#,
            r#"{"StringLike":{"aws:PrincipalArn":"arn:*"}}"#,
            r#"{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::*:role/reader"}}"#,
            r#"{"StringLike":{"aws:SourceVpce":["vpce-1","vpce-*"]}}"#,
            r#"{"StringLike":{"aws:SourceVpc":"vpc-????"}}"#,
            r#"{"StringLike":{"aws:userid":"?*"}}"#,
            r#"{"StringLike":{"aws:userid":"*:*"}}"#,
            r#"{"StringLike":{"aws:userid":":*"}}"#,
            r#"{"StringEquals":{"aws:PrincipalAccount":"${aws:PrincipalAccount}"}}"#,
            r#"{"StringEquals":{"aws:SourceVpce":[]}}"#,
        ] {
            assert!(is_public(&with(open)), "{open}");
        }
    }
}
