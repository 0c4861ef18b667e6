use super::*;
use crate::explain::Reason;
use crate::question::Context;

fn authority(principal: Principal) -> Authority {
    Authority::bare(principal, Context::new())
}

fn session() -> Principal {
    Principal::RoleSession {
        account: "111122223333".parse().unwrap(),
        path: "/team/".into(),
        role: "worker".into(),
        role_id: "AROAEXAMPLEROLE00001".into(),
        session: "s1".into(),
    }
}

fn identity(text: &str) -> NamedPolicy {
    NamedPolicy::parse("mine", text, DocumentKind::Identity)
}

const CALLER: &str =
    "User: arn:aws:sts::111122223333:assumed-role/worker/s1 is not authorized to perform: s3:GetObject";

/// Proves: IAM-60, IAM-61, IAM-63
#[test]
fn denials_name_caller_action_resource_and_policy_type() {
    let question = Question {
        resource: "arn:aws:s3:::b/k".into(),
        ..Question::any("s3:GetObject")
    };
    let side = ResourceSide::default();
    let silent = decide(&authority(session()), &question, &side).unwrap_err();
    assert_eq!(
        silent.to_string(),
        format!(
            "{CALLER} on resource: arn:aws:s3:::b/k because no identity-based policy allows the s3:GetObject action"
        )
    );
    let deny = r#"{"Statement":[{"Sid":"No","Effect":"Deny","Action":"s3:*","Resource":"*"}]}"#;
    let denied = decide(
        &Authority {
            identity: vec![identity(deny)],
            ..authority(session())
        },
        &question,
        &side,
    )
    .unwrap_err();
    assert_eq!(
        denied.to_string(),
        format!("{CALLER} on resource: arn:aws:s3:::b/k with an explicit deny in an identity-based policy")
    );
    let words = [
        (PolicyType::Resource, "no resource-based policy allows"),
        (PolicyType::Endpoint, "no VPC endpoint policy allows"),
        (PolicyType::Boundary, "no permissions boundary allows"),
        (PolicyType::Session, "no session policy allows"),
        (PolicyType::Trust, "no role trust policy allows"),
        (PolicyType::Organization, "no service control policy allows"),
    ];
    let told = |reason| Denial {
        reason,
        explanation: silent.explanation.clone(),
    };
    for (kind, text) in words {
        let denial = told(Reason::Implicit(kind));
        assert!(
            denial
                .to_string()
                .ends_with(&format!("because {text} the s3:GetObject action")),
            "{denial}"
        );
        let cited = Cited {
            policy_type: kind,
            policy: "p".into(),
            index: Some(0),
            sid: None,
            span: None,
        };
        let denial = told(Reason::Explicit(Box::new(cited))).to_string();
        let place = match kind {
            PolicyType::Trust => "in the role trust policy",
            PolicyType::Endpoint => "in a VPC endpoint policy",
            PolicyType::Boundary => "in a permissions boundary",
            PolicyType::Session => "in a session policy",
            PolicyType::Organization => "in a service control policy",
            _ => "in a resource-based policy",
        };
        assert!(denial.ends_with(&format!("with an explicit deny {place}")), "{denial}");
    }
}

/// Proves: IAM-27
#[test]
fn explanations_cite_the_statement_that_decided() {
    let text = r#"{"Statement":[
        {"Effect":"Allow","Action":"s3:Get*","Resource":"*"},
        {"Sid":"NotThis","Effect":"Deny","Action":"s3:GetObjectAcl","Resource":"*"}]}"#;
    let authority = Authority {
        identity: vec![identity(text)],
        ..authority(session())
    };
    let side = ResourceSide::default();
    let allowed = decide(&authority, &Question::any("s3:GetObject"), &side).unwrap();
    let [cited] = allowed.allowed_by.as_slice() else {
        panic!("{allowed:?}")
    };
    assert_eq!(
        (cited.policy_type, cited.policy.as_str(), cited.index, &cited.sid),
        (PolicyType::Identity, "mine", Some(0), &None)
    );
    assert_eq!((allowed.outcome, allowed.missing), (Outcome::Allowed, None));
    let text = serde_json::to_string(&allowed).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), allowed);
    let denied = decide(&authority, &Question::any("s3:GetObjectAcl"), &side).unwrap_err();
    let Reason::Explicit(cited) = denied.reason else {
        panic!("{denied}")
    };
    assert_eq!((cited.index, cited.sid.as_deref()), (Some(1), Some("NotThis")));
    assert_eq!(cited.to_string(), "Identity policy mine, statement 1 (NotThis)");
}

#[test]
fn a_document_that_cannot_be_read_denies_and_says_so() {
    let allow = r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let question = Question::any("s3:ListAllMyBuckets");
    let with = |texts: &[&str]| {
        let identity = texts.iter().map(|text| identity(text)).collect();
        decide(
            &Authority {
                identity,
                ..authority(session())
            },
            &question,
            &ResourceSide::default(),
        )
    };
    assert!(with(&[allow]).is_ok(), "control");
    let denied = with(&[allow, "{}"]).unwrap_err();
    let Reason::Explicit(cited) = denied.reason else {
        panic!("{denied}")
    };
    assert_eq!(cited.index, None);
    assert!(cited.to_string().ends_with("which cannot be read"));
}
