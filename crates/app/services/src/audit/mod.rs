//! The audit trail's events: one for every request of every service and every action of the platform, in CloudTrail's
//! form (IAM-27). Secrets and bodies are left out where the event is made, so that no later step can let them through.

mod inquiry;
mod parameters;
mod subject;

pub use inquiry::{Inquiry, Verdict, authorize};
pub use parameters::HIDDEN;
pub(crate) use parameters::beginning;
pub use subject::resource_kind;

use crate::{Caller, Source};
use isolarium_model::{Principal, Timestamp};
use isolarium_policy::Explanation;
use isolarium_store::audit::{
    AuditEvent, EventResource, Keep, SessionAttributes, SessionContext, SessionIssuer, TlsDetails, UserIdentity,
};
use isolarium_wire::catalog::{Operation, Service};
use isolarium_wire::{ApiError, Document};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The service that acts for execution roles.
const SAGEMAKER: &str = "sagemaker.amazonaws.com";
/// Longest user agent and error message that are kept, bytes.
const LONGEST: usize = 1024;
/// Resources of one event at most.
const MOST_RESOURCES: usize = 32;

/// What a caller reads when a change is refused because it could not be told.
pub const UNAVAILABLE: &str = "The engine's audit trail cannot be written, so that nothing may be changed. Ask the operator to look at the engine's log.";

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// AWS's error code and text; `None` for a success.
    pub error: Option<(&'a str, &'a str)>,
}

impl<'a> Ended<'a> {
    /// Well.
    pub const WELL: Self = Self { error: None };

    /// With an error.
    pub fn with(error: &'a ApiError) -> Self {
        Self {
            error: Some((&error.code, &error.message)),
        }
    }
}

/// Operations that change nothing, by AWS's own naming.
pub fn only_reads(operation: &str) -> bool {
    const VERBS: [&str; 10] = [
        "Describe",
        "List",
        "Get",
        "BatchGet",
        "BatchCheck",
        "BatchDescribe",
        "Lookup",
        "Filter",
        "Head",
        "Simulate",
    ];
    VERBS.iter().any(|verb| operation.starts_with(verb)) || matches!(operation, "Search" | "DecodeAuthorizationMessage")
}

/// What the answer to an operation owes to the trail: what changes something, or hands out credentials, leaves after its
/// event.
pub fn keep(operation: &str) -> Keep {
    let invoked = operation.starts_with("InvokeEndpoint");
    let credentials = [
        "AssumeRole",
        "GetSessionToken",
        "GetFederationToken",
        "GetAuthorizationToken",
    ];
    if invoked || (only_reads(operation) && !credentials.contains(&operation)) {
        Keep::Later
    } else {
        Keep::Change
    }
}

/// The request's members as its event tells them. Call it before the operation takes the request.
pub fn request_parameters(service: &Service, operation: &Operation, input: &Document) -> Option<Box<RawValue>> {
    parameters::render(service, operation.input, input)
}

/// The event of an operation of an AWS API.
pub fn of_call<'a>(
    caller: &'a Caller,
    (service, signing_name): (&Service, &str),
    operation: &'a Operation,
    request: Option<Box<RawValue>>,
    outcome: &'a Result<Document, ApiError>,
    now: Timestamp,
) -> AuditEvent<'a> {
    let ended = outcome.as_ref().map_or_else(Ended::with, |_| Ended::WELL);
    let mut event = of_request(caller, source(signing_name), operation.name, ended, now);
    event.request_parameters = request;
    if let (Ok(answer), Keep::Change) = (outcome, keep(operation.name)) {
        event.response_elements = parameters::render(service, operation.output, answer);
    }
    if is_data(service.name(), operation.name) {
        event = event.as_data();
    }
    event
}

/// Whether AWS counts an operation as the use of a resource's contents.
fn is_data(service: &str, operation: &str) -> bool {
    matches!(service, "sagemaker-runtime" | "sagemaker-featurestore-runtime")
        || matches!(
            (service, operation),
            ("logs", "PutLogEvents") | ("cloudwatch", "PutMetricData")
        )
}

/// The `eventSource` of a service.
pub fn source(signing_name: &str) -> Cow<'static, str> {
    match signing_name {
        "sagemaker" => SAGEMAKER.into(),
        other => format!("{other}.amazonaws.com").into(),
    }
}

