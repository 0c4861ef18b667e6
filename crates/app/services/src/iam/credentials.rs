//! Access keys and temporary credentials.

use std::fmt;

/// The key that seals session tokens (IAM-45): 32 random bytes that the server keeps in its data directory. Whoever
/// holds it can make credentials of every role, so it never prints.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps 32 bytes that cannot be guessed.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
