//! The shape of every operation: questions first, then execution of a granted request.

use crate::context::Ctx;
use crate::ec2::settled::Led;
use isolarium_policy::{Granted, Question};
use isolarium_wire::{ApiError, Document};

/// An operation of a service: the generated input struct implements it. `dispatch` decodes, asks, runs, encodes.
pub trait Operation: Sized {
    /// The service's name in `models/`, such as `sagemaker`.
    const SERVICE: &'static str;
    /// AWS's operation name, such as `CreateModel`.
    const NAME: &'static str;
    /// The generated output struct.
    type Output: Into<Document>;

    /// Every action and resource that must be allowed, `iam:PassRole` included (IAM-51, IAM-58).
    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question>;

    /// What IAM is asked in the end. Requests that name resources by something else than their ids look them up first.
    ///
    /// # Errors
    /// When that cannot be read; nothing is allowed then.
    fn asked(&self, ctx: &Ctx<'_>) -> Result<Asked, ApiError> {
        Ok(Asked {
            questions: self.questions(ctx),
            led: Vec::new(),
        })
    }

    /// Carries the request out.
    ///
    /// # Errors
    /// The AWS error the caller reads.
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError>;
}

/// The questions of a request, and what they rest on.
pub struct Asked {
    pub questions: Vec<Question>,
    /// What was looked up for them: the request is carried out only while it holds.
    pub(crate) led: Vec<Led>,
}
