//! Conditions: operators over context keys (IAM-12..IAM-15).

mod decimal;
mod operand;

use crate::pattern::{BadVariable, Lookup, Pattern};
use operand::Operand;
use std::cmp::Ordering;
use std::collections::BTreeSet;

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
}

impl Test {
    /// Whether there is such an operator.
    pub(crate) fn knows(operator: &str) -> bool {
        let name = operator
            .strip_prefix("ForAllValues:")
            .or_else(|| operator.strip_prefix("ForAnyValue:"))
            .unwrap_or(operator);
        operator == "Null" || comparison(name.strip_suffix("IfExists").unwrap_or(name)).is_some()
    }

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

    /// The condition keys that it asks for, those of variables included.
    pub(crate) fn collect_keys(&self, keys: &mut BTreeSet<String>) {
        keys.insert(self.key.clone());
        if let Kind::Compare { operands, .. } = &self.kind {
            for operand in operands {
                operand.collect_keys(keys);
            }
        }
    }

    /// Answers for one request.
    pub(crate) fn evaluate(&self, lookup: &Lookup<'_>) -> Truth {
        // A key with an empty list of values is treated as absent (IAM-14).
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

fn compare(
    comparison: Comparison,
    negated: bool,
    quantifier: Option<Quantifier>,
    operands: &[Operand],
    given: &[String],
    lookup: &Lookup<'_>,
) -> Truth {
    let (mut any, mut all) = (false, true);
    for value in given {
        // Whether one value of the request is among the policy's; `None` when it has not the operator's type.
        let Some(found) = among(comparison, operands, value, lookup) else {
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

/// A variable without a value is like no value at all: it agrees with nothing (IAM-6).
fn among(comparison: Comparison, operands: &[Operand], value: &str, lookup: &Lookup<'_>) -> Option<bool> {
    let agreeing = |agrees: &dyn Fn(&Operand) -> bool| Some(operands.iter().any(agrees));
    match comparison {
        Comparison::String | Comparison::StringLike | Comparison::Arn => agreeing(&|operand| {
            let found = match operand {
                Operand::Text(pattern) => pattern.matches(value, crate::pattern::EXACT, lookup),
                Operand::Arn(pattern) => pattern.matches(value, lookup),
                _ => None,
            };
            found == Some(true)
        }),
        Comparison::StringFolded => {
            let value = value.to_lowercase();
            let text = |pattern: &Pattern| pattern.text(lookup).map(|text| text.to_lowercase());
            agreeing(&|operand| matches!(operand, Operand::Text(pattern) if text(pattern).as_ref() == Some(&value)))
        }
        Comparison::Number(order) => {
            let value = operand::number(value)?;
            agreeing(&|operand| matches!(operand, Operand::Number(wanted) if order.holds(value.cmp(wanted))))
        }
        Comparison::Date(order) => {
            let value = operand::date(value)?;
            agreeing(&|operand| matches!(operand, Operand::Date(wanted) if order.holds(value.cmp(wanted))))
        }
        Comparison::Bool => {
            let value = operand::boolean(value)?;
            agreeing(&|operand| matches!(operand, Operand::Bool(wanted) if *wanted == value))
        }
        Comparison::Binary => {
            let value = operand::base64(value)?;
            agreeing(&|operand| matches!(operand, Operand::Binary(wanted) if *wanted == value))
        }
        Comparison::Ip => {
            let value = operand::address(value)?;
            agreeing(&|operand| matches!(operand, Operand::Net(net) if net.contains(&value)))
        }
    }
}

impl Order {
    /// Whether the request's value, so ordered against the policy's, is what the operator wants.
    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}
