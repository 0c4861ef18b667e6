//! The wiring: the only place where concrete types meet.

mod no_node;
pub mod platform;

pub use no_node::NoNode;

use crate::cli::config::Config;
use isolarium_node::NodeHost;
use std::sync::Arc;

/// A running server.
pub struct Server {}

impl Server {
    /// Starts
    pub async fn start(_config: Config, _host: Arc<dyn NodeHost>) -> anyhow::Result<Self> {
        anyhow::bail!("x")
    }
    /// url
    pub fn url(&self) -> String {
        String::new()
    }
    /// stop
    pub async fn stop(self) {}
}
