//! The gate: a request that IAM allowed.

use crate::evaluate::ResourceSide;
use crate::explain::{Denial, Explanation};
use crate::question::{Authority, Question};

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
/// `resource_side` gives the owner of a question's resource and the policy that the resource itself has (bucket policy,
/// trust policy).
///
/// # Errors
/// The denial of the first question that is not allowed.
pub fn authorize<Op>(
    request: Op,
    authority: &Authority,
    questions: &[Question],
    resource_side: &dyn Fn(&Question) -> ResourceSide,
) -> Result<Granted<Op>, Denial> {
    explained(request, authority, questions, resource_side).map(|(granted, _)| granted)
}

/// As [`authorize`], with the statements that allowed each question, in the order of the questions.
///
/// # Errors
/// The denial of the first question that is not allowed.
pub fn explained<Op>(
    request: Op,
    authority: &Authority,
    questions: &[Question],
    resource_side: &dyn Fn(&Question) -> ResourceSide,
) -> Result<(Granted<Op>, Vec<Explanation>), Denial> {
    let decide = |question: &Question| crate::evaluate::decide(authority, question, &resource_side(question));
    let reasons = questions.iter().map(decide).collect::<Result<_, _>>()?;
    Ok((Granted(request), reasons))
}
