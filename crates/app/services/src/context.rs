//! What an operation sees besides its request.

use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Principal, Scope};
use isolarium_policy::question::Context;
use isolarium_store::StateStore;
use std::net::IpAddr;
use std::sync::Arc;

/// Who asks and from where; the same for every service.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Principal,
    /// The account whose resources the request is about (the caller's own) and the region of its signature.
    pub scope: Scope,
    pub source: Source,
    /// Session policies of temporary credentials, as JSON texts.
    pub session_policies: Option<Vec<Arc<str>>>,
    pub request_id: String,
    pub user_agent: String,
}

/// How the request came in (NET-34, NET-46).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// By the public side, from this address.
    Public { address: IpAddr, secure: bool },
}

impl Caller {
    /// Condition keys of the request itself (IAM-16), keys lower-cased.
    pub fn context(&self, now: isolarium_model::Timestamp) -> Context {
        let mut keys = Context::new();
        let mut set = |key: &str, value: String| {
            keys.insert(key.to_ascii_lowercase(), vec![value]);
        };
        match &self.source {
            Source::Public { address, secure } => {
                set("aws:SourceIp", address.to_string());
                set("aws:SecureTransport", secure.to_string());
            }
        }
        set("aws:UserAgent", self.user_agent.clone());
        set("aws:RequestedRegion", self.scope.region.to_string());
        set("aws:EpochTime", (now.0 / 1000).to_string());
        keys
    }
}

/// The wiring's gift to every operation.
pub struct Ctx<'a> {
    pub caller: &'a Caller,
    pub clock: &'a dyn Clock,
    pub ids: &'a dyn IdSource,
    pub store: &'a dyn StateStore,
}
