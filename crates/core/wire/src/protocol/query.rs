//! Requests of awsQuery and ec2Query: forms with dotted keys.

use crate::Document;
use crate::catalog::service::{Kind, Member, Service, ShapeId, Structure};
use crate::timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use std::collections::BTreeMap;

/// Nesting after which a request is refused.
const DEEPEST: usize = 64;

/// The pairs of a form, from the query string and the body.
#[derive(Debug, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `a=b&c=d` texts; a later pair replaces an earlier one of the same key.
    ///
    /// # Errors
    /// When a text is not percent-encoded UTF-8.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut pairs = BTreeMap::new();
        for pair in texts
            .into_iter()
            .flat_map(|text| text.split('&'))
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = super::percent_decode(key, true).zip(super::percent_decode(value, true));
            let (key, value) = decoded.ok_or("The form is not percent-encoded UTF-8.")?;
            pairs.insert(key, value);
        }
        Ok(Self(pairs))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether any key is `path` itself or below it.
    fn reaches(&self, path: &str) -> bool {
        self.0.contains_key(path) || self.below(path).next().is_some()
    }

    /// Keys below `path`, without it and the dot.
    fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let prefix = format!("{path}.");
        let start = prefix.clone();
        self.0
            .range(start..)
            .map(|(key, _)| key.as_str())
            .map_while(move |key| key.strip_prefix(prefix.as_str()))
    }

    /// The numbers directly below `path`, in order.
    fn numbers(&self, path: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .below(path)
            .filter_map(|rest| rest.split('.').next())
            .filter_map(|first| first.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// Reads the members of an operation's input.
///
/// # Errors
/// When a value has the wrong type or the keys are nested too deeply.
pub fn read(
    service: &Service,
    structure: &Structure,
    form: &Form,
    ec2: bool,
) -> Result<IndexMap<String, Document>, String> {
    Reader { service, form, ec2 }.members(structure, "", 0)
}

struct Reader<'a> {
    service: &'a Service,
    form: &'a Form,
    ec2: bool,
}

impl Reader<'_> {
    fn members(&self, structure: &Structure, path: &str, depth: usize) -> Result<IndexMap<String, Document>, String> {
        let mut members = IndexMap::new();
        for member in &structure.members {
            let name = self.name(member);
            let at = if path.is_empty() {
                name
            } else {
                format!("{path}.{name}")
            };
            if self.form.reaches(&at)
                && let Some(value) = self.value(member.shape, &at, depth + 1)?
            {
                members.insert(member.name.to_owned(), value);
            }
        }
        Ok(members)
    }

    fn name(&self, member: &Member) -> String {
        if !self.ec2 {
            return member.wire_name().to_owned();
        }
        if let Some(name) = member.query_name {
            return name.to_owned();
        }
        let mut letters = member.wire_name().chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect())
            .unwrap_or_default()
    }

    fn value(&self, id: ShapeId, at: &str, depth: usize) -> Result<Option<Document>, String> {
        if depth > DEEPEST {
            return Err("The request is nested too deeply.".into());
        }
        let shape = self.service.shape(id);
        let text = self.form.get(at);
        Ok(match (&shape.kind, text) {
            (Kind::Structure(structure), _) => Some(Document::Map(self.members(structure, at, depth)?)),
            (Kind::List(list), _) => {
                let flat = self.ec2 || list.flattened;
                let base = if flat {
                    at.to_owned()
                } else {
                    format!("{at}.{}", list.member_name.unwrap_or("member"))
                };
                let mut items = Vec::new();
                for number in self.form.numbers(&base) {
                    items.extend(self.value(list.member, &format!("{base}.{number}"), depth + 1)?);
                }
                // `Tags=` is an empty list; keys below that are no list are unknown members.
                (!items.is_empty() || text.is_some()).then_some(Document::List(items))
            }
            (Kind::Map(map), _) => {
                let base = if map.flattened {
                    at.to_owned()
                } else {
                    format!("{at}.entry")
                };
                let (key_name, value_name) = (map.key_name.unwrap_or("key"), map.value_name.unwrap_or("value"));
                let mut entries = IndexMap::new();
                for number in self.form.numbers(&base) {
                    let key = self.form.get(&format!("{base}.{number}.{key_name}"));
                    let key = key.ok_or_else(|| format!("{base}.{number} has no {key_name}."))?;
                    if let Some(value) = self.value(map.value, &format!("{base}.{number}.{value_name}"), depth + 1)? {
                        entries.insert(key.to_owned(), value);
                    }
                }
                (!entries.is_empty() || text.is_some()).then_some(Document::Map(entries))
            }
            (_, None) => None,
            (kind, Some(text)) => Some(scalar(kind, text).ok_or_else(|| format!("Invalid value '{text}' for {at}."))?),
        })
    }
}

/// A scalar from its textual form: query values, HTTP headers, URI labels.
pub fn scalar(kind: &Kind, text: &str) -> Option<Document> {
    Some(match kind {
        Kind::Text(_) => Document::String(text.to_owned()),
        Kind::Boolean => Document::Bool(match text {
            "true" | "True" | "TRUE" => true,
            "false" | "False" | "FALSE" => false,
            _ => return None,
        }),
        Kind::Integer(_) => Document::Integer(text.parse::<i32>().ok()?.into()),
        Kind::Long(_) => Document::Integer(text.parse().ok()?),
        Kind::Float(_) => Document::Float(text.parse().ok()?),
        Kind::Timestamp => Document::Timestamp(timestamp::parse(text)?),
        Kind::Blob(_) => Document::Blob(STANDARD.decode(text).ok()?),
        Kind::Structure(_) | Kind::List(_) | Kind::Map(_) => return None,
    })
}