/// The event of a request whose caller is known.
pub fn of_request<'a>(
    caller: &'a Caller,
    source: impl Into<Cow<'a, str>>,
    name: &'a str,
    ended: Ended<'a>,
    now: Timestamp,
) -> AuditEvent<'a> {
    let verdict = caller.inquiry.verdict();
    let mut event = AuditEvent::api_call(now);
    event.resources = resources(&verdict);
    event.user_identity = identity(caller);
    let acting = caller.inquiry.acted_for.is_some();
    match &caller.source {
        _ if acting => event.source_ip_address = SAGEMAKER.into(),
        Source::Public { address, secure } => {
            event.source_ip_address = address.to_string().into();
            event.tls_details = tls(caller, *secure);
        }
        Source::Endpoint(endpoint) => {
            event.source_ip_address = endpoint.address.to_string().into();
            event.vpc_endpoint_id = Some(endpoint.endpoint_id.as_str().into());
            event.tls_details = tls(caller, endpoint.secure);
        }
    }
    event.user_agent = parameters::beginning(&caller.user_agent, LONGEST).into();
    event.request_id = caller.request_id.as_str().into();
    event.recipient_account_id = caller.scope.account.as_str().into();
    event.aws_region = caller.scope.region.as_str().into();
    describe(&mut event, source, name, ended);
    event.engine = verdict.text();
    event
}

/// The event of a request that was refused before anybody believed its signature.
pub fn of_stranger<'a>(
    stranger: &Stranger<'a>,
    source: impl Into<Cow<'a, str>>,
    name: &'a str,
    ended: Ended<'a>,
    now: Timestamp,
) -> AuditEvent<'a> {
    let mut event = AuditEvent::api_call(now);
    event.user_identity = UserIdentity {
        kind: "Unknown".into(),
        access_key_id: stranger.access_key_id.map(|id| parameters::beginning(id, 128).into()),
        ..UserIdentity::default()
    };
    event.source_ip_address = stranger.address.to_string().into();
    event.user_agent = parameters::beginning(stranger.user_agent, LONGEST).into();
    event.request_id = stranger.request_id.into();
    event.recipient_account_id = stranger.home.account.as_str().into();
    event.aws_region = stranger.home.region.as_str().into();
    describe(&mut event, source, name, ended);
    event.engine = Verdict::default().text();
    event
}

/// Whoever sent a request that was refused before its signature was believed.
#[derive(Clone, Copy, Debug)]
pub struct Stranger<'a> {
    /// The key that the request claims.
    pub access_key_id: Option<&'a str>,
    pub address: std::net::IpAddr,
    pub user_agent: &'a str,
    pub request_id: &'a str,
    /// The account that is told.
    pub home: &'a isolarium_model::Scope,
}

/// The event of the platform's assuming an execution role (IAM-52); `access_key_id` is of the credentials that it made.
pub fn of_assumption<'a>(
    actor: &'a crate::platform::Actor,
    access_key_id: Option<&str>,
    error: Option<&'a str>,
    inquiry: &Inquiry,
    request_id: &'a str,
    now: Timestamp,
) -> AuditEvent<'a> {
    let verdict = inquiry.verdict();
    let mut event = AuditEvent::api_call(now);
    event.user_identity = UserIdentity {
        kind: "AWSService".into(),
        invoked_by: Some(SAGEMAKER.into()),
        ..UserIdentity::default()
    };
    event.source_ip_address = SAGEMAKER.into();
    event.user_agent = SAGEMAKER.into();
    event.request_id = request_id.into();
    event.recipient_account_id = actor.scope.account.as_str().into();
    event.aws_region = actor.scope.region.as_str().into();
    event.resources = vec![resource(actor.role_arn.as_str())];
    let ended = Ended {
        error: error.map(|text| ("AccessDenied", text)),
    };
    describe(&mut event, "sts.amazonaws.com", "AssumeRole", ended);
    event.request_parameters = texts(&[("roleArn", Some(actor.role_arn.as_str()))]);
    let made = access_key_id.map(|id| serde_json::json!({ "credentials": { "accessKeyId": id } }));
    event.response_elements = made.and_then(|made| serde_json::value::to_raw_value(&made).ok());
    event.engine = verdict.text();
    event
}

