//! A denial as the operator reads it, from the audit trail (IAM-27).

use isolarium_policy::{Cited, Explanation, PolicyType};
use isolarium_services::audit::Verdict;
use isolarium_store::audit::Recorded;
use isolarium_store::{AuditError, AuditTrail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One denied request or action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DenialReport {
    pub time: String,
    pub request_id: String,
    pub event_source: String,
    pub event_name: String,
    /// The caller, or the role session for which the platform acted.
    pub principal: String,
    /// Address, VPC endpoint, or the service that acted.
    pub source: String,
    /// The job, model or endpoint for which the platform acted.
    pub acted_for: Option<String>,
    pub action: String,
    pub resource: String,
    /// Statements that denied.
    pub denied_by: Vec<String>,
    /// The policy type in which nothing allowed.
    pub missing_allow: Option<String>,
    /// Statements that allowed before the missing one.
    pub allowed_by: Vec<String>,
    /// Condition keys as the decision saw them.
    pub context: BTreeMap<String, Vec<String>>,
    /// What would allow it.
    pub remedy: String,
    /// The whole decision, as the policy engine gave it.
    pub explanation: Option<Explanation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_time: String,
    event_source: String,
    event_name: String,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: String,
    vpc_endpoint_id: Option<String>,
    #[serde(rename = "requestID")]
    request_id: String,
}

/// The denials of a request; none when the trail knows none.
///
/// # Errors
/// When the trail cannot be read.
pub fn of_request(trail: &AuditTrail, request_id: &str) -> Result<Vec<DenialReport>, AuditError> {
    Ok(trail.request(request_id)?.iter().filter_map(report).collect())
}

fn report(found: &Recorded) -> Option<DenialReport> {
    let verdict: Verdict = serde_json::from_str(found.engine.as_deref()?).ok()?;
    let denial = verdict.denial()?.clone();
    let record: Record = serde_json::from_str(&found.event).ok()?;
    let shown = |cited: &[Cited]| cited.iter().map(ToString::to_string).collect();
    Some(DenialReport {
        time: record.event_time,
        request_id: record.request_id,
        event_source: record.event_source,
        event_name: record.event_name,
        source: match record.vpc_endpoint_id {
            Some(endpoint) => format!("{} through {endpoint}", record.source_ip_address),
            None => record.source_ip_address,
        },
        acted_for: verdict.acted_for.clone(),
        principal: denial.principal.clone(),
        action: denial.action.clone(),
        resource: denial.resource.clone(),
        denied_by: shown(&denial.denied_by),
        missing_allow: denial.missing.map(|kind| named(kind).to_owned()),
        allowed_by: shown(&denial.allowed_by),
        remedy: remedy(&denial),
        explanation: Some(denial),
        context: verdict.context,
    })
}

fn named(kind: PolicyType) -> &'static str {
    match kind {
        PolicyType::Organization => "no service control policy allows the action",
        PolicyType::Identity => "no identity-based policy of the caller allows the action",
        PolicyType::Resource => "no policy of the resource allows the action",
        PolicyType::Endpoint => "the policy of the VPC endpoint does not allow the action",
        PolicyType::Boundary => "the caller's permissions boundary does not allow the action",
        PolicyType::Session => "the session's own policy does not allow the action",
        PolicyType::Trust => "the role's trust policy does not allow the caller to assume it",
    }
}

