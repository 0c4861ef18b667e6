//! The IAM policy language: parse documents, evaluate questions, explain decisions.
//!
//! [`granted::authorize`] is the only source of a [`granted::Granted`] request: an operation cannot run unasked
//! (style rule 3).

pub mod evaluate;
pub mod granted;
pub mod question;

pub use granted::{Granted, authorize};
pub use question::{Authority, Denial, Question};
