//! JSONPath as DataProcessing documents it (CC-78): `$`, `.name`, `*`, `['a','b']`, `[1]`, `[1,3]`, negative indexes and
//! slices. Recursive descent, filters and functions are not part of it.
//!
//! Nothing is copied: a path that would pick an element twice is an error, so that what is selected is never larger than
//! the document it comes from.

use serde_json::{Map, Value};
use std::str::FromStr;

/// A path that was read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    /// Several names of one object: an object with these.
    Names(Vec<String>),
    /// Every member or element.
    Wild,
    /// One element.
    Index(i64),
    /// Elements and ranges of elements, in the order they are asked for.
    Picks(Vec<Pick>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    At(i64),
    /// From the first to before the second; what is left out is the end on that side.
    Range(Option<i64>, Option<i64>),
}

/// The text is no path of the documented subset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{path}\" is not a supported JSONPath expression: {why}")]
pub struct BadPath {
    path: String,
    why: &'static str,
}

/// What a path asks for is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("there is no member \"{0}\"")]
    Name(String),
    #[error("the index {0} is outside of {1} elements")]
    Index(i64, usize),
    #[error("{0} cannot be looked into")]
    Kind(&'static str),
    /// Copies would multiply with every further step of the path.
    #[error("the element {0} is picked twice")]
    Twice(usize),
}

impl FromStr for JsonPath {
    type Err = BadPath;
    fn from_str(text: &str) -> Result<Self, BadPath> {
        let bad = |why| BadPath { path: text.into(), why };
        let mut rest = text.strip_prefix('$').ok_or_else(|| bad("it must begin with $"))?;
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = segment(rest).map_err(bad)?;
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }
}

type Read<'a, T> = Result<(T, &'a str), &'static str>;

fn segment(text: &str) -> Read<'_, Segment> {
    if let Some(inner) = text.strip_prefix("[").or_else(|| text.strip_prefix(".[")) {
        return bracket(inner);
    }
    let name = text.strip_prefix('.').ok_or("a name needs a dot or brackets")?;
    if let Some(after) = name.strip_prefix('*') {
        return Ok((Segment::Wild, after));
    }
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (name, after) = name.split_at(end);
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err("a name after a dot has letters, digits, _ and - only");
    }
    Ok((Segment::Name(name.into()), after))
}

fn bracket(text: &str) -> Read<'_, Segment> {
    let text = text.trim_start();
    if let Some(after) = text.strip_prefix('*') {
        let after = after.trim_start().strip_prefix(']').ok_or("a bracket is not closed")?;
        return Ok((Segment::Wild, after));
    }
    if text.starts_with('\'') {
        let (mut names, after) = list(text, quoted)?;
        let segment = match (names.pop(), names.is_empty()) {
            (Some(only), true) => Segment::Name(only),
            (last, _) => Segment::Names(names.into_iter().chain(last).collect()),
        };
        return Ok((segment, after));
    }
    let (picks, after) = list(text, pick)?;
    let repeated = |(at, pick)| picks.iter().take(at).any(|earlier| earlier == pick);
    if picks.iter().enumerate().any(repeated) {
        return Err("an element is picked twice");
    }
    let segment = match picks.as_slice() {
        [Pick::At(only)] => Segment::Index(*only),
        _ => Segment::Picks(picks),
    };
    Ok((segment, after))
}

/// Items with commas between them, up to the closing bracket.
fn list<T>(text: &str, item: fn(&str) -> Read<'_, T>) -> Read<'_, Vec<T>> {
    let (mut items, mut rest) = (Vec::new(), text);
    loop {
        let (one, after) = item(rest.trim_start())?;
        items.push(one);
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix(']') {
            return Ok((items, after));
        }
        rest = after.strip_prefix(',').ok_or("a bracket is not closed")?;
    }
}

fn quoted(text: &str) -> Read<'_, String> {
    let inner = text
        .strip_prefix('\'')
        .ok_or("names in brackets stand in single quotes")?;
    let (mut name, mut escaped) = (String::new(), false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '\'' => return Ok((name, inner.get(at + 1..).unwrap_or_default())),
            _ => name.push(c),
        }
    }
    Err("a quote is not closed")
}

fn pick(text: &str) -> Read<'_, Pick> {
    let (from, rest) = number(text)?;
    if let Some(after) = rest.trim_start().strip_prefix(':') {
        let (to, after) = number(after.trim_start())?;
        return Ok((Pick::Range(from, to), after));
    }
    let at = from.ok_or("brackets hold names in single quotes, indexes or slices")?;
    Ok((Pick::At(at), rest))
}

fn number(text: &str) -> Read<'_, Option<i64>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let sign = text.len() - digits.len();
    let (number, after) = text.split_at(end + sign);
    if number.is_empty() {
        return Ok((None, after));
    }
    let number = number.parse().map_err(|_| "an index is no number")?;
    Ok((Some(number), after))
}