/// What would allow it. One step: behind the first obstacle there may be another.
fn remedy(denial: &Explanation) -> String {
    if !denial.denied_by.is_empty() {
        return "Remove the denying statement, or narrow it so that this caller, resource or context does not match. An Allow \
                elsewhere does not help against a Deny."
            .into();
    }
    let statement = serde_json::json!({"Effect": "Allow", "Action": denial.action, "Resource": denial.resource});
    let add = |to: &str| format!("Add {statement} to {to}.");
    match denial.missing {
        Some(PolicyType::Identity) => add(&format!("a policy of {}", denial.principal)),
        Some(PolicyType::Boundary) => add("the permissions boundary"),
        Some(PolicyType::Session) => add("the policy that the session was made with"),
        Some(PolicyType::Organization) => add("the service control policies of the account"),
        Some(kind @ (PolicyType::Resource | PolicyType::Endpoint)) => {
            let with = serde_json::json!({
                "Effect": "Allow",
                "Principal": {"AWS": denial.principal},
                "Action": denial.action,
                "Resource": denial.resource,
            });
            let to = if kind == PolicyType::Endpoint {
                "the VPC endpoint's policy"
            } else {
                "the policy of the resource"
            };
            format!("Add {with} to {to}.")
        }
        Some(PolicyType::Trust) => {
            let key = if denial.principal.contains("amazonaws.com") {
                "Service"
            } else {
                "AWS"
            };
            let with =
                serde_json::json!({"Effect": "Allow", "Action": denial.action, "Principal": {key: denial.principal}});
            format!("Add {with} to the trust policy of {}.", denial.resource)
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_model::{Principal, Scope};
    use isolarium_policy::{Authority, DocumentKind, NamedPolicy, Question, ResourceSide};
    use isolarium_services::audit::{Ended, Inquiry, authorize, of_request as event_of};
    use isolarium_services::{Caller, Source};
    use isolarium_store::{AuditSettings, Keep};
    use std::sync::Arc;

    fn caller(request_id: &str) -> Caller {
        let scope = Scope {
            account: "123456789012".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        Caller {
            principal: Principal::User {
                account: scope.account.clone(),
                path: "/".into(),
                name: "ada".into(),
                id: "AIDAEXAMPLE".into(),
            },
            scope,
            source: Source::Public {
                address: [192, 0, 2, 1].into(),
                secure: true,
            },
            session: None,
            request_id: request_id.into(),
            user_agent: "test".into(),
            inquiry: Inquiry::default(),
        }
    }

    /// Proves: IAM-27
    #[test]
    fn an_explicit_deny_is_told_with_its_sid_and_a_missing_allow_with_its_policy_type() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(crate::clock::SystemClock);
        let trail = AuditTrail::open(dir.path(), AuditSettings::default(), clock).unwrap();
        let now = isolarium_model::Timestamp(1_700_000_000_000);
        let deny = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},
            {"Sid":"NoModels","Effect":"Deny","Action":"sagemaker:CreateModel","Resource":"*"}]}"#;
        for (id, policy) in [
            ("explicit", Some(deny)),
            ("implicit", None),
            ("allowed", Some(&*deny.replace("Deny", "Allow"))),
        ] {
            let caller = caller(id);
            let mut authority = Authority::bare(caller.principal.clone(), caller.context(now));
            let named = |text| NamedPolicy::parse("inline", text, DocumentKind::Identity);
            authority.identity = policy.map(named).into_iter().collect();
            let question = Question::any("sagemaker:CreateModel");
            let granted = authorize(&caller, (), &authority, &[question], &|_| ResourceSide::default());
            assert_eq!(granted.is_ok(), id == "allowed");
            let event = event_of(&caller, "sagemaker.amazonaws.com", "CreateModel", Ended::WELL, now);
            trail.submit(event, Keep::Refusal).wait().unwrap();
        }
        let explicit = of_request(&trail, "explicit").unwrap().remove(0);
        assert!(
            explicit.denied_by[0].contains("NoModels") && explicit.denied_by[0].contains("inline"),
            "{explicit:?}"
        );
        assert_eq!(explicit.principal, "arn:aws:iam::123456789012:user/ada");
        assert_eq!(explicit.context["aws:sourceip"], ["192.0.2.1"]);
        let implicit = of_request(&trail, "implicit").unwrap().remove(0);
        assert!(implicit.denied_by.is_empty());
        assert!(implicit.missing_allow.unwrap().contains("identity-based"));
        assert!(implicit.remedy.contains("\"Action\":\"sagemaker:CreateModel\""));
        assert!(
            of_request(&trail, "allowed").unwrap().is_empty(),
            "control: an allowed request is no denial"
        );
        assert!(of_request(&trail, "unknown").unwrap().is_empty());
    }
}
