//! What the proxy refused, for the operator: a client that calls elsewhere shows here.

use isolarium_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Different refusals that are remembered one by one; clients choose the names.
const MOST: usize = 1000;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No service that this engine has, or not in a region that it serves.
    Name,
    /// An address instead of a name.
    Address,
    /// Another port than HTTPS's, or HTTP's for S3.
    Port,
    /// Plain HTTP to what is not S3.
    Plain,
    /// A target that is none, or says two things at once.
    Malformed,
    /// Inside the tunnel TLS asked for another name.
    Sni,
    /// As many tunnels as there may be.
    Busy,
}

impl Reason {
    /// In the words of the answer and of the list.
    pub fn text(self) -> &'static str {
        match self {
            Self::Name => "not a service of this engine",
            Self::Address => "an address instead of a name",
            Self::Port => "a port that no service has",
            Self::Plain => "plain HTTP to another service than S3",
            Self::Malformed => "not a target",
            Self::Sni => "TLS to another name than the tunnel's",
            Self::Busy => "too many tunnels",
        }
    }
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Host and port as the client gave them, cut and cleaned.
    pub target: String,
    pub reason: Reason,
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Everything refused since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The newest last.
    pub refusals: Vec<Refusal>,
    /// Refusals of targets beyond those that are remembered one by one.
    pub left_out: u64,
}

/// The refusals so far.
#[derive(Debug, Default)]
pub struct Refusals {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_target: BTreeMap<(String, Reason), Refusal>,
    left_out: u64,
}

impl Refusals {
    /// Notes one; whether it is the first of its kind.
    pub fn note(&self, target: &str, reason: Reason, now: Timestamp) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.to_owned(), reason);
        if let Some(known) = kept.by_target.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            known.last = now;
            return false;
        }
        if kept.by_target.len() >= MOST {
            kept.left_out = kept.left_out.saturating_add(1);
            return false;
        }
        let first = Refusal {
            target: key.0.clone(),
            reason,
            count: 1,
            first: now,
            last: now,
        };
        kept.by_target.insert(key, first);
        true
    }

    /// The list, oldest first by the last time.
    pub fn listed(&self) -> Listed {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refusals: Vec<Refusal> = kept.by_target.values().cloned().collect();
        refusals.sort_by_key(|one| one.last);
        Listed {
            refusals,
            left_out: kept.left_out,
        }
    }
}
