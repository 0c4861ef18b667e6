//! What the audit trail is told of the platform's own actions.

use super::{Actor, PlatformError};
use crate::Caller;
use crate::audit::{self, Ended, Inquiry};
use crate::iam::credentials::AssumeError;
use isolarium_model::iam::Role;
use isolarium_model::{Arn, Timestamp};
use isolarium_store::{AuditTrail, Keep};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one record of an assumed role stands for every action of the same job: as long as its sessions last.
const STANDS: Duration = Duration::from_secs(3600);
/// Jobs remembered at most.
const MOST: usize = 10_000;

/// The trail as the platform writes it.
pub struct PlatformAudit {
    trail: Arc<AuditTrail>,
    /// (role, job or endpoint) whose session was told of, and until when that stands.
    assumed: Mutex<HashMap<(Arn, Arn), Timestamp>>,
}

impl PlatformAudit {
    /// Over a trail.
    pub fn new(trail: Arc<AuditTrail>) -> Self {
        Self {
            trail,
            assumed: Mutex::default(),
        }
    }

    /// Tells of a role that was assumed, once an hour for each job or endpoint, and of every refusal.
    pub(super) fn assumed(
        &self,
        actor: &Actor,
        outcome: &Result<Role, AssumeError>,
        inquiry: &Inquiry,
        request_id: &str,
        now: Timestamp,
    ) {
        let error = match outcome {
            Ok(_) if !self.is_new(actor, now) => return,
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let event = audit::of_assumption(actor, None, error.as_deref(), inquiry, request_id, now);
        let keep = if error.is_some() { Keep::Refusal } else { Keep::Later };
        self.wait(event, keep);
    }

    fn is_new(&self, actor: &Actor, now: Timestamp) -> bool {
        let mut assumed = self.assumed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (actor.role_arn.clone(), actor.owner_arn.clone());
        if assumed.get(&key).is_some_and(|until| now < *until) {
            return false;
        }
        if assumed.len() >= MOST {
            assumed.retain(|_, until| now < *until);
        }
        assumed.insert(key, now.after(STANDS));
        true
    }

    /// Tells of an action in the name of a role's session. A job's next step does not wait for the disk: an action that
    /// cannot be told now is told when the trail is written again.
    pub(super) fn acted<T>(
        &self,
        caller: &Caller,
        source: &str,
        name: &str,
        asked: Option<Box<RawValue>>,
        outcome: &Result<T, PlatformError>,
        now: Timestamp,
    ) {
        let text = outcome.as_ref().err().map(ToString::to_string);
        let code = match outcome {
            Ok(_) => "",
            Err(PlatformError::Role(_) | PlatformError::Denied(_)) => "AccessDenied",
            Err(PlatformError::Unusable(_)) => "InvalidParameter",
            Err(PlatformError::Engine(_)) => "InternalFailure",
        };
        let ended = Ended {
            error: text.as_deref().map(|text| (code, text)),
        };
        let keep = if caller.inquiry.is_denied() {
            Keep::Refusal
        } else {
            audit::keep(name)
        };
        let mut event = audit::of_request(caller, source, name, ended, now);
        event.request_parameters = asked;
        if matches!(name, "PutLogEvents" | "PutMetricData") {
            event = event.as_data();
        }
        self.wait(event, keep);
    }

    fn wait(&self, event: isolarium_store::AuditEvent<'_>, keep: Keep) {
        if let Err(error) = self.trail.submit(event, keep).wait() {
            tracing::debug!(%error, "an action of the platform is not in the audit trail yet");
        }
    }
}
