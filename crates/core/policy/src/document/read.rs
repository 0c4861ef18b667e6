//! JSON to documents. serde's visitors give every error its place in the text.

use super::{Actions, Document, DocumentKind, Effect, MalformedPolicy, Resources, Statement};
use crate::condition::Test;
use crate::pattern::{Pattern, Rules};
use crate::principal::{PrincipalElement, PrincipalEntry};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

pub(super) fn document(text: &str, kind: DocumentKind) -> Result<Document, MalformedPolicy> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let raw = Root(kind)
        .deserialize(&mut reader)
        .and_then(|document| reader.end().map(|()| document));
    raw.map_err(|error| {
        // At the very beginning serde_json counts from nought.
        let (line, column) = (error.line().max(1), error.column().max(1));
        let message = error.to_string();
        // serde_json repeats the place behind the text.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        MalformedPolicy { message, line, column }
    })
}

/// A string, or a list of strings. With `scalars`, numbers and booleans count as their text.
struct Texts {
    scalars: bool,
    /// Within a list: no further list.
    listed: bool,
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = Vec<String>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Vec<String>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.into()])
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Vec<String>, E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Vec<String>, E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Vec<String>, E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Vec<String>, E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        if self.listed {
            return Err(A::Error::custom("a list within a list"));
        }
        let mut found = Vec::new();
        while let Some(values) = list.next_element_seed(Texts {
            scalars: self.scalars,
            listed: true,
        })? {
            found.extend(values);
        }
        if found.is_empty() {
            Err(A::Error::custom("an empty list"))
        } else {
            Ok(found)
        }
    }
}

impl Texts {
    fn scalar<E: Error>(self, value: impl fmt::Display) -> Result<Vec<String>, E> {
        if self.scalars {
            Ok(vec![value.to_string()])
        } else {
            Err(E::custom("a string or a list of strings is needed"))
        }
    }
}

fn texts<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<String>, A::Error> {
    map.next_value_seed(Texts {
        scalars: false,
        listed: false,
    })
}

fn one_text<'de, A: MapAccess<'de>>(map: &mut A, element: &str) -> Result<String, A::Error> {
    let mut values = texts(map)?;
    match (values.pop(), values.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err(A::Error::custom(format!("{element} takes one string"))),
    }
}

/// Refuses a second use of a key.
fn first_use<E: Error>(seen: &mut HashSet<String>, key: &str) -> Result<(), E> {
    if seen.insert(key.into()) {
        Ok(())
    } else {
        Err(E::custom(format!("{key} appears twice")))
    }
}

struct Root(DocumentKind);

impl<'de> DeserializeSeed<'de> for Root {
    type Value = Document;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Document, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy document, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut seen = HashSet::new();
        let mut variables = false;
        let mut raw = None;
        while let Some(key) = map.next_key::<String>()? {
            first_use(&mut seen, &key)?;
            match key.as_str() {
                "Version" => match one_text(&mut map, "Version")?.as_str() {
                    "2012-10-17" => variables = true,
                    "2008-10-17" => {}
                    _ => return Err(A::Error::custom("Version is neither 2012-10-17 nor 2008-10-17")),
                },
                "Id" => drop(one_text(&mut map, "Id")?),
                "Statement" => raw = Some(map.next_value_seed(Statements(self.0))?),
                other => return Err(A::Error::custom(format!("unknown element {other}"))),
            }
        }
        let raw = raw.ok_or_else(|| A::Error::custom("the element Statement is missing"))?;
        // Version may follow the statements, and decides whether they have variables.
        let mut sids = HashSet::new();
        let mut statements = Vec::with_capacity(raw.len());
        for statement in raw {
            if let Some(sid) = statement.sid.as_deref().filter(|sid| !sid.is_empty())
                && !sids.insert(sid.to_owned())
            {
                return Err(A::Error::custom(format!("the Sid {sid} appears twice")));
            }
            statements.push(statement.compile(self.0, variables).map_err(A::Error::custom)?);
        }
        Ok(Document { statements })
    }
}

