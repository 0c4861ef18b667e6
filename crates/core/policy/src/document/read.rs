//! JSON to documents: the shape of a policy, and what each kind must and must not hold (IAM-1..IAM-6).

pub(super) mod wrong;

use super::json::{self, Member, Node, Value};
use super::{ActionPattern, Actions, Document, DocumentKind, Effect, MalformedPolicy, Resources, Statement};
use crate::condition::Test;
use crate::explain::Position;
use crate::pattern::{Pattern, Rules};
use crate::principal::{PrincipalElement, PrincipalEntry};
use std::collections::HashSet;
use wrong::Wrong;

pub(super) fn document(text: &str, kind: DocumentKind) -> Result<Document, MalformedPolicy> {
    let root = json::read(text).map_err(|fault| (fault.at, Wrong::NotJson(fault.detail)));
    root.and_then(|root| Reader { kind }.document(&root))
        .map_err(|(at, wrong)| MalformedPolicy {
            message: wrong.message(kind),
            detail: wrong.detail(),
            line: at.line,
            column: at.column,
        })
}

type Read<T> = Result<T, (Position, Wrong)>;

fn shape<T>(node: &Node, detail: &str) -> Read<T> {
    Err((node.at, Wrong::Shape(detail.into())))
}

/// A text with its place.
struct Placed<'n> {
    at: Position,
    text: &'n str,
}

/// A string, or a list of strings.
fn texts(node: &Node) -> Read<Vec<Placed<'_>>> {
    let nodes = match &node.value {
        Value::List(list) => list.as_slice(),
        _ => std::slice::from_ref(node),
    };
    nodes
        .iter()
        .map(|node| match &node.value {
            Value::Text(text) => Ok(Placed { at: node.at, text }),
            _ => shape(node, "a string or a list of strings is expected"),
        })
        .collect()
}

fn one_text(node: &Node) -> Read<&str> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => shape(node, "a string is expected"),
    }
}

fn object<'n>(node: &'n Node, what: &str) -> Read<&'n [Member]> {
    match &node.value {
        Value::Object(members) => Ok(members),
        _ => shape(node, &format!("{what} is an object")),
    }
}

struct Reader {
    kind: DocumentKind,
}

