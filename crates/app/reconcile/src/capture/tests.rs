use super::*;
use std::sync::atomic::{AtomicI64, Ordering};

/// 2026-03-01T00:59:59.500Z.
const AT: i64 = 1_772_326_799_500;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

fn settings() -> DataCapture {
    DataCapture {
        kms_key: None,
        enabled: true,
        percentage: 100,
        destination: "s3://kept/here/".parse().unwrap(),
        input: true,
        output: true,
        csv: vec!["text/csv".into()],
        json: vec!["application/json".into()],
    }
}

fn capture(settings: DataCapture) -> (Arc<Capture>, Arc<Hand>) {
    let clock = Arc::new(Hand(AtomicI64::new(AT)));
    let one = of(ACCOUNT, settings, clock.clone(), &Arc::default());
    (one, clock)
}

const ACCOUNT: &str = "123456789012";

fn of(account: &str, settings: DataCapture, clock: Arc<Hand>, budget: &Arc<Budget>) -> Arc<Capture> {
    let actor = Actor {
        scope: isolarium_model::Scope {
            account: account.parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
        role_arn: format!("arn:aws:iam::{account}:role/serve").parse().unwrap(),
        owner_arn: format!("arn:aws:sagemaker:us-east-1:{account}:endpoint/ep")
            .parse()
            .unwrap(),
        via: None,
        copies: None,
        kms_key: None,
    };
    Capture::new(settings, actor, "Ep", "v", clock, Arc::clone(budget))
}

fn held(budget: &Budget, account: &str) -> usize {
    let held = budget.held.lock().unwrap();
    held.get(&account.parse().unwrap()).copied().unwrap_or(0)
}

/// All captures share one bound, and no account may take all of it. What goes gives its room back.
///
/// Proves: CC-63
#[test]
fn what_waits_in_all_captures_together_is_bounded() {
    const OTHER: &str = "210987654321";
    let budget = Arc::new(Budget::new(100_000, 60_000));
    let clock = Arc::new(Hand(AtomicI64::new(AT)));
    let fill = |account: &str| {
        let one = of(account, settings(), clock.clone(), &budget);
        for _ in 0..20 {
            one.add("e", None, side("a/b", &[b'x'; 6000]), side("a/b", b"y"));
        }
        one
    };
    let (first, second) = (fill(ACCOUNT), fill(ACCOUNT));
    let own = held(&budget, ACCOUNT);
    assert!((40_000..=60_000).contains(&own), "{own}");
    assert!(second.lock().dropped > first.lock().dropped && first.lock().dropped > 0);
    let third = fill(OTHER);
    let other = held(&budget, OTHER);
    assert!(
        other > 20_000 && own + other <= 100_000,
        "{other}: others find room still"
    );
    assert!(third.lock().dropped > 0);
    assert_eq!(own, first.lock().bytes + second.lock().bytes);
    drop((first, second));
    assert_eq!(held(&budget, ACCOUNT), 0, "given back");
    drop(fill(ACCOUNT));
    drop(third);
    assert!(budget.held.lock().unwrap().is_empty());
}

fn side<'a>(content_type: &'a str, data: &'a [u8]) -> Side<'a> {
    Side {
        content_type: Some(content_type),
        data,
    }
}

fn lines(capture: &Capture) -> Vec<serde_json::Value> {
    let waiting = capture.lock();
    let all: Vec<u8> = waiting.hours.values().flatten().copied().collect();
    let all = String::from_utf8(all).unwrap();
    all.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Proves: CC-62
#[test]
fn a_line_says_what_was_asked_and_answered() {
    let (capture, _) = capture(settings());
    capture.add(
        "e-1",
        Some("mine"),
        side("Text/CSV; charset=utf-8", b"1,2\n"),
        side("application/json", br#"{"a": 1}"#),
    );
    // What is no text is not said to be any; types that are not listed are kept as bytes.
    capture.add("e-2", None, side("text/csv", b"\xff"), side("image/png", b"png"));
    let all = lines(&capture);
    assert_eq!(
        all[0],
        json!({
            "captureData": {
                "endpointInput": {
                    "observedContentType": "Text/CSV; charset=utf-8", "mode": "INPUT", "data": "1,2\n", "encoding": "CSV"
                },
                "endpointOutput": {
                    "observedContentType": "application/json", "mode": "OUTPUT", "data": "{\"a\": 1}", "encoding": "JSON"
                },
            },
            "eventMetadata": { "eventId": "e-1", "inferenceId": "mine", "inferenceTime": "2026-03-01T00:59:59Z" },
            "eventVersion": "0",
        })
    );
    let second = &all[1]["captureData"];
    assert_eq!(second["endpointInput"]["encoding"], "BASE64");
    assert_eq!(second["endpointInput"]["data"], "/w==");
    assert_eq!(second["endpointOutput"]["data"], "cG5n");
    assert!(all[1]["eventMetadata"].get("inferenceId").is_none());
}

/// Proves: CC-60
#[test]
fn only_the_sides_and_the_share_that_were_asked_for_are_kept() {
    let (half, _) = capture(DataCapture {
        percentage: 30,
        output: false,
        ..settings()
    });
    assert_eq!((0..1000).filter(|chance| half.samples(*chance)).count(), 300);
    half.add("e", None, side("a/b", b"x"), side("a/b", b"y"));
    let kept = lines(&half);
    let kept = kept[0]["captureData"].as_object().unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["endpointInput"]);
    for (enabled, percentage, every) in [(true, 0, 0), (true, 100, 1000), (false, 100, 0)] {
        let (one, _) = capture(DataCapture {
            kms_key: None,
            enabled,
            percentage,
            ..settings()
        });
        assert_eq!((0..1000).filter(|chance| one.samples(*chance)).count(), every);
    }
}

/// Proves: CC-61, CC-63
#[test]
fn lines_go_to_the_file_of_their_hour_and_too_many_are_dropped() {
    let (capture, clock) = capture(settings());
    assert_eq!(capture.due(Duration::from_secs(60)), None);
    capture.add("e-1", None, side("a/b", b"x"), side("a/b", b"y"));
    assert_eq!(
        capture.due(Duration::from_secs(60)),
        Some(Timestamp(AT + 60_000)),
        "after the interval"
    );
    clock.0.fetch_add(1000, Ordering::SeqCst);
    capture.add("e-2", None, side("a/b", b"x"), side("a/b", b"y"));
    let hours: Vec<i64> = capture.lock().hours.keys().copied().collect();
    let keys: Vec<String> = hours
        .iter()
        .map(|hour| capture.object(*hour, "r").to_string())
        .collect();
    assert_eq!(
        keys,
        [
            "s3://kept/here/Ep/v/2026/03/01/00/00-00-r.jsonl",
            "s3://kept/here/Ep/v/2026/03/01/01/00-00-r.jsonl"
        ]
    );
    let large = vec![b'x'; 5 << 20];
    capture.add("e-3", None, side("a/b", &large), side("a/b", b"y"));
    assert_eq!(
        capture.due(Duration::from_secs(60)),
        Some(Timestamp(AT)),
        "much is due at once"
    );
    for _ in 0..10 {
        capture.add("more", None, side("a/b", &large), side("a/b", b"y"));
    }
    let waiting = capture.lock();
    assert!(waiting.bytes <= MOST && waiting.dropped > 0, "{}", waiting.bytes);
}
