//! Conditions on JSON events.

use super::{BadPattern, DEPTH};
use serde_json::Value;

/// A condition on one JSON value.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test { path: Vec<Step>, test: Test },
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Member(String),
    Item(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    Number(Order, f64),
    /// Equal (or not) to a text in which `*` stands for anything.
    Text {
        equal: bool,
        parts: Vec<String>,
    },
    IsTrue,
    IsFalse,
    IsNull,
    NotExists,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Whether the value fulfils it.
    pub(super) fn holds(&self, value: &Value) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(value)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(value)),
            Self::Test { path, test } => {
                let found = path.iter().try_fold(value, |value, step| match step {
                    Step::Member(name) => value.get(name),
                    Step::Item(index) => value.get(index),
                });
                test.holds(found)
            }
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        match (self, found) {
            (Self::NotExists, found) => found.is_none(),
            (_, None) => false,
            (Self::IsNull, Some(value)) => value.is_null(),
            (Self::IsTrue, Some(value)) => *value == Value::Bool(true),
            (Self::IsFalse, Some(value)) => *value == Value::Bool(false),
            (Self::Number(order, wanted), Some(value)) => value.as_f64().is_some_and(|number| match order {
                Order::Equal => number == *wanted,
                Order::NotEqual => number != *wanted,
                Order::Less => number < *wanted,
                Order::LessOrEqual => number <= *wanted,
                Order::Greater => number > *wanted,
                Order::GreaterOrEqual => number >= *wanted,
            }),
            (Self::Text { equal, parts }, Some(value)) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => return false,
                };
                fits(&text, parts) == *equal
            }
        }
    }
}

/// Whether a text is the parts with anything between them.
fn fits(text: &str, parts: &[String]) -> bool {
    let (Some((first, rest)), Some(last)) = (parts.split_first(), parts.last()) else {
        return text.is_empty();
    };
    if rest.is_empty() {
        return text == first;
    }
    let Some(mut left) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for part in rest.iter().take(rest.len() - 1) {
        match left.find(part.as_str()) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    left.ends_with(last.as_str())
}

/// Parses `{ condition }`.
pub(super) fn parse(text: &str) -> Result<Condition, BadPattern> {
    let mut parser = Parser { text, at: 0 };
    parser.expect("{")?;
    let condition = parser.any(0)?;
    parser.expect("}")?;
    if parser.rest().trim().is_empty() {
        Ok(condition)
    } else {
        Err(parser.bad())
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn bad(&self) -> BadPattern {
        BadPattern::Json(self.at)
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), BadPattern> {
        if self.eat(token) { Ok(()) } else { Err(self.bad()) }
    }

    fn any(&mut self, depth: usize) -> Result<Condition, BadPattern> {
        let mut parts = vec![self.all(depth)?];
        while self.eat("||") {
            parts.push(self.all(depth)?);
        }
        Ok(Condition::Any(parts))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, BadPattern> {
        let mut parts = vec![self.one(depth)?];
        while self.eat("&&") {
            parts.push(self.one(depth)?);
        }
        Ok(Condition::All(parts))
    }

    fn one(&mut self, depth: usize) -> Result<Condition, BadPattern> {
        if !self.eat("(") {
            return self.test();
        }
        if depth >= DEPTH {
            return Err(self.bad());
        }
        let inner = self.any(depth + 1)?;
        self.expect(")")?;
        Ok(inner)
    }

    fn test(&mut self) -> Result<Condition, BadPattern> {
        self.expect("$")?;
        let mut path = Vec::new();
        loop {
            if let Some(rest) = self.rest().strip_prefix('.') {
                let length = rest
                    .find(|c: char| !c.is_alphanumeric() && !"_-@:".contains(c))
                    .unwrap_or(rest.len());
                let name = rest
                    .get(..length)
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| self.bad())?;
                path.push(Step::Member(name.into()));
                self.at += 1 + length;
            } else if let Some((index, _)) = self.rest().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                path.push(Step::Item(index.parse().map_err(|_| self.bad())?));
                self.at += index.len() + 2;
            } else {
                break;
            }
        }
        let test = self.comparison()?;
        Ok(Condition::Test { path, test })
    }

    fn comparison(&mut self) -> Result<Test, BadPattern> {
        for (words, test) in [
            (["IS", "TRUE"], Test::IsTrue),
            (["IS", "FALSE"], Test::IsFalse),
            (["IS", "NULL"], Test::IsNull),
            (["NOT", "EXISTS"], Test::NotExists),
        ] {
            let start = self.at;
            if words.iter().all(|word| self.eat(word)) {
                return Ok(test);
            }
            self.at = start;
        }
        let order = [
            ("!=", Order::NotEqual),
            ("<=", Order::LessOrEqual),
            (">=", Order::GreaterOrEqual),
            ("=", Order::Equal),
            ("<", Order::Less),
            (">", Order::Greater),
        ]
        .into_iter()
        .find_map(|(sign, order)| self.eat(sign).then_some(order))
        .ok_or_else(|| self.bad())?;
        let (text, quoted) = self.operand()?;
        match (quoted, text.parse::<f64>(), order) {
            (false, Ok(number), order) => Ok(Test::Number(order, number)),
            (_, _, Order::Equal) => Ok(Test::Text {
                equal: true,
                parts: stars(&text),
            }),
            (_, _, Order::NotEqual) => Ok(Test::Text {
                equal: false,
                parts: stars(&text),
            }),
            _ => Err(self.bad()), // texts have no order
        }
    }

    fn operand(&mut self) -> Result<(String, bool), BadPattern> {
        self.blank();
        let rest = self.rest();
        if rest.starts_with('"') {
            let (text, after) = super::take_term(rest)?;
            self.at += rest.len() - after.len();
            return Ok((text, true));
        }
        let length = rest
            .find(|c: char| c.is_whitespace() || "{}()&|".contains(c))
            .unwrap_or(rest.len());
        let text = rest
            .get(..length)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.bad())?;
        self.at += length;
        Ok((text.into(), false))
    }
}

fn stars(text: &str) -> Vec<String> {
    text.split('*').map(Into::into).collect()
}
