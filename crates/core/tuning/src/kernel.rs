//! A Gaussian process over points: Matern 5/2 with a length of its own for every hyperparameter. Lengths, scale and noise are
//! those that make the observations most likely, with weak prior beliefs where they say little.

use crate::linear::{Lower, dot};
use crate::space::Point;

/// Logarithms of what the fit chooses.
#[derive(Clone, Debug)]
struct Shape {
    /// One for each hyperparameter.
    lengths: Vec<f64>,
    scale: f64,
    noise: f64,
}

/// Bounds of the logarithms.
const LENGTH: (f64, f64) = (-3.9, 3.0);
const SCALE: (f64, f64) = (-3.0, 3.0);
const NOISE: (f64, f64) = (-13.8, 0.0);
/// What is believed of the noise before anything is seen: mean and standard deviation of its logarithm.
const NOISE_PRIOR: (f64, f64) = (-8.0, 3.0);
/// Steps of one fit.
const STEPS: usize = 60;
/// From this many observations on, a fit takes fewer steps: each is cubic in the number of observations.
const MANY: usize = 150;

impl Shape {
    fn start(dimensions: usize, noise: f64) -> Self {
        Self {
            lengths: vec![length_prior(dimensions); dimensions],
            scale: 0.0,
            noise,
        }
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        self.lengths.iter().copied().chain([self.scale, self.noise])
    }
}

/// Points of a larger cube are further apart.
fn length_prior(dimensions: usize) -> f64 {
    (0.4 * (dimensions.max(1) as f64).sqrt()).ln()
}

/// What the process says about the value at a point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    pub mean: f64,
    pub deviation: f64,
}

/// Observations and what was learnt from them.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    groups: Vec<usize>,
    shape: Shape,
    points: Vec<Point>,
    values: Vec<f64>,
    factor: Lower,
    /// The inverse of the covariance, times the values.
    weights: Vec<f64>,
}

/// One observation: where, what, and how much more than the common noise it may be off (variance).
pub(crate) struct Seen {
    pub point: Point,
    pub value: f64,
    pub doubt: f64,
}

impl Process {
    /// Fits a process to observations whose values are around 0 with a spread of about 1. `groups` tells which coordinates
    /// share a length. `None` when there is nothing to fit or the numbers do not bear it.
    pub fn fit(groups: &[usize], seen: &[Seen]) -> Option<Self> {
        if seen.is_empty() {
            return None;
        }
        let dimensions = groups.last().map_or(0, |last| last + 1);
        let steps = if seen.len() > MANY { STEPS / 3 } else { STEPS };
        let starts = [Shape::start(dimensions, -9.0), Shape::start(dimensions, -2.5)];
        let mut best: Option<(f64, Shape)> = None;
        for start in starts {
            if let Some((likelihood, shape)) = climb(groups, seen, start, steps)
                && best.as_ref().is_none_or(|(other, _)| likelihood > *other)
            {
                best = Some((likelihood, shape));
            }
        }
        let (_, shape) = best?;
        let half = covariance(groups, seen, &shape);
        let factor = Lower::factor(&half)?;
        let values: Vec<f64> = seen.iter().map(|one| one.value).collect();
        let weights = factor.solve_transposed(&factor.solve(&values));
        Some(Self {
            groups: groups.to_vec(),
            shape,
            points: seen.iter().map(|one| one.point.clone()).collect(),
            values,
            factor,
            weights,
        })
    }

    /// The belief about a point.
    pub fn at(&self, point: &Point) -> Belief {
        let with: Vec<f64> = self
            .points
            .iter()
            .map(|other| kernel(&self.groups, &self.shape, point, other))
            .collect();
        let solved = self.factor.solve(&with);
        let variance = self.shape.scale.exp() - dot(&solved, &solved);
        Belief {
            mean: dot(&with, &self.weights),
            deviation: variance.max(1e-12).sqrt(),
        }
    }

    /// Takes for granted that a pending point turns out as it is expected to: what is known elsewhere stays as it is, and
    /// there is less left to learn near it. Returns the value that was assumed.
    pub fn believe(&mut self, point: &Point) -> f64 {
        let mean = self.at(point).mean;
        let mut row: Vec<f64> = self
            .points
            .iter()
            .map(|other| kernel(&self.groups, &self.shape, point, other))
            .collect();
        row.push(self.shape.scale.exp() + self.shape.noise.exp() + JITTER);
        if self.factor.grow(&row).is_some() {
            self.points.push(point.clone());
            self.values.push(mean);
            self.weights = self.factor.solve_transposed(&self.factor.solve(&self.values));
        }
        mean
    }
}

