//! Requests against the model, before any handler runs (SM-6).

use crate::catalog::service::{Kind, Range, Service, Shape, ShapeId, Text};
use crate::protocol::Protocol;
use crate::timestamp;
use crate::{ApiError, Document};
use std::fmt::Write;

/// Failures after which checking stops: an answer stays readable, however wrong the request is.
const MOST_FAILURES: usize = 10;
/// Characters of a value that a message repeats at most.
const MOST_SHOWN: usize = 2048;
/// Nesting after which a document is not looked at: recursive shapes are finite in practice.
const DEEPEST: usize = 64;

/// One constraint that a value breaks.
#[derive(Debug, PartialEq)]
struct Failure {
    /// Such as `productionVariants.1.member.modelName`.
    path: String,
    shown: Shown,
    rule: String,
    absent: bool,
}

#[derive(Debug, PartialEq)]
enum Shown {
    Null,
    Value(String),
    Secret,
}

/// Checks an operation's input.
///
/// # Errors
/// The service's validation error with AWS's text; every failure is named, ten at most.
pub fn check(service: &Service, protocol: Protocol, input: ShapeId, document: &Document) -> Result<(), ApiError> {
    let mut walk = Walk {
        service,
        failures: Vec::new(),
        path: Vec::new(),
    };
    walk.value(input, document, 0);
    let Some(first) = walk.failures.first() else {
        return Ok(());
    };
    Err(if protocol == Protocol::Ec2 {
        ec2_refusal(first)
    } else {
        refusal(service, protocol, &walk.failures)
    })
}

fn refusal(service: &Service, protocol: Protocol, failures: &[Failure]) -> ApiError {
    let mut text = match failures.len() {
        1 => "1 validation error detected: ".to_owned(),
        several => format!("{several} validation errors detected: "),
    };
    for (at, failure) in failures.iter().enumerate() {
        let shown = match &failure.shown {
            Shown::Null => "Value null".to_owned(),
            Shown::Value(value) => format!("Value '{value}'"),
            Shown::Secret => "Value".to_owned(),
        };
        let separator = if at == 0 { "" } else { "; " };
        text.push_str(&format!(
            "{separator}{shown} at '{}' failed to satisfy constraint: {}",
            failure.path, failure.rule
        ));
    }
    ApiError::client(service.validation_code(protocol), text)
}

/// EC2 names one parameter in its own words (NET-80).
fn ec2_refusal(failure: &Failure) -> ApiError {
    if failure.absent {
        return ApiError::client(
            "MissingParameter",
            format!("The request must contain the parameter {}", failure.path),
        );
    }
    let shown = match &failure.shown {
        Shown::Value(value) => format!("Value ({value})"),
        Shown::Null | Shown::Secret => "The value".to_owned(),
    };
    let text = format!("{shown} for parameter {} is invalid. {}", failure.path, failure.rule);
    ApiError::client("InvalidParameterValue", text)
}

struct Walk<'a> {
    service: &'a Service,
    failures: Vec<Failure>,
    path: Vec<Step<'a>>,
}

/// A part of a path. Written out only when something fails: most requests are correct.
enum Step<'a> {
    /// A member of a structure, by its name in the model.
    Member(&'a str),
    /// An item of a list, as it is written.
    Item(String),
}

impl Step<'_> {
    fn text(&self) -> String {
        match self {
            Self::Member(name) => lower_first(name),
            Self::Item(text) => text.clone(),
        }
    }
}

