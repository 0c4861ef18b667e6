//! The one binary: command line, wiring, and everything that listens.

pub mod cli;
pub mod clock;
pub mod credentials;
pub mod flows;
pub mod http;
pub mod invoke;
pub mod lanes;
pub mod layout;
pub mod metrics;
pub mod names;
mod notebook;
pub mod operator;
pub mod proxy;
pub mod registry;
pub mod resolver;
pub mod serve;
pub mod supervise;
pub mod tls;
pub mod transfer;
pub mod vpc;

/// A trail for tests.
#[cfg(test)]
pub(crate) fn audit_of(folder: &std::path::Path) -> isolarium_store::AuditTrail {
    let clock = std::sync::Arc::new(clock::SystemClock);
    isolarium_store::AuditTrail::open(&folder.join("audit"), Default::default(), clock).unwrap()
}
