//! Decisions by table: every row is a set of documents and what they must answer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a table that cannot be read fails its test"
)]

mod engine;

use isolarium_testkit::authz::naive;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    /// As `isolarium_testkit::authz::Case` has it.
    caller: String,
    #[serde(default)]
    identity: Vec<Value>,
    boundary: Option<Value>,
    session: Option<Vec<Value>>,
    #[serde(default)]
    organization: Vec<Vec<Value>>,
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

fn stated(case: &Case, ask: &Ask) -> isolarium_testkit::authz::Case {
    let mut context = case.context.clone();
    context.extend(ask.context.clone());
    isolarium_testkit::authz::Case {
        family: case.id.clone(),
        caller: ask.caller.as_ref().unwrap_or(&case.caller).clone(),
        action: ask.action.clone(),
        resource: ask.resource.clone(),
        owner: case.owner.clone(),
        identity: case.identity.clone(),
        boundary: case.boundary.clone(),
        session: case.session.clone(),
        organization: case.organization.clone(),
        endpoint: case.endpoint.clone(),
        gateway: case.gateway,
        resource_policy: case.resource_policy.clone().or(case.trust_policy.clone()),
        trust: case.trust_policy.is_some(),
        context,
    }
}

/// Holds every row of a table to its answer; a table has to have both answers, so that no denial lacks its control.
fn hold(text: &str) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    let mut wrong = Vec::new();
    let (mut allowed, mut denied) = (false, false);
    for case in &cases {
        for (at, ask) in case.asks.iter().enumerate() {
            let stated = stated(case, ask);
            let found = engine::answer(&stated);
            allowed |= ask.expect == "allow";
            denied |= ask.expect != "allow";
            if found != ask.expect {
                wrong.push(format!(
                    "{} ask {at} ({} {}): {found}, not {}",
                    case.id, ask.action, ask.resource, ask.expect
                ));
            }
            // The second evaluator knows no documents that cannot be read.
            let second = naive::decide(&stated);
            if engine::readable(&stated) && found != second && !(second == "explicit" && found.starts_with("explicit"))
            {
                wrong.push(format!("{} ask {at}: the naive evaluator says {second}", case.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(allowed && denied, "a table needs an allow and a denial");
}

const MUST_PASS: &str = include_str!("cases/must_pass.json");
const FIXTURES: &str = include_str!("cases/fixtures.json");

/// Rows of a table whose ids begin with one of these, held by themselves.
fn rows(text: &str, ids: &[&str]) {
    let rows: Vec<Value> = serde_json::from_str(text).unwrap();
    let chosen: Vec<Value> = rows
        .into_iter()
        .filter(|row| ids.iter().any(|id| row["id"].as_str().unwrap().starts_with(id)))
        .collect();
    assert!(chosen.len() >= ids.len(), "{ids:?}");
    hold(&serde_json::to_string(&chosen).unwrap());
}

/// Proves: IAM-70, IAM-21
#[test]
fn a_a_deny_of_the_identity_beats_an_allow_of_the_bucket() {
    rows(MUST_PASS, &["IAM-70a"]);
}

/// Proves: IAM-70, IAM-22, IAM-24
#[test]
fn b_a_role_that_the_bucket_names_is_bound_by_its_boundary() {
    rows(MUST_PASS, &["IAM-70b", "control-b"]);
}

/// Proves: IAM-70, IAM-22
#[test]
fn c_a_session_that_the_bucket_names_is_not_bound_by_its_boundary() {
    rows(MUST_PASS, &["IAM-70c", "IAM-70b"]);
}

/// Proves: IAM-70, IAM-6
#[test]
fn d_without_a_version_a_variable_is_plain_text() {
    rows(MUST_PASS, &["IAM-70d", "control-d"]);
}

/// Proves: IAM-70, IAM-5
#[test]
fn e_a_deny_for_all_but_some_needs_the_account_listed_too() {
    rows(MUST_PASS, &["IAM-70e", "control-e"]);
}

/// Proves: IAM-70, IAM-5
#[test]
fn f_not_action_allows_everything_else() {
    rows(MUST_PASS, &["IAM-70f"]);
}

/// Proves: IAM-70, IAM-14, IAM-39
#[test]
fn g_a_deny_unless_the_vpc_is_ours_hits_public_callers() {
    rows(MUST_PASS, &["IAM-70g"]);
}

/// Proves: IAM-70, IAM-13
#[test]
fn h_if_exists_does_not_save_a_negated_deny() {
    rows(MUST_PASS, &["IAM-70h"]);
}

/// Proves: IAM-70, IAM-13
#[test]
fn i_null_tells_public_callers_from_endpoints() {
    rows(MUST_PASS, &["IAM-70i"]);
}

/// Proves: IAM-70, IAM-14
#[test]
fn j_for_all_values_holds_without_the_key() {
    rows(MUST_PASS, &["IAM-70j"]);
}

/// Proves: IAM-70, IAM-4
#[test]
fn k_a_star_in_a_bucket_name_takes_any_region() {
    rows(MUST_PASS, &["IAM-70k", "IAM-70l"]);
}

/// Proves: IAM-70, IAM-4
#[test]
fn l_a_star_between_two_dots_needs_both_dots() {
    rows(MUST_PASS, &["IAM-70l", "IAM-70k"]);
}

/// Proves: IAM-70, IAM-30
#[test]
fn m_an_endpoint_policy_grants_nothing() {
    rows(MUST_PASS, &["IAM-70m", "IAM-70n"]);
}

/// Proves: IAM-70, IAM-33
#[test]
fn n_a_silent_endpoint_policy_denies() {
    rows(MUST_PASS, &["IAM-70n"]);
}

/// Proves: IAM-70, IAM-20
#[test]
fn o_a_silent_endpoint_policy_binds_the_root() {
    rows(MUST_PASS, &["IAM-70o"]);
}

/// Proves: IAM-70, IAM-24
#[test]
fn p_a_session_may_do_what_role_and_session_policy_both_allow() {
    rows(MUST_PASS, &["IAM-70p"]);
}

/// Proves: IAM-36, VPC-16, VPC-17, VPC-19
#[test]
fn p1_lets_seven_actions_of_s3_through() {
    rows(FIXTURES, &["P1"]);
}

/// Proves: IAM-37, VPC-23, VPC-24, D-7
#[test]
fn p2_and_p3_deny_the_package_buckets_of_every_region() {
    rows(FIXTURES, &["P2"]);
}

/// Proves: IAM-35, PL-24, PL-25, PL-26, PL-27
#[test]
fn p4_lets_one_endpoint_be_invoked_and_nothing_else() {
    rows(FIXTURES, &["P4"]);
}

/// Proves: AU-10, AU-11
#[test]
fn p5_is_what_the_remediation_needs_and_no_more() {
    rows(FIXTURES, &["P5"]);
}

/// Proves: BT-8
#[test]
fn p6_gives_the_nine_actions_of_ec2() {
    rows(FIXTURES, &["P6"]);
}

/// Proves: IAM-70
#[test]
fn the_sixteen_cases_that_must_pass() {
    hold(MUST_PASS);
    let cases: Vec<Case> = serde_json::from_str(MUST_PASS).unwrap();
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

/// Proves: IAM-30, IAM-31, IAM-33, IAM-37, IAM-38, IAM-39, PL-28
#[test]
fn endpoint_policies_bind_whoever_comes_through() {
    hold(include_str!("cases/endpoints.json"));
}

/// Proves: IAM-35, IAM-36, IAM-40, AU-10, AU-11, VPC-16, VPC-17, VPC-19, VPC-23, VPC-24, PL-24, PL-25, PL-26, PL-27
#[test]
fn the_fixtures_allow_and_deny_what_their_texts_promise() {
    hold(FIXTURES);
}

/// Principal, action and resource of an interface endpoint's policy, each constrained or not, for every caller, action and
/// resource: what passes is what no constraint excludes.
///
/// Proves: PL-23
#[test]
fn an_endpoint_policy_constrains_principal_action_and_resource_alone_and_together() {
    let all = serde_json::json!({"Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let on = |name: &str| format!("arn:aws:sagemaker:us-east-1:111122223333:endpoint/{name}");
    // The first of each is what the constraint names.
    let callers = ["session:worker/s1", "user:alice", "root"];
    let actions = ["sagemaker:InvokeEndpoint", "sagemaker:DescribeEndpoint"];
    let resources = [on("one"), on("two")];
    let mut cases = Vec::new();
    for constrained in 0..8 {
        let (by_principal, by_action, by_resource) = (constrained & 1 != 0, constrained & 2 != 0, constrained & 4 != 0);
        let principal = match by_principal {
            true => serde_json::json!({"AWS": "arn:aws:iam::111122223333:role/worker"}),
            false => serde_json::json!("*"),
        };
        let endpoint = serde_json::json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": principal,
            "Action": if by_action { actions[0] } else { "*" },
            "Resource": if by_resource { resources[0].as_str() } else { "*" }}]});
        let mut asks = Vec::new();
        for caller in callers {
            for action in actions {
                for resource in &resources {
                    let excluded = by_principal && caller != callers[0]
                        || by_action && action != actions[0]
                        || by_resource && *resource != resources[0];
                    asks.push(
                        serde_json::json!({"caller": caller, "action": action, "resource": resource,
                        "expect": if excluded { "implicit endpoint" } else { "allow" }}),
                    );
                }
            }
        }
        cases.push(
            serde_json::json!({"id": format!("constrained {constrained:03b}"), "caller": callers[0],
            "identity": [all], "endpoint": endpoint, "asks": asks}),
        );
    }
    hold(&Value::from(cases).to_string());
}
