//! The front door: one port, every service.

pub mod authenticate;
pub mod body;
pub mod door;
pub mod listen;
pub mod local;
pub mod receive;
pub mod registry;
pub mod route;
pub mod s3;

pub use body::{Body, BodyError};
