//! Client tokens: a creation that is asked twice happens once (NET-82).

use crate::record::Facets;
use crate::{Key, Record, Scope, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// What a token was used for. Written in the same batch as what it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    /// Of the request without its token: another request with the same token is refused.
    pub request: Sha256Digest,
    /// The id of what was made.
    pub made: String,
    pub used: Timestamp,
}

impl Record for ClientToken {
    const KIND: &'static str = "ec2.client_token";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.made.clone(), self.used)
    }
}

impl ClientToken {
    /// How long a token is remembered.
    pub const LIFETIME: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

    /// The record's key: tokens of different operations do not meet.
    pub fn key(scope: &Scope, operation: &str, token: &str) -> Key {
        Key::exact(scope, &format!("{operation}/{token}"))
    }
}
