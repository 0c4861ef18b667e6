//! `FailureReason`: why a job or endpoint failed, in at most 1,024 characters (SM-41).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Longest FailureReason in characters (SM-41).
pub const MAX_FAILURE_REASON: usize = 1024;

/// Whose fault it was: the prefix of a job's reason (SM-41).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The container ended badly.
    Algorithm,
    /// What the caller asked for could not be done: data, image, permission.
    Client,
    /// There is no room for it on this machine.
    Capacity,
    /// The engine or its host failed.
    Internal,
}

impl FailureKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Algorithm => "AlgorithmError: ",
            Self::Client => "ClientError: ",
            Self::Capacity => "CapacityError: ",
            Self::Internal => "InternalServerError: ",
        }
    }
}

/// A reason that fits. The only constructors cut the text, never the note about a blocked attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FailureReason(String);

impl FailureReason {
    /// A job's reason: prefix, text, and the note about the first blocked attempt, if there was one (design section 6).
    pub fn job(kind: FailureKind, text: &str, blocked: Option<&FirstBlocked>) -> Self {
        Self::fit(format!("{}{text}", kind.prefix()), blocked)
    }

    /// SM-65: the container's own failure text (its first 1,024 characters, CC-33) and its exit code.
    pub fn container(failure_file: &str, exit_code: i32, blocked: Option<&FirstBlocked>) -> Self {
        let tail = format!(", exit code: {exit_code}");
        let note = blocked.map(ToString::to_string).unwrap_or_default();
        let prefix = FailureKind::Algorithm.prefix();
        let room = MAX_FAILURE_REASON.saturating_sub(prefix.len() + tail.len() + note.chars().count());
        let text: String = failure_file.chars().take(room).collect();
        Self(format!("{prefix}{text}{tail}{note}"))
    }

    /// An endpoint's reason: no prefix (SM-63).
    pub fn endpoint(text: &str, blocked: Option<&FirstBlocked>) -> Self {
        Self::fit(text.to_string(), blocked)
    }

    fn fit(text: String, blocked: Option<&FirstBlocked>) -> Self {
        let note = blocked.map(ToString::to_string).unwrap_or_default();
        let room = MAX_FAILURE_REASON.saturating_sub(note.chars().count());
        let mut cut: String = text.chars().take(room).collect();
        cut.push_str(&note);
        Self(cut)
    }

    /// Whether the engine or its host was at fault.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(FailureKind::Internal.prefix())
    }

    /// Whether the instances may be trusted to run another job: the container or the caller was at fault.
    pub fn leaves_instances_whole(&self) -> bool {
        [FailureKind::Algorithm, FailureKind::Client]
            .iter()
            .any(|kind| self.0.starts_with(kind.prefix()))
    }

    /// The text, at most 1,024 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first attempt to leave that isolation stopped; `Display` is the note appended to a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstBlocked {
    /// `tcp`, `udp`, `icmp`, `dns`, ...
    pub protocol: String,
    pub address: IpAddr,
    pub port: u16,
    /// The name asked for, when the attempt was a DNS question.
    pub name: Option<String>,
}

impl fmt::Display for FirstBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name comes from the container: only what can stand in a host name is repeated, and not more than DNS allows.
        let name: Option<String> = self.name.as_ref().map(|name| {
            let plain = |c: char| {
                if c.is_ascii_alphanumeric() || "-._".contains(c) {
                    c
                } else {
                    '?'
                }
            };
            name.chars().take(253).map(plain).collect()
        });
        let target = match (&name, self.address) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(address)) if self.port == 0 => address.to_string(),
            (None, IpAddr::V6(address)) if self.port == 0 => address.to_string(),
            (None, IpAddr::V4(address)) => format!("{address}:{}", self.port),
            (None, IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
        };
        write!(f, " [network isolation blocked {} {target} first]", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked() -> FirstBlocked {
        FirstBlocked {
            protocol: "tcp".into(),
            address: "203.0.113.10".parse().unwrap(),
            port: 443,
            name: None,
        }
    }

    /// Proves: SM-65
    #[test]
    fn an_empty_failure_file_keeps_the_comma() {
        assert_eq!(
            FailureReason::container("", 3, None).as_str(),
            "AlgorithmError: , exit code: 3"
        );
        assert_eq!(
            FailureReason::container("no data", 1, None).as_str(),
            "AlgorithmError: no data, exit code: 1"
        );
    }

    /// Proves: SM-41, CC-33
    #[test]
    fn every_reason_has_its_prefix_and_fits_with_the_note_whole() {
        let long = "é".repeat(3000);
        let note = " [network isolation blocked tcp 203.0.113.10:443 first]";
        for reason in [
            FailureReason::container(&long, 137, Some(&blocked())),
            FailureReason::job(FailureKind::Client, &long, Some(&blocked())),
            FailureReason::job(FailureKind::Internal, &long, Some(&blocked())),
            FailureReason::endpoint(&long, Some(&blocked())),
        ] {
            assert_eq!(reason.as_str().chars().count(), MAX_FAILURE_REASON);
            assert!(reason.as_str().ends_with(note), "{reason}");
        }
        assert!(
            FailureReason::container(&long, 137, Some(&blocked()))
                .as_str()
                .contains(", exit code: 137 [")
        );
        assert!(
            FailureReason::job(FailureKind::Client, "x", None)
                .as_str()
                .starts_with("ClientError: ")
        );
        assert!(
            FailureReason::job(FailureKind::Internal, "x", None)
                .as_str()
                .starts_with("InternalServerError: ")
        );
    }

    #[test]
    fn a_dns_question_is_named_without_control_characters() {
        let asked = FirstBlocked {
            protocol: "dns".into(),
            port: 53,
            name: Some("evil\n.example".into()),
            ..blocked()
        };
        assert_eq!(
            asked.to_string(),
            " [network isolation blocked dns evil?.example first]"
        );
    }
}
