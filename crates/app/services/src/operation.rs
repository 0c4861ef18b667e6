//! The shape of every operation: questions first, then execution of a granted request.

use crate::context::Ctx;
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

    /// Carries the request out.
    ///
    /// # Errors
    /// The AWS error the caller reads.
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError>;
}
