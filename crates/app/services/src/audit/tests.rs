use super::*;
use crate::ecr::fixture::root;
use isolarium_policy::{Authority, Question, ResourceSide};
use isolarium_store::audit::Decision;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const ACCOUNT: &str = "123456789012";

fn json(event: &AuditEvent<'_>) -> serde_json::Value {
    serde_json::to_value(event).unwrap()
}

fn user() -> Caller {
    let principal = Principal::User {
        account: ACCOUNT.parse().unwrap(),
        path: "/".into(),
        name: "ada".into(),
        id: "AIDAEXAMPLE".into(),
    };
    Caller {
        principal,
        inquiry: Inquiry::signed(Some("AKIAEXAMPLE")),
        ..root(ACCOUNT)
    }
}

fn ask(caller: &Caller, authority: &Authority) -> bool {
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m".parse().unwrap();
    let question = Question::on("sagemaker:CreateModel", &arn).with("sagemaker:NetworkIsolation", "false");
    authorize(caller, (), authority, &[question], &|_| ResourceSide::default()).is_ok()
}

/// Proves: IAM-27
#[test]
fn a_denial_is_told_with_its_policy_type_its_missing_allow_and_the_keys_it_saw_beside_the_record() {
    let caller = user();
    let authority = Authority::bare(caller.principal.clone(), caller.context(NOW));
    assert!(!ask(&caller, &authority));
    let event = of_request(
        &caller,
        "sagemaker.amazonaws.com",
        "CreateModel",
        Ended {
            error: Some(("AccessDeniedException", "no")),
        },
        NOW,
    );
    let verdict: Verdict = serde_json::from_str(event.engine.as_deref().unwrap()).unwrap();
    assert_eq!(verdict.decision, Decision::Deny);
    let denial = verdict.denial().unwrap();
    assert_eq!(denial.missing, Some(isolarium_policy::PolicyType::Identity));
    assert_eq!(verdict.context["sagemaker:networkisolation"], ["false"]);
    assert_eq!(verdict.context["aws:sourceip"], ["127.0.0.1"]);
    let record = json(&event);
    assert_eq!(record["errorCode"], "AccessDeniedException");
    assert_eq!(record["userIdentity"]["type"], "IAMUser");
    assert_eq!(record["userIdentity"]["accessKeyId"], "AKIAEXAMPLE");
    assert_eq!(record["resources"][0]["type"], "AWS::SageMaker::Model");
    assert!(
        !record.to_string().contains("dentity-based"),
        "the record tells no policy: {record}"
    );
    assert_eq!(record.get("engine"), None);

    let allowed = root(ACCOUNT);
    assert!(
        ask(
            &allowed,
            &Authority::bare(allowed.principal.clone(), allowed.context(NOW))
        ),
        "control"
    );
    let event = of_request(&allowed, "sagemaker.amazonaws.com", "CreateModel", Ended::WELL, NOW);
    let verdict: Verdict = serde_json::from_str(event.engine.as_deref().unwrap()).unwrap();
    assert_eq!((verdict.decision, verdict.denial()), (Decision::Allow, None));
}

