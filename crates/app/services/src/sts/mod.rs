//! Handlers of the `sts` service.

use crate::dispatch::Handler;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    Vec::new()
}
