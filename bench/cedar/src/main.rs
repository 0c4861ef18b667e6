//! Decisions per second of the policy engine and of Cedar on the same permissions, as JSON lines.
//!
//! A policy of about 6 kB has [`STATEMENTS`] statements, each with four actions, two resource patterns and one condition on
//! a tag of the caller. Cedar gets every statement as a policy of its own with the same actions, `like` patterns and test,
//! parsed beforehand as ours is compiled beforehand. One question is allowed by the very last statement, the other by none,
//! so both engines have to hold every statement against it. Both answers are checked before anything is measured.

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use isolarium_model::Principal;
use isolarium_policy::evaluate::decide;
use isolarium_policy::question::{Authority, Question};
use isolarium_policy::{DocumentKind, NamedPolicy, ResourceSide};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Statements of one policy: about 6 kB of JSON.
const STATEMENTS: usize = 12;

struct Statement {
    actions: [String; 4],
    resources: [String; 2],
    team: String,
}

fn statement(policy: usize, at: usize) -> Statement {
    let team = format!("team-{policy:03}-{at:02}");
    Statement {
        actions: ["CreateModel", "DescribeModel", "DeleteModel", "AddTags"].map(|name| format!("sagemaker:{name}")),
        resources: ["model", "training-job"]
            .map(|kind| format!("arn:aws:sagemaker:us-east-1:123456789012:{kind}/{team}-*")),
        team,
    }
}

fn document(policy: usize) -> String {
    let statements: Vec<_> = (0..STATEMENTS)
        .map(|at| {
            let Statement {
                actions,
                resources,
                team,
            } = statement(policy, at);
            json!({"Sid": format!("Allow{at}"), "Effect": "Allow", "Action": actions, "Resource": resources,
                "Condition": {"StringEquals": {"aws:PrincipalTag/team": team}}})
        })
        .collect();
    serde_json::to_string_pretty(&json!({"Version": "2012-10-17", "Statement": statements})).expect("plain values")
}

fn cedar_text(policies: usize) -> String {
    let mut text = String::new();
    for (policy, at) in (0..policies).flat_map(|policy| (0..STATEMENTS).map(move |at| (policy, at))) {
        let Statement {
            actions,
            resources,
            team,
        } = statement(policy, at);
        let actions: Vec<String> = actions.iter().map(|name| format!("Action::\"{name}\"")).collect();
        let resources: Vec<String> = resources
            .iter()
            .map(|arn| format!("context.resource like \"{arn}\""))
            .collect();
        writeln!(
            text,
            "permit (principal, action in [{}], resource) when {{ ({}) && context.team == \"{team}\" }};",
            actions.join(", "),
            resources.join(" || ")
        )
        .expect("a text");
    }
    text
}

/// Calls per second: the median of seven rounds of a tenth of a second after one for warmth.
fn rate(mut call: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..8)
        .map(|_| {
            let (begun, mut calls) = (Instant::now(), 0_u32);
            while begun.elapsed() < Duration::from_millis(100) {
                for _ in 0..16 {
                    call();
                }
                calls += 16;
            }
            f64::from(calls) / begun.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    for policies in [1, 10, 100] {
        let last = statement(policies - 1, STATEMENTS - 1).team;
        let context = BTreeMap::from([("aws:principaltag/team".to_owned(), vec![last.clone()])]);
        let principal = Principal::User {
            account: "123456789012".parse().expect("twelve digits"),
            path: "/".into(),
            name: "bench".into(),
            id: "AIDABENCH".into(),
        };
        let mut authority = Authority::bare(principal, context);
        let documents: Vec<String> = (0..policies).map(document).collect();
        authority.identity = documents
            .iter()
            .enumerate()
            .map(|(at, text)| NamedPolicy::parse(format!("policy-{at}"), text, DocumentKind::Identity))
            .collect();
        let bytes = documents.iter().map(String::len).sum::<usize>() / policies;

        let set: PolicySet = cedar_text(policies).parse().expect("Cedar's own language");
        let (authorizer, entities) = (Authorizer::new(), Entities::empty());
        for (verdict, action) in [
            ("allowed by the last statement", "sagemaker:DescribeModel"),
            ("denied", "sagemaker:StopTrainingJob"),
        ] {
            let resource = format!("arn:aws:sagemaker:us-east-1:123456789012:model/{last}-1");
            let question = Question::on(action, &resource.parse().expect("an ARN"));
            let ours = || decide(&authority, &question, &ResourceSide::default()).is_ok();
            let uid = |text: String| text.parse::<EntityUid>().expect("an entity's name");
            let context =
                Context::from_json_value(json!({"resource": resource, "team": last}), None).expect("a record");
            let request = Request::new(
                uid("User::\"bench\"".into()),
                uid(format!("Action::\"{action}\"")),
                uid(format!("Resource::\"{resource}\"")),
                context,
                None,
            )
            .expect("no schema to break");
            let peer = || authorizer.is_authorized(&request, &set, &entities).decision() == Decision::Allow;
            let expected = action == "sagemaker:DescribeModel";
            assert_eq!(
                (ours(), peer()),
                (expected, expected),
                "both engines must answer the question right"
            );
            let row = json!({"policies": policies, "bytes": bytes, "verdict": verdict,
                "ours": rate(|| { black_box(ours()); }), "cedar": rate(|| { black_box(peer()); })});
            println!("{row}");
        }
    }
}
