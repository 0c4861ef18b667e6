//! AWS requests and answers: bytes to checked documents and back.
//!
//! `decode(head, body)` turns an HTTP request into a service, an operation and a [`document::Document`] that satisfies
//! the service's model; `encode` turns an outcome into an HTTP response in the protocol the caller used. Operations in
//! `models/served-operations.toml` also have generated Rust structs in [`shapes`].

pub mod catalog;
mod check;
pub mod document;
pub mod error;
pub mod eventstream;
pub mod protocol;
pub mod shapes;
pub mod sigv4;
pub mod timestamp;

pub use document::Document;
pub use error::ApiError;
pub use protocol::{Call, Dialect, Protocol, Request, decode, encode, refuse};
