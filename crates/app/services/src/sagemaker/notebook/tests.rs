use super::super::notebook_session::{self as session, NotebookSession, OPENS_WITHIN, Unwelcome};
use super::super::shapes::*;
use crate::context::Source;
use crate::ecr::fixture::{Fixture, START, refusal, root, scope};
use crate::iam::tests::user_caller;
use crate::{Caller, Dispatch};
use isolarium_model::sagemaker as records;
use isolarium_model::sagemaker::{Attachment, NotebookEvent, Placement};
use isolarium_model::{Key, Timestamp, WorkloadId};
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ACCOUNT: &str = "123456789012";
const ROLE: &str = "arn:aws:iam::123456789012:role/exec";

fn call<O>(fixture: &Fixture, operation: &str, input: Value) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_value(input).unwrap();
    fixture.call("sagemaker", operation, input)
}

fn furnished() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.platform.settings.notebooks.image = Some("123456789012.dkr.ecr.us-east-1.amazonaws.com/jupyter:1".into());
    fixture
}

fn create(fixture: &Fixture, name: &str) -> Result<CreateNotebookInstanceOutput, ApiError> {
    let request = json!({ "NotebookInstanceName": name, "InstanceType": "ml.t3.medium", "RoleArn": ROLE });
    call(fixture, "CreateNotebookInstance", request)
}

fn state(fixture: &Fixture) -> &dyn StateStore {
    &fixture.store
}

fn key(name: &str) -> Key {
    records::NotebookInstance::key(&scope(ACCOUNT), name)
}

fn change(fixture: &Fixture, name: &str, change: impl FnOnce(&mut records::NotebookInstance)) {
    let found = state(fixture)
        .get::<records::NotebookInstance>(&key(name))
        .unwrap()
        .unwrap();
    let mut record = found.record;
    change(&mut record);
    let batch = Batch::default()
        .put(&key(name), Expect::At(found.revision), &record)
        .unwrap();
    fixture.store.commit(batch).unwrap();
}

/// As the loop would bring it into service.
fn serve(fixture: &Fixture, name: &str, workload: &str) {
    change(fixture, name, |record| {
        record.run.placement = Some(Placement {
            workload: workload.parse().unwrap(),
            attachment: Attachment::Isolated,
        });
        record.apply(NotebookEvent::Ready, Timestamp(START)).unwrap();
    });
}

fn url(fixture: &Fixture, caller: &Caller, name: &str) -> Result<String, ApiError> {
    let input: Document = serde_json::from_value(json!({ "NotebookInstanceName": name })).unwrap();
    let operation = "CreatePresignedNotebookInstanceUrl";
    let answer = Dispatch::default().call("sagemaker", operation, input, &fixture.ctx(caller));
    let answer = CreatePresignedNotebookInstanceUrlOutput::try_from(answer.unwrap()?).unwrap();
    Ok(answer.authorized_url.unwrap())
}

fn token(url: &str) -> &str {
    url.split_once("?authToken=").unwrap().1
}

/// Proves: SM-46
#[test]
fn without_an_image_the_operator_is_told_what_to_set() {
    let fixture = Fixture::new();
    let (code, message) = refusal(create(&fixture, "lab"));
    assert_eq!(code, "ValidationException");
    assert!(message.contains("notebooks.image"), "{message}");
    assert!(state(&fixture).all::<records::NotebookInstance>().unwrap().is_empty());
    create(&furnished(), "lab").expect("control: with one it is made");
}

/// Proves: SM-46
#[test]
fn lists_are_filtered_by_what_rows_do_not_show_and_pages_stay_whole() {
    let fixture = furnished();
    for n in 0..12 {
        let name = format!("lab-{n:02}");
        create(&fixture, &name).unwrap();
        let config = ["alpha", "beta", "gamma"][n % 3];
        change(&fixture, &name, |record| {
            record.spec.lifecycle_config = Some(config.into())
        });
    }
    let mut seen = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut request = json!({ "MaxResults": 3, "NotebookInstanceLifecycleConfigNameContains": "ETA" });
        if let Some(token) = &token {
            request["NextToken"] = json!(token);
        }
        let page: ListNotebookInstancesOutput = call(&fixture, "ListNotebookInstances", request).unwrap();
        let rows = page.notebook_instances.unwrap();
        assert!(rows.len() <= 3);
        seen.extend(rows.into_iter().map(|row| row.notebook_instance_name));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["lab-01", "lab-04", "lab-07", "lab-10"]);
    let none: ListNotebookInstancesOutput = call(
        &fixture,
        "ListNotebookInstances",
        json!({ "DefaultCodeRepositoryContains": "git" }),
    )
    .unwrap();
    assert_eq!(none.notebook_instances, Some(Vec::new()));
}