/// A statement whose elements are known, but not yet read.
#[derive(Default)]
struct Raw<'n> {
    sid: Option<Placed<'n>>,
    effect: Option<Effect>,
    principal: Option<(bool, &'n Node)>,
    action: Option<(bool, &'n Node)>,
    resource: Option<(bool, &'n Node)>,
    condition: Option<&'n Node>,
}

impl Reader {
    fn document(&self, root: &Node) -> Read<Document> {
        let mut variables = false;
        let mut found = None;
        for Member { at, key, node } in object(root, "a policy document")? {
            match key.as_str() {
                "Version" => match one_text(node)? {
                    "2012-10-17" => variables = true,
                    "2008-10-17" => {}
                    _ => return shape(node, "Version is neither 2012-10-17 nor 2008-10-17"),
                },
                "Id" => drop(one_text(node)?),
                "Statement" => found = Some(node),
                other => return Err((*at, Wrong::Unknown(other.into()))),
            }
        }
        let statements = found.ok_or((root.at, Wrong::Missing("Statement")))?;
        let nodes = match &statements.value {
            Value::List(list) if list.is_empty() => return shape(statements, "there is no statement"),
            Value::List(list) => list.as_slice(),
            _ => std::slice::from_ref(statements),
        };
        // First the shape of all, then what they say: AWS reports in this order too.
        let raw = nodes.iter().map(|node| self.elements(node)).collect::<Read<Vec<_>>>()?;
        let mut sids = HashSet::new();
        for sid in raw.iter().filter_map(|raw| raw.sid.as_ref()) {
            self.sid(sid, &mut sids)?;
        }
        let statements = nodes
            .iter()
            .zip(raw)
            .map(|(node, raw)| self.statement(node, raw, variables));
        Ok(Document::new(statements.collect::<Read<_>>()?))
    }

    fn sid<'n>(&self, sid: &Placed<'n>, seen: &mut HashSet<&'n str>) -> Read<()> {
        let of_iam = matches!(self.kind, DocumentKind::Identity | DocumentKind::Trust);
        if of_iam && !sid.text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err((sid.at, Wrong::Sid(sid.text.into())));
        }
        if !sid.text.is_empty() && !seen.insert(sid.text) {
            return Err((sid.at, Wrong::SameSid(sid.text.into())));
        }
        Ok(())
    }

    fn elements<'n>(&self, node: &'n Node) -> Read<Raw<'n>> {
        let mut raw = Raw::default();
        for Member { at, key, node } in object(node, "a statement")? {
            let negated = key.starts_with("Not");
            // An element and its Not form exclude each other.
            let put = |slot: &mut Option<(bool, &'n Node)>| match slot.replace((negated, node)) {
                None => Ok(()),
                Some(_) => Err((*at, Wrong::Shape(format!("{key} stands beside its opposite")))),
            };
            match key.as_str() {
                "Sid" => {
                    let text = one_text(node)?;
                    raw.sid = Some(Placed { at: node.at, text });
                }
                "Effect" => {
                    raw.effect = Some(match one_text(node)? {
                        "Allow" => Effect::Allow,
                        "Deny" => Effect::Deny,
                        other => return Err((node.at, Wrong::Effect(other.into()))),
                    });
                }
                "Principal" | "NotPrincipal" => {
                    let nobody = self.kind == DocumentKind::Identity;
                    if nobody || (negated && self.kind == DocumentKind::Trust) {
                        return Err((*at, Wrong::Prohibited(key.clone())));
                    }
                    put(&mut raw.principal)?;
                }
                "Action" | "NotAction" => {
                    if negated && self.kind == DocumentKind::Trust {
                        return Err((*at, Wrong::Prohibited(key.clone())));
                    }
                    put(&mut raw.action)?;
                }
                "Resource" | "NotResource" => {
                    if self.kind == DocumentKind::Trust {
                        return Err((*at, Wrong::Prohibited(key.clone())));
                    }
                    put(&mut raw.resource)?;
                }
                "Condition" => raw.condition = Some(node),
                other => return Err((*at, Wrong::Unknown(other.into()))),
            }
        }
        if raw.effect.is_none() {
            return Err((node.at, Wrong::Missing("Effect")));
        }
        for (_, node) in [raw.action, raw.resource].into_iter().flatten() {
            texts(node)?;
        }
        Ok(raw)
    }

    fn statement(&self, node: &Node, raw: Raw<'_>, variables: bool) -> Read<Statement> {
        let effect = raw.effect.unwrap_or(Effect::Deny);
        let principal = match raw.principal {
            Some((negated, node)) => Some(self.principal(node, negated, effect)?),
            None if self.kind == DocumentKind::Identity => None,
            None => return Err((node.at, Wrong::Missing("Principal"))),
        };
        let (negated, actions) = filled(node, raw.action, "Action")?;
        let patterns = actions.iter().map(|action| self.action(action)).collect::<Read<_>>()?;
        let actions = Actions { negated, patterns };
        let resources = match self.kind {
            DocumentKind::Trust => None,
            _ => {
                let (negated, texts) = filled(node, raw.resource, "Resource")?;
                let pattern = |text: &Placed<'_>| {
                    let read = super::resource::read(text.text, self.kind, variables);
                    read.map_err(|wrong| (text.at, wrong))
                };
                let patterns = texts.iter().map(pattern).collect::<Read<_>>()?;
                Some(Resources { negated, patterns })
            }
        };
        Ok(Statement {
            span: (node.at, node.end),
            sid: raw.sid.map(|sid| sid.text.into()),
            effect,
            principal,
            actions,
            resources,
            tests: raw
                .condition
                .map_or(Ok(Vec::new()), |node| conditions(node, variables))?,
        })
    }

    /// `*`, or `service:Name` with wildcards in the name alone (IAM-4).
    fn action(&self, Placed { at, text }: &Placed<'_>) -> Read<ActionPattern> {
        let bad = |wrong| Err((*at, wrong));
        let lowered = text.to_ascii_lowercase();
        if self.kind == DocumentKind::Trust && !lowered.starts_with("sts:") {
            return bad(Wrong::NotSts((*text).into()));
        }
        if lowered == "*" {
            return Ok(ActionPattern::All);
        }
        let Some((service, name)) = lowered.split_once(':') else {
            return bad(Wrong::NoVendor((*text).into()));
        };
        if name.contains(':') {
            return bad(Wrong::TwoColons((*text).into()));
        }
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if service.is_empty() || !service.bytes().all(named) {
            let service = text.split(':').next().unwrap_or_default();
            return bad(Wrong::Vendor(service.into()));
        }
        if name.is_empty() {
            return bad(Wrong::NoVendor((*text).into()));
        }
        let rules = Rules {
            wildcards: true,
            variables: false,
        };
        match Pattern::parse(name, rules) {
            Ok(name) => Ok(ActionPattern::Of {
                service: service.into(),
                name,
            }),
            Err(error) => bad(Wrong::Legacy(error.to_string())),
        }
    }

    fn principal(&self, node: &Node, negated: bool, effect: Effect) -> Read<PrincipalElement> {
        // An Allow for everyone but a few is taken on buckets alone (IAM-5).
        if negated && effect == Effect::Allow && self.kind != DocumentKind::Resource {
            let detail = "Allow with NotPrincipal is not allowed";
            return Err((node.at, Wrong::Principal(detail.into())));
        }
        let bad = |at: Position, detail: String| (at, Wrong::Principal(detail));
        let mut entries = Vec::new();
        match &node.value {
            Value::Text(text) if text == "*" => entries.push(PrincipalEntry::Everyone),
            Value::Object(members) => {
                for Member { key, node, .. } in members {
                    for Placed { at, text } in texts(node)? {
                        let entry = PrincipalEntry::parse(key, text).map_err(|detail| bad(at, detail))?;
                        entries.push(entry);
                    }
                }
            }
            _ => return Err(bad(node.at, "\"*\" or an object of principals is expected".into())),
        }
        if entries.is_empty() {
            return Err(bad(node.at, "nobody is named".into()));
        }
        Ok(PrincipalElement { negated, entries })
    }
}

