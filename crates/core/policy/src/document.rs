//! Policy documents: parsed once, with the position of what is wrong (IAM-1..IAM-6).

mod read;

use crate::condition::{Lookup, Test, Truth};
use crate::explain::Position;
use crate::pattern::{Pattern, Subject, Token, matches};
use crate::principal::PrincipalElement;
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
#[error("{message} (line {line}, column {column})")]
pub struct MalformedPolicy {
    pub message: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
}

/// A document that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(crate) statements: Vec<Statement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    /// Where its text begins and where it has ended.
    pub(crate) span: Option<(Position, Position)>,
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
    pub(crate) patterns: Vec<Vec<Token>>,
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
    pub(crate) fn applies(&self, action: &[char], resource: &Subject, lookup: &Lookup<'_>) -> bool {
        let acts = self
            .actions
            .patterns
            .iter()
            .any(|tokens| matches(tokens, action, usize::MAX));
        if acts == self.actions.negated {
            return false;
        }
        if let Some(resources) = &self.resources {
            let Some(listed) = resources.list(resource, lookup) else {
                return false;
            };
            if listed == resources.negated {
                return false;
            }
        }
        self.conditions(lookup)
    }

    /// All tests hold; one that cannot be read counts against the caller.
    fn conditions(&self, lookup: &Lookup<'_>) -> bool {
        let mut unreadable = false;
        for test in &self.tests {
            match test.evaluate(lookup) {
                Truth::Holds => {}
                Truth::Fails | Truth::Unset => return false,
                Truth::Unreadable => unreadable = true,
            }
        }
        !unreadable || self.effect == Effect::Deny
    }
}

impl Resources {
    /// Whether the resource is listed; `None` when a variable has no value and nothing else decides (IAM-6).
    fn list(&self, resource: &Subject, lookup: &Lookup<'_>) -> Option<bool> {
        let value_of = |key: &str| match lookup(key) {
            Some([one]) => Some(one.as_str()),
            _ => None,
        };
        let mut unset = false;
        for pattern in &self.patterns {
            match pattern.resolve(value_of) {
                Some(tokens) if resource.matched_by(&tokens) => return Some(true),
                Some(_) => {}
                None => unset = true,
            }
        }
        if unset { None } else { Some(false) }
    }
}

#[cfg(test)]
mod tests;
