//! How good the values are that a search finds, on functions whose optimum is known: against a search by chance with the same
//! number of trials, one at a time and with five in flight. Seeds are fixed, so that these tests always give the same
//! numbers on one kind of machine; the margins leave room for other arithmetic. `bench/tuning` compares with a public optimiser.

#[cfg(test)]
mod functions;

use functions::{Problem, best_of_run, branin, hartmann6, median};
use isolarium_model::sagemaker::tuning_job::Strategy;

/// Seeds of every comparison.
const SEEDS: std::ops::Range<u64> = 0..7;

fn medians(problem: &Problem, trials: usize, parallel: usize) -> (f64, f64) {
    let run = |strategy| {
        median(
            SEEDS
                .map(|seed| best_of_run(problem, strategy, seed, trials, parallel))
                .collect(),
        )
    };
    (run(Strategy::Bayesian), run(Strategy::Random))
}

/// Proves: SM-35
#[test]
fn a_bayesian_search_beats_chance_on_branin() {
    for parallel in [1, 5] {
        let (bayesian, random) = medians(&branin(), 40, parallel);
        assert!(bayesian < 0.45, "the minimum is 0.398: {bayesian}");
        assert!(random > 0.6, "control: chance does not find it: {random}");
    }
}

/// Proves: SM-35
#[test]
fn a_bayesian_search_beats_chance_on_hartmann6() {
    for parallel in [1, 5] {
        let (bayesian, random) = medians(&hartmann6(), 60, parallel);
        assert!(bayesian < -2.9, "the minimum is -3.322: {bayesian}");
        assert!(random > -2.4, "control: chance does not find it: {random}");
    }
}
