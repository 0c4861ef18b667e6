use crate::ecr::fixture::{Fixture, root};
use crate::iam::tests::{call, user_caller};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::shapes::iam::PolicyEvaluationDecisionType as Decision;

const ACCOUNT: &str = "123456789012";
const READ: &str = r#"{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::data/*",
  "Condition":{"StringEquals":{"aws:PrincipalTag/team":"red"}}},
 {"Sid":"NoSecrets","Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::data/secret/*"}]}"#;

fn custom(policies: &[&str], actions: &[&str]) -> shapes::SimulateCustomPolicyRequest {
    shapes::SimulateCustomPolicyRequest {
        policy_input_list: policies.iter().map(ToString::to_string).collect(),
        action_names: actions.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn entry(name: &str, kind: shapes::ContextKeyTypeEnum, values: &[&str]) -> shapes::ContextEntry {
    shapes::ContextEntry {
        context_key_name: Some(name.into()),
        context_key_values: Some(values.iter().map(ToString::to_string).collect()),
        context_key_type: Some(kind),
    }
}

fn simulated(
    lab: &Fixture,
    request: shapes::SimulateCustomPolicyRequest,
) -> Result<shapes::SimulatePolicyResponse, ApiError> {
    call(lab, &root(ACCOUNT), "iam", "SimulateCustomPolicy", request)
}

fn results(lab: &Fixture, request: shapes::SimulateCustomPolicyRequest) -> Vec<shapes::EvaluationResult> {
    simulated(lab, request).unwrap().evaluation_results.unwrap()
}

/// Proves: IAM-27
#[test]
fn a_simulation_tells_the_decision_the_statements_with_their_places_and_what_was_not_given() {
    let lab = Fixture::new();
    let on = |resources: &[&str], entries: Option<Vec<shapes::ContextEntry>>| shapes::SimulateCustomPolicyRequest {
        resource_arns: Some(resources.iter().map(ToString::to_string).collect()),
        context_entries: entries,
        ..custom(&[READ], &["s3:GetObject"])
    };
    let red = || {
        Some(vec![entry(
            "aws:principaltag/team",
            shapes::ContextKeyTypeEnum::String,
            &["red"],
        )])
    };
    let (open, secret) = ("arn:aws:s3:::data/open/x", "arn:aws:s3:::data/secret/x");
    let found = results(&lab, on(&[open], None));
    assert_eq!(found[0].eval_decision, Decision::ImplicitDeny);
    assert_eq!(
        found[0].missing_context_values,
        Some(vec!["aws:principaltag/team".to_owned()])
    );
    assert_eq!(found[0].matched_statements, Some(Vec::new()));
    let found = results(&lab, on(&[open, secret], red()));
    let decisions: Vec<_> = found.iter().map(|one| &one.eval_decision).collect();
    assert_eq!(decisions, [&Decision::Allowed, &Decision::ExplicitDeny]);
    assert_eq!(found[0].missing_context_values, Some(Vec::new()));
    let statement = &found[1].matched_statements.as_ref().unwrap()[0];
    assert_eq!(statement.source_policy_id.as_deref(), Some("PolicyInputList.1"));
    let line = |at: &Option<shapes::Position>| at.as_ref().and_then(|at| at.line);
    assert_eq!(
        (line(&statement.start_position), line(&statement.end_position)),
        (Some(4), Some(4))
    );
    let specific = &found[1].resource_specific_results.as_ref().unwrap()[0];
    assert_eq!(
        (specific.eval_resource_name.as_str(), &specific.eval_resource_decision),
        (secret, &Decision::ExplicitDeny)
    );
}

/// Proves: IAM-23, IAM-24
#[test]
fn boundaries_and_resource_policies_are_simulated_too() {
    let lab = Fixture::new();
    let all = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
    let bounded = |action: &str| {
        let request = shapes::SimulateCustomPolicyRequest {
            permissions_boundary_policy_input_list: Some(vec![all.replace("s3:*", "s3:GetObject")]),
            ..custom(&[all], &[action])
        };
        let one = results(&lab, request).remove(0);
        let detail = one.permissions_boundary_decision_detail.unwrap();
        (one.eval_decision, detail.allowed_by_permissions_boundary.unwrap())
    };
    assert_eq!(bounded("s3:GetObject"), (Decision::Allowed, true));
    assert_eq!(bounded("s3:PutObject"), (Decision::ImplicitDeny, false));

    let alice = "arn:aws:iam::123456789012:user/alice";
    let shared = |policies: &[&str], owner: &str| {
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":{{"AWS":"{alice}"}},
                "Action":"s3:GetObject","Resource":"*"}}}}"#
        );
        let request = shapes::SimulateCustomPolicyRequest {
            resource_policy: Some(policy),
            resource_owner: Some(owner.to_owned()),
            caller_arn: Some(alice.to_owned()),
            resource_arns: Some(vec!["arn:aws:s3:::data/x".into()]),
            ..custom(policies, &["s3:GetObject"])
        };
        results(&lab, request).remove(0).eval_decision
    };
    let silent = all.replace("s3:*", "s3:ListBucket");
    assert_eq!(
        shared(&[&silent], "arn:aws:iam::123456789012:root"),
        Decision::Allowed,
        "in the same account"
    );
    assert_eq!(
        shared(&[&silent], "210987654321"),
        Decision::ImplicitDeny,
        "across accounts both must allow"
    );
    assert_eq!(shared(&[all], "210987654321"), Decision::Allowed);
    let no_caller = shapes::SimulateCustomPolicyRequest {
        resource_policy: Some("{}".into()),
        ..custom(&[all], &["s3:GetObject"])
    };
    assert_eq!(simulated(&lab, no_caller).unwrap_err().code, "InvalidInput");
}

