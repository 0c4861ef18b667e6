//! Property paths and filters over the members of a resource.

use super::shapes::{self, Operator};
use isolarium_wire::catalog::Service;
use isolarium_wire::catalog::service::{Kind, ShapeId};
use isolarium_wire::{ApiError, Document};

/// Expressions inside one another.
const DEEPEST: usize = 5;
/// Filters of a request.
const MOST: usize = 50;

/// A value with its shape.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub service: &'static Service,
    pub shape: ShapeId,
    pub document: &'a Document,
}

/// A value that can be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaf<'a> {
    Text(&'a str),
    Number(f64),
    Bool(bool),
    /// Milliseconds.
    Time(i64),
}

impl Leaf<'_> {
    /// Whether it is the value that a filter's text means.
    pub(super) fn equals(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => *own == text,
            Self::Bool(own) => own.to_string().eq_ignore_ascii_case(text),
            Self::Number(own) => text
                .trim()
                .parse::<f64>()
                .is_ok_and(|other| other.total_cmp(own).is_eq()),
            Self::Time(own) => time(text) == Some(*own),
        }
    }

    fn compared(&self, text: &str) -> Option<std::cmp::Ordering> {
        match self {
            Self::Number(own) => own.partial_cmp(&text.trim().parse().ok()?),
            Self::Time(own) => Some(own.cmp(&time(text)?)),
            // Hyperparameters are texts that often are numbers.
            Self::Text(own) => own.trim().parse::<f64>().ok()?.partial_cmp(&text.trim().parse().ok()?),
            Self::Bool(_) => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of the calendar fit a double")]
pub(super) fn as_float(whole: i64) -> f64 {
    whole as f64
}

/// A time of a filter, `2024-05-01T10:00:00` with or without an offset, in milliseconds.
fn time(text: &str) -> Option<i64> {
    let whole = text.parse::<jiff::Timestamp>().or_else(|_| format!("{text}Z").parse());
    whole.ok().map(|at| at.as_millisecond())
}

fn unknown(name: &str) -> ApiError {
    ApiError::validation(format!("Unknown property name: {name}"))
}

/// The values of a property path such as `HyperParameters.epochs`, `Tags.team` or `Metrics.accuracy`; every element of a
/// list on the way counts.
///
/// # Errors
/// `ValidationException` when the resource has no such property.
pub(super) fn values<'a>(place: Place<'a>, name: &str) -> Result<Vec<Leaf<'a>>, ApiError> {
    let mut found = Vec::new();
    // Models are searched by their own properties, though a result shows them inside of a dashboard's entry.
    let place = inside_model(place, name).unwrap_or(place);
    for end in ends(place, name, name)? {
        leaves(end, &mut found);
    }
    Ok(found)
}

fn inside_model<'a>(place: Place<'a>, name: &str) -> Option<Place<'a>> {
    let structure = place.service.structure(place.shape)?;
    let first = name.split('.').next()?;
    let inner = structure
        .member("Model")
        .filter(|_| structure.member(first).is_none())?;
    let Document::Map(members) = place.document else {
        return None;
    };
    Some(Place {
        shape: inner.shape,
        document: members.get("Model")?,
        ..place
    })
}

/// The places that a path leads to.
fn ends<'a>(place: Place<'a>, path: &str, whole: &str) -> Result<Vec<Place<'a>>, ApiError> {
    if let (Kind::List(list), Document::List(items)) = (&place.service.shape(place.shape).kind, place.document) {
        let mut all = Vec::new();
        for document in items {
            let item = Place {
                shape: list.member,
                document,
                ..place
            };
            all.extend(ends(item, path, whole)?);
        }
        return Ok(all);
    }
    if path.is_empty() {
        return Ok(vec![place]);
    }
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match &place.service.shape(place.shape).kind {
        Kind::Structure(structure) => {
            if let Some(pairs) = named_pairs(place, first, rest) {
                return Ok(pairs);
            }
            let member = structure.member(first).ok_or_else(|| unknown(whole))?;
            let Document::Map(members) = place.document else {
                return Ok(Vec::new());
            };
            match members.get(first) {
                None => check(place.service, member.shape, rest, whole).map(|()| Vec::new()),
                Some(document) => {
                    let inner = Place {
                        shape: member.shape,
                        document,
                        ..place
                    };
                    ends(inner, rest, whole)
                }
            }
        }
        // Keys of maps may have dots.
        Kind::Map(map) => match place.document {
            Document::Map(members) => Ok(members
                .get(path)
                .map(|document| Place {
                    shape: map.value,
                    document,
                    ..place
                })
                .into_iter()
                .collect()),
            _ => Ok(Vec::new()),
        },
        _ => Err(unknown(whole)),
    }
}

/// `Tags.KEY`, `Metrics.NAME` and `Parameters.KEY`: lists of pairs that are named like maps. `None` for other paths.
fn named_pairs<'a>(place: Place<'a>, first: &str, rest: &str) -> Option<Vec<Place<'a>>> {
    let (list, key, value) = match first {
        "Tags" | "Parameters" if !matches!(rest, "" | "Key" | "Value") => (first, "Key", "Value"),
        "Metrics" if !rest.is_empty() => ("FinalMetricDataList", "MetricName", "Value"),
        _ => return None,
    };
    let member = place.service.structure(place.shape)?.member(list)?;
    let Kind::List(of) = &place.service.shape(member.shape).kind else {
        return None;
    };
    let shape = place.service.structure(of.member)?.member(value)?.shape;
    let Document::Map(members) = place.document else {
        return None;
    };
    let Some(Document::List(items)) = members.get(list) else {
        return Some(Vec::new());
    };
    let pairs = items.iter().filter_map(|item| {
        let Document::Map(pair) = item else { return None };
        let named = matches!(pair.get(key), Some(Document::String(own)) if own == rest);
        named.then(|| pair.get(value)).flatten()
    });
    Some(
        pairs
            .map(|document| Place {
                shape,
                document,
                ..place
            })
            .collect(),
    )
}

