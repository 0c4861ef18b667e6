use super::prometheus::Exposition;
use super::tally::Tally;
use super::*;
use crate::clock::SystemClock;
use isolarium_model::{Scope, Timestamp};
use isolarium_store::metrics::{self, Span};
use isolarium_store::state::MemoryState;
use isolarium_store::{Database, StateStore};

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

/// Three invocations, two of them of one variant: an answer, a failure of the model, no answer.
fn counted() -> (Arc<Tally>, Collector, Arc<Metrics>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("m.db"), &[metrics::SCHEMA]).unwrap();
    let (tally, store) = (Arc::new(Tally::default()), Arc::new(Metrics::new(Arc::new(database))));
    let collector = Collector::new(tally.clone(), store.clone(), Arc::new(SystemClock));
    let key = Key::folded(&scope(), "Churn");
    tally.begin(&key, "Churn", "a").answered(200);
    tally.begin(&key, "Churn", "a").answered(503);
    drop(tally.begin(&key, "Churn", "b\"\\"));
    (tally, collector, store, dir)
}

fn sums(store: &Metrics, metric: &str, variant: &str) -> Option<(f64, f64)> {
    let span = Span {
        from: Timestamp(0),
        to: Timestamp(i64::MAX),
        period: i64::MAX,
        unit: None,
    };
    let key = MetricKey::of(
        "AWS/SageMaker",
        metric,
        &[("EndpointName", "Churn"), ("VariantName", variant)],
    );
    let points = store.read(&scope(), &key, span).unwrap();
    points
        .first()
        .map(|point| (point.statistics.count, point.statistics.sum))
}

#[test]
fn invocations_become_metrics_of_their_variant_and_are_put_once() {
    let (_tally, collector, store, _dir) = counted();
    collector.put();
    collector.put();
    assert_eq!(sums(&store, "Invocations", "a"), Some((2.0, 2.0)));
    assert_eq!(sums(&store, "Invocation5XXErrors", "a"), Some((2.0, 1.0)));
    assert_eq!(sums(&store, "Invocation4XXErrors", "a"), Some((2.0, 0.0)));
    assert_eq!(sums(&store, "InvocationModelErrors", "a"), Some((2.0, 1.0)));
    assert_eq!(sums(&store, "ModelLatency", "a").map(|(count, _)| count), Some(2.0));
    assert_eq!(sums(&store, "InvocationModelErrors", "b\"\\"), Some((1.0, 1.0)));
    assert_eq!(sums(&store, "ModelLatency", "b\"\\"), None, "nobody answered");
    assert_eq!(collector.totals().len(), 2, "totals stay");
}

#[test]
fn the_exposition_is_text_that_prometheus_reads() {
    let (tally, collector, _store, dir) = counted();
    let key = Key::folded(&scope(), "Churn");
    tally.begin(&key, "Churn", "a").answered(200);
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
    std::fs::write(dir.path().join("state.db"), [0; 100]).unwrap();
    let exposition = Exposition {
        collector: Arc::new(collector),
        store,
        data_dir: dir.path().to_path_buf(),
    };
    let text = exposition.text().unwrap();
    let labels = r#"account="123456789012",region="us-east-1",endpoint="Churn",variant="#;
    for wanted in [
        format!(r#"isolarium_invocations_total{{{labels}"a"}} 3"#),
        format!(r#"isolarium_invocations_total{{{labels}"b\"\\"}} 1"#),
        format!(r#"isolarium_model_latency_seconds_bucket{{{labels}"a",le="+Inf"}} 3"#),
        format!(r#"isolarium_model_latency_seconds_count{{{labels}"b\"\\"}} 0"#),
        "isolarium_store_bytes 100".to_owned(),
        "# TYPE isolarium_model_latency_seconds histogram".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted}\n{text}");
    }
}
