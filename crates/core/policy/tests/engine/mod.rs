//! The engine's answer to a case of the test kit.

use isolarium_model::Principal;
use isolarium_policy::document::NamedPolicy;
use isolarium_policy::question::{Authority, Context, EndpointPolicy, Question};
use isolarium_policy::{DocumentKind, PolicyType, Reason, ResourceSide, decide};
use isolarium_testkit::authz::{Caller, Case, ROLE_ID, USER_ID};
use serde_json::Value;

fn principal(text: &str) -> Principal {
    let caller = Caller::read(text);
    let account = caller.account.map(|account| account.parse().unwrap());
    match (caller.kind.as_str(), account) {
        ("root", Some(account)) => Principal::Root { account },
        ("user", Some(account)) => Principal::User {
            account,
            path: "/".into(),
            name: caller.name,
            id: USER_ID.into(),
        },
        ("session", Some(account)) => Principal::RoleSession {
            account,
            path: "/".into(),
            role: caller.name,
            role_id: ROLE_ID.into(),
            session: caller.session,
        },
        ("service", None) => Principal::Service { name: caller.name },
        ("anonymous", None) => Principal::Anonymous,
        _ => panic!("{text}"),
    }
}

/// Objects are documents; strings are texts that need not be JSON.
fn policy(name: &str, document: &Value, kind: DocumentKind) -> NamedPolicy {
    let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
    NamedPolicy::parse(name, &text, kind)
}

fn identity(document: &Value) -> NamedPolicy {
    policy("identity", document, DocumentKind::Identity)
}

fn asked(case: &Case) -> (Authority, Question, ResourceSide) {
    let kind = if case.trust {
        DocumentKind::Trust
    } else {
        DocumentKind::Resource
    };
    let authority = Authority {
        identity: case.identity.iter().map(identity).collect(),
        boundary: case.boundary.as_ref().map(identity),
        session: case.session.as_ref().map(|list| list.iter().map(identity).collect()),
        organization: case
            .organization
            .iter()
            .map(|level| level.iter().map(identity).collect())
            .collect(),
        endpoint: case.endpoint.as_ref().map(|document| EndpointPolicy {
            policy: policy("endpoint", document, DocumentKind::Endpoint),
            gateway: case.gateway,
        }),
        ..Authority::bare(principal(&case.caller), Context::new())
    };
    let lowered = case
        .context
        .iter()
        .map(|(key, values)| (key.to_lowercase(), values.clone()));
    let question = Question {
        action: case.action.clone(),
        resource: case.resource.clone(),
        context: lowered.collect(),
    };
    let side = ResourceSide {
        owner: case.owner.as_ref().map(|owner| owner.parse().unwrap()),
        policies: case
            .resource_policy
            .iter()
            .map(|document| policy("resource", document, kind))
            .collect(),
        trust: case.trust,
        required: false,
    };
    (authority, question, side)
}

/// Whether every document of the case can be read.
pub fn readable(case: &Case) -> bool {
    let (authority, _, side) = asked(case);
    let own = authority.identity.iter().chain(&authority.boundary);
    own.chain(authority.session.iter().flatten())
        .chain(authority.organization.iter().flatten())
        .chain(authority.endpoint.as_ref().map(|endpoint| &endpoint.policy))
        .chain(&side.policies)
        .all(|policy| policy.policy.malformed().is_none())
}

/// `allow`, or `explicit` or `implicit` with the policy type that decided.
pub fn answer(case: &Case) -> String {
    let (authority, question, side) = asked(case);
    let denial = match decide(&authority, &question, &side) {
        Ok(_) => return "allow".into(),
        Err(denial) => denial,
    };
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