fn describe<'a>(event: &mut AuditEvent<'a>, source: impl Into<Cow<'a, str>>, name: &'a str, ended: Ended<'a>) {
    event.event_source = source.into();
    event.event_name = name.into();
    event.read_only = only_reads(name) || matches!(name, "AssumeRole" | "GetCallerIdentity");
    if let Some((code, message)) = ended.error {
        event.error_code = Some(code.into());
        event.error_message = Some(parameters::beginning(message, LONGEST).into());
    }
}

/// A JSON object of texts; members without a value are absent.
pub fn texts(members: &[(&str, Option<&str>)]) -> Option<Box<RawValue>> {
    let map: serde_json::Map<String, serde_json::Value> = members
        .iter()
        .filter_map(|(name, value)| Some(((*name).to_owned(), serde_json::Value::from((*value)?))))
        .collect();
    serde_json::value::to_raw_value(&map).ok()
}

fn tls(caller: &Caller, secure: bool) -> Option<TlsDetails> {
    let host = caller.inquiry.host.as_deref().filter(|_| secure)?;
    Some(TlsDetails {
        client_provided_host_header: parameters::beginning(host, 255).into(),
    })
}

fn resources(verdict: &Verdict) -> Vec<EventResource> {
    let mut found: Vec<EventResource> = Vec::new();
    for Explanation { resource: arn, .. } in &verdict.asked {
        if found.len() >= MOST_RESOURCES {
            break;
        }
        if arn.starts_with("arn:") && !found.iter().any(|known| known.arn == *arn) {
            found.push(resource(arn));
        }
    }
    found
}

pub(crate) fn resource(arn: &str) -> EventResource {
    let account = isolarium_model::arn::split(arn).map(|[_, _, _, _, account, _]| account);
    let account = account.filter(|account| !account.is_empty());
    EventResource {
        arn: arn.into(),
        account_id: account.map(Into::into),
        kind: resource_kind(arn),
    }
}

fn identity(caller: &Caller) -> UserIdentity<'_> {
    let principal = &caller.principal;
    let mut identity = UserIdentity {
        arn: principal.arn().map(|arn| String::from(arn).into()),
        account_id: principal.account().map(|account| account.as_str().into()),
        access_key_id: caller.inquiry.access_key_id.as_deref().map(Into::into),
        invoked_by: caller.inquiry.acted_for.is_some().then(|| SAGEMAKER.into()),
        ..UserIdentity::default()
    };
    match principal {
        Principal::Root { account } => {
            identity.kind = "Root".into();
            identity.principal_id = Some(account.as_str().into());
        }
        Principal::User { name, id, .. } => {
            identity.kind = "IAMUser".into();
            identity.principal_id = Some(id.as_str().into());
            identity.user_name = Some(name.as_str().into());
        }
        Principal::RoleSession {
            account,
            role,
            role_id,
            session,
            ..
        } => {
            identity.kind = "AssumedRole".into();
            identity.principal_id = Some(format!("{role_id}:{session}").into());
            let issuer = principal.principal_arn().map(|arn| SessionIssuer {
                kind: "Role",
                principal_id: role_id.clone(),
                arn: arn.into(),
                account_id: account.to_string(),
                user_name: role.clone(),
            });
            identity.session_context = Some(context(caller, issuer));
        }
        Principal::Service { name } => {
            identity.kind = "AWSService".into();
            identity.invoked_by = Some(name.as_str().into());
        }
        // CloudTrail's form of a request that nobody signed.
        Principal::Anonymous => {
            identity.kind = "AWSAccount".into();
            identity.principal_id = Some("".into());
            identity.account_id = Some("anonymous".into());
        }
    }
    if identity.session_context.is_none() && caller.session.is_some() {
        identity.session_context = Some(context(caller, None));
    }
    identity
}

fn context(caller: &Caller, session_issuer: Option<SessionIssuer>) -> SessionContext {
    let issued = caller.session.as_ref().map(|session| session.issued);
    SessionContext {
        session_issuer,
        attributes: SessionAttributes {
            creation_date: issued.map(crate::iam::iso_time).unwrap_or_default(),
            mfa_authenticated: "false",
        },
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
