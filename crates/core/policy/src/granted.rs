//! The gate: a request that IAM allowed.

use crate::question::{Authority, Denial, Question};

/// A request of which every question was answered with yes. The field is private: [`authorize`] is the only way to
/// get one, so forgetting to ask does not compile (style rule 3).
#[derive(Debug)]
pub struct Granted<Op>(Op);

impl<Op> Granted<Op> {
    /// The allowed request.
    pub fn into_inner(self) -> Op {
        self.0
    }

    /// A look at the allowed request.
    pub fn get(&self) -> &Op {
        &self.0
    }
}

/// Decides every question of a request; the first that is not allowed denies it.
///
/// `resource_policies` gives the resource-based documents that speak for a question's resource (bucket policy, trust
/// policy), with the account that owns the resource.
pub fn authorize<Op>(
    request: Op,
    authority: &Authority,
    questions: &[Question],
    resource_policies: &dyn Fn(&Question) -> crate::evaluate::ResourceSide,
) -> Result<Granted<Op>, Denial> {
    for question in questions {
        crate::evaluate::decide(authority, question, &resource_policies(question))?;
    }
    Ok(Granted(request))
}
