//! What an operation sees besides its request.

use crate::audit::Inquiry;
use crate::ecr::Registry;
use crate::iam::credentials::MasterKey;
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Arn, Principal, Region, Scope, Timestamp};
use isolarium_policy::question::Context;
use isolarium_store::{AuditTrail, LogStore, Metrics, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Who asks and from where; the same for every service.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Principal,
    /// The account whose resources the request is about (the caller's own) and the region of its signature.
    pub scope: Scope,
    pub source: Source,
    /// What temporary credentials carry; `None` for long-lived keys.
    pub session: Option<Session>,
    pub request_id: String,
    pub user_agent: String,
    /// What is found out about the request on its way, for the audit trail.
    pub inquiry: Inquiry,
}

/// What a caller's temporary credentials say about it (IAM-16, IAM-24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// When the credentials were issued: `aws:TokenIssueTime`.
    pub issued: Timestamp,
    /// When they end.
    pub expires: Timestamp,
    /// Session policies as JSON texts; `None` where the session was not narrowed by any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<Arc<str>>>,
    /// Managed policies that narrow the session too, by ARN (`PolicyArns`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed: Vec<Arn>,
    /// Session tags, part of `aws:PrincipalTag/<k>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Keys of the tags that sessions of roles assumed by this session have too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub transitive: BTreeSet<String>,
    /// Who is behind the session, set once and kept by the sessions of roles it assumes: `aws:SourceIdentity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
}

impl Session {
    /// A session that carries nothing but its times.
    pub fn lasting(issued: Timestamp, expires: Timestamp) -> Self {
        Self {
            issued,
            expires,
            policies: None,
            managed: Vec::new(),
            tags: BTreeMap::new(),
            transitive: BTreeSet::new(),
            source_identity: None,
        }
    }

    /// The tags that sessions of roles assumed by this session have too.
    pub fn passed_on(&self) -> impl Iterator<Item = (&String, &String)> {
        self.tags.iter().filter(|(key, _)| self.transitive.contains(*key))
    }
}

/// How the request came in (NET-34, NET-46).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// By the public side, from this address.
    Public { address: IpAddr, secure: bool },
    /// Through a VPC endpoint (IAM-30): `aws:SourceIp` is then absent and the endpoint's policy binds the caller.
    Endpoint(EndpointSource),
}

/// The VPC endpoint that a request came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSource {
    /// The VPC's id: `aws:SourceVpc`.
    pub vpc_id: String,
    /// The endpoint's id: `aws:SourceVpce`.
    pub endpoint_id: String,
    /// Its region: a gateway endpoint leads to no bucket of another one (NET-38).
    pub region: Region,
    /// The private source address: `aws:VpcSourceIp`.
    pub address: IpAddr,
    pub secure: bool,
    /// Whether it is a gateway endpoint, where an account as `Principal` means its root alone (IAM-31).
    pub gateway: bool,
    /// The endpoint's policy text; `None` at an endpoint of the FIPS Runtime, which takes no policy: nothing narrows its
    /// callers but their own rights (IAM-34).
    pub policy: Option<Arc<str>>,
}

impl Caller {
    /// What the condition keys of the request are made of.
    pub fn traits(&self) -> Traits {
        Traits {
            principal: self.principal.clone(),
            region: self.scope.region.clone(),
            source: self.source.clone(),
            session: self.session.clone(),
            user_agent: self.user_agent.clone(),
        }
    }

    /// Condition keys of the request itself and of its caller.
    pub fn context(&self, now: Timestamp) -> Context {
        self.traits().context(now)
    }
}

/// What is known of a request and its caller whatever is asked: what condition keys are made of.
#[derive(Clone, Debug)]
pub struct Traits {
    principal: Principal,
    region: Region,
    source: Source,
    session: Option<Session>,
    user_agent: String,
}

impl Traits {
    /// Condition keys of the request itself and of its caller, keys lower-cased (IAM-16). A key that AWS leaves out is
    /// absent here. `aws:PrincipalTag/<k>` of users and roles is added by `iam::authority`, which reads their records.
    pub fn context(&self, now: Timestamp) -> Context {
        let mut keys = Context::new();
        let mut set = |key: &str, value: String| {
            keys.insert(key.to_ascii_lowercase(), vec![value]);
        };
        let secure = match &self.source {
            Source::Public { address, secure } => {
                set("aws:SourceIp", address.to_string());
                secure
            }
            Source::Endpoint(endpoint) => {
                set("aws:SourceVpc", endpoint.vpc_id.clone());
                set("aws:SourceVpce", endpoint.endpoint_id.clone());
                set("aws:VpcSourceIp", endpoint.address.to_string());
                &endpoint.secure
            }
        };
        set("aws:SecureTransport", secure.to_string());
        set("aws:UserAgent", self.user_agent.clone());
        set("aws:RequestedRegion", self.region.to_string());
        set("aws:EpochTime", (now.0.div_euclid(1000)).to_string());
        set("aws:CurrentTime", crate::iam::iso_time(now));
        set("aws:ViaAWSService", "false".into());
        set(
            "aws:PrincipalIsAWSService",
            matches!(self.principal, Principal::Service { .. }).to_string(),
        );
        if let Some(session) = &self.session {
            set("aws:TokenIssueTime", crate::iam::iso_time(session.issued));
            set("aws:MultiFactorAuthPresent", "false".into());
            if let Some(identity) = &session.source_identity {
                set("aws:SourceIdentity", identity.clone());
            }
            for (tag, value) in &session.tags {
                set(&format!("aws:PrincipalTag/{tag}"), value.clone());
            }
        }
        self.principal_keys(&mut set);
        keys
    }

    fn principal_keys(&self, set: &mut impl FnMut(&str, String)) {
        if let Some(arn) = self.principal.principal_arn() {
            set("aws:PrincipalArn", arn.to_string());
        }
        if let Some(account) = self.principal.account() {
            set("aws:PrincipalAccount", account.to_string());
        }
        match &self.principal {
            Principal::Root { account } => {
                set("aws:PrincipalType", "Account".into());
                set("aws:userid", account.to_string());
            }
            Principal::User { name, id, .. } => {
                set("aws:PrincipalType", "User".into());
                set("aws:userid", id.clone());
                set("aws:username", name.clone());
            }
            Principal::RoleSession { role_id, session, .. } => {
                set("aws:PrincipalType", "AssumedRole".into());
                set("aws:userid", format!("{role_id}:{session}"));
            }
            Principal::Service { name } => set("aws:PrincipalServiceName", name.clone()),
            Principal::Anonymous => {
                set("aws:PrincipalType", "Anonymous".into());
                set("aws:PrincipalAccount", "anonymous".into());
                set("aws:userid", "anonymous".into());
            }
        }
    }
}

/// The wiring's gift to every operation.
pub struct Ctx<'a> {
    pub caller: &'a Caller,
    pub clock: &'a dyn Clock,
    pub ids: &'a dyn IdSource,
    pub store: &'a dyn StateStore,
    pub logs: &'a dyn LogStore,
    pub metrics: &'a Metrics,
    pub registry: &'a Registry,
    /// Seals session tokens (IAM-45).
    pub master: &'a MasterKey,
    /// What execution roles may do and see: asked before a job or model is accepted (SM-17).
    pub platform: &'a dyn crate::platform::AsRole,
    /// What happened, for `LookupEvents`.
    pub trail: &'a AuditTrail,
}
