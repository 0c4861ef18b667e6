//! Policy documents: parsed once, with the position of what is wrong (IAM-1..IAM-6).

mod json;
mod read;
mod resource;

use crate::condition::{Test, Truth};
use crate::explain::Position;
use crate::pattern::{EXACT, Lookup, Pattern, Subject};
use crate::principal::PrincipalElement;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Where a document is attached, which decides what it must and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// Of a user, group, role, boundary or session: resources, no principal (IAM-3).
    Identity,
    /// Of a resource, such as a bucket: principal and resources.
    Resource,
    /// Of a role, saying who may assume it: principal, no resources (IAM-3).
    Trust,
    /// Of a VPC endpoint: principal and resources (IAM-31).
    Endpoint,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({detail}, line {line}, column {column})")]
pub struct MalformedPolicy {
    /// AWS's words for a fault of this sort.
    pub message: String,
    /// What is wrong at that place.
    pub detail: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

/// A document that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(crate) statements: Vec<Statement>,
    /// By the service of an action: the places of the statements that can speak to it. A statement with `*` or
    /// `NotAction` is in every list.
    by_service: BTreeMap<Box<str>, Box<[usize]>>,
    /// The places of those that can speak to every service.
    every_service: Box<[usize]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    /// Where its text begins and where it has ended.
    pub(crate) span: (Position, Position),
    pub(crate) sid: Option<String>,
    pub(crate) effect: Effect,
    pub(crate) principal: Option<PrincipalElement>,
    pub(crate) actions: Actions,
    /// Absent in trust policies, which speak of their own role alone.
    pub(crate) resources: Option<Resources>,
    pub(crate) tests: Vec<Test>,
}

/// `Action` or `NotAction`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Actions {
    pub(crate) negated: bool,
    pub(crate) patterns: Vec<ActionPattern>,
}

/// Lower-cased, since case does not count (IAM-2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ActionPattern {
    /// `*`
    All,
    Of {
        service: Box<str>,
        name: Pattern,
    },
}

/// An action that is asked about, lower-cased.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedAction<'t> {
    pub(crate) service: &'t str,
    pub(crate) name: &'t str,
}

/// `Resource` or `NotResource`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resources {
    pub(crate) negated: bool,
    pub(crate) patterns: Vec<Pattern>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// [`MalformedPolicy`] for anything that IAM-1..IAM-6 does not allow: unknown elements, duplicate keys, trailing
    /// text, unknown operators, values that their operator cannot read.
    pub fn parse(text: &str, kind: DocumentKind) -> Result<Self, MalformedPolicy> {
        read::document(text, kind)
    }

    fn new(statements: Vec<Statement>) -> Self {
        let mut services: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
        let mut every = Vec::new();
        for (place, statement) in statements.iter().enumerate() {
            match statement.actions.services() {
                Some(named) => named.into_iter().for_each(|service| {
                    services.entry(service.into()).or_default().push(place);
                }),
                None => every.push(place),
            }
        }
        let by_service = services.into_iter().map(|(service, mut places)| {
            places.extend(&every);
            places.sort_unstable();
            (service, places.into())
        });
        Self {
            by_service: by_service.collect(),
            every_service: every.into(),
            statements,
        }
    }

    /// The statements that can speak to an action of a service, with their places.
    pub(crate) fn speaking_to(&self, service: &str) -> impl Iterator<Item = (usize, &Statement)> {
        let places = self.by_service.get(service).unwrap_or(&self.every_service);
        places
            .iter()
            .filter_map(|place| self.statements.get(*place).map(|statement| (*place, statement)))
    }

    /// The condition keys that its conditions and variables name, lower-cased: what a simulation must be told.
    pub fn context_keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for statement in &self.statements {
            let resources = statement.resources.iter().flat_map(|resources| &resources.patterns);
            keys.extend(resources.flat_map(Pattern::keys).map(str::to_owned));
            statement.tests.iter().for_each(|test| test.collect_keys(&mut keys));
        }
        keys
    }
}

/// A document as a decision uses it: read, or known to be unreadable, which denies everything it could speak to.
///
/// Reading costs far more than deciding; keep the compiled form for as long as the text stays the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    pub(crate) kind: DocumentKind,
    pub(crate) document: Result<Document, MalformedPolicy>,
}

impl Compiled {
    /// Reads a stored text.
    pub fn new(text: &str, kind: DocumentKind) -> Self {
        Self {
            kind,
            document: Document::parse(text, kind),
        }
    }

    /// The document, if the text can be read.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref().ok()
    }

    /// What is wrong with the text, if it cannot be read.
    pub fn malformed(&self) -> Option<&MalformedPolicy> {
        self.document.as_ref().err()
    }
}

/// A document with the name under which explanations cite it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPolicy {
    pub name: String,
    pub policy: Arc<Compiled>,
}

impl NamedPolicy {
    /// Reads a text here and now; callers with a cache put the fields together themselves.
    pub fn parse(name: impl Into<String>, text: &str, kind: DocumentKind) -> Self {
        Self {
            name: name.into(),
            policy: Arc::new(Compiled::new(text, kind)),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
        })
    }
}

/// Whether a statement speaks to a request, principals aside.
impl Statement {
    pub(crate) fn applies(&self, action: AskedAction<'_>, resource: &Subject<'_>, lookup: &Lookup<'_>) -> bool {
        if self.actions.list(action) == self.actions.negated {
            return false;
        }
        if let Some(resources) = &self.resources
            && !resources.cover(resource, self.effect, lookup)
        {
            return false;
        }
        self.conditions(lookup)
    }

    /// All tests hold; one that cannot be read counts against the caller.
    fn conditions(&self, lookup: &Lookup<'_>) -> bool {
        let mut unreadable = false;
        for test in &self.tests {
            match test.evaluate(lookup) {
                Truth::Holds => {}
                Truth::Fails => return false,
                Truth::Unreadable => unreadable = true,
            }
        }
        !unreadable || self.effect == Effect::Deny
    }
}

impl Actions {
    fn list(&self, asked: AskedAction<'_>) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            ActionPattern::All => true,
            ActionPattern::Of { service, name } => {
                **service == *asked.service && name.matches(asked.name, EXACT, &|_| None) == Some(true)
            }
        })
    }

    /// The services it can speak to; `None` for every one.
    fn services(&self) -> Option<BTreeSet<&str>> {
        if self.negated {
            return None;
        }
        let service = |pattern| match pattern {
            &ActionPattern::All => None,
            ActionPattern::Of { service, .. } => Some(&**service),
        };
        self.patterns.iter().map(service).collect()
    }
}

impl<'t> AskedAction<'t> {
    /// `lowered` is `service:operation` in lower case.
    pub(crate) fn new(lowered: &'t str) -> Self {
        let (service, name) = lowered.split_once(':').unwrap_or((lowered, ""));
        Self { service, name }
    }
}

impl Resources {
    /// Whether the element covers the resource. A pattern with a variable that has no value matches nothing (IAM-6). Within
    /// NotResource that would cover all the world, so that an Allow then covers nothing.
    fn cover(&self, resource: &Subject<'_>, effect: Effect, lookup: &Lookup<'_>) -> bool {
        let mut unset = false;
        let listed = self.patterns.iter().any(|pattern| {
            let found = resource.matched_by(pattern, lookup);
            unset |= found.is_none();
            found == Some(true)
        });
        match (self.negated, effect) {
            (false, _) => listed,
            (true, Effect::Allow) => !listed && !unset,
            (true, Effect::Deny) => !listed,
        }
    }
}

#[cfg(test)]
mod tests;
