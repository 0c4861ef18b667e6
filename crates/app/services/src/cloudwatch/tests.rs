use super::math::{Budget, Expression, Series, Spent};
use super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal};
use isolarium_wire::ApiError;
use std::borrow::Cow;
use std::collections::BTreeMap;

const MINUTE: i64 = 60_000;
/// A whole minute: the fixture's time rounded down.
const NOW: i64 = START / MINUTE * MINUTE;

fn put(fixture: &Fixture, namespace: &str, data: Vec<MetricDatum>) -> Result<PutMetricDataOutput, ApiError> {
    let request = PutMetricDataInput {
        namespace: namespace.into(),
        metric_data: Some(data),
        ..Default::default()
    };
    fixture.call("cloudwatch", "PutMetricData", request)
}

fn datum(name: &str, at: i64, value: f64) -> MetricDatum {
    MetricDatum {
        metric_name: name.into(),
        timestamp: Some(at),
        value: Some(value),
        unit: Some(StandardUnit::Count),
        ..Default::default()
    }
}

fn statistics(fixture: &Fixture, name: &str, period: i64) -> Vec<(i64, f64, f64, f64)> {
    let request = GetMetricStatisticsInput {
        namespace: "app".into(),
        metric_name: name.into(),
        dimensions: None,
        start_time: NOW - 10 * MINUTE,
        end_time: NOW + MINUTE,
        period,
        statistics: Some(vec![Statistic::Average, Statistic::Sum, Statistic::SampleCount]),
        extended_statistics: None,
        unit: None,
    };
    let answer: GetMetricStatisticsOutput = fixture.call("cloudwatch", "GetMetricStatistics", request).unwrap();
    let points = answer.datapoints.unwrap().into_iter();
    points
        .map(|one| {
            assert_eq!((one.unit, one.maximum), (Some(StandardUnit::Count), None));
            let value = |value: Option<f64>| value.unwrap();
            (
                one.timestamp.unwrap() - NOW,
                value(one.average),
                value(one.sum),
                value(one.sample_count),
            )
        })
        .collect()
}

