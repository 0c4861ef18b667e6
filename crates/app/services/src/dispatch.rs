//! From a decoded document to an answer: one table of handlers, and the gate in front of every one of them.

use crate::context::Ctx;
use crate::operation::Operation;
use isolarium_policy::{ResourceSide, authorize};
use isolarium_wire::{ApiError, Document};
use std::collections::HashMap;

/// One served operation. Made by [`handler`] alone, so nothing runs unasked.
pub struct Handler {
    pub service: &'static str,
    pub operation: &'static str,
    run: fn(Document, &Ctx<'_>) -> Result<Document, ApiError>,
}

/// The handler of an operation: decode into its struct, ask every question, execute, encode.
pub fn handler<Op>() -> Handler
where
    Op: Operation + TryFrom<Document>,
    ApiError: From<<Op as TryFrom<Document>>::Error>,
{
    Handler { service: Op::SERVICE, operation: Op::NAME, run: run::<Op> }
}

fn run<Op>(input: Document, ctx: &Ctx<'_>) -> Result<Document, ApiError>
where
    Op: Operation + TryFrom<Document>,
    ApiError: From<<Op as TryFrom<Document>>::Error>,
{
    let request = Op::try_from(input)?;
    let questions = request.questions(ctx);
    let authority = crate::iam::authority(ctx)?;
    let granted = authorize(request, &authority, &questions, &|_| ResourceSide::default())
        .map_err(|denial| ApiError::client("AccessDeniedException", denial.to_string()))?;
    Op::execute(granted, ctx).map(Into::into)
}

/// All served operations, by (service, operation).
pub struct Dispatch {
    handlers: HashMap<(&'static str, &'static str), Handler>,
}

impl Default for Dispatch {
    fn default() -> Self {
        let all = [
            crate::sagemaker::handlers(),
            crate::iam::handlers(),
            crate::sts::handlers(),
            crate::ecr::handlers(),
            crate::logs::handlers(),
        ];
        let handlers = all.into_iter().flatten().map(|h| ((h.service, h.operation), h)).collect();
        Self { handlers }
    }
}

impl Dispatch {
    /// Runs one operation; `None` when it has no handler.
    pub fn call(
        &self,
        service: &str,
        operation: &str,
        input: Document,
        ctx: &Ctx<'_>,
    ) -> Option<Result<Document, ApiError>> {
        let handler = self.handlers.iter().find(|((s, o), _)| *s == service && *o == operation)?.1;
        Some((handler.run)(input, ctx))
    }
}