/// Proves: SM-47, SM-48
#[test]
fn a_url_is_opened_once_within_five_minutes_and_only_for_its_container() {
    let fixture = furnished();
    create(&fixture, "Lab").unwrap();
    let caller = root(ACCOUNT);
    let (_, message) = refusal(url(&fixture, &caller, "Lab"));
    assert!(
        message.starts_with("Status (Pending) not in ([InService])"),
        "{message}"
    );
    serve(&fixture, "Lab", "w-00000000000000001");
    let ctx = fixture.ctx(&caller);
    let known = |name: &str, secret: &str, opened: bool| {
        let now = Timestamp(fixture.clock.0.load(Ordering::Relaxed));
        session::known(&fixture.store, now, &scope(ACCOUNT), name, secret, opened)
    };
    let made = url(&fixture, &caller, "Lab").unwrap();
    let first = token(&made).to_owned();
    let stored = state(&fixture).all::<NotebookSession>().unwrap();
    assert!(
        stored.iter().all(|row| !row.key.name.contains(&first)),
        "the store does not know the token"
    );
    assert!(matches!(known("other", &first, false), Err(Unwelcome::Unknown)));
    assert!(
        matches!(known("lab", &first, true), Err(Unwelcome::Unknown)),
        "it is no session"
    );
    assert!(matches!(known("lab", "../x", false), Err(Unwelcome::Unknown)));
    let found = known("lab", &first, false).unwrap();
    let workload: WorkloadId = "w-00000000000000001".parse().unwrap();
    assert_eq!(session::admitted(&ctx, &found).unwrap(), workload);
    let (secret, lasts) = session::open(&ctx, &first, &found).unwrap();
    assert_eq!(lasts.as_secs(), 43_200);
    assert!(
        matches!(session::open(&ctx, &first, &found), Err(Unwelcome::Unknown)),
        "once"
    );
    assert!(matches!(known("lab", &first, false), Err(Unwelcome::Unknown)));
    let opened = known("lab", &secret, true).unwrap();
    assert!(
        matches!(known("lab", &secret, false), Err(Unwelcome::Unknown)),
        "it opens nothing"
    );

    // One that nobody opens.
    let late = url(&fixture, &caller, "Lab").unwrap();
    let limit = i64::try_from(OPENS_WITHIN.as_millis()).unwrap();
    fixture.clock.0.fetch_add(limit - 1, Ordering::Relaxed);
    assert!(
        known("lab", token(&late), false).is_ok(),
        "control: until then it opens"
    );
    fixture.clock.0.fetch_add(1, Ordering::Relaxed);
    assert!(matches!(known("lab", token(&late), false), Err(Unwelcome::Unknown)));
    assert!(session::admitted(&ctx, &opened).is_ok(), "the session goes on");
    let now = Timestamp(fixture.clock.0.load(Ordering::Relaxed));
    assert_eq!(session::sweep(&fixture.store, now).unwrap(), 1);
    assert!(known("lab", &secret, true).is_ok());

    // Another container of the same instance.
    change(&fixture, "Lab", |record| {
        for event in [
            NotebookEvent::StopRequested,
            NotebookEvent::StopFinished,
            NotebookEvent::StartRequested,
        ] {
            record.apply(event, now).unwrap();
        }
    });
    assert!(matches!(session::admitted(&ctx, &opened), Err(Unwelcome::Stopped)));
    serve(&fixture, "Lab", "w-00000000000000002");
    assert!(matches!(session::admitted(&ctx, &opened), Err(Unwelcome::Stopped)));
    fixture.clock.0.fetch_add(43_200_000, Ordering::Relaxed);
    assert!(
        matches!(session::admitted(&ctx, &opened), Err(Unwelcome::Unknown)),
        "over"
    );
}

/// Proves: SM-48, PL-17, PL-18
#[test]
fn a_session_is_worth_what_its_maker_may_do_from_where_the_visitor_is() {
    let fixture = furnished();
    create(&fixture, "lab").unwrap();
    serve(&fixture, "lab", "w-00000000000000001");
    let allow = |condition: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Resource":"*",
                "Action":"sagemaker:CreatePresignedNotebookInstanceUrl"{condition}}}]}}"#
        )
    };
    let free = user_caller(&fixture, "free", Some(&allow("")));
    let bound = user_caller(
        &fixture,
        "bound",
        Some(&allow(r#","Condition":{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}}"#)),
    );
    let outside = Source::Public {
        address: [203, 0, 113, 9].into(),
        secure: true,
    };
    for (maker, from_outside) in [(free, true), (bound, false)] {
        let made = url(&fixture, &maker, "lab").unwrap();
        let found = session::known(
            &fixture.store,
            Timestamp(START),
            &scope(ACCOUNT),
            "lab",
            token(&made),
            false,
        );
        let found = found.unwrap();
        let visitor = Caller {
            source: outside.clone(),
            ..maker.clone()
        };
        let admitted = session::admitted(&fixture.ctx(&visitor), &found);
        match admitted {
            Ok(_) => assert!(from_outside),
            Err(Unwelcome::Denied(text)) => assert!(!from_outside, "{text}"),
            Err(other) => panic!("{other}"),
        }
        assert!(
            session::admitted(&fixture.ctx(&maker), &found).is_ok(),
            "control: from its own place"
        );
    }
}