struct Statements(DocumentKind);

impl<'de> DeserializeSeed<'de> for Statements {
    type Value = Vec<Raw>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Vec<Raw>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Statements {
    type Value = Vec<Raw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement or a list of statements")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Raw>, A::Error> {
        One(self.0).visit_map(map).map(|raw| vec![raw])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Raw>, A::Error> {
        let mut found = Vec::new();
        while let Some(raw) = list.next_element_seed(One(self.0))? {
            found.push(raw);
        }
        if found.is_empty() {
            Err(A::Error::custom("Statement is an empty list"))
        } else {
            Ok(found)
        }
    }
}

/// A statement before its version is known.
#[derive(Default)]
struct Raw {
    sid: Option<String>,
    effect: Option<Effect>,
    principal: Option<PrincipalElement>,
    actions: Option<(bool, Vec<String>)>,
    resources: Option<(bool, Vec<String>)>,
    conditions: Vec<(String, String, Vec<String>)>,
}

struct One(DocumentKind);

impl<'de> DeserializeSeed<'de> for One {
    type Value = Raw;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Raw, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut seen = HashSet::new();
        let mut raw = Raw::default();
        while let Some(key) = map.next_key::<String>()? {
            // An element and its Not form exclude each other.
            first_use(&mut seen, key.strip_prefix("Not").unwrap_or(&key))?;
            let negated = key.starts_with("Not");
            match key.as_str() {
                "Sid" => raw.sid = Some(one_text(&mut map, "Sid")?),
                "Effect" => {
                    raw.effect = Some(match one_text(&mut map, "Effect")?.as_str() {
                        "Allow" => Effect::Allow,
                        "Deny" => Effect::Deny,
                        _ => return Err(A::Error::custom("Effect is neither Allow nor Deny")),
                    });
                }
                "Principal" | "NotPrincipal" => {
                    if self.0 == DocumentKind::Identity {
                        return Err(A::Error::custom(format!(
                            "Policy document should not specify a principal: {key}"
                        )));
                    }
                    let entries = map.next_value_seed(Principals)?;
                    raw.principal = Some(PrincipalElement { negated, entries });
                }
                "Action" | "NotAction" => raw.actions = Some((negated, texts(&mut map)?)),
                "Resource" | "NotResource" => {
                    if self.0 == DocumentKind::Trust {
                        return Err(A::Error::custom(format!("Has prohibited field {key}")));
                    }
                    raw.resources = Some((negated, texts(&mut map)?));
                }
                "Condition" => raw.conditions = map.next_value_seed(Conditions)?,
                other => return Err(A::Error::custom(format!("unknown element {other}"))),
            }
        }
        raw.complete(self.0).map_err(A::Error::custom)?;
        Ok(raw)
    }
}

impl Raw {
    /// What must be there is there.
    fn complete(&self, kind: DocumentKind) -> Result<(), String> {
        let missing = |element: &str| Err(format!("Missing required field {element}"));
        if self.effect.is_none() {
            return missing("Effect");
        }
        if self.actions.is_none() {
            return missing("Action");
        }
        if self.resources.is_none() && kind != DocumentKind::Trust {
            return missing("Resource");
        }
        match (&self.principal, kind) {
            (None, DocumentKind::Identity) => Ok(()),
            (None, _) => missing("Principal"),
            // An Allow for everyone but a few is taken on buckets alone (IAM-5).
            (Some(principal), DocumentKind::Trust | DocumentKind::Endpoint)
                if principal.negated && self.effect == Some(Effect::Allow) =>
            {
                Err("Allow with NotPrincipal is not allowed".into())
            }
            (Some(_), _) => Ok(()),
        }
    }