#[test]
fn values_sets_and_counts_are_folded_into_periods() {
    let fixture = Fixture::new();
    let set = MetricDatum {
        value: None,
        statistic_values: Some(StatisticSet {
            sample_count: 4.0,
            sum: 20.0,
            minimum: 1.0,
            maximum: 9.0,
        }),
        ..datum("m", NOW - MINUTE, 0.0)
    };
    let counted = MetricDatum {
        value: None,
        values: Some(vec![2.0, 3.0]),
        counts: Some(vec![5.0, 1.0]),
        ..datum("m", NOW, 0.0)
    };
    put(&fixture, "app", vec![datum("m", NOW - MINUTE, 4.0), set, counted]).unwrap();
    assert_eq!(
        statistics(&fixture, "m", 60),
        [(-MINUTE, 24.0 / 5.0, 24.0, 5.0), (0, 13.0 / 6.0, 13.0, 6.0)]
    );
    assert_eq!(statistics(&fixture, "m", 3600).len(), 1);
    assert!(statistics(&fixture, "other", 60).is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_of_it_is_kept() {
    let fixture = Fixture::new();
    let good = datum("m", NOW, 1.0);
    let two = MetricDatum {
        values: Some(vec![1.0]),
        ..good.clone()
    };
    let none = MetricDatum {
        value: None,
        ..good.clone()
    };
    let sizes = MetricDatum {
        value: None,
        values: Some(vec![1.0]),
        counts: Some(vec![1.0, 2.0]),
        ..good.clone()
    };
    for (namespace, wrong, code) in [
        ("AWS/SageMaker", good.clone(), "InvalidParameterValueException"),
        ("app", two, "InvalidParameterCombinationException"),
        ("app", none, "MissingRequiredParameterException"),
        ("app", sizes, "InvalidParameterValueException"),
        ("app", datum("m", NOW, f64::NAN), "InvalidParameterValueException"),
        (
            "app",
            datum("m", NOW - 15 * 86_400_000, 1.0),
            "InvalidParameterValueException",
        ),
        (
            "app",
            datum("m", NOW + 3 * 3_600_000, 1.0),
            "InvalidParameterValueException",
        ),
    ] {
        assert_eq!(refusal(put(&fixture, namespace, vec![good.clone(), wrong])).0, code);
    }
    assert!(statistics(&fixture, "m", 60).is_empty());
    put(&fixture, "app", vec![good]).unwrap();
    assert_eq!(statistics(&fixture, "m", 60).len(), 1, "control");
}

fn query(id: &str, expression: Option<&str>) -> MetricDataQuery {
    MetricDataQuery {
        id: id.into(),
        expression: expression.map(Into::into),
        metric_stat: expression.is_none().then(|| MetricStat {
            metric: Metric {
                namespace: Some("app".into()),
                metric_name: Some(id.into()),
                dimensions: None,
            },
            period: 60,
            stat: "Sum".into(),
            unit: None,
        }),
        ..Default::default()
    }
}

fn data(
    fixture: &Fixture,
    queries: Vec<MetricDataQuery>,
    most: Option<i64>,
    token: Option<String>,
) -> Result<GetMetricDataOutput, ApiError> {
    let request = GetMetricDataInput {
        metric_data_queries: queries,
        start_time: NOW - 10 * MINUTE,
        end_time: NOW + MINUTE,
        max_datapoints: most,
        next_token: token,
        scan_by: Some(ScanBy::TimestampAscending),
        label_options: None,
    };
    fixture.call("cloudwatch", "GetMetricData", request)
}

#[test]
fn expressions_compute_where_all_their_metrics_have_values_and_pages_lose_nothing() {
    let fixture = Fixture::new();
    let points = |name: &str, values: &[(i64, f64)]| {
        let data = values.iter().map(|(at, value)| datum(name, NOW + at * MINUTE, *value));
        put(&fixture, "app", data.collect()).unwrap();
    };
    points("a", &[(-2, 4.0), (-1, 6.0), (0, 8.0)]);
    points("b", &[(-2, 2.0), (0, 0.0)]);
    let queries = vec![
        query("rate", Some("100 * (a - 1) / b")),
        query("a", None),
        query("b", None),
    ];
    let answer = data(&fixture, queries.clone(), None, None).unwrap();
    let shown = |answer: &GetMetricDataOutput| -> Vec<(String, Vec<f64>)> {
        let results = answer.metric_data_results.clone().unwrap().into_iter();
        results.map(|one| (one.id.unwrap(), one.values.unwrap())).collect()
    };
    let whole = shown(&answer);
    assert_eq!(
        whole[0],
        ("rate".into(), vec![150.0]),
        "a division by zero has no value"
    );
    assert_eq!(whole[1], ("a".into(), vec![4.0, 6.0, 8.0]));
    assert_eq!(answer.next_token, None);
    let (mut paged, mut token) = (BTreeMap::<String, Vec<f64>>::new(), None);
    for _ in 0..10 {
        let page = data(&fixture, queries.clone(), Some(2), token).unwrap();
        for (id, values) in shown(&page) {
            paged.entry(id).or_default().extend(values);
        }
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(paged, whole.into_iter().collect());
    for wrong in [
        "SUM([a,b])",
        "a +",
        "missing + 1",
        "rate",
        "1 + 1",
        "(a",
        &"(".repeat(100),
    ] {
        let refused = data(&fixture, vec![query("rate", Some(wrong)), query("a", None)], None, None);
        assert_eq!(refusal(refused).0, "ValidationException", "{wrong}");
    }
}

#[test]
fn arithmetic_knows_its_precedence() {
    let three = BTreeMap::from([(1, 3.0)]);
    let values = |_: &str| Series::Values(Cow::Borrowed(&three));
    for (text, worth) in [
        ("1+m*2", 7.0),
        ("(1+m)*2", 8.0),
        ("-m-1", -4.0),
        ("12/m/2", 2.0),
        ("m - -1", 4.0),
    ] {
        let found = Expression::parse(text)
            .unwrap()
            .evaluate(&values, &mut Budget::new(100));
        let worth = Series::Values(Cow::Owned(BTreeMap::from([(1, worth)])));
        assert_eq!(found, Ok(worth), "{text}");
    }
}

#[test]
fn each_step_of_an_expression_is_paid_for() {
    let two = BTreeMap::from([(1, 3.0), (2, 4.0)]);
    let values = |_: &str| Series::Values(Cow::Borrowed(&two));
    let sum = Expression::parse("m+m+m+m").unwrap();
    let mut budget = Budget::new(6);
    assert!(sum.evaluate(&values, &mut budget).is_ok());
    assert_eq!(budget.left(), 0);
    assert_eq!(sum.evaluate(&values, &mut Budget::new(5)), Err(Spent));
    assert_eq!(sum.names().len(), 1, "each name once");
}

#[test]
fn queries_and_expressions_of_a_request_share_one_budget() {
    let fixture = Fixture::new();
    // 900 minutes of one metric: 111 readings of it fit in 100,800 points and 113 do not.
    for hours in 0..15 {
        let minutes = (0..60).map(|minute| datum("m", NOW - (hours * 60 + minute) * MINUTE, 1.0));
        put(&fixture, "app", minutes.collect()).unwrap();
    }
    let ask = |queries: Vec<MetricDataQuery>| {
        let request = GetMetricDataInput {
            metric_data_queries: queries,
            start_time: NOW - 1000 * MINUTE,
            end_time: NOW + MINUTE,
            ..Default::default()
        };
        fixture.call::<_, GetMetricDataOutput>("cloudwatch", "GetMetricData", request)
    };
    let readings = |count: usize| {
        let ids = (0..count).map(|number| MetricDataQuery {
            id: format!("q{number}"),
            ..query("m", None)
        });
        ids.collect::<Vec<_>>()
    };
    let fits = ask(readings(111)).unwrap();
    assert_eq!(fits.metric_data_results.unwrap().len(), 111);
    let (code, text) = refusal(ask(readings(113)));
    assert_eq!(code, "ValidationException");
    assert!(text.contains("the limit of 100800"), "{text}");
    let sum = |steps: usize| {
        let text = vec!["m"; steps + 1].join("+");
        vec![query("m", None), query("e", Some(&text))]
    };
    assert!(ask(sum(100)).is_ok(), "control");
    assert_eq!(refusal(ask(sum(120))).0, "ValidationException");
}
