//! Reads lines of `{"case": …}` and answers each with `{"awsim": …, "iam-rs": …}`: `allow`, `deny`, or why there is no answer.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::BufRead;

const ACCOUNT: &str = "111122223333";

fn arn(caller: &str) -> Option<(String, String)> {
    let (caller, account) = match caller.strip_prefix("other:") {
        Some(rest) => (rest, "444455556666"),
        None => (caller, ACCOUNT),
    };
    let arn = match caller.split_once(':') {
        Some(("user", name)) => format!("arn:aws:iam::{account}:user/{name}"),
        Some(("session", name)) => format!("arn:aws:sts::{account}:assumed-role/{name}"),
        _ => return None,
    };
    Some((arn, account.into()))
}

fn values(case: &Value) -> HashMap<String, Vec<String>> {
    let keys = case["context"].as_object().into_iter().flatten();
    keys.map(|(key, values)| {
        let texts = values.as_array().into_iter().flatten().filter_map(Value::as_str);
        (key.clone(), texts.map(str::to_owned).collect())
    })
    .collect()
}

fn awsim(case: &Value) -> String {
    use awsim_iam_policy::{AuthzRequest, ContextValue, Decision, EvalContext, PolicyDocument, evaluate, parse_value};
    let Some((principal, account)) = arn(case["caller"].as_str().unwrap_or("")) else {
        return "no such principal".into();
    };
    let unknown = ["endpoint", "owner"].iter().any(|key| !case[*key].is_null());
    let sessions = case["session"].as_array().map_or(0, Vec::len);
    if unknown || sessions > 1 || case["trust"] == true || !case["organization"].as_array().is_none_or(Vec::is_empty) {
        return "not supported".into();
    }
    let read = |value: &Value| -> Result<Vec<PolicyDocument>, String> {
        let list = match value {
            Value::Null => Vec::new(),
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        list.iter().map(|policy| parse_value(policy).map_err(|error| error.to_string())).collect()
    };
    let all = ["identity", "boundary", "session", "resource_policy"].map(|key| read(&case[key]));
    let [Ok(identity), Ok(boundary), Ok(session), Ok(resource)] = all else {
        return "refused".into();
    };
    let context = values(case)
        .into_iter()
        .filter_map(|(key, mut values)| match values.len() {
            0 => None,
            1 => values.pop().map(|one| (key, ContextValue::String(one))),
            _ => Some((key, ContextValue::StringList(values))),
        })
        .collect();
    let request = AuthzRequest {
        principal_arn: &principal,
        principal_account: &account,
        action: case["action"].as_str().unwrap_or(""),
        resource_arn: case["resource"].as_str().unwrap_or(""),
        context: &context,
    };
    let documents = EvalContext {
        identity_policies: &identity,
        permissions_boundary: boundary.first(),
        resource_policy: resource.first(),
        scps: &[],
        session_policy: session.first(),
    };
    match evaluate(&request, &documents) {
        Decision::Allow => "allow".into(),
        _ => "deny".into(),
    }
}

fn iam_rs(case: &Value) -> String {
    use iam_rs::{Arn, Context, ContextValue, Decision, IAMPolicy, IAMRequest, Principal, PrincipalId, evaluate_policies};
    let Some((principal, _)) = arn(case["caller"].as_str().unwrap_or("")) else {
        return "no such principal".into();
    };
    let others = ["boundary", "session", "resource_policy", "endpoint", "owner"];
    let more = others.iter().any(|key| !case[*key].is_null());
    if more || !case["organization"].as_array().is_none_or(Vec::is_empty) {
        return "not supported".into();
    }
    let read = |policy: &Value| serde_json::from_value::<IAMPolicy>(policy.clone());
    let documents = case["identity"].as_array().into_iter().flatten().map(read).collect::<Result<Vec<_>, _>>();
    let (Ok(documents), Ok(resource)) = (documents, Arn::parse(case["resource"].as_str().unwrap_or(""))) else {
        return "refused".into();
    };
    let mut context = Context::new();
    for (key, mut values) in values(case) {
        match values.len() {
            0 => {}
            1 => context.insert(key, values.pop().map_or(ContextValue::Boolean(false), ContextValue::String)),
            _ => context.insert(key, ContextValue::StringList(values)),
        }
    }
    let who = Principal::Aws(PrincipalId::String(principal));
    let request = IAMRequest::new_with_context(who, case["action"].as_str().unwrap_or(""), resource, context);
    match evaluate_policies(&documents, &request) {
        Ok(Decision::Allow) => "allow".into(),
        Ok(_) => "deny".into(),
        Err(_) => "refused".into(),
    }
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        let row: Value = serde_json::from_str(&line.unwrap_or_default()).unwrap_or_default();
        println!("{}", json!({"awsim": awsim(&row["case"]), "iam-rs": iam_rs(&row["case"])}));
    }
}