/// Added to every variance, so that equal points do not make the covariance singular.
const JITTER: f64 = 1e-8;

/// Squared distance for each hyperparameter, in units of its length.
fn distance(groups: &[usize], shape: &Shape, a: &Point, b: &Point) -> f64 {
    let coordinates = a.iter().zip(b).zip(groups);
    coordinates
        .map(|((a, b), group)| {
            let length = shape.lengths.get(*group).copied().unwrap_or(0.0);
            let apart = a - b;
            apart * apart * (-2.0 * length).exp()
        })
        .sum()
}

/// Matern 5/2 without its scale, and the derivative by the logarithm of a length divided by that length's share of the
/// squared distance.
fn matern(squared: f64) -> (f64, f64) {
    let root = (5.0 * squared).sqrt();
    let falling = (-root).exp();
    (
        (1.0 + root + 5.0 / 3.0 * squared) * falling,
        5.0 / 3.0 * (1.0 + root) * falling,
    )
}

fn kernel(groups: &[usize], shape: &Shape, a: &Point, b: &Point) -> f64 {
    shape.scale.exp() * matern(distance(groups, shape, a, b)).0
}

fn covariance(groups: &[usize], seen: &[Seen], shape: &Shape) -> Vec<Vec<f64>> {
    let rows = seen.iter().enumerate();
    rows.map(|(at, one)| {
        let earlier = seen.iter().take(at);
        let mut row: Vec<f64> = earlier
            .map(|other| kernel(groups, shape, &one.point, &other.point))
            .collect();
        row.push(shape.scale.exp() + shape.noise.exp() + one.doubt + JITTER);
        row
    })
    .collect()
}

/// The logarithm of how likely the values are, with the prior beliefs, and its derivatives in the order of [`Shape::all`].
fn likelihood(groups: &[usize], seen: &[Seen], shape: &Shape) -> Option<(f64, Vec<f64>)> {
    let factor = Lower::factor(&covariance(groups, seen, shape))?;
    let values: Vec<f64> = seen.iter().map(|one| one.value).collect();
    let weights = factor.solve_transposed(&factor.solve(&values));
    let mut total = -0.5 * dot(&values, &weights) - 0.5 * factor.log_determinant();
    let inverse = factor.inverse();
    let dimensions = shape.lengths.len();
    let mut slopes = vec![0.0; dimensions];
    let (mut by_scale, mut by_noise) = (0.0, 0.0);
    let scale = shape.scale.exp();
    for ((at, one), row) in seen.iter().enumerate().zip(&inverse) {
        let weight = weights.get(at).copied().unwrap_or(0.0);
        for ((other, entry), second) in seen.iter().zip(row).zip(&weights).take(at) {
            // Both halves of a symmetric matrix count: 1/2 of the trace, twice.
            let factor = weight * second - entry;
            let (value, slope) = matern(distance(groups, shape, &one.point, &other.point));
            by_scale += factor * scale * value;
            for ((a, b), group) in one.point.iter().zip(&other.point).zip(groups) {
                let (Some(length), Some(sum)) = (shape.lengths.get(*group), slopes.get_mut(*group)) else {
                    continue;
                };
                *sum += factor * scale * slope * (a - b) * (a - b) * (-2.0 * length).exp();
            }
        }
        let diagonal = 0.5 * (weight * weight - row.last().copied().unwrap_or(0.0));
        by_scale += diagonal * scale;
        by_noise += diagonal * shape.noise.exp();
    }
    let mut believe = |value: f64, (mean, spread): (f64, f64)| {
        let off = (value - mean) / spread;
        total -= 0.5 * off * off;
        -off / spread
    };
    let prior = length_prior(dimensions);
    for (slope, length) in slopes.iter_mut().zip(&shape.lengths) {
        *slope += believe(*length, (prior, 1.0));
    }
    by_scale += believe(shape.scale, (0.0, 1.0));
    by_noise += believe(shape.noise, NOISE_PRIOR);
    slopes.extend([by_scale, by_noise]);
    total.is_finite().then_some((total, slopes))
}

