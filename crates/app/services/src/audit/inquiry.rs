//! What is found out about a request on its way: who signed it, and what IAM was asked and answered (IAM-27).

use crate::Caller;
use isolarium_policy::question::Context;
use isolarium_policy::{Authority, Denial, Explanation, Granted, Outcome, Question, ResourceSide, explained};
use isolarium_store::audit::Decision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Answers that one request keeps at most; a batch of a thousand deletions needs no thousand of them.
const MOST_ASKED: usize = 32;

/// Travels with a [`Caller`]; clones share what was found out.
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    /// The access key of the signature.
    pub access_key_id: Option<Box<str>>,
    /// The host that the client asked for.
    pub host: Option<Box<str>>,
    /// The job, model or endpoint for which the platform acts.
    pub acted_for: Option<Box<str>>,
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    asked: Vec<Explanation>,
    denied: bool,
    context: Context,
}

/// The decision about a request, as the trail keeps it for the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub decision: Decision,
    /// What IAM was asked, in order, with the answers; the last one is the denial, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Explanation>,
    /// The condition keys that the denial saw.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: Context,
    /// The job, model or endpoint for which the platform acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted_for: Option<String>,
}

impl Inquiry {
    /// Of a request that was signed with this key.
    pub fn signed(access_key_id: Option<&str>) -> Self {
        Self {
            access_key_id: access_key_id.map(Into::into),
            ..Self::default()
        }
    }

    /// With the host that the client asked for.
    #[must_use]
    pub fn at_host(self, host: Option<&str>) -> Self {
        Self {
            host: host.map(Into::into),
            ..self
        }
    }

    /// Of a request of the platform's own, for one job, model or endpoint.
    pub fn acting_for(owner_arn: &str) -> Self {
        Self {
            acted_for: Some(owner_arn.into()),
            ..Self::default()
        }
    }

    /// The same caller's next request.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            found: Arc::default(),
            ..self.clone()
        }
    }

    /// Takes note of answers that allowed.
    pub fn allowed(&self, answers: Vec<Explanation>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_ASKED.saturating_sub(found.asked.len());
        found.asked.extend(answers.into_iter().take(room));
    }

    /// Takes note of a denial with the condition keys that it saw. The first one stands.
    pub fn denied(&self, authority: &Authority, questions: &[Question], denial: &Denial) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.denied {
            return;
        }
        found.denied = true;
        let about = &denial.explanation;
        found.context.clone_from(&authority.context);
        let question = questions
            .iter()
            .find(|question| question.action == about.action && question.resource == about.resource);
        if let Some(question) = question {
            found.context.extend(question.context.clone());
        }
        found.asked.truncate(MOST_ASKED.saturating_sub(1));
        found.asked.push(Explanation::clone(about));
    }

    /// Whether IAM said no.
    pub fn is_denied(&self) -> bool {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).denied
    }

    /// The decision, taken out: an inquiry is told once.
    pub fn verdict(&self) -> Verdict {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        Verdict {
            decision: match (found.denied, found.asked.is_empty()) {
                (true, _) => Decision::Deny,
                (false, false) => Decision::Allow,
                (false, true) => Decision::NotAsked,
            },
            asked: found.asked,
            context: found.context,
            acted_for: self.acted_for.as_deref().map(Into::into),
        }
    }
}

impl Verdict {
    /// As JSON. What was allowed, which is told most often, takes one pass over its texts.
    pub(super) fn text(&self) -> Option<String> {
        if self.decision != Decision::Allow || !self.context.is_empty() || self.acted_for.is_some() {
            return serde_json::to_string(self).ok();
        }
        let mut out = String::with_capacity(512);
        out.push_str("{\"decision\":\"allow\"");
        for (at, answer) in self.asked.iter().enumerate() {
            // By name and without a rest: a member that is added has to be written too.
            let Explanation {
                principal,
                action,
                resource,
                outcome,
                allowed_by,
                denied_by,
                missing,
            } = answer;
            let allowed = *outcome == Outcome::Allowed && denied_by.is_empty() && missing.is_none();
            if !allowed {
                return serde_json::to_string(self).ok();
            }
            out.push_str(if at == 0 { ",\"asked\":[{" } else { ",{" });
            for (name, text) in [
                ("\"principal\":", principal),
                (",\"action\":", action),
                (",\"resource\":", resource),
            ] {
                out.push_str(name);
                super::parameters::quoted(text, &mut out);
            }
            out.push_str(",\"outcome\":\"allowed\",\"allowed_by\":[");
            for (at, cited) in allowed_by.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(cited).ok()?);
            }
            out.push_str("],\"denied_by\":[],\"missing\":null}");
        }
        if !self.asked.is_empty() {
            out.push(']');
        }
        out.push('}');
        Some(out)
    }

    /// The denial, if there is one.
    pub fn denial(&self) -> Option<&Explanation> {
        self.asked
            .iter()
            .rfind(|answer| answer.outcome != Outcome::Allowed)
            .filter(|_| self.decision == Decision::Deny)
    }
}

/// [`isolarium_policy::authorize`], with the answers noted for the audit trail.
///
/// # Errors
/// The denial of the first question that is not allowed.
pub fn authorize<Op>(
    caller: &Caller,
    request: Op,
    authority: &Authority,
    questions: &[Question],
    resource_side: &dyn Fn(&Question) -> ResourceSide,
) -> Result<Granted<Op>, Denial> {
    match explained(request, authority, questions, resource_side) {
        Ok((granted, answers)) => {
            caller.inquiry.allowed(answers);
            Ok(granted)
        }
        Err(denial) => {
            caller.inquiry.denied(authority, questions, &denial);
            Err(denial)
        }
    }
}
