//! What is kept of the values that a training job tells while it runs: enough for early stopping (SM-36), in bounded space
//! however many there are.

use serde::{Deserialize, Serialize};

/// Running means that are kept of one curve.
const POINTS: usize = 256;

/// The objective's values of one training job as costs, less being better, in the order in which they were told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    told: u64,
    last: Option<f64>,
    best: Option<f64>,
    /// Of all so far.
    mean: f64,
    /// How many values lie between two kept means; doubles whenever there are too many. 0 until the first value.
    stride: u64,
    /// The running mean after each stride.
    means: Vec<f64>,
    /// The best cost when each mark was reached.
    bests: Vec<f64>,
}

impl Curve {
    /// Of costs told so far; see [`Self::push`].
    pub fn of(costs: &[f64], marks: &[u32]) -> Self {
        let mut curve = Self::default();
        for cost in costs {
            curve.push(*cost, marks);
        }
        curve
    }

    /// One more cost. The best one is kept for every one of the marks, which are numbers of values, rising, and always the
    /// same ones. A cost that is no finite number is passed over.
    #[expect(clippy::cast_precision_loss, reason = "the last digit of a mean is of no importance")]
    pub fn push(&mut self, cost: f64, marks: &[u32]) {
        if !cost.is_finite() {
            return;
        }
        self.told = self.told.saturating_add(1);
        self.last = Some(cost);
        let best = self.best.map_or(cost, |best| best.min(cost));
        self.best = Some(best);
        let told = self.told as f64;
        // In this order nothing overflows.
        self.mean += cost / told - self.mean / told;
        self.stride = self.stride.max(1);
        if self.told.is_multiple_of(self.stride) {
            self.means.push(self.mean);
        }
        if self.means.len() >= POINTS {
            let mut at = 0_usize;
            self.means.retain(|_| {
                at += 1;
                at.is_multiple_of(2)
            });
            self.stride = self.stride.saturating_mul(2);
        }
        if marks.iter().any(|mark| u64::from(*mark) == self.told) {
            self.bests.push(best);
        }
    }

    /// How many costs were told.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// The one told last.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// The mean up to so many costs, or to the nearest number before it that is kept; of all where there were fewer.
    pub fn mean_up_to(&self, count: u64) -> Option<f64> {
        if count >= self.told {
            return (self.told > 0).then_some(self.mean);
        }
        let at = count.checked_div(self.stride)?.saturating_sub(1);
        self.means.get(usize::try_from(at).ok()?).copied()
    }

    /// The best cost when the mark of this number was reached, counted from 0; `None` before.
    pub fn best_at(&self, mark: usize) -> Option<f64> {
        self.bests.get(mark).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: SM-36
    #[test]
    fn means_are_those_of_all_values_and_their_number_is_bounded() {
        let mut curve = Curve::default();
        assert_eq!((curve.mean_up_to(1), curve.last()), (None, None));
        for told in 1..=200_u32 {
            curve.push(f64::from(told), &[]);
        }
        for count in 1..=200_u32 {
            let mean = curve.mean_up_to(u64::from(count)).unwrap();
            assert!((mean - (f64::from(count) + 1.0) / 2.0).abs() < 1e-9, "{count}: {mean}");
        }
        for told in 201..=100_000_u32 {
            curve.push(f64::from(told), &[]);
        }
        assert!(curve.means.len() < POINTS);
        assert_eq!((curve.told(), curve.last()), (100_000, Some(100_000.0)));
        let mean = curve.mean_up_to(50_000).unwrap();
        // 512 lie between two that are kept.
        assert!((24_744.0..=25_000.5).contains(&mean), "{mean}");
        let all = curve.mean_up_to(u64::MAX).unwrap();
        assert!((all - 50_000.5).abs() < 1e-3, "{all}");
    }

    /// Proves: SM-35
    #[test]
    fn the_best_is_kept_for_every_mark() {
        let curve = Curve::of(&[3.0, 5.0, 2.0, 1.0], &[1, 3, 9]);
        assert_eq!([0, 1, 2].map(|mark| curve.best_at(mark)), [Some(3.0), Some(2.0), None]);
    }

    #[test]
    fn the_largest_numbers_stay_numbers() {
        let curve = Curve::of(&[f64::MAX, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY], &[1]);
        assert_eq!(curve.told(), 3);
        let text = serde_json::to_string(&curve).unwrap();
        assert_eq!(serde_json::from_str::<Curve>(&text).unwrap(), curve);
    }
}
