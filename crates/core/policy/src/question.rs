//! What authorization is asked, and on whose documents it decides.

use isolarium_model::{Arn, Principal};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Values of condition keys, by lower-cased key. An absent key is absent from the map.
pub type Context = BTreeMap<String, Vec<String>>;

/// One (action, resource) pair of a request with the condition keys AWS gives it (IAM-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `service:Operation` in AWS's spelling.
    pub action: String,
    /// The resource's ARN, or `*` for actions without resource support.
    pub resource: String,
    /// Condition keys of this pair, on top of the request's own (`Authority::context`).
    pub context: Context,
}

impl Question {
    /// Asks about `action` on one resource.
    pub fn on(action: &str, resource: &Arn) -> Self {
        Self { action: action.into(), resource: resource.to_string(), context: Context::new() }
    }

    /// Asks about an action that knows no resources.
    pub fn any(action: &str) -> Self {
        Self { action: action.into(), resource: "*".into(), context: Context::new() }
    }

    /// Adds one condition key with one value.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.entry(key.to_ascii_lowercase()).or_default().push(value.into());
        self
    }
}

/// A policy document with the name under which explanations cite it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDocument {
    pub name: String,
    /// The JSON text as stored.
    pub text: Arc<str>,
}

/// Everything a decision rests on: the caller and all documents that can speak to the request (IAM-21).
#[derive(Clone, Debug)]
pub struct Authority {
    pub principal: Principal,
    pub identity: Vec<NamedDocument>,
    pub boundary: Option<NamedDocument>,
    pub session: Option<Vec<NamedDocument>>,
    /// Present when the request came through a VPC endpoint (IAM-30).
    pub endpoint: Option<NamedDocument>,
    /// Condition keys of the request: source address, time, user agent (IAM-16), lower-cased.
    pub context: Context,
}

/// Why a request was not granted. The text is IAM-60's; `Explanation` of a later module says which statement decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    pub action: String,
    pub resource: String,
    /// The full IAM-60 text.
    pub message: String,
}
