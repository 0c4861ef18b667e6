use super::*;

const NOW: i64 = 1_700_000_000_000 / HOUR * HOUR;

fn scope(account: &str) -> Scope {
    Scope {
        account: account.parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

struct Lab {
    metrics: Metrics,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("m.db"), &[SCHEMA]).unwrap();
        Self {
            metrics: Metrics::new(Arc::new(database)),
            _dir: dir,
        }
    }

    fn put(&self, at: i64, value: f64, fine: bool) {
        let sample = Sample {
            key: key("a"),
            at: Timestamp(at),
            unit: "Count".into(),
            fine,
            statistics: StatisticSet::of(value, 1.0),
        };
        self.metrics.put(&scope("123456789012"), vec![sample]).unwrap();
    }

    fn read(&self, from: i64, to: i64, period: i64) -> Vec<(i64, StatisticSet)> {
        let span = Span {
            from: Timestamp(from),
            to: Timestamp(to),
            period,
            unit: None,
        };
        let points = self.metrics.read(&scope("123456789012"), &key("a"), span).unwrap();
        points
            .into_iter()
            .map(|point| (point.at.0 - from, point.statistics))
            .collect()
    }
}

fn key(name: &str) -> MetricKey {
    MetricKey::of("ns", name, &[("Host", "algo-1")])
}

fn set(count: f64, sum: f64, min: f64, max: f64) -> StatisticSet {
    StatisticSet { count, sum, min, max }
}

#[test]
fn values_are_folded_per_period_counted_from_the_begin() {
    let lab = Lab::new();
    for (at, value) in [(0, 1.0), (30, 3.0), (61, -5.0), (180, 7.0)] {
        lab.put(NOW + at * SECOND, value, false);
    }
    let minutes = [
        (0, set(2.0, 4.0, 1.0, 3.0)),
        (MINUTE, set(1.0, -5.0, -5.0, -5.0)),
        (3 * MINUTE, set(1.0, 7.0, 7.0, 7.0)),
    ];
    assert_eq!(lab.read(NOW, NOW + HOUR, MINUTE), minutes);
    let shifted = [(0, set(1.0, -5.0, -5.0, -5.0)), (2 * MINUTE, set(1.0, 7.0, 7.0, 7.0))];
    assert_eq!(lab.read(NOW + MINUTE, NOW + HOUR, 2 * MINUTE), shifted);
    assert_eq!(lab.read(NOW, NOW + MINUTE, MINUTE), minutes[..1], "the end is not part");
    let other = scope("210987654321");
    let span = Span {
        from: Timestamp(0),
        to: Timestamp(i64::MAX),
        period: MINUTE,
        unit: None,
    };
    assert!(lab.metrics.read(&other, &key("a"), span).unwrap().is_empty());
}

#[test]
fn old_points_are_folded_into_coarser_ones_and_nothing_is_counted_twice() {
    let lab = Lab::new();
    for second in 0..120 {
        lab.put(NOW + second * SECOND, 1.0, true);
    }
    lab.put(NOW, 1.0, false);
    let total = |lab: &Lab| {
        let points = lab.read(NOW, NOW + DAY, DAY);
        points.first().map(|(_, all)| all.count)
    };
    assert_eq!(total(&lab), Some(121.0));
    assert_eq!(lab.read(NOW, NOW + HOUR, SECOND).len(), 120);
    assert_eq!(lab.metrics.prune(Timestamp(NOW + HOUR)).unwrap(), 0);
    assert_eq!(lab.metrics.prune(Timestamp(NOW + 4 * HOUR)).unwrap(), 120);
    assert_eq!((total(&lab), lab.read(NOW, NOW + HOUR, SECOND).len()), (Some(121.0), 2));
    lab.metrics.prune(Timestamp(NOW + 16 * DAY)).unwrap();
    assert_eq!((total(&lab), lab.read(NOW, NOW + HOUR, SECOND).len()), (Some(121.0), 1));
    lab.metrics.prune(Timestamp(NOW + 64 * DAY)).unwrap();
    assert_eq!(total(&lab), Some(121.0));
    lab.metrics.prune(Timestamp(NOW + 456 * DAY)).unwrap();
    assert_eq!(total(&lab), None);
}

