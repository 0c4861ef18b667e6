//! Evaluation order and decision (IAM-20..26).

use crate::question::{Authority, Denial, NamedDocument, Question};
use isolarium_model::{AccountId, Principal};

/// What the resource itself says: its owner and, where it has one, its own policy.
#[derive(Clone, Debug, Default)]
pub struct ResourceSide {
    /// The account that owns the resource; `None` means the caller's own.
    pub owner: Option<AccountId>,
    pub policy: Option<NamedDocument>,
}

/// Answers one question.
///
/// # Errors
/// The denial, with IAM-60's text.
pub fn decide(authority: &Authority, question: &Question, _resource: &ResourceSide) -> Result<(), Denial> {
    match authority.principal {
        Principal::Root { .. } => Ok(()),
        _ => Err(Denial {
            action: question.action.clone(),
            resource: question.resource.clone(),
            message: "not decided".into(),
        }),
    }
}
