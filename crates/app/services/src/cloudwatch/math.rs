//! Expressions of GetMetricData: numbers, queries by id, `+ - * /` and brackets. Functions are not understood.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Brackets and signs inside one another.
const DEEPEST: usize = 32;

/// What an expression is worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Series<'a> {
    Scalar(f64),
    /// By time.
    Values(Cow<'a, BTreeMap<i64, f64>>),
}

impl Series<'_> {
    fn points(&self) -> usize {
        match self {
            Self::Scalar(_) => 0,
            Self::Values(values) => values.len(),
        }
    }
}

/// What one request may still read and compute, in points. Everything that it reads and every step of its arithmetic is paid
/// from one budget, so that no expression makes a small request a large one.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

/// A request wanted more points than its budget has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;

impl Budget {
    pub(super) fn new(points: usize) -> Self {
        Self { left: points }
    }

    /// Points that may still be paid.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes points.
    ///
    /// # Errors
    /// When there are fewer left; nothing is taken then.
    pub(super) fn pay(&mut self, points: usize) -> Result<(), Spent> {
        self.left = self.left.checked_sub(points).ok_or(Spent)?;
        Ok(())
    }
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Number(f64),
    Name(String),
    Pair(Box<Expression>, char, Box<Expression>),
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, in words for the caller.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text, depth: 0 };
        let whole = reader.sum()?;
        match reader.next() {
            None => Ok(whole),
            Some(found) => Err(format!(
                "'{found}' is not expected here; only numbers, ids, + - * / and ( ) are understood."
            )),
        }
    }

    /// The queries it names, each once.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let (mut found, mut rest) = (BTreeSet::new(), vec![self]);
        while let Some(next) = rest.pop() {
            match next {
                Self::Number(_) => {}
                Self::Name(name) => {
                    found.insert(name.as_str());
                }
                Self::Pair(left, _, right) => rest.extend([left.as_ref(), right.as_ref()]),
            }
        }
        found
    }

    /// Its worth. Times at which one of two series has no value have none; neither have divisions by zero. Each operator costs
    /// as many points as the longer of its two series has.
    ///
    /// # Errors
    /// When the budget does not pay for it.
    pub(super) fn evaluate<'a>(
        &self,
        values: &dyn Fn(&str) -> Series<'a>,
        budget: &mut Budget,
    ) -> Result<Series<'a>, Spent> {
        match self {
            Self::Number(number) => Ok(Series::Scalar(*number)),
            Self::Name(name) => Ok(values(name)),
            Self::Pair(left, operator, right) => {
                let (left, right) = (left.evaluate(values, budget)?, right.evaluate(values, budget)?);
                budget.pay(left.points().max(right.points()))?;
                Ok(combined(&left, *operator, &right))
            }
        }
    }
}

fn combined(left: &Series<'_>, operator: char, right: &Series<'_>) -> Series<'static> {
    let apply = |left: f64, right: f64| match operator {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        _ => left / right,
    };
    let all: BTreeMap<i64, f64> = match (left, right) {
        (Series::Scalar(left), Series::Scalar(right)) => return Series::Scalar(apply(*left, *right)),
        (Series::Values(left), Series::Scalar(right)) => {
            left.iter().map(|(at, left)| (*at, apply(*left, *right))).collect()
        }
        (Series::Scalar(left), Series::Values(right)) => {
            right.iter().map(|(at, right)| (*at, apply(*left, *right))).collect()
        }
        (Series::Values(left), Series::Values(right)) => {
            let both = left
                .iter()
                .filter_map(|(at, left)| Some((*at, apply(*left, *right.get(at)?))));
            both.collect()
        }
    };
    let finite = all.into_iter().filter(|(_, value): &(i64, f64)| value.is_finite());
    Series::Values(Cow::Owned(finite.collect()))
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn step(&mut self) {
        let mut characters = self.rest.chars();
        characters.next();
        self.rest = characters.as_str();
    }

    fn sum(&mut self) -> Result<Expression, String> {
        let mut left = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.next() {
            self.step();
            left = Expression::Pair(Box::new(left), operator, Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut left = self.factor()?;
        while let Some(operator @ ('*' | '/')) = self.next() {
            self.step();
            left = Expression::Pair(Box::new(left), operator, Box::new(self.factor()?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expression, String> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > DEEPEST {
            return Err("it is nested too deeply.".into());
        }
        let read = match self.next() {
            Some('(') => {
                self.step();
                let inner = self.sum()?;
                match self.next() {
                    Some(')') => {
                        self.step();
                        Ok(inner)
                    }
                    _ => Err("a bracket is not closed.".into()),
                }
            }
            Some('-') => {
                self.step();
                let inner = self.factor()?;
                Ok(Expression::Pair(
                    Box::new(Expression::Number(0.0)),
                    '-',
                    Box::new(inner),
                ))
            }
            Some(first) if first.is_ascii_digit() || first == '.' => {
                let text = self.take(|c| c.is_ascii_digit() || c == '.');
                text.parse()
                    .map(Expression::Number)
                    .map_err(|_| format!("{text} is not a number."))
            }
            Some(first) if first.is_ascii_alphabetic() => {
                let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
                match self.next() {
                    Some('(') => Err(format!("the function {name} is not supported.")),
                    _ => Ok(Expression::Name(name)),
                }
            }
            Some(found) => Err(format!("'{found}' is not expected here.")),
            None => Err("it ends too early.".into()),
        };
        self.depth = self.depth.saturating_sub(1);
        read
    }

    fn take(&mut self, fits: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken.to_owned()
    }
}
