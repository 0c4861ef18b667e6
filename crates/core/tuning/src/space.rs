//! The search space: every combination of values, and each as a point of the unit cube.

use crate::chance::Chance;
use isolarium_model::sagemaker::tuning_job::{Domain, ParameterRange, Scaling, Values};

/// A range that cannot be searched. `Display` is what the caller reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    #[error("The hyperparameter {0} has the value \"{1}\", which is not a number.")]
    NotANumber(String, String),
    #[error("The hyperparameter {0} has the value \"{1}\", which is not an integer.")]
    NotAnInteger(String, String),
    #[error("The minimum value of the hyperparameter {0} is larger than its maximum value.")]
    Reversed(String),
    #[error("Logarithmic scaling of the hyperparameter {0} needs a minimum value greater than 0.")]
    NotPositive(String),
    #[error("ReverseLogarithmic scaling of the hyperparameter {0} needs a range within 0 <= x < 1.")]
    NotBelowOne(String),
    #[error("ReverseLogarithmic scaling of the hyperparameter {0} is not possible: it is an integer.")]
    ReverseInteger(String),
    #[error("The hyperparameter {0} has the value \"{1}\" twice.")]
    Repeated(String, String),
    #[error("The hyperparameter {0} has no values.")]
    Empty(String),
    #[error("The hyperparameter {0} has more than one range.")]
    SameName(String),
}

/// A bound of a continuous range as a request spells it.
///
/// # Errors
/// What is not a finite number.
pub fn parse_continuous(name: &str, text: &str) -> Result<f64, BadRange> {
    let parsed = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    parsed.ok_or_else(|| BadRange::NotANumber(name.into(), text.into()))
}

/// A bound of an integer range as a request spells it.
///
/// # Errors
/// What is not an integer of 64 bits.
pub fn parse_integer(name: &str, text: &str) -> Result<i64, BadRange> {
    let parsed = text.trim().parse::<i64>();
    parsed.map_err(|_| BadRange::NotAnInteger(name.into(), text.into()))
}

/// How many combinations categorical ranges have; `None` when another range is among them or there are too many to count.
pub fn grid_size(ranges: &[ParameterRange]) -> Option<u64> {
    ranges.iter().try_fold(1_u64, |product, range| match &range.domain {
        Domain::Categorical { values } => product.checked_mul(u64::try_from(values.len()).ok()?),
        Domain::Continuous { .. } | Domain::Integer { .. } => None,
    })
}

/// Ratio of the bounds from which on `Auto` means a logarithmic scale.
const AUTO_RATIO: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
    Reverse,
}

impl Scale {
    fn of(scaling: Scaling, min: f64, max: f64) -> Self {
        match scaling {
            Scaling::Linear => Self::Linear,
            Scaling::Logarithmic => Self::Logarithmic,
            Scaling::ReverseLogarithmic => Self::Reverse,
            Scaling::Auto if min > 0.0 && max / min >= AUTO_RATIO => Self::Logarithmic,
            Scaling::Auto => Self::Linear,
        }
    }

    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.ln(),
            Self::Reverse => -(-value).ln_1p(),
        }
    }

    fn undo(self, scaled: f64) -> f64 {
        match self {
            Self::Linear => scaled,
            Self::Logarithmic => scaled.exp(),
            Self::Reverse => -(-scaled).exp_m1(),
        }
    }
}

/// One hyperparameter of the space.
#[derive(Clone, Debug)]
struct Dimension {
    name: String,
    axis: Axis,
}

#[derive(Clone, Debug)]
enum Axis {
    Continuous {
        min: f64,
        max: f64,
        scale: Scale,
    },
    /// Half a step beyond the bounds on either side, so that every integer gets its share; `scale` is applied to that.
    Integer {
        min: i64,
        max: i64,
        scale: Scale,
    },
    Categorical {
        values: Vec<String>,
    },
}

/// A combination as coordinates: one in [0, 1] for a number, one for each value of a category, of which one is 1.
pub(crate) type Point = Vec<f64>;

/// What may be searched.
#[derive(Clone, Debug)]
pub struct Space {
    dimensions: Vec<Dimension>,
}