/// Climbs the likelihood from a start: each number has a step of its own that grows while its slope keeps its sign and
/// shrinks when it turns.
fn climb(groups: &[usize], seen: &[Seen], start: Shape, steps: usize) -> Option<(f64, Shape)> {
    let mut shape = start;
    let mut stride = vec![0.2_f64; shape.lengths.len() + 2];
    let mut before = vec![0.0_f64; stride.len()];
    let mut best: Option<(f64, Shape)> = None;
    for _ in 0..steps {
        let Some((total, slopes)) = likelihood(groups, seen, &shape) else {
            break;
        };
        if best.as_ref().is_none_or(|(other, _)| total > *other) {
            best = Some((total, shape.clone()));
        }
        let mut moved: Vec<f64> = shape.all().collect();
        let numbers = moved
            .iter_mut()
            .zip(&slopes)
            .zip(stride.iter_mut())
            .zip(before.iter_mut());
        for (((number, slope), stride), before) in numbers {
            let turned = slope * *before;
            if turned > 0.0 {
                *stride = (*stride * 1.3).min(0.6);
            } else if turned < 0.0 {
                *stride = (*stride * 0.4).max(1e-4);
            }
            *number += stride.copysign(*slope) * f64::from(u8::from(*slope != 0.0));
            *before = *slope;
        }
        if stride.iter().all(|stride| *stride < 2e-3) {
            break;
        }
        let noise = moved.pop().unwrap_or(NOISE.0).clamp(NOISE.0, NOISE.1);
        let scale = moved.pop().unwrap_or(0.0).clamp(SCALE.0, SCALE.1);
        let lengths = moved.into_iter().map(|length| length.clamp(LENGTH.0, LENGTH.1));
        shape = Shape {
            lengths: lengths.collect(),
            scale,
            noise,
        };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn sample(count: usize) -> Vec<Seen> {
        let mut chance = Chance::new(11, 0);
        (0..count)
            .map(|_| {
                let point = vec![chance.unit(), chance.unit()];
                // The second coordinate says nothing.
                let value = (6.0 * point[0]).sin();
                Seen {
                    point,
                    value,
                    doubt: 0.0,
                }
            })
            .collect()
    }

    #[test]
    fn slopes_are_those_of_the_likelihood() {
        let seen = sample(12);
        let shape = Shape {
            lengths: vec![-0.7, 0.3],
            scale: 0.2,
            noise: -3.0,
        };
        let (_, slopes) = likelihood(&[0, 1], &seen, &shape).unwrap();
        let step = 1e-5;
        for (at, slope) in slopes.iter().enumerate() {
            let moved = |by: f64| {
                let mut shape = shape.clone();
                match at {
                    0 | 1 => shape.lengths[at] += by,
                    2 => shape.scale += by,
                    _ => shape.noise += by,
                }
                likelihood(&[0, 1], &seen, &shape).unwrap().0
            };
            let measured = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((measured - slope).abs() < 1e-4, "{at}: {measured} {slope}");
        }
    }

    #[test]
    fn a_fit_predicts_what_it_has_not_seen_and_knows_what_matters() {
        let process = Process::fit(&[0, 1], &sample(25)).unwrap();
        for x in [0.15, 0.4, 0.8] {
            let belief = process.at(&vec![x, 0.5]);
            assert!((belief.mean - (6.0 * x).sin()).abs() < 0.1, "{x}: {belief:?}");
        }
        assert!(process.shape.lengths[1] > process.shape.lengths[0] + 0.5);
    }

    #[test]
    fn a_pending_point_leaves_less_to_learn_near_it() {
        let mut process = Process::fit(&[0, 1], &sample(5)).unwrap();
        let (near, far) = (vec![0.93, 0.9], vec![0.05, 0.1]);
        let before = (process.at(&near), process.at(&far));
        let assumed = process.believe(&vec![0.93, 0.91]);
        assert!(process.at(&near).deviation < 0.5 * before.0.deviation);
        assert!((process.at(&far).mean - before.1.mean).abs() < 1e-6);
        assert!((assumed - before.0.mean).abs() < 0.2);
    }

    #[test]
    fn equal_points_with_different_values_are_noise() {
        let seen: Vec<Seen> = [1.0, -1.0, 0.5, -0.5]
            .map(|value| Seen {
                point: vec![0.5],
                value,
                doubt: 0.0,
            })
            .into();
        let process = Process::fit(&[0], &seen).unwrap();
        assert!(process.at(&vec![0.5]).mean.abs() < 0.2);
    }
}
