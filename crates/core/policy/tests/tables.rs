//! Decisions by table: every row is a set of documents and what they must answer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a table that cannot be read fails its test"
)]

use isolarium_model::Principal;
use isolarium_policy::document::NamedPolicy;
use isolarium_policy::evaluate::{ResourceSide, decide};
use isolarium_policy::question::{Authority, Context, EndpointPolicy, Question};
use isolarium_policy::{DocumentKind, PolicyType, Reason};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    /// See [`principal`].
    caller: String,
    #[serde(default)]
    identity: Vec<Value>,
    boundary: Option<Value>,
    session: Option<Vec<Value>>,
    endpoint: Option<Value>,
    #[serde(default)]
    gateway: bool,
    resource_policy: Option<Value>,
    trust_policy: Option<Value>,
    owner: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Vec<String>>,
    asks: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    action: String,
    resource: String,
    #[serde(default)]
    context: BTreeMap<String, Vec<String>>,
    caller: Option<String>,
    /// `allow`, or `explicit` or `implicit` with the policy type that decided.
    expect: String,
}

/// `root`, `user:alice`, `session:worker/s1` (with id), `service:NAME`, `anonymous`; `other:` in front for the second
/// account.
fn principal(text: &str) -> Principal {
    let (text, account) = match text.strip_prefix("other:") {
        Some(rest) => (rest, "444455556666"),
        None => (text, "111122223333"),
    };
    let account = account.parse().unwrap();
    match text.split_once(':') {
        None if text == "root" => Principal::Root { account },
        None if text == "anonymous" => Principal::Anonymous,
        Some(("user", name)) => Principal::User {
            account,
            path: "/".into(),
            name: name.into(),
            id: "AIDAEXAMPLEUSER00001".into(),
        },
        Some(("session", names)) => {
            let (role, session) = names.split_once('/').unwrap();
            Principal::RoleSession {
                account,
                path: "/".into(),
                role: role.into(),
                role_id: "AROAEXAMPLEROLE00001".into(),
                session: session.into(),
            }
        }
        Some(("service", name)) => Principal::Service { name: name.into() },
        _ => panic!("{text}"),
    }
}

/// Objects are documents; strings are texts that need not be JSON.
fn policy(name: &str, document: &Value, kind: DocumentKind) -> NamedPolicy {
    let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
    NamedPolicy::parse(name, &text, kind)
}

fn lowered(keys: &BTreeMap<String, Vec<String>>) -> Context {
    keys.iter()
        .map(|(key, values)| (key.to_lowercase(), values.clone()))
        .collect()
}

fn said(case: &Case, ask: &Ask) -> String {
    let identity = |document| policy("identity", document, DocumentKind::Identity);
    let principal = principal(ask.caller.as_ref().unwrap_or(&case.caller));
    let authority = Authority {
        identity: case.identity.iter().map(identity).collect(),
        boundary: case.boundary.as_ref().map(identity),
        session: case
            .session
            .as_ref()
            .map(|documents| documents.iter().map(identity).collect()),
        endpoint: case.endpoint.as_ref().map(|document| EndpointPolicy {
            policy: policy("endpoint", document, DocumentKind::Endpoint),
            gateway: case.gateway,
        }),
        ..Authority::bare(principal, lowered(&case.context))
    };
    let side = ResourceSide {
        owner: case.owner.as_ref().map(|owner| owner.parse().unwrap()),
        policy: case
            .resource_policy
            .as_ref()
            .map(|document| policy("bucket", document, DocumentKind::Resource))
            .or(case
                .trust_policy
                .as_ref()
                .map(|document| policy("trust", document, DocumentKind::Trust))),
        trust: case.trust_policy.is_some(),
    };
    let question = Question {
        action: ask.action.clone(),
        resource: ask.resource.clone(),
        context: lowered(&ask.context),
    };
    match decide(&authority, &question, &side) {
        Ok(_) => "allow".into(),
        Err(denial) => {
            let (how, kind) = match denial.reason {
                Reason::Explicit(cited) => ("explicit", cited.policy_type),
                Reason::Implicit(kind) => ("implicit", kind),
            };
            let kind = match kind {
                PolicyType::Organization => "organization",
                PolicyType::Identity => "identity",
                PolicyType::Resource => "resource",
                PolicyType::Endpoint => "endpoint",
                PolicyType::Boundary => "boundary",
                PolicyType::Session => "session",
                PolicyType::Trust => "trust",
            };
            format!("{how} {kind}")
        }
    }
}

/// Holds every row of a table to its answer; a table has to have both answers, so that no denial lacks its control.
fn hold(text: &str) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    let mut wrong = Vec::new();
    let (mut allowed, mut denied) = (false, false);
    for case in &cases {
        for (at, ask) in case.asks.iter().enumerate() {
            let found = said(case, ask);
            allowed |= ask.expect == "allow";
            denied |= ask.expect != "allow";
            if found != ask.expect {
                wrong.push(format!(
                    "{} ask {at} ({} {}): {found}, not {}",
                    case.id, ask.action, ask.resource, ask.expect
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(allowed && denied, "a table needs an allow and a denial");
}

/// Proves: IAM-70
#[test]
fn the_sixteen_cases_that_must_pass() {
    let text = include_str!("cases/must_pass.json");
    hold(text);
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    for letter in 'a'..='p' {
        assert!(cases.iter().any(|case| case.id.ends_with(letter)), "case {letter}");
    }
}

/// Proves: IAM-2, IAM-4, IAM-5, IAM-6, IAM-7, IAM-8, IAM-9
#[test]
fn elements_match_as_the_language_says() {
    hold(include_str!("cases/language.json"));
}

/// Proves: IAM-12, IAM-13, IAM-14, IAM-15
#[test]
fn operators_compare_as_the_language_says() {
    hold(include_str!("cases/operators.json"));
}

/// Proves: IAM-20, IAM-21, IAM-22, IAM-23, IAM-24, IAM-25, IAM-50
#[test]
fn documents_are_weighed_in_order() {
    hold(include_str!("cases/evaluation.json"));
}

/// Proves: IAM-30, IAM-31, IAM-33, IAM-37, IAM-38, IAM-39
#[test]
fn endpoint_policies_bind_whoever_comes_through() {
    hold(include_str!("cases/endpoints.json"));
}

/// Proves: IAM-35, IAM-36, IAM-40, AU-10, AU-11, VPC-16, VPC-17, VPC-19, VPC-23, VPC-24, PL-24, PL-25, PL-26, PL-27
#[test]
fn the_fixtures_allow_and_deny_what_their_texts_promise() {
    hold(include_str!("cases/fixtures.json"));
}
