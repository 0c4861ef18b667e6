//! What the operator may ask of a running server, over `DIR/run/operator.sock`: a Unix socket that only its owner and
//! root can open, so the file's mode is the permission. One JSON line asks, one answers.

pub mod answer;
pub mod client;
pub mod denial;
pub mod message;
pub mod profiles;
pub mod report;
pub mod server;
