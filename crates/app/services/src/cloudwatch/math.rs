//! Expressions of GetMetricData: numbers, queries by id, `+ - * /` and brackets. Functions are not understood.

use std::collections::BTreeMap;

/// Brackets and signs inside one another.
const DEEPEST: usize = 32;

/// What an expression is worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Series {
    Scalar(f64),
    /// By time.
    Values(BTreeMap<i64, f64>),
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

    /// The queries it names.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Number(_) => Box::new(std::iter::empty()),
            Self::Name(name) => Box::new(std::iter::once(name.as_str())),
            Self::Pair(left, _, right) => Box::new(left.names().chain(right.names())),
        }
    }

    /// Its worth. Times at which one of two series has no value have none; neither have divisions by zero.
    pub(super) fn evaluate(&self, values: &dyn Fn(&str) -> BTreeMap<i64, f64>) -> Series {
        match self {
            Self::Number(number) => Series::Scalar(*number),
            Self::Name(name) => Series::Values(values(name)),
            Self::Pair(left, operator, right) => combined(left.evaluate(values), *operator, right.evaluate(values)),
        }
    }
}

fn combined(left: Series, operator: char, right: Series) -> Series {
    let apply = |left: f64, right: f64| match operator {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        _ => left / right,
    };
    let all = match (left, right) {
        (Series::Scalar(left), Series::Scalar(right)) => return Series::Scalar(apply(left, right)),
        (Series::Values(left), Series::Scalar(right)) => {
            left.into_iter().map(|(at, left)| (at, apply(left, right))).collect()
        }
        (Series::Scalar(left), Series::Values(right)) => {
            right.into_iter().map(|(at, right)| (at, apply(left, right))).collect()
        }
        (Series::Values(left), Series::Values(right)) => {
            let both = left
                .into_iter()
                .filter_map(|(at, left)| Some((at, apply(left, *right.get(&at)?))));
            both.collect::<BTreeMap<i64, f64>>()
        }
    };
    Series::Values(
        all.into_iter()
            .filter(|(_, value): &(i64, f64)| value.is_finite())
            .collect(),
    )
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
