//! The median rule of early stopping (SM-36).

/// Running averages of the values that a training job told, one for each epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunningMeans(Vec<f64>);

impl RunningMeans {
    /// Of values in the order in which they were told.
    pub fn of(values: &[f64]) -> Self {
        let mut sum = 0.0;
        let mut means = Vec::with_capacity(values.len());
        for (count, value) in values.iter().enumerate() {
            sum += value;
            means.push(sum / (count as f64 + 1.0));
        }
        Self(means)
    }

    /// The average up to an epoch, counted from 1; of all epochs when there were fewer.
    fn up_to(&self, epoch: usize) -> Option<f64> {
        self.0.get(epoch.checked_sub(1)?).or_else(|| self.0.last()).copied()
    }
}

/// Earlier training jobs that are needed before any is stopped: the median of fewer says little.
const EARLIER: usize = 4;

/// Whether the last cost that a training job told is worse than the median of the running averages of earlier jobs up to
/// the same epoch. Costs: less is better.
pub fn is_worse_than_median(costs: &[f64], earlier: &[RunningMeans]) -> bool {
    let Some(last) = costs.last() else { return false };
    let mut means: Vec<f64> = earlier.iter().filter_map(|one| one.up_to(costs.len())).collect();
    if means.len() < EARLIER {
        return false;
    }
    means.sort_by(f64::total_cmp);
    let half = means.len() / 2;
    let (Some(upper), Some(lower)) = (means.get(half), means.get((means.len() - 1) / 2)) else {
        return false;
    };
    *last > (upper + lower) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: SM-36
    #[test]
    fn a_job_is_stopped_when_it_is_worse_than_the_median_of_running_averages() {
        let earlier: Vec<RunningMeans> = [[1.0, 0.5], [1.0, 0.3], [2.0, 1.0], [3.0, 3.0]]
            .iter()
            .map(|values| RunningMeans::of(values))
            .collect();
        // After one epoch: averages 1, 1, 2, 3, median 1.5. After two: 0.75, 0.65, 1.5, 3, median 1.125.
        assert!(!is_worse_than_median(&[1.4], &earlier));
        assert!(is_worse_than_median(&[1.6], &earlier));
        assert!(!is_worse_than_median(&[1.6, 1.1], &earlier), "the last value counts");
        assert!(is_worse_than_median(&[1.4, 1.2], &earlier));
        assert!(
            is_worse_than_median(&[1.4, 1.2, 1.2], &earlier),
            "jobs that were shorter count whole"
        );
        assert!(!is_worse_than_median(&[9.0], &earlier[..3]), "too few to compare with");
        assert!(!is_worse_than_median(&[], &earlier));
    }
}
