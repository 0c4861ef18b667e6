//! What authorization is asked, and on whose documents it decides.

use crate::document::NamedPolicy;
use isolarium_model::{Arn, Principal};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// Values of condition keys, by lower-cased key. An absent key is absent from the map.
pub type Context = BTreeMap<String, Vec<String>>;

/// The condition keys of a request, made when the first of them is asked for: most requests are decided without any.
#[derive(Clone)]
pub struct Keys {
    made: OnceLock<Context>,
    make: Arc<dyn Fn() -> Context + Send + Sync>,
}

impl Keys {
    /// Keys that `make` makes, always the same.
    pub fn when_asked(make: impl Fn() -> Context + Send + Sync + 'static) -> Self {
        Self {
            made: OnceLock::new(),
            make: Arc::new(make),
        }
    }
}

impl From<Context> for Keys {
    fn from(context: Context) -> Self {
        Self {
            made: context.into(),
            make: Arc::new(Context::new),
        }
    }
}

impl Deref for Keys {
    type Target = Context;

    fn deref(&self) -> &Context {
        self.made.get_or_init(|| (self.make)())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

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
        Self {
            action: action.into(),
            resource: resource.to_string(),
            context: Context::new(),
        }
    }

    /// Asks about an action that knows no resources.
    pub fn any(action: &str) -> Self {
        Self {
            action: action.into(),
            resource: "*".into(),
            context: Context::new(),
        }
    }

    /// Adds one value to a condition key.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.entry(key.to_lowercase()).or_default().push(value.into());
        self
    }

    /// Adds the condition keys of tags that the request sets: `aws:RequestTag/KEY` and `aws:TagKeys` (IAM-18).
    pub fn with_request_tags<'t>(self, tags: impl IntoIterator<Item = (&'t String, &'t String)>) -> Self {
        tags.into_iter().fold(self, |question, (key, value)| {
            question
                .with(&format!("aws:RequestTag/{key}"), value.clone())
                .with("aws:TagKeys", key.clone())
        })
    }

    /// Adds the condition key of tags that the request removes: `aws:TagKeys` (IAM-18).
    pub fn with_tag_keys<'t>(self, keys: impl IntoIterator<Item = &'t String>) -> Self {
        keys.into_iter()
            .fold(self, |question, key| question.with("aws:TagKeys", key.clone()))
    }
}

/// The policy of the VPC endpoint that a request came through (IAM-30).
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointPolicy {
    pub policy: NamedPolicy,
    /// A gateway endpoint, where an account as `Principal` means its root alone (IAM-31).
    pub gateway: bool,
}

/// Everything a decision rests on: the caller and all documents that can speak to the request (IAM-21).
#[derive(Clone, Debug)]
pub struct Authority {
    pub principal: Principal,
    /// Inline and managed policies of the user, its groups, or the role (IAM-25).
    pub identity: Vec<NamedPolicy>,
    /// The permissions boundary (IAM-24).
    pub boundary: Option<NamedPolicy>,
    /// Session policies: together they allow what any of them allows (IAM-24).
    pub session: Option<Vec<NamedPolicy>>,
    /// Guard rails of the organisation, by level from its root to the account: at each level one of its documents must
    /// allow, root of the account included. Empty where accounts stand alone.
    pub organization: Vec<Vec<NamedPolicy>>,
    /// Present when the request came through a VPC endpoint (IAM-30).
    pub endpoint: Option<EndpointPolicy>,
    /// Condition keys of the request: source address, time, user agent (IAM-16), lower-cased.
    pub context: Keys,
}

impl Authority {
    /// A caller without any document: what root has, and what everyone else can do nothing with.
    pub fn bare(principal: Principal, context: impl Into<Keys>) -> Self {
        Self {
            principal,
            identity: Vec::new(),
            boundary: None,
            session: None,
            organization: Vec::new(),
            endpoint: None,
            context: context.into(),
        }
    }
}
