//! What is tried next, for each strategy (SM-35).

use crate::chance::Chance;
use crate::gauss::log_expected_improvement;
use crate::kernel::{Process, Seen};
use crate::space::Space;
use isolarium_model::sagemaker::tuning_job::{Goal, Strategy, Values};
use std::collections::BTreeSet;

/// What is known of a combination that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// It still runs.
    Pending,
    /// It ended without a value of the objective.
    Missing,
    /// The objective's last value.
    Value(f64),
}

/// A combination that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub values: Values,
    pub score: Score,
    /// `None`: tried by this tuning job. Else by an earlier one whose data may have been different, which one: its values
    /// are compared among themselves alone.
    pub elsewhere: Option<usize>,
}

/// The state of a search. The next suggestion follows from it alone.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    pub strategy: Strategy,
    pub space: &'a Space,
    pub goal: Goal,
    pub seed: u64,
    /// In the order in which they were tried.
    pub tried: &'a [Observed],
}

/// Combinations drawn anew when one was tried already.
const REDRAWS: usize = 32;
/// Observations that a fit takes at most: the best and the latest.
const MOST: usize = 240;
/// Candidates by chance, and the rounds and width of the search near the best of them.
const CANDIDATES: usize = 600;
const ROUNDS: usize = 5;
const KEPT: usize = 6;
const NEIGHBOURS: usize = 12;
/// By how much values of an earlier job with other data may be off, as a variance of scaled values.
const OTHER_DATA: f64 = 0.25;

impl Search<'_> {
    /// The values to try next. `None` when there is nothing left to try, which is only so for a grid.
    pub fn suggest(&self) -> Option<Values> {
        let own = self.tried.iter().filter(|one| one.elsewhere.is_none()).count();
        let ordinal = u64::try_from(own).unwrap_or(u64::MAX);
        match self.strategy {
            Strategy::Grid => self.space.grid(ordinal),
            Strategy::Random | Strategy::Hyperband => {
                Some(self.fresh(&mut Chance::new(self.seed, ordinal), |space, chance| space.draw(chance)))
            }
            Strategy::Bayesian => Some(self.bayesian(ordinal)),
        }
    }

    /// Draws until the combination is new, as long as there seem to be new ones. What runs and what has ended counts
    /// alike, so that a seed always gives the same values.
    fn fresh(&self, chance: &mut Chance, draw: impl Fn(&Space, &mut Chance) -> Values) -> Values {
        let mut drawn = draw(self.space, chance);
        for _ in 0..REDRAWS {
            let known = self
                .tried
                .iter()
                .any(|one| one.elsewhere.is_none() && one.values == drawn);
            if !known {
                break;
            }
            drawn = draw(self.space, chance);
        }
        drawn
    }

    fn bayesian(&self, ordinal: u64) -> Values {
        let mut chance = Chance::new(self.seed, ordinal);
        let scored = self
            .tried
            .iter()
            .filter(|one| matches!(one.score, Score::Value(_)))
            .count();
        if scored < self.first_points() {
            // A jump along every axis by powers of one irrational number fills the cube evenly from any start.
            let mut start = Chance::new(self.seed, u64::MAX);
            let shares = even(self.space.len(), ordinal, &mut start);
            let known = self.tried.iter().map(|one| &one.values);
            let values = self.space.at(&shares);
            if !known.into_iter().any(|tried| *tried == values) {
                return values;
            }
            return self.fresh(&mut chance, Space::draw);
        }
        self.improving(&mut chance)
            .unwrap_or_else(|| self.fresh(&mut chance, Space::draw))
    }

    /// How many values must be there before they say where to look.
    fn first_points(&self) -> usize {
        (self.space.len() + 2).clamp(4, 12)
    }

    /// The values with the greatest improvement to expect, of those that were not tried.
    fn improving(&self, chance: &mut Chance) -> Option<Values> {
        let model = Model::of(self)?;
        let tried: BTreeSet<&Values> = self.tried.iter().map(|one| &one.values).collect();
        let rate = |values: Values| {
            let point = self.space.encode(&values)?;
            let belief = model.process.at(&point);
            let gain = log_expected_improvement(belief.mean, belief.deviation, model.best);
            // Values that were tried stay the start of steps, they are not tried again.
            Some((gain, values))
        };
        let mut pool: Vec<(f64, Values)> = (0..CANDIDATES)
            .filter_map(|_| rate(self.space.draw(chance)))
            .chain(model.leaders.iter().filter_map(|values| rate(values.clone())))
            .collect();
        let mut reach = 0.1;
        for _ in 0..ROUNDS {
            keep_best(&mut pool, KEPT);
            // The leaders are often not among the best: what is there is known. What lies beside them may be.
            let starts: Vec<Values> = pool
                .iter()
                .map(|(_, values)| values)
                .chain(&model.leaders)
                .cloned()
                .collect();
            for start in starts {
                for _ in 0..NEIGHBOURS {
                    pool.extend(rate(self.space.near(&start, reach, chance)));
                }
            }
            reach *= 0.4;
        }
        pool.retain(|(_, values)| !tried.contains(values));
        keep_best(&mut pool, 1);
        pool.pop().map(|(_, values)| values)
    }
}

