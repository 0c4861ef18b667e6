//! The privileged process. `node` holds the host's privileges and accepts only typed messages from its own service
//! user: launch specs, network intents, archive work. What the other half needs from inside a namespace (a connection
//! to a container, a listener) it opens there and passes back as a file descriptor.
//!
//! - [`message`]: the requests and answers; strictly parsed, bounded.
//! - [`frame`]: one message and at most one descriptor per frame on a Unix stream socket.
//! - [`client`]: implements the executor's traits by asking the socket.
//! - [`server`]: answers the socket with a [`host::NodeHost`].
//! - [`host`]: what the machine can do; `local` is the real one.
//! - `key`: a volume's key on its way, outside of all messages.
//! - [`check`]: refuses requests that no correct client sends, before anything privileged looks at them.

pub mod check;
pub mod client;
pub mod confine;
pub mod frame;
pub mod host;
mod key;
pub mod local;
pub mod message;
pub mod server;
pub mod turns;

pub use client::NodeClient;
pub use host::{Network, NodeHost};
pub use local::LocalHost;
pub use server::NodeServer;
