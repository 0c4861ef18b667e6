//! Conditions: operators over context keys (IAM-12..IAM-15).

mod operand;

use crate::pattern::{BadVariable, Subject, Token, matches};
use operand::Operand;

/// Looks a lower-cased condition key up; `None` when the request does not have it.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<&'a [String]> + 'a;

/// How an operator compares one value of the request with one of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    String,
    StringFolded,
    StringLike,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Arn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    /// Every value of the request.
    All,
    /// At least one.
    Any,
}

/// One key of one operator of a Condition block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    /// Lower-cased.
    key: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `Null`: whether the key must be absent. Both when the policy lists both.
    Null { absent: bool, present: bool },
    Compare {
        comparison: Comparison,
        negated: bool,
        if_exists: bool,
        quantifier: Option<Quantifier>,
        operands: Vec<Operand>,
    },
}

/// Why a condition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCondition {
    #[error("unknown condition operator {0}")]
    Operator(String),
    #[error("{value} is not a value for the condition operator {operator}")]
    Value { operator: String, value: String },
    #[error(transparent)]
    Variable(#[from] BadVariable),
}

/// What a test says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Holds,
    Fails,
    /// The request's value is not of the operator's type. Denies: an Allow does not match, a Deny does.
    Unreadable,
    /// A policy variable without value or default: the statement does not match (IAM-6).
    Unset,
}

impl Test {
    /// Reads one key of an operator such as `ForAllValues:StringLikeIfExists`.
    pub(crate) fn parse(operator: &str, key: &str, values: &[String], variables: bool) -> Result<Self, BadCondition> {
        let unknown = || BadCondition::Operator(operator.into());
        let key = key.to_lowercase();
        if operator == "Null" {
            let mut kind = (false, false);
            for value in values {
                match value.to_ascii_lowercase().as_str() {
                    "true" => kind.0 = true,
                    "false" => kind.1 = true,
                    _ => {
                        return Err(BadCondition::Value {
                            operator: operator.into(),
                            value: value.clone(),
                        });
                    }
                }
            }
            return Ok(Self {
                key,
                kind: Kind::Null {
                    absent: kind.0,
                    present: kind.1,
                },
            });
        }
        let (quantifier, name) = match operator.split_once(':') {
            Some(("ForAllValues", name)) => (Some(Quantifier::All), name),
            Some(("ForAnyValue", name)) => (Some(Quantifier::Any), name),
            Some(_) => return Err(unknown()),
            None => (None, operator),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let (comparison, negated) = comparison(name).ok_or_else(unknown)?;
        let operands = values
            .iter()
            .map(|value| Operand::parse(comparison, operator, value, variables))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            key,
            kind: Kind::Compare {
                comparison,
                negated,
                if_exists,
                quantifier,
                operands,
            },
        })
    }

    /// Answers for one request.
    pub(crate) fn evaluate<'a>(&self, lookup: &Lookup<'a>) -> Truth {
        // A key with an empty list of values is treated as absent.
        let given = lookup(&self.key).filter(|values| !values.is_empty());
        match &self.kind {
            Kind::Null { absent, present } => truth(if given.is_none() { *absent } else { *present }),
            Kind::Compare {
                comparison,
                negated,
                if_exists,
                quantifier,
                operands,
            } => {
                let Some(given) = given else {
                    return truth(match quantifier {
                        _ if *if_exists => true,
                        Some(Quantifier::All) => true,
                        Some(Quantifier::Any) => false,
                        None => *negated,
                    });
                };
                compare(*comparison, *negated, *quantifier, operands, given, lookup)
            }
        }
    }
}

fn truth(holds: bool) -> Truth {
    if holds { Truth::Holds } else { Truth::Fails }
}

