//! Handlers of the `ecr` service.

use crate::dispatch::Handler;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    Vec::new()
}
