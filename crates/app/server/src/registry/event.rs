//! What the audit trail is told of a push or a pull.

use super::answer::Refusal;
use super::{Distribution, Origin};
use http::Request;
use isolarium_model::Scope;
use isolarium_policy::Question;
use isolarium_services::audit::{self, Ended, Stranger};
use isolarium_services::{Caller, Source};
use isolarium_store::{AuditDown, Keep};

const SOURCE: &str = "ecr.amazonaws.com";

/// What is known of a request while it is handled.
pub(super) struct Seen {
    pub(super) caller: Option<Caller>,
    /// AWS's name of what it does.
    name: Option<String>,
    path: String,
    agent: String,
    scope: Scope,
    origin: Origin,
}

impl Seen {
    pub(super) fn of<B>(request: &Request<B>, scope: Scope, origin: Origin) -> Self {
        let agent = request.headers().get(http::header::USER_AGENT);
        Self {
            caller: None,
            name: None,
            path: request.uri().path().to_owned(),
            agent: agent
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            scope,
            origin,
        }
    }

    /// The first action is what the request is; further ones are what it needs.
    pub(super) fn asked(&mut self, questions: &[Question]) {
        let action = questions.first().map(|question| question.action.as_str());
        self.name = action.and_then(|action| action.strip_prefix("ecr:")).map(Into::into);
    }

    /// Tells; comes back when the answer may leave.
    pub(super) async fn tell(
        &self,
        distribution: &Distribution,
        refusal: Option<&Refusal>,
        changes: bool,
    ) -> Result<(), AuditDown> {
        let ended = Ended {
            error: refusal.map(Refusal::told),
        };
        let (name, now) = (self.name.as_deref().unwrap_or("Unknown"), distribution.clock.now());
        let (mut event, denied) = match &self.caller {
            Some(caller) => {
                let denied = caller.inquiry.is_denied();
                (audit::of_request(caller, SOURCE, name, ended, now), denied)
            }
            None => {
                let stranger = Stranger {
                    access_key_id: None,
                    address: match &self.origin.source {
                        Source::Public { address, .. } => *address,
                        Source::Endpoint(endpoint) => endpoint.address,
                    },
                    user_agent: &self.agent,
                    request_id: &self.origin.request_id,
                    home: &self.scope,
                };
                // A link of GetDownloadUrlForLayer was signed for whoever has it.
                let name = if refusal.is_none() {
                    "GetDownloadUrlForLayer"
                } else {
                    name
                };
                (
                    audit::of_stranger(&stranger, SOURCE, name, ended, now),
                    refusal.is_some(),
                )
            }
        };
        event.request_parameters = audit::texts(&[("path", Some(&self.path))]);
        let keep = match (denied, changes && refusal.is_none()) {
            (true, _) => Keep::Refusal,
            (_, true) => Keep::Change,
            _ => Keep::Later,
        };
        distribution.audit.submit(event, keep).await
    }
}