fn comparison(name: &str) -> Option<(Comparison, bool)> {
    use Comparison as C;
    let ordered = |make: fn(Order) -> C, rest: &str| {
        Some(match rest {
            "Equals" => (make(Order::Equal), false),
            "NotEquals" => (make(Order::Equal), true),
            "LessThan" => (make(Order::Less), false),
            "LessThanEquals" => (make(Order::LessOrEqual), false),
            "GreaterThan" => (make(Order::Greater), false),
            "GreaterThanEquals" => (make(Order::GreaterOrEqual), false),
            _ => return None,
        })
    };
    Some(match name {
        "StringEquals" => (C::String, false),
        "StringNotEquals" => (C::String, true),
        "StringEqualsIgnoreCase" => (C::StringFolded, false),
        "StringNotEqualsIgnoreCase" => (C::StringFolded, true),
        "StringLike" => (C::StringLike, false),
        "StringNotLike" => (C::StringLike, true),
        "Bool" => (C::Bool, false),
        "BinaryEquals" => (C::Binary, false),
        "IpAddress" => (C::Ip, false),
        "NotIpAddress" => (C::Ip, true),
        "ArnEquals" | "ArnLike" => (C::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (C::Arn, true),
        _ => match (name.strip_prefix("Numeric"), name.strip_prefix("Date")) {
            (Some(rest), _) => ordered(C::Number, rest)?,
            (_, Some(rest)) => ordered(C::Date, rest)?,
            _ => return None,
        },
    })
}

fn compare<'a>(
    comparison: Comparison,
    negated: bool,
    quantifier: Option<Quantifier>,
    operands: &[Operand],
    given: &[String],
    lookup: &Lookup<'a>,
) -> Truth {
    // A variable stands for one value only.
    let value_of = |key: &str| match lookup(key) {
        Some([one]) => Some(one.as_str()),
        _ => None,
    };
    let mut wanted: Vec<Ready<'_>> = Vec::with_capacity(operands.len());
    for operand in operands {
        wanted.push(match operand {
            Operand::Text(pattern) => match pattern.resolve(value_of) {
                Some(tokens) => Ready::Tokens(tokens),
                None => return Truth::Unset,
            },
            other => Ready::Value(other),
        });
    }
    // Whether one value of the request is among the policy's; `None` when it has not the operator's type.
    let among = |value: &str| -> Option<bool> {
        let value = Operand::read(comparison, value)?;
        Some(wanted.iter().any(|operand| agrees(comparison, operand, &value)))
    };
    let (mut any, mut all) = (false, true);
    for value in given {
        let Some(found) = among(value) else {
            return Truth::Unreadable;
        };
        let holds = found != negated;
        any |= holds;
        all &= holds;
    }
    truth(match quantifier {
        Some(Quantifier::All) => all,
        Some(Quantifier::Any) => any,
        // A negated operator holds only if none of the request's values is listed.
        None if negated => all,
        None => any,
    })
}

/// A value of the policy with its variables replaced.
enum Ready<'a> {
    Tokens(Vec<Token>),
    Value(&'a Operand),
}

fn agrees(comparison: Comparison, wanted: &Ready<'_>, given: &Given) -> bool {
    match (wanted, given) {
        (Ready::Tokens(tokens), Given::Text(text)) => match comparison {
            Comparison::Arn => Subject::resource(text).matched_as_arn(tokens),
            Comparison::StringFolded => folded(tokens) == text.to_lowercase(),
            _ => matches(tokens, &text.chars().collect::<Vec<_>>(), usize::MAX),
        },
        (Ready::Value(Operand::Number(wanted)), Given::Number(given)) => ordered(comparison, given, wanted),
        (Ready::Value(Operand::Date(wanted)), Given::Date(given)) => ordered(comparison, given, wanted),
        (Ready::Value(Operand::Bool(wanted)), Given::Bool(given)) => wanted == given,
        (Ready::Value(Operand::Binary(wanted)), Given::Binary(given)) => wanted == given,
        (Ready::Value(Operand::Net(wanted)), Given::Ip(given)) => wanted.contains(given),
        _ => false,
    }
}

fn folded(tokens: &[Token]) -> String {
    let text: String = tokens
        .iter()
        .map(|token| match token {
            Token::Char(c) => *c,
            Token::Any => '*',
            Token::One => '?',
        })
        .collect();
    text.to_lowercase()
}

fn ordered<T: PartialOrd>(comparison: Comparison, given: &T, wanted: &T) -> bool {
    let (Comparison::Number(order) | Comparison::Date(order)) = comparison else {
        return false;
    };
    match order {
        Order::Equal => given == wanted,
        Order::Less => given < wanted,
        Order::LessOrEqual => given <= wanted,
        Order::Greater => given > wanted,
        Order::GreaterOrEqual => given >= wanted,
    }
}

/// A value of the request, read as the operator wants it.
enum Given {
    Text(String),
    Number(f64),
    Date(i64),
    Bool(bool),
    Binary(Vec<u8>),
    Ip(std::net::IpAddr),
}