impl Walk<'_> {
    fn fail(&mut self, shown: Shown, rule: String, absent: bool) {
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(Failure {
                path: self.path.iter().map(Step::text).collect::<Vec<_>>().join("."),
                shown,
                rule,
                absent,
            });
        }
    }

    fn fail_value(&mut self, shape: &Shape, document: &Document, rule: String) {
        let shown = if self.sensitive(shape) {
            Shown::Secret
        } else {
            Shown::Value(shown(document))
        };
        self.fail(shown, rule, false);
    }

    /// A list or map is secret when what it holds is.
    fn sensitive(&self, shape: &Shape) -> bool {
        let holds = |id: ShapeId| self.service.shape(id).sensitive;
        shape.sensitive
            || match &shape.kind {
                Kind::List(list) => holds(list.member),
                Kind::Map(map) => holds(map.key) || holds(map.value),
                _ => false,
            }
    }

    fn value(&mut self, id: ShapeId, document: &Document, depth: usize) {
        if depth > DEEPEST || self.failures.len() >= MOST_FAILURES {
            return;
        }
        let service = self.service;
        let shape = service.shape(id);
        match (&shape.kind, document) {
            (Kind::Structure(structure), Document::Map(members)) => {
                for member in &structure.members {
                    if service.beside(structure, member) {
                        continue;
                    }
                    self.path.push(Step::Member(member.name));
                    match crate::document::member(members, member.name) {
                        Some(value) => self.value(member.shape, value, depth + 1),
                        None if member.required => self.fail(Shown::Null, "Member must not be null".into(), true),
                        None => {}
                    }
                    self.path.pop();
                }
            }
            (Kind::List(list), Document::List(items)) => {
                if let Some(rule) = length_rule(list.size, items.len()) {
                    self.fail_value(shape, document, rule);
                }
                let member = service.shape(list.member);
                if items.iter().any(|item| !scalar_holds(member, item)) {
                    let rule = format!("Member must satisfy constraint: [{}]", scalar_rules(member).join(", "));
                    self.fail_value(shape, document, rule);
                }
                for (at, item) in items.iter().enumerate().filter(|_| !is_scalar(member)) {
                    self.path.push(Step::Item(format!("{}.member", at + 1)));
                    self.value(list.member, item, depth + 1);
                    self.path.pop();
                }
            }
            (Kind::Map(map), Document::Map(entries)) => {
                if let Some(rule) = length_rule(map.size, entries.len()) {
                    self.fail_value(shape, document, rule);
                }
                let (key_shape, value_shape) = (service.shape(map.key), service.shape(map.value));
                if entries.keys().any(|key| !text_holds(key_shape, key)) {
                    let rule = format!(
                        "Map keys must satisfy constraint: [{}]",
                        scalar_rules(key_shape).join(", ")
                    );
                    self.fail_value(shape, document, rule);
                }
                if entries.values().any(|value| !scalar_holds(value_shape, value)) {
                    let rule = format!(
                        "Map value must satisfy constraint: [{}]",
                        scalar_rules(value_shape).join(", ")
                    );
                    self.fail_value(shape, document, rule);
                }
                for (key, value) in entries.iter().filter(|_| !is_scalar(value_shape)) {
                    self.path.push(Step::Item(format!("{key}.member")));
                    self.value(map.value, value, depth + 1);
                    self.path.pop();
                }
            }
            _ => {
                for rule in broken_rules(shape, document) {
                    self.fail_value(shape, document, rule);
                }
            }
        }
    }
}

/// `ModelName` to `modelName`; names that begin with several capitals keep them but for the first, as AWS's do.
fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}

fn is_scalar(shape: &Shape) -> bool {
    !matches!(shape.kind, Kind::Structure(_) | Kind::List(_) | Kind::Map(_))
}

fn scalar_holds(shape: &Shape, document: &Document) -> bool {
    !is_scalar(shape) || broken_rules(shape, document).is_empty()
}

fn text_holds(shape: &Shape, text: &str) -> bool {
    let Kind::Text(constraints) = &shape.kind else {
        return true;
    };
    text_rules(constraints, text).is_empty()
}

