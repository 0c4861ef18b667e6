//! What tests, benchmarks and the demo stand on.

pub mod authz;
#[cfg(feature = "lab")]
pub mod lab;