impl Space {
    /// The space of ranges.
    ///
    /// # Errors
    /// The first range that cannot be searched.
    pub fn new(ranges: &[ParameterRange]) -> Result<Self, BadRange> {
        let mut dimensions: Vec<Dimension> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if dimensions.iter().any(|other| other.name == range.name) {
                return Err(BadRange::SameName(range.name.clone()));
            }
            dimensions.push(Dimension {
                name: range.name.clone(),
                axis: axis(range)?,
            });
        }
        Ok(Self { dimensions })
    }

    /// How many hyperparameters are searched.
    pub fn len(&self) -> usize {
        self.dimensions.len()
    }

    /// Nothing is searched.
    pub fn is_empty(&self) -> bool {
        self.dimensions.is_empty()
    }

    /// Whether the values are exactly those of a combination of the space: every name, in range, of the right type.
    pub fn contains(&self, values: &Values) -> bool {
        values.len() == self.dimensions.len() && self.encode(values).is_some()
    }

    /// The values of the space among others; `None` when one is missing or out of its range.
    pub fn pick(&self, values: &Values) -> Option<Values> {
        let picked = self.dimensions.iter().map(|dimension| {
            let value = values.get(&dimension.name)?;
            Some((dimension.name.clone(), value.clone()))
        });
        let picked: Values = picked.collect::<Option<_>>()?;
        self.contains(&picked).then_some(picked)
    }

    /// A combination by chance: every axis on its scale, equally likely.
    pub(crate) fn draw(&self, chance: &mut Chance) -> Values {
        let values = self.dimensions.iter().map(|dimension| {
            let text = match &dimension.axis {
                Axis::Categorical { values } => values.get(chance.below(values.len())).cloned().unwrap_or_default(),
                axis @ (Axis::Continuous { .. } | Axis::Integer { .. }) => axis.text(chance.unit()),
            };
            (dimension.name.clone(), text)
        });
        values.collect()
    }

    /// The combination that a point of the unit cube stands for, one coordinate for each hyperparameter.
    pub(crate) fn at(&self, shares: &[f64]) -> Values {
        let axes = self.dimensions.iter().zip(shares);
        axes.map(|(dimension, share)| (dimension.name.clone(), dimension.axis.text(*share)))
            .collect()
    }

    /// The coordinates of values; `None` when they are not of this space.
    pub(crate) fn encode(&self, values: &Values) -> Option<Point> {
        let mut point = Point::new();
        for dimension in &self.dimensions {
            dimension.axis.encode(values.get(&dimension.name)?, &mut point)?;
        }
        Some(point)
    }

    /// For every coordinate of a point, to which hyperparameter it belongs.
    pub(crate) fn groups(&self) -> Vec<usize> {
        let widths = self.dimensions.iter().map(|dimension| dimension.axis.width());
        widths
            .enumerate()
            .flat_map(|(at, width)| std::iter::repeat_n(at, width))
            .collect()
    }

    /// A combination near another: `reach` is how far numbers go on their scale, and how likely a category changes.
    pub(crate) fn near(&self, values: &Values, reach: f64, chance: &mut Chance) -> Values {
        // Few hyperparameters at once: steps along one axis are what refines an optimum.
        let share = (2.0 / self.dimensions.len().max(1) as f64).min(1.0);
        let only = chance.below(self.dimensions.len());
        let mut moved = values.clone();
        for (at, dimension) in self.dimensions.iter().enumerate() {
            if at != only && chance.unit() > share {
                continue;
            }
            let Some(value) = moved.get_mut(&dimension.name) else {
                continue;
            };
            match &dimension.axis {
                Axis::Categorical { values } => {
                    if at == only || chance.unit() < reach {
                        *value = values.get(chance.below(values.len())).cloned().unwrap_or_default();
                    }
                }
                axis @ (Axis::Continuous { .. } | Axis::Integer { .. }) => {
                    let mut point = Point::new();
                    if axis.encode(value, &mut point).is_some() {
                        let share = point.first().copied().unwrap_or(0.5) + reach * chance.normal();
                        *value = axis.text(share.clamp(0.0, 1.0));
                    }
                }
            }
        }
        moved
    }

    /// The `index`th combination of a grid of categories; `None` beyond the last, or where a number is searched.
    pub(crate) fn grid(&self, index: u64) -> Option<Values> {
        let mut rest = index;
        let mut combination = Values::new();
        for dimension in &self.dimensions {
            let Axis::Categorical { values } = &dimension.axis else {
                return None;
            };
            let count = u64::try_from(values.len()).ok()?;
            let at = usize::try_from(rest.checked_rem(count)?).ok()?;
            rest /= count;
            combination.insert(dimension.name.clone(), values.get(at)?.clone());
        }
        (rest == 0).then_some(combination)
    }
}

