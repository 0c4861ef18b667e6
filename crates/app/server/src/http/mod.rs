//! The front door: one port, every service.

pub mod authenticate;
pub mod body;
pub mod door;
pub mod listen;
pub mod receive;
pub mod route;

pub use body::{Body, BodyError};
