use super::*;
use crate::audit::{Ended, of_request};
use crate::ecr::fixture::{Fixture, root};
use isolarium_store::Keep;

const ACCOUNT: &str = "123456789012";

fn told(lab: &Fixture, account: &str, name: &str, ago: i64) {
    let at = Timestamp(lab.ctx(&root(ACCOUNT)).clock.now().0 - ago);
    let caller = root(account);
    let event = of_request(&caller, "sagemaker.amazonaws.com", name, Ended::WELL, at);
    lab.trail.submit(event, Keep::Change).wait().unwrap();
}

fn lookup(lab: &Fixture, request: shapes::LookupEventsRequest) -> Result<shapes::LookupEventsResponse, ApiError> {
    lab.call("cloudtrail", "LookupEvents", request)
}

fn names(answer: shapes::LookupEventsResponse) -> Vec<String> {
    answer
        .events
        .unwrap()
        .into_iter()
        .map(|event| event.event_name.unwrap())
        .collect()
}

fn by(key: shapes::LookupAttributeKey, value: &str) -> shapes::LookupEventsRequest {
    shapes::LookupEventsRequest {
        lookup_attributes: Some(vec![shapes::LookupAttribute {
            attribute_value: value.into(),
            ..shapes::LookupAttribute::new(key)
        }]),
        ..Default::default()
    }
}

#[test]
fn a_caller_sees_the_management_events_of_its_account_of_90_days_page_by_page_and_never_the_engines_part() {
    let lab = Fixture::new();
    const DAY: i64 = 86_400_000;
    told(&lab, ACCOUNT, "TooOld", 91 * DAY);
    told(&lab, "210987654321", "Foreign", 0);
    for (name, ago) in [
        ("CreateModel", 89 * DAY),
        ("DescribeModel", 2000),
        ("DeleteModel", 1000),
    ] {
        told(&lab, ACCOUNT, name, ago);
    }
    let all = lookup(&lab, Default::default()).unwrap();
    let record = all.events.as_ref().unwrap()[0].cloud_trail_event.clone().unwrap();
    assert!(
        record.contains("\"eventName\":\"DeleteModel\"") && !record.contains("decision"),
        "{record}"
    );
    assert_eq!(names(all), ["DeleteModel", "DescribeModel", "CreateModel"]);

    let page = |next_token| shapes::LookupEventsRequest {
        max_results: Some(2),
        next_token,
        ..Default::default()
    };
    let first = lookup(&lab, page(None)).unwrap();
    let token = first.next_token.clone();
    assert_eq!(names(first), ["DeleteModel", "DescribeModel"]);
    let second = lookup(&lab, page(token.clone())).unwrap();
    assert_eq!(
        (second.next_token.clone(), names(second)),
        (None, vec!["CreateModel".to_owned()])
    );
    let other = shapes::LookupEventsRequest {
        next_token: token,
        ..by(shapes::LookupAttributeKey::ReadOnly, "true")
    };
    assert_eq!(lookup(&lab, other).unwrap_err().code, "InvalidNextTokenException");
    assert_eq!(
        names(lookup(&lab, by(shapes::LookupAttributeKey::ReadOnly, "true")).unwrap()),
        ["DescribeModel"]
    );
    assert_eq!(
        names(lookup(&lab, by(shapes::LookupAttributeKey::Username, "root")).unwrap()).len(),
        3
    );
}

#[test]
fn bad_questions_get_cloudtrails_errors() {
    let lab = Fixture::new();
    let code = |request| lookup(&lab, request).unwrap_err().code;
    let mut two = by(shapes::LookupAttributeKey::EventName, "a");
    let again = two.lookup_attributes.clone().unwrap();
    two.lookup_attributes.as_mut().unwrap().extend(again);
    assert_eq!(code(two), "InvalidLookupAttributesException");
    assert_eq!(
        code(by(shapes::LookupAttributeKey::ReadOnly, "maybe")),
        "InvalidLookupAttributesException"
    );
    let span = shapes::LookupEventsRequest {
        start_time: Some(2),
        end_time: Some(1),
        ..Default::default()
    };
    assert_eq!(code(span), "InvalidTimeRangeException");
    let token = shapes::LookupEventsRequest {
        next_token: Some("nonsense".into()),
        ..Default::default()
    };
    assert_eq!(code(token), "InvalidNextTokenException");
    assert!(lookup(&lab, Default::default()).is_ok(), "control");
}