#[test]
fn the_text_of_a_verdict_is_its_derived_form() {
    let cited = isolarium_policy::Cited {
        policy_type: isolarium_policy::PolicyType::Identity,
        policy: "p \"q\"".into(),
        index: Some(1),
        sid: None,
        span: None,
    };
    let answer = |resource: &str, allowed_by: Vec<isolarium_policy::Cited>| Explanation {
        principal: "arn:aws:iam::123456789012:user/u".into(),
        action: "s3:GetObject".into(),
        resource: resource.into(),
        outcome: isolarium_policy::Outcome::Allowed,
        allowed_by,
        denied_by: Vec::new(),
        missing: None,
    };
    let denial = Explanation {
        outcome: isolarium_policy::Outcome::ImplicitDeny,
        missing: Some(isolarium_policy::PolicyType::Identity),
        ..answer("arn:aws:s3:::b", Vec::new())
    };
    let verdict = |decision: Decision, asked: Vec<Explanation>| Verdict {
        decision,
        asked,
        ..Verdict::default()
    };
    for verdict in [
        Verdict::default(),
        verdict(Decision::Allow, Vec::new()),
        verdict(Decision::Allow, vec![answer("*", Vec::new())]),
        verdict(
            Decision::Allow,
            vec![
                answer("arn:aws:s3:::b/\"\\\u{1}é", vec![cited.clone(), cited.clone()]),
                answer("*", vec![cited.clone()]),
            ],
        ),
        verdict(Decision::Allow, vec![denial.clone()]),
        verdict(Decision::Deny, vec![answer("*", vec![cited]), denial]),
        Verdict {
            acted_for: Some("arn".into()),
            ..verdict(Decision::Allow, vec![answer("*", Vec::new())])
        },
    ] {
        assert_eq!(verdict.text().unwrap(), serde_json::to_string(&verdict).unwrap());
    }
}

#[test]
fn callers_are_told_apart_as_cloudtrail_does() {
    let told = |principal: Principal, acted_for: Option<&str>| {
        let inquiry = acted_for.map_or_else(Inquiry::default, Inquiry::acting_for);
        let caller = Caller {
            principal,
            inquiry,
            ..root(ACCOUNT)
        };
        json(&of_request(&caller, "s3.amazonaws.com", "GetObject", Ended::WELL, NOW))
    };
    let account: isolarium_model::AccountId = ACCOUNT.parse().unwrap();
    let of_root = told(
        Principal::Root {
            account: account.clone(),
        },
        None,
    );
    assert_eq!(of_root["userIdentity"]["type"], "Root");
    assert_eq!(of_root["sourceIPAddress"], "127.0.0.1");
    assert_eq!(
        told(Principal::Anonymous, None)["userIdentity"]["accountId"],
        "anonymous"
    );
    let session = Principal::RoleSession {
        account,
        path: "/service/".into(),
        role: "exec".into(),
        role_id: "AROAEXAMPLE".into(),
        session: "SageMaker".into(),
    };
    let acting = told(session, Some("arn:aws:sagemaker:us-east-1:123456789012:training-job/j"));
    let identity = &acting["userIdentity"];
    assert_eq!(identity["type"], "AssumedRole");
    assert_eq!(identity["principalId"], "AROAEXAMPLE:SageMaker");
    assert_eq!(identity["invokedBy"], "sagemaker.amazonaws.com");
    assert_eq!(
        identity["sessionContext"]["sessionIssuer"]["arn"],
        "arn:aws:iam::123456789012:role/service/exec"
    );
    assert_eq!(acting["sourceIPAddress"], "sagemaker.amazonaws.com");
}

#[test]
fn a_batch_keeps_a_bounded_number_of_answers_and_its_first_denial() {
    let (caller, stranger) = (root(ACCOUNT), user());
    let may = Authority::bare(caller.principal.clone(), caller.context(NOW));
    let may_not = Authority::bare(stranger.principal.clone(), stranger.context(NOW));
    for _ in 0..500 {
        assert!(ask(&caller, &may));
    }
    assert!(!ask(&caller, &may_not));
    let verdict = caller.inquiry.verdict();
    assert!(verdict.asked.len() <= 32);
    assert_eq!(
        verdict.denial().unwrap().principal,
        "arn:aws:iam::123456789012:user/ada"
    );
}

#[test]
fn what_changes_or_hands_out_credentials_waits_for_its_event() {
    for operation in [
        "CreateModel",
        "PutObject",
        "AssumeRole",
        "GetAuthorizationToken",
        "StopTrainingJob",
    ] {
        assert_eq!(keep(operation), Keep::Change, "{operation}");
    }
    for operation in [
        "DescribeModel",
        "ListObjectsV2",
        "GetObject",
        "InvokeEndpoint",
        "LookupEvents",
    ] {
        assert_eq!(keep(operation), Keep::Later, "{operation}");
    }
}
