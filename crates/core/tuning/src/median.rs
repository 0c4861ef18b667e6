//! The median rule of early stopping (SM-36).

use isolarium_model::sagemaker::tuning_job::Curve;

/// Earlier training jobs that are needed before any is stopped: the median of fewer says little.
const EARLIER: usize = 4;

/// Whether the last cost that a training job told is worse than the median of the running averages of earlier jobs up to
/// the same epoch, an epoch being one value.
pub fn is_worse_than_median(curve: &Curve, earlier: &[&Curve]) -> bool {
    let Some(last) = curve.last() else { return false };
    let mut means: Vec<f64> = earlier.iter().filter_map(|one| one.mean_up_to(curve.told())).collect();
    if means.len() < EARLIER {
        return false;
    }
    means.sort_by(f64::total_cmp);
    let half = means.len() / 2;
    let (Some(upper), Some(lower)) = (means.get(half), means.get((means.len() - 1) / 2)) else {
        return false;
    };
    last > (upper + lower) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: SM-36
    #[test]
    fn a_job_is_stopped_when_it_is_worse_than_the_median_of_running_averages() {
        let curves = [[1.0, 0.5], [1.0, 0.3], [2.0, 1.0], [3.0, 3.0]].map(|costs| Curve::of(&costs, &[]));
        let earlier: Vec<&Curve> = curves.iter().collect();
        let is_worse_than_median =
            |costs: &[f64], earlier: &[&Curve]| super::is_worse_than_median(&Curve::of(costs, &[]), earlier);
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