/// Keeps the candidates with the greatest gains, each once, the best first.
fn keep_best(pool: &mut Vec<(f64, Values)>, count: usize) {
    pool.sort_by(|(a, left), (b, right)| b.total_cmp(a).then_with(|| left.cmp(right)));
    pool.dedup_by(|(_, a), (_, b)| a == b);
    pool.truncate(count);
}

/// The `ordinal`th of evenly spread points.
fn even(dimensions: usize, ordinal: u64, start: &mut Chance) -> Vec<f64> {
    // The positive root of x^(d+1) = x + 1, found by iteration.
    let degree = dimensions as f64 + 1.0;
    let mut root = 2.0_f64;
    for _ in 0..60 {
        root = (1.0 + root).powf(1.0 / degree);
    }
    let (mut power, mut shares) = (1.0, Vec::with_capacity(dimensions));
    for _ in 0..dimensions {
        power /= root;
        shares.push((start.unit() + (ordinal as f64 + 1.0) * power).fract());
    }
    shares
}

/// What was learnt from observations, in scaled costs: less is better.
pub(crate) struct Model {
    pub process: Process,
    /// The best cost, that of pending trials included as it is expected.
    pub best: f64,
    /// Values with the best costs so far.
    leaders: Vec<Values>,
    /// What one unit of scaled cost is near the best, in units of the objective.
    pub unit: f64,
}

impl Model {
    /// Fits the observations. `None` when there are none or the numbers do not bear it.
    pub fn of(search: &Search<'_>) -> Option<Self> {
        let groups = search.space.groups();
        let mut seen: Vec<(Seen, &Values, bool)> = Vec::new();
        let own = scaled(search, None, &mut seen);
        let parents: BTreeSet<usize> = search.tried.iter().filter_map(|one| one.elsewhere).collect();
        for parent in parents {
            scaled(search, Some(parent), &mut seen);
        }
        let order = |list: &mut Vec<(Seen, &Values, bool)>| {
            // Own observations first, then by cost.
            list.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.value.total_cmp(&b.0.value)));
        };
        if seen.len() > MOST {
            let latest = seen.split_off(seen.len().saturating_sub(MOST / 2));
            order(&mut seen);
            seen.truncate(MOST / 2);
            seen.extend(latest);
        }
        order(&mut seen);
        let known_best = seen.first().map(|(one, _, _)| one.value)?;
        let leaders = seen.iter().take(3).map(|(_, values, _)| (*values).clone()).collect();
        let seen: Vec<Seen> = seen.into_iter().map(|(one, _, _)| one).collect();
        let mut process = Process::fit(&groups, &seen)?;
        let mut best = known_best;
        for one in search.tried {
            let pending = one.score == Score::Pending && one.elsewhere.is_none();
            if let (true, Some(point)) = (pending, search.space.encode(&one.values)) {
                best = best.min(process.believe(&point));
            }
        }
        Some(Self {
            process,
            best,
            leaders,
            unit: own.unwrap_or(1.0),
        })
    }
}

/// Adds the observations of one source, scaled so that their middle is 0: large costs are drawn in, for what is far from
/// the best needs no precision. A trial that failed counts as the worst one. Returns the unit of the scale.
fn scaled<'a>(search: &Search<'a>, source: Option<usize>, seen: &mut Vec<(Seen, &'a Values, bool)>) -> Option<f64> {
    let of_source = || search.tried.iter().filter(|one| one.elsewhere == source);
    let mut costs: Vec<f64> = of_source()
        .filter_map(|one| match one.score {
            Score::Value(value) => Some(search.goal.cost(value)),
            Score::Pending | Score::Missing => None,
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    let best = costs.first().copied()?;
    let worst = costs.last().copied()?;
    let middle = costs.get(costs.len() / 2).copied()?;
    // How far the better half reaches is the unit; where it is all one value, the whole range is.
    let unit = [middle - best, worst - best, 1.0]
        .into_iter()
        .find(|unit| *unit > 1e-12 && unit.is_finite())?;
    let draw_in = |cost: f64| {
        let off = (cost - middle) / unit;
        if off > 0.0 { off.ln_1p() } else { off }
    };
    for one in of_source() {
        let cost = match one.score {
            Score::Value(value) => search.goal.cost(value),
            Score::Missing => worst,
            Score::Pending => continue,
        };
        if let Some(point) = search.space.encode(&one.values) {
            let doubt = if source.is_some() { OTHER_DATA } else { 0.0 };
            let value = draw_in(cost);
            seen.push((Seen { point, value, doubt }, &one.values, source.is_none()));
        }
    }
    Some(unit)
}

#[cfg(test)]
mod tests;