    fn compile(self, kind: DocumentKind, variables: bool) -> Result<Statement, String> {
        let (negated, actions) = self.actions.unwrap_or_default();
        let patterns = actions
            .iter()
            .map(|text| action(text, kind))
            .collect::<Result<_, _>>()?;
        let actions = Actions { negated, patterns };
        let resources = self.resources.map(|(negated, texts)| {
            let patterns = texts
                .iter()
                .map(|text| resource(text, variables))
                .collect::<Result<_, _>>()?;
            Ok::<_, String>(Resources { negated, patterns })
        });
        let tests = self.conditions.iter().map(|(operator, key, values)| {
            Test::parse(operator, key, values, variables).map_err(|error| error.to_string())
        });
        Ok(Statement {
            span: None,
            sid: self.sid,
            effect: self.effect.unwrap_or(Effect::Deny),
            principal: self.principal,
            actions,
            resources: resources.transpose()?,
            tests: tests.collect::<Result<_, _>>()?,
        })
    }
}

/// `*`, or `service:Name` with wildcards in the name alone (IAM-4). Lower-cased, since case does not count (IAM-2).
fn action(text: &str, kind: DocumentKind) -> Result<Vec<crate::pattern::Token>, String> {
    let lower = text.to_ascii_lowercase();
    let prefix = lower.split_once(':').map(|(prefix, name)| (prefix, !name.is_empty()));
    let well_formed = match prefix {
        None => lower == "*",
        Some((prefix, named)) => {
            named && !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
    };
    if !well_formed {
        return Err(format!(
            "Actions must be prefixed by a vendor, as in iam:GetUser, or be *: {text}"
        ));
    }
    if kind == DocumentKind::Trust && !lower.starts_with("sts:") {
        return Err("AssumeRole policy may only specify STS AssumeRole actions.".into());
    }
    let pattern = Pattern::parse(
        &lower,
        Rules {
            wildcards: true,
            variables: false,
        },
    );
    pattern
        .ok()
        .and_then(|pattern| pattern.resolve(|_| None))
        .ok_or_else(|| format!("unreadable action {text}"))
}

fn resource(text: &str, variables: bool) -> Result<Pattern, String> {
    if text != "*" && !text.starts_with("arn:") && !(variables && text.starts_with("${")) {
        return Err(format!("Resource {text} must be in ARN format or \"*\"."));
    }
    Pattern::parse(
        text,
        Rules {
            wildcards: true,
            variables,
        },
    )
    .map_err(|error| error.to_string())
}

struct Principals;

impl<'de> DeserializeSeed<'de> for Principals {
    type Value = Vec<PrincipalEntry>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Principals {
    type Value = Vec<PrincipalEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"*\" or an object of principals by kind")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == "*" {
            Ok(vec![PrincipalEntry::Everyone])
        } else {
            Err(E::custom(format!("Invalid principal {text}")))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some(kind) = map.next_key::<String>()? {
            first_use(&mut seen, &kind)?;
            for text in texts(&mut map)? {
                found.push(PrincipalEntry::parse(&kind, &text).map_err(A::Error::custom)?);
            }
        }
        if found.is_empty() {
            Err(A::Error::custom("Principal names nobody"))
        } else {
            Ok(found)
        }
    }
}

/// (operator, key, values) of a Condition block.
struct Conditions;

impl<'de> DeserializeSeed<'de> for Conditions {
    type Value = Vec<(String, String, Vec<String>)>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Conditions {
    type Value = Vec<(String, String, Vec<String>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of condition operators")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some(operator) = map.next_key::<String>()? {
            first_use(&mut seen, &operator)?;
            for (key, values) in map.next_value_seed(Keys)? {
                // Read once here for the place of an error; read again when the version is known.
                Test::parse(&operator, &key, &values, false).map_err(A::Error::custom)?;
                found.push((operator.clone(), key, values));
            }
        }
        Ok(found)
    }
}

struct Keys;

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Vec<(String, Vec<String>)>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = Vec<(String, Vec<String>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of condition keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            first_use(&mut seen, &key.to_lowercase())?;
            if key.is_empty() {
                return Err(A::Error::custom("a condition key is empty"));
            }
            found.push((
                key,
                map.next_value_seed(Texts {
                    scalars: true,
                    listed: false,
                })?,
            ));
        }
        Ok(found)
    }
}
