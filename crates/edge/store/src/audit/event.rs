//! What a line of the trail says: the members of a CloudTrail record, and beside them what the engine decided.

use isolarium_model::Timestamp;
use isolarium_model::time::uuid_of;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The version of CloudTrail's record that [`AuditEvent`] follows.
const EVENT_VERSION: &str = "1.11";

/// One request, or one action of the platform, as CloudTrail writes it; it borrows what its maker keeps until it is
/// submitted. `engine` is for the operator: it stands beside
/// the record, never in it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent<'a> {
    pub event_version: &'static str,
    pub user_identity: UserIdentity<'a>,
    /// ISO 8601 with seconds, UTC.
    pub event_time: String,
    /// Host-like name of the service, such as `sagemaker.amazonaws.com`.
    pub event_source: Cow<'a, str>,
    /// AWS's operation name; `Unknown` where the request named none that exists.
    pub event_name: Cow<'a, str>,
    pub aws_region: Cow<'a, str>,
    /// An address, or the name of the service that acted.
    #[serde(rename = "sourceIPAddress")]
    pub source_ip_address: Cow<'a, str>,
    pub user_agent: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<Cow<'a, str>>,
    /// A JSON object without secrets and bodies, of bounded size; `null` when there is nothing to tell.
    pub request_parameters: Option<Box<RawValue>>,
    /// As `request_parameters`, for operations that change something.
    pub response_elements: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_event_data: Option<Box<RawValue>>,
    #[serde(rename = "requestID")]
    pub request_id: Cow<'a, str>,
    #[serde(rename = "eventID")]
    pub event_id: String,
    pub read_only: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<EventResource>,
    /// `AwsApiCall`, or `AwsServiceEvent` for what the trail says of itself.
    pub event_type: &'static str,
    pub management_event: bool,
    pub recipient_account_id: Cow<'a, str>,
    /// `Management` or `Data`.
    pub event_category: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_endpoint_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_details: Option<TlsDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_event_details: Option<Box<RawValue>>,
    /// What the engine decided and why: a JSON object whose `decision` is a [`Decision`] (IAM-27). It stands beside the
    /// record in the trail.
    #[serde(skip)]
    pub engine: Option<String>,
    /// When it happened.
    #[serde(skip)]
    pub at: Timestamp,
}

impl AuditEvent<'_> {
    /// A management event of an API call about which nothing is known yet but its time.
    pub fn api_call(at: Timestamp) -> Self {
        Self {
            event_version: EVENT_VERSION,
            user_identity: UserIdentity::default(),
            event_time: iso(at),
            event_source: Cow::default(),
            event_name: Cow::default(),
            aws_region: Cow::default(),
            source_ip_address: Cow::default(),
            user_agent: Cow::default(),
            error_code: None,
            error_message: None,
            request_parameters: None,
            response_elements: None,
            additional_event_data: None,
            request_id: Cow::default(),
            event_id: event_id(),
            read_only: false,
            resources: Vec::new(),
            event_type: "AwsApiCall",
            management_event: true,
            recipient_account_id: Cow::default(),
            event_category: "Management",
            vpc_endpoint_id: None,
            tls_details: None,
            service_event_details: None,
            engine: None,
            at,
        }
    }

    /// The same event as a data event: the use of a resource's contents, which `LookupEvents` does not tell.
    pub fn as_data(mut self) -> Self {
        (self.management_event, self.event_category) = (false, "Data");
        self
    }

    /// About how many bytes of memory it takes while it waits.
    pub(super) fn weight(&self) -> usize {
        let raw = |part: &Option<Box<RawValue>>| part.as_ref().map_or(0, |part| part.get().len());
        1024_usize
            .saturating_add(raw(&self.request_parameters))
            .saturating_add(raw(&self.response_elements))
            .saturating_add(self.user_agent.len())
            .saturating_add(self.engine.as_ref().map_or(0, String::len))
    }
}

impl<'a> AuditEvent<'a> {
    /// What the trail says of itself.
    pub(super) fn of_trail(name: &'a str, at: Timestamp, details: Option<Box<RawValue>>) -> Self {
        Self {
            user_identity: UserIdentity {
                kind: "AWSService".into(),
                invoked_by: Some(TRAIL.into()),
                ..UserIdentity::default()
            },
            event_source: TRAIL.into(),
            event_name: name.into(),
            source_ip_address: TRAIL.into(),
            user_agent: TRAIL.into(),
            event_type: "AwsServiceEvent",
            service_event_details: details,
            ..Self::api_call(at)
        }
    }
}

/// Source and user agent of the trail's own records.
const TRAIL: &str = "audit.isolarium";

/// Who asked.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserIdentity<'a> {
    /// `Root`, `IAMUser`, `AssumedRole`, `AWSService`, `AWSAccount` (anonymous callers), `Unknown` (a request whose
    /// signature was not believed).
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_context: Option<SessionContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoked_by: Option<Cow<'a, str>>,
}

/// Whose session temporary credentials are.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_issuer: Option<SessionIssuer>,
    pub attributes: SessionAttributes,
}

/// The role behind a session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionIssuer {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub principal_id: String,
    pub arn: String,
    pub account_id: String,
    pub user_name: String,
}

/// When a session began, and how.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAttributes {
    pub creation_date: String,
    pub mfa_authenticated: &'static str,
}

/// Something that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventResource {
    #[serde(rename = "ARN")]
    pub arn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// CloudFormation's name of the type, such as `AWS::S3::Object`; absent where there is none.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl EventResource {
    /// The last part of the ARN: what the resource is called.
    pub fn name(&self) -> &str {
        let resource = self.arn.splitn(6, ':').last().unwrap_or_default();
        if self.arn.starts_with("arn:aws:s3:") {
            return resource;
        }
        resource.rsplit(['/', ':']).next().unwrap_or_default()
    }
}

/// How the connection was protected.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsDetails {
    /// The host that the client asked for.
    pub client_provided_host_header: String,
}

/// How authorization ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// No question was asked: refused before, or an operation that everybody may use.
    #[default]
    NotAsked,
    Allow,
    Deny,
}

/// ISO 8601 with seconds. Thousands of events are of the same second.
fn iso(at: Timestamp) -> String {
    thread_local! {
        static LAST: RefCell<Option<(i64, String)>> = const { RefCell::new(None) };
    }
    let second = at.0.div_euclid(1000);
    LAST.with_borrow_mut(|last| match last {
        Some((of, text)) if *of == second => text.clone(),
        _ => {
            let text = jiff::Timestamp::from_second(second).map_or_else(|_| at.0.to_string(), |time| time.to_string());
            *last = Some((second, text.clone()));
            text
        }
    })
}

/// A UUID that no other event has: the number of the event in this process, mixed with chance that the process drew once,
/// so that no request has to ask the kernel. Chance has failed when it draws zeros: the number of the line still tells
/// events apart.
fn event_id() -> String {
    static DRAWN: LazyLock<[u8; 32]> = LazyLock::new(|| {
        let mut bytes = [0_u8; 32];
        let _ = getrandom::fill(&mut bytes);
        bytes
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mixed = Sha256::new_with_prefix(*DRAWN).chain_update(NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    let mut bytes = [0_u8; 16];
    for (byte, mixed) in bytes.iter_mut().zip(mixed.finalize()) {
        *byte = mixed;
    }
    uuid_of(bytes)
}
