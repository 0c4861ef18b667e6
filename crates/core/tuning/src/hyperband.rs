//! Hyperband as early stopping: every trial belongs to a bracket, which says at how many values of the objective it is first
//! compared with others; a third goes on from each comparison, to three times as many values (SM-35).

use isolarium_model::sagemaker::tuning_job::{Curve, HyperbandResources};

/// The share that goes on is one in this many, and the resources grow by it.
const FACTOR: u32 = 3;

/// Whether a trial goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    Stop,
}

/// The plan of brackets for given resources.
#[derive(Clone, Debug)]
pub struct Hyperband {
    resources: HyperbandResources,
    /// Bracket by place in a cycle of trials.
    cycle: Vec<u32>,
}

impl Hyperband {
    /// The plan.
    pub fn new(resources: HyperbandResources) -> Self {
        let mut most = 0;
        let mut reach = u64::from(resources.min) * u64::from(FACTOR);
        while reach <= u64::from(resources.max) {
            most += 1;
            reach *= u64::from(FACTOR);
        }
        // A bracket whose comparisons begin early has more trials, as in the successive halvings of Hyperband: together they
        // cost about the same.
        let mut left: Vec<(u32, u64)> = (0..=most)
            .map(|bracket| {
                let halvings = u64::from(most - bracket);
                let trials = u64::from(most + 1) * u64::from(FACTOR).pow(most - bracket);
                (bracket, trials.div_ceil(halvings + 1))
            })
            .collect();
        // Brackets take turns by how much of their share is left, so that every start of the cycle is mixed.
        let totals: Vec<u64> = left.iter().map(|(_, trials)| *trials).collect();
        let mut cycle = Vec::new();
        while left.iter().any(|(_, trials)| *trials > 0) && cycle.len() < LONGEST {
            let next = left
                .iter_mut()
                .zip(&totals)
                .max_by(|((a, x), m), ((b, y), n)| (*x * **n).cmp(&(*y * **m)).then(b.cmp(a)));
            if let Some(((bracket, trials), _)) = next {
                *trials = trials.saturating_sub(1);
                cycle.push(*bracket);
            }
        }
        Self { resources, cycle }
    }

    /// The bracket of a trial, by the order in which trials were started.
    pub fn bracket(&self, ordinal: usize) -> u32 {
        let at = ordinal.checked_rem(self.cycle.len()).unwrap_or(0);
        self.cycle.get(at).copied().unwrap_or(0)
    }

    /// At how many values the trials of a bracket are compared, in order.
    fn rungs(&self, bracket: u32) -> impl Iterator<Item = u32> {
        let first = self.resources.min.saturating_mul(FACTOR.saturating_pow(bracket));
        let max = self.resources.max;
        std::iter::successors(Some(first), |rung| rung.checked_mul(FACTOR)).take_while(move |rung| *rung < max)
    }

    /// At how many values trials of any bracket are compared, in order: the marks of their curves.
    pub fn marks(&self) -> Vec<u32> {
        self.rungs(0).collect()
    }

    /// Whether a trial goes on that has told these costs. `others` are all trials of its bracket; the trial itself may be
    /// among them. All have the plan's [`Self::marks`].
    pub fn verdict(&self, bracket: u32, curve: &Curve, others: &[&Curve]) -> Verdict {
        let told = u32::try_from(curve.told()).unwrap_or(u32::MAX);
        if told >= self.resources.max {
            return Verdict::Stop;
        }
        let passed = self.rungs(bracket).take_while(|rung| *rung <= told).last();
        let Some(mark) = passed.and_then(|rung| self.rungs(0).position(|mark| mark == rung)) else {
            return Verdict::GoOn;
        };
        let Some(own) = curve.best_at(mark) else {
            return Verdict::GoOn;
        };
        let mut reached: Vec<f64> = others.iter().filter_map(|other| other.best_at(mark)).collect();
        reached.sort_by(f64::total_cmp);
        // With fewer than a third to choose from, all go on.
        let factor = usize::try_from(FACTOR).unwrap_or(usize::MAX);
        if reached.len() < factor {
            return Verdict::GoOn;
        }
        match reached.get((reached.len() / factor).saturating_sub(1)) {
            Some(limit) if own > *limit => Verdict::Stop,
            Some(_) | None => Verdict::GoOn,
        }
    }
}

/// Trials of one cycle at most: longer ones are repeated from here.
const LONGEST: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(min: u32, max: u32) -> Hyperband {
        Hyperband::new(HyperbandResources { min, max })
    }

    /// Proves: SM-35
    #[test]
    fn brackets_are_those_of_hyperband() {
        let plan = plan(1, 27);
        let count = |bracket| plan.cycle.iter().filter(|one| **one == bracket).count();
        // n = ceil((s_max + 1) / (s + 1) * 3^s) for s = 3, 2, 1, 0.
        assert_eq!([count(0), count(1), count(2), count(3)], [27, 12, 6, 4]);
        assert_eq!(plan.bracket(0), plan.bracket(plan.cycle.len()));
        let first: std::collections::BTreeSet<u32> = (0..8).map(|at| plan.bracket(at)).collect();
        assert_eq!(first.len(), 4, "every bracket is in the first trials");
        assert_eq!(plan.rungs(0).collect::<Vec<_>>(), [1, 3, 9]);
        assert_eq!(plan.rungs(2).collect::<Vec<_>>(), [9]);
        assert_eq!(plan.rungs(3).count(), 0);
    }

    /// Proves: SM-35
    #[test]
    fn a_third_goes_on_and_none_is_stopped_before_its_first_comparison() {
        let plan = plan(2, 18);
        let told = |costs: &[f64]| Curve::of(costs, &plan.marks());
        let curves = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|cost| told(&[cost, cost]));
        let others: Vec<&Curve> = curves.iter().collect();
        assert_eq!(
            plan.verdict(0, &told(&[9.0]), &others),
            Verdict::GoOn,
            "below MinResource"
        );
        assert_eq!(plan.verdict(0, &told(&[9.0, 2.5]), &others), Verdict::Stop);
        assert_eq!(
            plan.verdict(0, &told(&[9.0, 2.0]), &others),
            Verdict::GoOn,
            "two of six go on"
        );
        assert_eq!(
            plan.verdict(0, &told(&[9.0, 2.5]), &others[..2]),
            Verdict::GoOn,
            "nothing to choose from"
        );
        assert_eq!(
            plan.verdict(1, &told(&[9.0, 2.5]), &others),
            Verdict::GoOn,
            "its bracket begins later"
        );
        assert_eq!(
            plan.verdict(2, &told(&[0.0; 18]), &[]),
            Verdict::Stop,
            "MaxResource is reached"
        );
        assert_eq!(plan.verdict(2, &told(&[0.0; 17]), &[]), Verdict::GoOn);
    }

    #[test]
    fn odd_resources_make_a_plan() {
        assert_eq!(plan(5, 5).bracket(3), 0);
        assert_eq!(plan(1, 20_000).rungs(0).count(), 10);
        assert!(plan(1, 20_000).cycle.len() <= LONGEST);
    }
}
