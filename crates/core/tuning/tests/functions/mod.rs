//! Functions whose minima are known, and runs of a search over them.

use isolarium_model::sagemaker::tuning_job::{Domain, Goal, ParameterRange, Scaling, Strategy, Values};
use isolarium_tuning::{Observed, Score, Search, Space};

/// A function to be minimised over a box.
pub struct Problem {
    /// Bounds of every coordinate.
    pub bounds: Vec<(f64, f64)>,
    pub function: fn(&[f64]) -> f64,
}

/// Branin: three minima of 0.397887.
pub fn branin() -> Problem {
    Problem {
        bounds: vec![(-5.0, 10.0), (0.0, 15.0)],
        function: |x| {
            use std::f64::consts::PI;
            let bend = x[1] - 5.1 / (4.0 * PI * PI) * x[0] * x[0] + 5.0 / PI * x[0] - 6.0;
            bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x[0].cos() + 10.0
        },
    }
}

/// Hartmann of six coordinates: minimum -3.32237.
pub fn hartmann6() -> Problem {
    Problem {
        bounds: vec![(0.0, 1.0); 6],
        function: |x| {
            const HEIGHT: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
            const WIDTH: [[f64; 6]; 4] = [
                [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
                [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
                [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
                [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
            ];
            const PLACE: [[f64; 6]; 4] = [
                [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
                [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
                [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
                [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
            ];
            let wells = HEIGHT.iter().zip(&WIDTH).zip(&PLACE);
            -wells
                .map(|((height, width), place)| {
                    let off: f64 = (0..6).map(|at| width[at] * (x[at] - place[at]).powi(2)).sum();
                    height * (-off).exp()
                })
                .sum::<f64>()
        },
    }
}

impl Problem {
    /// The box as ranges named x0, x1 and so on.
    pub fn space(&self) -> Space {
        let ranges: Vec<ParameterRange> = self
            .bounds
            .iter()
            .enumerate()
            .map(|(at, (min, max))| ParameterRange {
                name: format!("x{at}"),
                domain: Domain::Continuous {
                    min: *min,
                    max: *max,
                    scaling: Scaling::Linear,
                },
            })
            .collect();
        Space::new(&ranges).unwrap()
    }

    /// The function at values.
    pub fn at(&self, values: &Values) -> f64 {
        let point: Vec<f64> = (0..self.bounds.len())
            .map(|at| values[&format!("x{at}")].parse().unwrap())
            .collect();
        (self.function)(&point)
    }
}

/// The best value of a run. With several in flight the oldest one ends whenever a new one is wanted.
pub fn best_of_run(problem: &Problem, strategy: Strategy, seed: u64, trials: usize, parallel: usize) -> f64 {
    let space = problem.space();
    let mut tried: Vec<Observed> = Vec::new();
    let end = |tried: &mut Vec<Observed>| {
        if let Some(oldest) = tried.iter_mut().find(|one| one.score == Score::Pending) {
            oldest.score = Score::Value(problem.at(&oldest.values));
        }
    };
    for at in 0..trials {
        let search = Search {
            strategy,
            space: &space,
            goal: Goal::Minimize,
            seed,
            tried: &tried,
        };
        let values = search.suggest().unwrap();
        tried.push(Observed {
            values,
            score: Score::Pending,
            elsewhere: None,
        });
        if at + 1 >= parallel {
            end(&mut tried);
        }
    }
    tried
        .iter()
        .map(|one| problem.at(&one.values))
        .fold(f64::INFINITY, f64::min)
}

/// The middle of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
