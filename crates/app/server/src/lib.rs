//! The one binary: command line, wiring, and everything that listens.

pub mod cli;
pub mod clock;
pub mod credentials;
pub mod http;
pub mod invoke;
pub mod layout;
pub mod names;
pub mod operator;
pub mod registry;
pub mod resolver;
pub mod serve;
pub mod supervise;
pub mod tls;