fn axis(range: &ParameterRange) -> Result<Axis, BadRange> {
    let name = || range.name.clone();
    match &range.domain {
        Domain::Continuous { min, max, scaling } => {
            if min > max {
                return Err(BadRange::Reversed(name()));
            }
            let scale = Scale::of(*scaling, *min, *max);
            match scale {
                Scale::Logarithmic if *min <= 0.0 => Err(BadRange::NotPositive(name())),
                Scale::Reverse if *min < 0.0 || *max >= 1.0 => Err(BadRange::NotBelowOne(name())),
                Scale::Linear | Scale::Logarithmic | Scale::Reverse => Ok(Axis::Continuous {
                    min: *min,
                    max: *max,
                    scale,
                }),
            }
        }
        Domain::Integer { min, max, scaling } => {
            if min > max {
                return Err(BadRange::Reversed(name()));
            }
            let scale = Scale::of(*scaling, *min as f64, *max as f64);
            match scale {
                Scale::Reverse => Err(BadRange::ReverseInteger(name())),
                Scale::Logarithmic if *min <= 0 => Err(BadRange::NotPositive(name())),
                Scale::Linear | Scale::Logarithmic => Ok(Axis::Integer {
                    min: *min,
                    max: *max,
                    scale,
                }),
            }
        }
        Domain::Categorical { values } => {
            for (at, value) in values.iter().enumerate() {
                if values.iter().take(at).any(|earlier| earlier == value) {
                    return Err(BadRange::Repeated(name(), value.clone()));
                }
            }
            if values.is_empty() {
                return Err(BadRange::Empty(name()));
            }
            Ok(Axis::Categorical { values: values.clone() })
        }
    }
}

/// Where a value lies between two others on a scale, 0.5 where they are one.
fn share(scale: Scale, low: f64, high: f64, value: f64) -> f64 {
    let (low, high) = (scale.apply(low), scale.apply(high));
    if high > low {
        ((scale.apply(value) - low) / (high - low)).clamp(0.0, 1.0)
    } else {
        0.5
    }
}

/// The value at a place between two others on a scale.
fn value(scale: Scale, low: f64, high: f64, share: f64) -> f64 {
    let (from, to) = (scale.apply(low), scale.apply(high));
    scale.undo(from * (1.0 - share) + to * share)
}

/// An integer of a number that is one already, within bounds that are.
fn whole(value: f64, min: i64, max: i64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a saturating conversion; the bounds follow"
    )]
    let whole = value.round() as i64;
    whole.clamp(min, max)
}

/// The interval of real numbers that is divided among the integers of a range.
fn widened(min: i64, max: i64) -> (f64, f64) {
    (min as f64 - 0.5, max as f64 + 0.5)
}

impl Axis {
    fn width(&self) -> usize {
        match self {
            Self::Continuous { .. } | Self::Integer { .. } => 1,
            Self::Categorical { values } => values.len(),
        }
    }

    /// The value at a share of the axis, as a container reads it.
    fn text(&self, share: f64) -> String {
        match self {
            Self::Continuous { min, max, scale } => {
                let value = value(*scale, *min, *max, share).clamp(*min, *max);
                // Never an exponent, and the shortest text that reads as this number.
                format!("{}", if value == 0.0 { 0.0 } else { value })
            }
            Self::Integer { min, max, scale } => {
                let (low, high) = widened(*min, *max);
                whole(value(*scale, low, high, share), *min, *max).to_string()
            }
            Self::Categorical { values } => {
                let count = values.len() as f64;
                let last = i64::try_from(values.len()).unwrap_or(1) - 1;
                let at = usize::try_from(whole((share * count).floor(), 0, last)).unwrap_or(0);
                values.get(at).cloned().unwrap_or_default()
            }
        }
    }

    fn encode(&self, text: &str, point: &mut Point) -> Option<()> {
        match self {
            Self::Continuous { min, max, scale } => {
                let value: f64 = text.parse().ok()?;
                (*min..=*max).contains(&value).then_some(())?;
                point.push(share(*scale, *min, *max, value));
            }
            Self::Integer { min, max, scale } => {
                let value: i64 = text.parse().ok()?;
                (*min..=*max).contains(&value).then_some(())?;
                let (low, high) = widened(*min, *max);
                point.push(share(*scale, low, high, value as f64));
            }
            Self::Categorical { values } => {
                let chosen = values.iter().position(|value| value == text)?;
                point.extend((0..values.len()).map(|at| if at == chosen { 1.0 } else { 0.0 }));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
