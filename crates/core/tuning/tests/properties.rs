//! Whatever the ranges, the seed and what came of earlier trials: suggestions are values of the space.

use isolarium_model::sagemaker::tuning_job::{Domain, Goal, ParameterRange, Scaling, Strategy, Values};
use isolarium_tuning::{Observed, Score, Search, Space, grid_size};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn continuous() -> impl Strategy_<Value = Domain> {
    let any = (-1e6..1e6, 0.0..1e6).prop_map(|(min, width)| Domain::Continuous {
        min,
        max: min + width,
        scaling: Scaling::Linear,
    });
    let positive = (
        1e-9..1.0,
        1.0..1e9,
        prop_oneof![Just(Scaling::Auto), Just(Scaling::Logarithmic)],
    )
        .prop_map(|(min, factor, scaling)| Domain::Continuous {
            min,
            max: min * factor,
            scaling,
        });
    let reverse = (0.0..0.5, 0.5..0.999_999).prop_map(|(min, max)| Domain::Continuous {
        min,
        max,
        scaling: Scaling::ReverseLogarithmic,
    });
    prop_oneof![any, positive, reverse]
}

fn integer() -> impl Strategy_<Value = Domain> {
    let any = (-1_000_000_i64..1_000_000, 0_i64..1_000_000).prop_map(|(min, width)| Domain::Integer {
        min,
        max: min + width,
        scaling: Scaling::Auto,
    });
    let log = (1_i64..100, 0_i64..100_000).prop_map(|(min, width)| Domain::Integer {
        min,
        max: min + width,
        scaling: Scaling::Logarithmic,
    });
    prop_oneof![any, log]
}

fn categorical() -> impl Strategy_<Value = Domain> {
    prop::collection::btree_set("[a-z\"]{0,6}", 1..6).prop_map(|values: BTreeSet<String>| Domain::Categorical {
        values: values.into_iter().collect(),
    })
}

use proptest::strategy::Strategy as Strategy_;

fn named(domains: Vec<Domain>) -> Vec<ParameterRange> {
    let named = domains.into_iter().enumerate();
    named
        .map(|(at, domain)| ParameterRange {
            name: format!("p{at}"),
            domain,
        })
        .collect()
}

fn ranges() -> impl Strategy_<Value = Vec<ParameterRange>> {
    prop::collection::vec(prop_oneof![continuous(), integer(), categorical()], 1..6).prop_map(named)
}

/// The check that does not use the crate's own: by type and bounds of the range as text.
fn is_allowed(range: &ParameterRange, text: &str) -> bool {
    match &range.domain {
        Domain::Continuous { min, max, .. } => {
            !text.contains(['e', 'E']) && text.parse::<f64>().is_ok_and(|value| value >= *min && value <= *max)
        }
        Domain::Integer { min, max, .. } => text.parse::<i64>().is_ok_and(|value| value >= *min && value <= *max),
        Domain::Categorical { values } => values.iter().any(|value| value == text),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Proves: SM-35
    #[test]
    fn suggestions_are_in_range_and_of_the_right_type(
        ranges in ranges(),
        seed in any::<u64>(),
        strategy in prop_oneof![Just(Strategy::Bayesian), Just(Strategy::Random), Just(Strategy::Hyperband)],
        goal in prop_oneof![Just(Goal::Minimize), Just(Goal::Maximize)],
        outcomes in prop::collection::vec(prop_oneof![
            4 => prop_oneof![-1e3..1e3, -1e12..1e12, Just(0.0)].prop_map(Score::Value),
            1 => Just(Score::Missing),
            1 => Just(Score::Pending),
        ], 14),
    ) {
        let space = Space::new(&ranges).unwrap();
        let mut tried: Vec<Observed> = Vec::new();
        for score in outcomes {
            let search = Search { strategy, space: &space, goal, seed, tried: &tried };
            let values = search.suggest().unwrap();
            prop_assert_eq!(values.len(), ranges.len());
            for range in &ranges {
                prop_assert!(is_allowed(range, &values[&range.name]), "{:?} {}", range, values[&range.name]);
            }
            prop_assert!(space.contains(&values));
            tried.push(Observed { values, score, elsewhere: None });
        }
    }

    /// Proves: SM-35
    #[test]
    fn a_grid_is_the_whole_set_without_repeats(domains in prop::collection::vec(categorical(), 1..5)) {
        let ranges = named(domains);
        let space = Space::new(&ranges).unwrap();
        let size = grid_size(&ranges).unwrap();
        let mut tried: Vec<Observed> = Vec::new();
        loop {
            let search = Search { strategy: Strategy::Grid, space: &space, goal: Goal::Minimize, seed: 1, tried: &tried };
            let Some(values) = search.suggest() else { break };
            tried.push(Observed { values, score: Score::Pending, elsewhere: None });
        }
        let different: BTreeSet<&Values> = tried.iter().map(|one| &one.values).collect();
        prop_assert_eq!(different.len() as u64, size);
        prop_assert_eq!(tried.len() as u64, size);
    }

    /// Proves: SM-35
    #[test]
    fn values_of_a_parent_are_taken_only_where_they_are_in_range(ranges in ranges(), seed in any::<u64>()) {
        let space = Space::new(&ranges).unwrap();
        let search = Search { strategy: Strategy::Random, space: &space, goal: Goal::Minimize, seed, tried: &[] };
        let mut values = search.suggest().unwrap();
        let own = values.clone();
        values.insert("static".into(), "1".into());
        prop_assert_eq!(space.pick(&values), Some(own));
        values.insert("p0".into(), "\u{1}not a value".into());
        prop_assert_eq!(space.pick(&values), None);
    }
}