/// Every level of the organisation must allow, and what its documents say is told beside the decision.
///
/// Proves: IAM-21
#[test]
fn an_organisations_guard_rails_are_simulated_level_by_level() {
    let lab = Fixture::new();
    let all = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let reads = all.replace("\"*\",\"Res", "\"s3:Get*\",\"Res");
    let no_lists = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},
        {"Sid":"NoLists","Effect":"Deny","Action":"s3:List*","Resource":"*"}]}"#;
    let asked = |levels: &[&[&str]], action: &str| {
        let level = |texts: &&[&str]| shapes::OrderedOrganizationPolicyType {
            service_control_policy_input_list: Some(texts.iter().map(ToString::to_string).collect()),
        };
        let request = shapes::SimulateCustomPolicyRequest {
            ordered_organization_policy_input_list: Some(levels.iter().map(level).collect()),
            ..custom(&[all], &[action])
        };
        let one = results(&lab, request).remove(0);
        let told = one
            .organizations_decision_detail
            .map(|detail| detail.allowed_by_organizations.unwrap());
        (one.eval_decision, told, one.matched_statements.unwrap().len())
    };
    assert_eq!(
        asked(&[], "s3:PutObject"),
        (Decision::Allowed, None, 1),
        "control: without an organisation"
    );
    assert_eq!(
        asked(&[&[all], &[all]], "s3:PutObject"),
        (Decision::Allowed, Some(true), 1)
    );
    assert_eq!(
        asked(&[&[all], &[&reads]], "s3:PutObject").0,
        Decision::ImplicitDeny,
        "the second level is silent"
    );
    assert_eq!(
        asked(&[&[&reads], &[all]], "s3:PutObject").1,
        Some(false),
        "the first level is silent"
    );
    assert_eq!(
        asked(&[&[&reads, all], &[all]], "s3:PutObject").0,
        Decision::Allowed,
        "one document of a level is enough"
    );
    assert_eq!(
        asked(&[&[all], &[]], "s3:GetObject").0,
        Decision::ImplicitDeny,
        "a level without documents allows nothing"
    );
    assert_eq!(
        asked(&[&[all], &[no_lists]], "s3:ListBucket"),
        (Decision::ExplicitDeny, Some(false), 0)
    );
    assert_eq!(
        asked(&[&[all], &[no_lists]], "s3:GetObject"),
        (Decision::Allowed, Some(true), 1)
    );
    let unreadable = shapes::SimulateCustomPolicyRequest {
        ordered_organization_policy_input_list: Some(vec![shapes::OrderedOrganizationPolicyType {
            service_control_policy_input_list: Some(vec!["{}".into()]),
        }]),
        ..custom(&[all], &["s3:GetObject"])
    };
    assert_eq!(simulated(&lab, unreadable).unwrap_err().code, "InvalidInput");
}

