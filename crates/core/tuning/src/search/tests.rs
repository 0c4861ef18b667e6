use super::*;
use isolarium_model::sagemaker::tuning_job::{Domain, ParameterRange, Scaling};

fn point(space: &Space, values: &Values) -> Vec<f64> {
    space.encode(values).unwrap()
}

fn unit_square() -> Space {
    let range = |name: &str| ParameterRange {
        name: name.into(),
        domain: Domain::Continuous {
            min: 0.0,
            max: 1.0,
            scaling: Scaling::Linear,
        },
    };
    Space::new(&[range("x"), range("y")]).unwrap()
}

fn tried(values: &Values, score: Score) -> Observed {
    Observed {
        values: values.clone(),
        score,
        elsewhere: None,
    }
}

fn bowl(values: &Values) -> f64 {
    let at = |name: &str| values[name].parse::<f64>().unwrap();
    (at("x") - 0.3).powi(2) + (at("y") - 0.7).powi(2)
}

fn run(
    space: &Space,
    strategy: Strategy,
    goal: Goal,
    count: usize,
    tell: impl Fn(usize, &Values) -> Score,
) -> Vec<Observed> {
    let mut all: Vec<Observed> = Vec::new();
    for at in 0..count {
        let search = Search {
            strategy,
            space,
            goal,
            seed: 42,
            tried: &all,
        };
        let next = search.suggest().unwrap();
        assert!(space.contains(&next));
        let score = tell(at, &next);
        all.push(tried(&next, score));
    }
    all
}

fn best(all: &[Observed]) -> f64 {
    let values = all.iter().filter_map(|one| match one.score {
        Score::Value(value) => Some(value),
        Score::Pending | Score::Missing => None,
    });
    values.fold(f64::INFINITY, f64::min)
}

/// Proves: SM-35
#[test]
fn the_same_seed_tries_the_same_values_whatever_comes_of_them() {
    let space = unit_square();
    for strategy in [Strategy::Random, Strategy::Hyperband] {
        let one = run(&space, strategy, Goal::Minimize, 12, |_, values| {
            Score::Value(bowl(values))
        });
        let other = run(&space, strategy, Goal::Maximize, 12, |_, _| Score::Missing);
        let values = |all: &[Observed]| all.iter().map(|one| one.values.clone()).collect::<Vec<_>>();
        assert_eq!(values(&one), values(&other));
    }
    let again = || {
        run(&space, Strategy::Bayesian, Goal::Minimize, 12, |_, values| {
            Score::Value(bowl(values))
        })
    };
    assert_eq!(again(), again());
}

/// Proves: SM-35
#[test]
fn a_bayesian_search_finds_the_bottom_of_a_bowl_in_both_directions() {
    let space = unit_square();
    let found = run(&space, Strategy::Bayesian, Goal::Minimize, 20, |_, values| {
        Score::Value(bowl(values))
    });
    assert!(best(&found) < 1e-3, "{}", best(&found));
    let hill = run(&space, Strategy::Bayesian, Goal::Maximize, 20, |_, values| {
        Score::Value(-bowl(values))
    });
    let top = hill.iter().filter_map(|one| match one.score {
        Score::Value(value) => Some(-value),
        Score::Pending | Score::Missing => None,
    });
    assert!(top.fold(f64::INFINITY, f64::min) < 1e-3);
}

/// Proves: SM-35
#[test]
fn trials_that_fail_do_not_stop_a_bayesian_search() {
    let space = unit_square();
    let found = run(&space, Strategy::Bayesian, Goal::Minimize, 30, |at, values| {
        // Half of the square fails, and so does every seventh trial anywhere.
        if at % 7 == 3 || values["x"].parse::<f64>().unwrap() > 0.5 {
            Score::Missing
        } else {
            Score::Value(bowl(values))
        }
    });
    assert!(best(&found) < 1e-2, "{}", best(&found));
    let none = run(&space, Strategy::Bayesian, Goal::Minimize, 15, |_, _| Score::Missing);
    assert_eq!(none.len(), 15);
}

/// Proves: SM-35
#[test]
fn trials_in_flight_are_not_tried_again_nearby() {
    let space = unit_square();
    let mut all = run(&space, Strategy::Bayesian, Goal::Minimize, 6, |_, values| {
        Score::Value(bowl(values))
    });
    let mut batch: Vec<Values> = Vec::new();
    for _ in 0..5 {
        let search = Search {
            strategy: Strategy::Bayesian,
            space: &space,
            goal: Goal::Minimize,
            seed: 42,
            tried: &all,
        };
        let next = search.suggest().unwrap();
        batch.push(next.clone());
        all.push(tried(&next, Score::Pending));
    }
    for (at, one) in batch.iter().enumerate() {
        for other in &batch[..at] {
            let (a, b) = (point(&space, one), point(&space, other));
            let apart: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(apart > 0.02, "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_small_space_is_tried_whole_before_anything_is_repeated() {
    let space = Space::new(&[ParameterRange {
        name: "k".into(),
        domain: Domain::Integer {
            min: 1,
            max: 9,
            scaling: Scaling::Auto,
        },
    }])
    .unwrap();
    for strategy in [Strategy::Bayesian, Strategy::Random] {
        let all = run(&space, strategy, Goal::Minimize, 12, |_, values| {
            Score::Value(values["k"].parse().unwrap())
        });
        let first: BTreeSet<&Values> = all.iter().take(9).map(|one| &one.values).collect();
        assert!(first.len() >= 8, "{strategy:?}: {first:?}");
    }
}

/// Proves: SM-35
#[test]
fn an_earlier_tuning_job_says_where_to_look() {
    let space = unit_square();
    let parent = run(&space, Strategy::Bayesian, Goal::Minimize, 15, |_, values| {
        Score::Value(bowl(values))
    });
    for elsewhere in [None, Some(0)] {
        // Other data has another scale; the bottom is where it was.
        let scale = if elsewhere.is_some() { 50.0 } else { 1.0 };
        let mut all: Vec<Observed> = parent
            .iter()
            .map(|one| Observed {
                elsewhere: Some(0),
                ..one.clone()
            })
            .collect();
        if elsewhere.is_none() {
            all.iter_mut().for_each(|one| one.elsewhere = None);
        }
        let before = all.len();
        for _ in 0..4 {
            let search = Search {
                strategy: Strategy::Bayesian,
                space: &space,
                goal: Goal::Minimize,
                seed: 7,
                tried: &all,
            };
            let next = search.suggest().unwrap();
            let value = bowl(&next) * scale;
            all.push(tried(&next, Score::Value(value)));
        }
        let first = all[before..].iter().map(|one| bowl(&one.values));
        let found = first.fold(f64::INFINITY, f64::min);
        assert!(found < 0.02, "{elsewhere:?}: {found}");
    }
}

/// Proves: SM-35
#[test]
fn convergence_is_seen_when_nothing_is_left_to_gain_and_not_before() {
    let space = unit_square();
    let all = run(&space, Strategy::Bayesian, Goal::Minimize, 40, |_, values| {
        Score::Value(10.0 + bowl(values))
    });
    let search = |tried| Search {
        strategy: Strategy::Bayesian,
        space: &space,
        goal: Goal::Minimize,
        seed: 42,
        tried,
    };
    assert!(crate::has_converged(&search(&all)));
    assert!(!crate::has_converged(&search(&all[..8])), "too few values");
    let steep = run(&space, Strategy::Random, Goal::Minimize, 20, |_, values| {
        Score::Value(bowl(values))
    });
    assert!(
        !crate::has_converged(&search(&steep)),
        "the best is far from the bottom"
    );
}