#[test]
fn series_are_listed_by_what_they_are_about_while_they_have_values() {
    let lab = Lab::new();
    let here = scope("123456789012");
    let sample = |key: MetricKey| Sample {
        key,
        at: Timestamp(NOW),
        unit: "None".into(),
        fine: false,
        statistics: StatisticSet::of(1.0, 1.0),
    };
    let keys = [
        key("a"),
        key("b"),
        MetricKey::of("ns", "a", &[]),
        MetricKey::of("other", "a", &[("Host", "algo-2")]),
    ];
    lab.metrics
        .put(&here, keys.iter().cloned().map(sample).collect())
        .unwrap();
    let list = |query: SeriesQuery, now: i64| lab.metrics.list(&here, &query, Timestamp(now)).unwrap();
    let query = SeriesQuery {
        limit: 3,
        ..Default::default()
    };
    let (page, next) = list(query.clone(), NOW);
    assert_eq!(page, keys[..3]);
    let rest = SeriesQuery {
        after: next.unwrap(),
        ..query.clone()
    };
    assert_eq!(list(rest, NOW), (vec![keys[3].clone()], None));
    let hosts = |value: Option<&str>| SeriesQuery {
        dimensions: vec![("Host".into(), value.map(Into::into))],
        ..query.clone()
    };
    assert_eq!(list(hosts(None), NOW).0.len(), 3);
    assert_eq!(list(hosts(Some("algo-2")), NOW).0, keys[3..]);
    assert!(list(query, NOW + 15 * DAY).0.is_empty());
}

/// The one writer serves everybody: what prunes must neither look at all points nor hold it for more than a portion.
#[test]
fn pruning_looks_at_old_rows_alone_and_in_portions() {
    let lab = Lab::new();
    let many = 2 * ROUND + 7;
    let samples = (0..many).map(|number| Sample {
        key: key(&format!("m{}", number % 3000)),
        at: Timestamp(NOW + i64::try_from(number / 3000).unwrap() * SECOND),
        unit: "Count".into(),
        fine: true,
        statistics: StatisticSet::of(1.0, 1.0),
    });
    lab.metrics.put(&scope("123456789012"), samples.collect()).unwrap();
    let points = || -> (i64, f64) {
        let ask = "SELECT count(*), sum(count) FROM metrics_point";
        let read = |c: &Connection| -> Result<_, StoreError> {
            Ok(c.query_row(ask, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
        };
        lab.metrics.database.read(read).unwrap()
    };
    let before = NOW + MINUTE;
    let first = lab
        .metrics
        .database
        .write(move |c| portion(c, SECOND, before, Some(MINUTE)));
    assert_eq!(first.unwrap(), ROUND);
    let folded = lab.metrics.prune(Timestamp(NOW + 4 * HOUR)).unwrap();
    assert_eq!(folded, u64::try_from(many - ROUND).unwrap());
    let (left, total) = points();
    assert_eq!(left, 3000, "one point of a minute for each series");
    assert!(
        (total - 10_007.0).abs() < 0.5,
        "nothing is lost or counted twice: {total}"
    );

    lab.metrics
        .database
        .read(|c| -> Result<(), StoreError> {
            for (statement, values) in [(BEHIND, 3), (FOLD, 5), (REMOVE, 4), (FORGET, 2), (LIST, 6)] {
                let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
                let steps = plan.query_map(rusqlite::params_from_iter(vec![1; values]), |row| {
                    row.get::<_, String>(3)
                })?;
                let steps = steps.collect::<Result<Vec<_>, _>>()?.join("; ");
                assert!(!steps.contains("SCAN"), "{statement}: {steps}");
                assert!(!steps.contains("(rowid>?)"), "{statement}: {steps}");
            }
            Ok(())
        })
        .unwrap();

    lab.metrics.prune(Timestamp(NOW + 456 * DAY)).unwrap();
    let series = "SELECT count(*) FROM metrics_series";
    assert_eq!(
        (number(&lab, "SELECT count(*) FROM metrics_point"), number(&lab, series)),
        (0, 0)
    );
}

fn number(lab: &Lab, ask: &str) -> i64 {
    let read = |c: &Connection| -> Result<i64, StoreError> { Ok(c.query_row(ask, [], |row| row.get(0))?) };
    lab.metrics.database.read(read).unwrap()
}
