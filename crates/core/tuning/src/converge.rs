//! Whether more trials are unlikely to help: `ConvergenceDetected`.

use crate::chance::Chance;
use crate::gauss::expected_improvement;
use crate::search::{Model, Score, Search};

/// What counts as an improvement, as a share of the best value (AWS documents one percent).
const SHARE: f64 = 0.01;
/// Values needed at least, and for each hyperparameter.
const FEWEST: usize = 10;
const EACH: usize = 4;
/// Combinations that are looked at.
const LOOKS: usize = 2000;

/// Whether no combination is expected to improve the best value by more than one percent.
pub fn has_converged(search: &Search<'_>) -> bool {
    let own = || search.tried.iter().filter(|one| one.elsewhere.is_none());
    let values: Vec<f64> = own()
        .filter_map(|one| match one.score {
            Score::Value(value) => Some(search.goal.cost(value)),
            Score::Pending | Score::Missing => None,
        })
        .collect();
    if values.len() < FEWEST + EACH * search.space.len() {
        return false;
    }
    let Some(best) = values.iter().copied().min_by(f64::total_cmp) else {
        return false;
    };
    let Some(model) = Model::of(search) else { return false };
    let mut chance = Chance::new(search.seed, u64::MAX - 1);
    let leaders: Vec<_> = own()
        .filter(|one| one.score == Score::Value(search.goal.cost(best)))
        .collect();
    (0..LOOKS).all(|look| {
        let values = match leaders.first() {
            // Half of them near the best: that is where small improvements are.
            Some(leader) if look % 2 == 0 => search.space.near(&leader.values, 0.05, &mut chance),
            _ => search.space.draw(&mut chance),
        };
        let Some(point) = search.space.encode(&values) else {
            return true;
        };
        let belief = model.process.at(&point);
        let gain = model.unit * expected_improvement(belief.mean, belief.deviation, model.best);
        gain <= SHARE * best.abs()
    })
}