/// The texts of an element that must be there and must not be empty.
fn filled<'n>(
    statement: &Node,
    element: Option<(bool, &'n Node)>,
    name: &'static str,
) -> Read<(bool, Vec<Placed<'n>>)> {
    let (negated, node) = element.ok_or((statement.at, Wrong::Missing(name)))?;
    let found = texts(node)?;
    if found.is_empty() {
        return Err((node.at, Wrong::Missing(name)));
    }
    Ok((negated, found))
}

fn conditions(node: &Node, variables: bool) -> Read<Vec<Test>> {
    let mut tests = Vec::new();
    for Member {
        at,
        key: operator,
        node,
    } in object(node, "Condition")?
    {
        if !Test::knows(operator) {
            return Err((*at, Wrong::Operator(operator.clone())));
        }
        let mut seen = HashSet::new();
        for Member { at, key, node } in object(node, "a condition operator")? {
            // Case does not count in keys (IAM-2), so that these two are one.
            if key.is_empty() || !seen.insert(key.to_lowercase()) {
                return Err((
                    *at,
                    Wrong::Shape(format!("the condition key {key:?} is empty or appears twice")),
                ));
            }
            let test = Test::parse(operator, key, &scalars(node)?, variables);
            tests.push(test.map_err(|error| (node.at, Wrong::Legacy(error.to_string())))?);
        }
    }
    Ok(tests)
}

/// Strings, numbers and booleans, each by its text; one, or a list that is not empty.
fn scalars(node: &Node) -> Read<Vec<String>> {
    let nodes = match &node.value {
        Value::List(list) => list.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() {
        return shape(node, "a condition key has no values");
    }
    let text = |node: &Node| match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => shape(node, "a string, number or boolean is expected"),
    };
    nodes.iter().map(text).collect()
}