/// The rules a scalar breaks.
fn broken_rules(shape: &Shape, document: &Document) -> Vec<String> {
    match (&shape.kind, document) {
        (Kind::Text(text), Document::String(value)) => text_rules(text, value),
        (Kind::Blob(size), Document::Blob(bytes)) => length_rule(*size, bytes.len()).into_iter().collect(),
        (Kind::Integer(range) | Kind::Long(range) | Kind::Float(range), _) => number(document)
            .and_then(|value| value_rule(*range, value))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}

fn text_rules(text: &Text, value: &str) -> Vec<String> {
    let mut rules = Vec::new();
    if !text.values.is_empty() && !text.values.contains(&value) {
        rules.push(enum_rule(text));
    }
    if let Some(pattern) = text.pattern.as_ref().filter(|pattern| !pattern.matches(value)) {
        rules.push(format!(
            "Member must satisfy regular expression pattern: {}",
            pattern.text()
        ));
    }
    rules.extend(length_rule(text.length, value.chars().count()));
    rules
}

fn enum_rule(text: &Text) -> String {
    format!("Member must satisfy enum value set: [{}]", text.values.join(", "))
}

/// Every rule of a scalar: what AWS lists for the members of lists and maps.
fn scalar_rules(shape: &Shape) -> Vec<String> {
    let mut rules = Vec::new();
    let (range, what) = match &shape.kind {
        Kind::Text(text) => (text.length, "length"),
        Kind::Blob(size) => (*size, "length"),
        Kind::Integer(range) | Kind::Long(range) | Kind::Float(range) => (*range, "value"),
        _ => return rules,
    };
    rules.extend(
        range
            .max
            .map(|max| format!("Member must have {what} less than or equal to {max}")),
    );
    rules.extend(
        range
            .min
            .map(|min| format!("Member must have {what} greater than or equal to {min}")),
    );
    if let Kind::Text(text) = &shape.kind {
        let pattern = text.pattern.as_ref();
        rules.extend(pattern.map(|p| format!("Member must satisfy regular expression pattern: {}", p.text())));
        if !text.values.is_empty() {
            rules.push(enum_rule(text));
        }
    }
    rules
}

#[expect(clippy::cast_precision_loss, reason = "no request holds 2^53 items")]
fn length_rule(range: Range, length: usize) -> Option<String> {
    broken(range, length as f64, "length")
}

fn value_rule(range: Range, value: f64) -> Option<String> {
    broken(range, value, "value")
}

fn broken(range: Range, value: f64, what: &str) -> Option<String> {
    if let Some(min) = range.min.filter(|min| value < *min) {
        return Some(format!("Member must have {what} greater than or equal to {min}"));
    }
    let max = range.max.filter(|max| value > *max || value.is_nan())?;
    Some(format!("Member must have {what} less than or equal to {max}"))
}

#[expect(clippy::cast_precision_loss, reason = "the models' bounds are far below 2^53")]
fn number(document: &Document) -> Option<f64> {
    match document {
        Document::Integer(value) => Some(*value as f64),
        Document::Float(value) => Some(*value),
        _ => None,
    }
}

/// The value as AWS repeats it: `[a, b]`, `{key=value}`, plain scalars; cut when very long.
fn shown(document: &Document) -> String {
    let mut out = String::new();
    show(document, &mut out, 0);
    if let Some((end, _)) = out.char_indices().nth(MOST_SHOWN) {
        out.truncate(end);
        out.push_str("...");
    }
    out
}

fn show(document: &Document, out: &mut String, depth: usize) {
    if out.len() > MOST_SHOWN * 4 || depth > DEEPEST {
        return;
    }
    // Writing to a String cannot fail.
    let _ = match document {
        Document::Bool(value) => write!(out, "{value}"),
        Document::Integer(value) => write!(out, "{value}"),
        Document::Float(value) => write!(out, "{value}"),
        Document::String(text) => out.write_str(text),
        Document::Blob(_) => out.write_str("(bytes)"),
        Document::Timestamp(millis) => out.write_str(&timestamp::to_iso8601(*millis, false)),
        Document::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                show(item, out, depth + 1);
            }
            out.write_str("]")
        }
        Document::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(key);
                out.push('=');
                show(value, out, depth + 1);
            }
            out.write_str("}")
        }
    };
}

#[cfg(test)]
mod tests;