/// Proves: IAM-25
#[test]
fn a_principals_own_policies_are_simulated_for_who_may_ask() {
    let lab = Fixture::new();
    user_caller(
        &lab,
        "alice",
        Some(
            &READ
                .replace("aws:PrincipalTag/team", "aws:username")
                .replace("red", "alice"),
        ),
    );
    let request = |source: &str| shapes::SimulatePrincipalPolicyRequest {
        policy_source_arn: source.into(),
        action_names: vec!["s3:GetObject".into(), "s3:PutObject".into()],
        resource_arns: Some(vec!["arn:aws:s3:::data/x".into()]),
        ..Default::default()
    };
    let ask = |caller: &crate::Caller, source: &str| {
        call::<shapes::SimulatePolicyResponse>(&lab, caller, "iam", "SimulatePrincipalPolicy", request(source))
    };
    let alice = "arn:aws:iam::123456789012:user/alice";
    let found = ask(&root(ACCOUNT), alice).unwrap().evaluation_results.unwrap();
    let decisions: Vec<_> = found.iter().map(|one| &one.eval_decision).collect();
    assert_eq!(decisions, [&Decision::Allowed, &Decision::ImplicitDeny]);
    let statement = &found[0].matched_statements.as_ref().unwrap()[0];
    assert_eq!(statement.source_policy_type, Some(shapes::PolicySourceType::User));
    let missing = ask(&root(ACCOUNT), "arn:aws:iam::123456789012:user/nobody").unwrap_err();
    assert_eq!((missing.code.as_str(), missing.status), ("NoSuchEntity", 404));
    let foreign = ask(&root(ACCOUNT), "arn:aws:iam::210987654321:user/alice").unwrap_err();
    assert_eq!(
        foreign.code, "AccessDenied",
        "another account's users are nobody's business"
    );
    let bob = user_caller(&lab, "bob", None);
    let error = ask(&bob, alice).unwrap_err();
    assert!(
        error
            .message
            .contains("iam:SimulatePrincipalPolicy on resource: arn:aws:iam::123456789012:user/alice"),
        "{error}"
    );
    let keys = shapes::GetContextKeysForPrincipalPolicyRequest {
        policy_source_arn: alice.into(),
        policy_input_list: None,
    };
    let keys = call::<shapes::GetContextKeysForPolicyResponse>(
        &lab,
        &root(ACCOUNT),
        "iam",
        "GetContextKeysForPrincipalPolicy",
        keys,
    );
    assert_eq!(keys.unwrap().context_key_names, Some(vec!["aws:username".to_owned()]));
}

/// Proves: IAM-27
#[test]
fn simulations_come_in_pages_and_wrong_input_is_refused() {
    let lab = Fixture::new();
    let actions: Vec<String> = (0..5).map(|number| format!("s3:Action{number}")).collect();
    let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
    let (mut seen, mut marker) = (Vec::new(), None);
    loop {
        let request = shapes::SimulateCustomPolicyRequest {
            max_items: Some(2),
            marker: marker.take(),
            ..custom(&[READ], &actions)
        };
        let page = simulated(&lab, request).unwrap();
        seen.extend(
            page.evaluation_results
                .unwrap()
                .into_iter()
                .map(|one| one.eval_action_name),
        );
        assert_eq!(page.is_truncated, Some(page.marker.is_some()));
        match page.marker {
            Some(next) => marker = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, actions);
    use shapes::ContextKeyTypeEnum as Kind;
    let with = |one| shapes::SimulateCustomPolicyRequest {
        context_entries: Some(vec![one]),
        ..custom(&[READ], &["s3:GetObject"])
    };
    for (good, bad) in [
        (entry("k", Kind::Numeric, &["1.5"]), entry("k", Kind::Numeric, &["one"])),
        (
            entry("k", Kind::Boolean, &["true"]),
            entry("k", Kind::Boolean, &["yes"]),
        ),
        (
            entry("k", Kind::Ip, &["10.0.0.0/8"]),
            entry("k", Kind::Ip, &["10.0.0.256"]),
        ),
        (
            entry("k", Kind::Date, &["2030-01-01T00:00:00Z"]),
            entry("k", Kind::Date, &["tomorrow"]),
        ),
        (entry("k", Kind::Binary, &["QQ=="]), entry("k", Kind::Binary, &["Q"])),
        (
            entry("k", Kind::StringList, &["a", "b"]),
            entry("k", Kind::String, &["a", "b"]),
        ),
    ] {
        assert!(simulated(&lab, with(good)).is_ok());
        assert_eq!(
            simulated(&lab, with(bad.clone())).unwrap_err().code,
            "InvalidInput",
            "{bad:?}"
        );
    }
    for bad in [custom(&["{"], &["s3:GetObject"]), custom(&[READ], &["GetObject"])] {
        assert_eq!(simulated(&lab, bad).unwrap_err().code, "InvalidInput");
    }
}
