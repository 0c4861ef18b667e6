//! A trail for tests.

use isolarium_model::Timestamp;
use isolarium_model::time::Clock;
use isolarium_store::{AuditSettings, AuditTrail};
use std::path::Path;
use std::sync::Arc;

struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

/// A trail below `folder`.
pub(crate) fn trail(folder: &Path) -> AuditTrail {
    AuditTrail::open(&folder.join("audit"), AuditSettings::default(), Arc::new(Standing)).unwrap()
}
