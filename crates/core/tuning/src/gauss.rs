//! The normal distribution, and the improvement to expect of a value that is normally distributed.

use std::f64::consts::PI;

/// The density at `z`.
fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The probability of a value below `z`.
fn below(z: f64) -> f64 {
    if z > 8.0 {
        return 1.0;
    }
    if z < -8.0 {
        return 0.0;
    }
    // Phi(z) = 1/2 + phi(z) * (z + z^3/3 + z^5/15 + ...): every term has the same sign, none cancels another.
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    (0.5 + density(z) * sum).clamp(0.0, 1.0)
}

/// How much less than `best` a value is to be expected, where less is better: the mean of max(0, best - value).
pub(crate) fn expected_improvement(mean: f64, deviation: f64, best: f64) -> f64 {
    if deviation <= 0.0 {
        return (best - mean).max(0.0);
    }
    let z = (best - mean) / deviation;
    (deviation * (z * below(z) + density(z))).max(0.0)
}

/// The logarithm of [`expected_improvement`], which also tells candidates apart that hardly improve anything.
pub(crate) fn log_expected_improvement(mean: f64, deviation: f64, best: f64) -> f64 {
    let z = (best - mean) / deviation.max(1e-12);
    if z > -5.0 {
        return expected_improvement(mean, deviation.max(1e-12), best)
            .max(f64::MIN_POSITIVE)
            .ln();
    }
    // For large -z the expectation is deviation * phi(z) / z^2.
    deviation.max(1e-12).ln() - 0.5 * z * z - 0.5 * (2.0 * PI).ln() - 2.0 * (-z).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        for (z, probability) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_1),
            (1.96, 0.975_002_104_9),
            (-3.0, 0.001_349_898),
        ] {
            assert!((below(z) - probability).abs() < 1e-9, "{z}: {}", below(z));
        }
    }

    #[test]
    fn improvement_grows_with_doubt_and_with_a_better_mean() {
        assert!(expected_improvement(0.0, 1.0, 0.0) > expected_improvement(0.0, 0.5, 0.0));
        assert!(expected_improvement(-1.0, 0.5, 0.0) > expected_improvement(0.0, 0.5, 0.0));
        assert_eq!(expected_improvement(1.0, 0.0, 0.0), 0.0);
        let at = |mean| log_expected_improvement(mean, 1.0, 0.0);
        assert!((at(4.999) - at(5.001)).abs() < 0.1, "both forms meet");
        assert!(at(20.0) > at(21.0) && at(21.0).is_finite());
    }
}
