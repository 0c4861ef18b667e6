//! The IAM policy language: parse documents, evaluate questions, explain decisions.
//!
//! [`granted::authorize`] is the only source of a [`granted::Granted`] request: an operation cannot run unasked
//! (style rule 3).

pub mod cache;
mod condition;
pub mod document;
pub mod evaluate;
pub mod explain;
pub mod granted;
mod pattern;
mod principal;
pub mod question;

pub use cache::{Address, CompiledCache};
pub use document::{Compiled, Document, DocumentKind, MalformedPolicy, NamedPolicy};
pub use evaluate::{ResourceSide, decide, evaluate};
pub use explain::{Cited, Denial, Explanation, Outcome, PolicyType, Position, Reason};
pub use granted::{Granted, authorize, explained};
pub use question::{Authority, EndpointPolicy, Question};