/// Whether a path that leads through something absent could exist.
fn check(service: &Service, shape: ShapeId, path: &str, whole: &str) -> Result<(), ApiError> {
    if path.is_empty() {
        return Ok(());
    }
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match &service.shape(shape).kind {
        Kind::List(list) => check(service, list.member, path, whole),
        Kind::Map(_) => Ok(()),
        Kind::Structure(structure) => {
            let member = structure.member(first).ok_or_else(|| unknown(whole))?;
            check(service, member.shape, rest, whole)
        }
        _ => Err(unknown(whole)),
    }
}

fn leaves<'a>(end: Place<'a>, found: &mut Vec<Leaf<'a>>) {
    match (&end.service.shape(end.shape).kind, end.document) {
        (Kind::Timestamp, Document::Integer(at) | Document::Timestamp(at)) => found.push(Leaf::Time(*at)),
        (_, Document::String(text)) => found.push(Leaf::Text(text)),
        (_, Document::Bool(value)) => found.push(Leaf::Bool(*value)),
        (_, Document::Integer(value)) => found.push(Leaf::Number(as_float(*value))),
        (_, Document::Float(value)) => found.push(Leaf::Number(*value)),
        _ => {}
    }
}

/// Whether a resource fits an expression; one without filters fits everything.
///
/// # Errors
/// `ValidationException` when the expression makes no sense for the resource.
pub(super) fn matches(place: Place<'_>, expression: Option<&shapes::SearchExpression>) -> Result<bool, ApiError> {
    let mut left = MOST;
    expression.map_or(Ok(true), |expression| holds(place, expression, DEEPEST, &mut left))
}

fn holds(
    place: Place<'_>,
    expression: &shapes::SearchExpression,
    depth: usize,
    left: &mut usize,
) -> Result<bool, ApiError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(ApiError::validation(format!(
            "A search expression can be nested at most {DEEPEST} deep."
        )));
    };
    let mut results = Vec::new();
    for filter in expression.filters.iter().flatten() {
        results.push(fits(place, filter, &filter.name, left)?);
    }
    for nested in expression.nested_filters.iter().flatten() {
        results.push(one_element_fits(place, nested, left)?);
    }
    for inner in expression.sub_expressions.iter().flatten() {
        results.push(holds(place, inner, depth, left)?);
    }
    Ok(match expression.operator {
        Some(shapes::BooleanOperator::Or) => results.is_empty() || results.contains(&true),
        Some(shapes::BooleanOperator::And) | None => !results.contains(&false),
    })
}

/// Whether one element of a list fits all filters of a nested filter.
fn one_element_fits(place: Place<'_>, nested: &shapes::NestedFilters, left: &mut usize) -> Result<bool, ApiError> {
    let name = nested.nested_property_name.as_str();
    let elements = ends(inside_model(place, name).unwrap_or(place), name, name)?;
    let mut inner = Vec::new();
    for filter in &nested.filters {
        let below = filter.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        inner.push((filter, below.ok_or_else(|| unknown(&filter.name))?));
    }
    let before = *left;
    for element in elements {
        *left = before;
        let mut all = true;
        for (filter, below) in &inner {
            all &= fits(element, filter, below, left)?;
        }
        if all {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fits(place: Place<'_>, filter: &shapes::Filter, name: &str, left: &mut usize) -> Result<bool, ApiError> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| ApiError::validation(format!("A search can have at most {MOST} filters.")))?;
    let found = values(place, name)?;
    let operator = filter.operator.unwrap_or(Operator::Equals);
    let text = match (operator, filter.value.as_deref()) {
        (Operator::Exists, None) => return Ok(!found.is_empty()),
        (Operator::NotExists, None) => return Ok(found.is_empty()),
        (Operator::Exists | Operator::NotExists, Some(_)) => {
            return Err(ApiError::validation(format!(
                "A filter with the operator {operator} must not have a Value."
            )));
        }
        (_, None) => {
            return Err(ApiError::validation(format!(
                "A filter with the operator {operator} needs a Value."
            )));
        }
        (_, Some(text)) => text,
    };
    let any = |test: &dyn Fn(&Leaf<'_>) -> bool| found.iter().any(test);
    let compared = |test: fn(std::cmp::Ordering) -> bool| any(&|leaf| leaf.compared(text).is_some_and(test));
    Ok(match operator {
        Operator::Equals => any(&|leaf| leaf.equals(text)),
        Operator::NotEquals => !any(&|leaf| leaf.equals(text)),
        Operator::In => any(&|leaf| text.split(',').any(|one| leaf.equals(one.trim()))),
        Operator::Contains => any(&|leaf| matches!(leaf, Leaf::Text(own) if own.contains(text))),
        Operator::GreaterThan => compared(std::cmp::Ordering::is_gt),
        Operator::GreaterThanOrEqualTo => compared(std::cmp::Ordering::is_ge),
        Operator::LessThan => compared(std::cmp::Ordering::is_lt),
        Operator::LessThanOrEqualTo => compared(std::cmp::Ordering::is_le),
        Operator::Exists | Operator::NotExists => false,
    })
}