/// What a path found: one value, or what several steps of it found.
enum Found {
    One(Value),
    Many(Vec<Value>),
}

impl JsonPath {
    /// Everything: `$`.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it can be asked of a row of CSV: nothing but `$` or one step of indexes.
    pub fn is_for_rows(&self) -> bool {
        match self.0.as_slice() {
            [] => true,
            [one] => matches!(one, Segment::Wild | Segment::Index(_) | Segment::Picks(_)),
            _ => false,
        }
    }

    /// The part of a document that the path names. Several elements make an array.
    ///
    /// # Errors
    /// When the path names what is not there, or an element twice.
    pub fn select(&self, document: Value) -> Result<Value, Absent> {
        let mut found = Found::One(document);
        for segment in &self.0 {
            found = match found {
                Found::One(value) => step(segment, value)?,
                Found::Many(values) => {
                    let mut all = Vec::new();
                    for value in values {
                        match step(segment, value)? {
                            Found::One(one) => all.push(one),
                            Found::Many(more) => all.extend(more),
                        }
                    }
                    Found::Many(all)
                }
            };
        }
        Ok(match found {
            Found::One(value) => value,
            Found::Many(values) => Value::Array(values),
        })
    }

    /// The columns of a row with so many that the path names, in order.
    ///
    /// # Errors
    /// When the path names what is not there, or a column twice.
    pub fn columns(&self, count: usize) -> Result<Vec<usize>, Absent> {
        match self.0.as_slice() {
            [] | [Segment::Wild] => Ok((0..count).collect()),
            [Segment::Index(at)] => Ok(vec![index(*at, count)?]),
            [Segment::Picks(picks)] => places(picks, count),
            _ => Err(Absent::Kind("A row of CSV")),
        }
    }
}

fn step(segment: &Segment, value: Value) -> Result<Found, Absent> {
    match (segment, value) {
        (Segment::Name(name), Value::Object(mut members)) => {
            let member = members.shift_remove(name);
            member.map(Found::One).ok_or_else(|| Absent::Name(name.clone()))
        }
        (Segment::Names(names), Value::Object(mut members)) => {
            let mut named = Map::new();
            for name in names {
                let member = members.shift_remove(name).ok_or_else(|| Absent::Name(name.clone()))?;
                named.insert(name.clone(), member);
            }
            Ok(Found::One(Value::Object(named)))
        }
        (Segment::Wild, Value::Object(members)) => Ok(Found::Many(members.into_iter().map(|(_, v)| v).collect())),
        (Segment::Wild, Value::Array(elements)) => Ok(Found::Many(elements)),
        (Segment::Index(at), Value::Array(mut elements)) => {
            let at = index(*at, elements.len())?;
            Ok(Found::One(elements.swap_remove(at)))
        }
        (Segment::Picks(picks), Value::Array(mut elements)) => {
            let places = places(picks, elements.len())?;
            // Each place comes once.
            let picked = places
                .into_iter()
                .filter_map(|at| elements.get_mut(at).map(Value::take));
            Ok(Found::Many(picked.collect()))
        }
        (_, Value::Object(_)) => Err(Absent::Kind("An object")),
        (_, Value::Array(_)) => Err(Absent::Kind("An array")),
        (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Err(Absent::Kind("A plain value")),
    }
}

fn index(at: i64, count: usize) -> Result<usize, Absent> {
    edge(at, count)
        .filter(|place| *place < count)
        .ok_or(Absent::Index(at, count))
}

/// A place from the front, or from the end where it is negative; at most just behind the last.
fn edge(at: i64, count: usize) -> Option<usize> {
    let place = match usize::try_from(at) {
        Ok(place) => Some(place),
        Err(_) => usize::try_from(at.unsigned_abs())
            .ok()
            .and_then(|back| count.checked_sub(back)),
    };
    place.filter(|place| *place <= count)
}

/// The places that picks name, each once and so at most `count`.
fn places(picks: &[Pick], count: usize) -> Result<Vec<usize>, Absent> {
    let (mut all, mut taken) = (Vec::new(), vec![false; count]);
    let mut take = |place: usize| {
        let before = taken.get_mut(place).map(|taken| std::mem::replace(taken, true));
        if before == Some(true) {
            return Err(Absent::Twice(place));
        }
        all.push(place);
        Ok(())
    };
    for pick in picks {
        match *pick {
            Pick::At(at) => take(index(at, count)?)?,
            Pick::Range(from, to) => {
                let bound = |at: Option<i64>, open: usize| match at {
                    None => Ok(open),
                    Some(at) => edge(at, count).ok_or(Absent::Index(at, count)),
                };
                (bound(from, 0)?..bound(to, count)?).try_for_each(&mut take)?;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
