//! From a decoded document to an answer: one table of handlers, and the gate in front of every one of them.

use crate::audit::authorize;
use crate::context::Ctx;
use crate::ec2::settled::Settled;
use crate::operation::Operation;
use isolarium_policy::{Authority, Denial, DocumentKind, Granted, NamedPolicy, Question, ResourceSide};
use isolarium_wire::{ApiError, Document};
use std::cell::RefCell;
use std::collections::HashMap;

/// One served operation. Made by [`handler`] alone, so nothing runs unasked.
pub struct Handler {
    pub service: &'static str,
    pub operation: &'static str,
    run: fn(Document, &Ctx<'_>) -> Result<Document, ApiError>,
    /// What [`Handler::run`] asks, for the check against AWS's authorization reference.
    #[cfg(test)]
    pub(crate) questions: fn(Document, &Ctx<'_>) -> Result<Vec<Question>, ApiError>,
}

/// The handler of an operation: decode into its struct, ask every question, execute, encode.
pub fn handler<Op>() -> Handler
where
    Op: Operation + Clone + TryFrom<Document>,
    ApiError: From<<Op as TryFrom<Document>>::Error>,
{
    Handler {
        service: Op::SERVICE,
        operation: Op::NAME,
        run: run::<Op>,
        #[cfg(test)]
        questions: |input, ctx| tagged(&Op::try_from(input)?.asked(ctx)?.questions, ctx),
    }
}

/// Questions with what is known of their resources.
fn tagged(questions: &[Question], ctx: &Ctx<'_>) -> Result<Vec<Question>, ApiError> {
    let with_tags = |question: &Question| {
        crate::resource_tags::added(ctx.store, Some(ctx.logs), &ctx.caller.principal, question.clone())
    };
    questions.iter().map(with_tags).collect()
}

/// How often IAM is asked anew when what a request names leads elsewhere meanwhile.
const ASKED_ANEW: u32 = 8;

fn run<Op>(input: Document, ctx: &Ctx<'_>) -> Result<Document, ApiError>
where
    Op: Operation + Clone + TryFrom<Document>,
    ApiError: From<<Op as TryFrom<Document>>::Error>,
{
    crate::sts::may_call(ctx.caller, Op::SERVICE, Op::NAME)?;
    let request = Op::try_from(input)?;
    let mut asked = request.asked(ctx)?;
    if asked.led.is_empty() {
        return Op::execute(grant(Op::SERVICE, request, &asked.questions, ctx)?, ctx).map(Into::into);
    }
    let mut tries = ASKED_ANEW;
    loop {
        let granted = grant(Op::SERVICE, request.clone(), &asked.questions, ctx)?;
        let settled = Settled::new(ctx.store, &ctx.caller.scope, &asked.led);
        let done = Op::execute(
            granted,
            &Ctx {
                store: &settled,
                ..*ctx
            },
        );
        if !settled.moved() || tries == 0 {
            return done.map(Into::into);
        }
        tries -= 1;
        asked = request.asked(ctx)?;
    }
}

/// Asks IAM every question of a request on behalf of the caller, with the policies and resource tags of this moment
/// (IAM-16, IAM-26, IAM-58). No question means that every authenticated caller may, such as GetCallerIdentity.
///
/// # Errors
/// The denial in the words of `service`; an engine fault when policies cannot be read, which allows nothing.
pub fn grant<Op>(service: &str, request: Op, questions: &[Question], ctx: &Ctx<'_>) -> Result<Granted<Op>, ApiError> {
    let authority = crate::iam::authority(ctx)?;
    let questions = tagged(questions, ctx)?;
    let failed = RefCell::new(None);
    let side = |question: &Question| {
        crate::iam::resource_side(ctx.store, &ctx.caller.principal, question).unwrap_or_else(|error| {
            failed.replace(Some(ApiError::internal(error)));
            // A policy that cannot be read denies, whatever else allows.
            let unreadable = NamedPolicy::parse("unread policy", "", DocumentKind::Resource);
            ResourceSide {
                policies: vec![unreadable],
                ..ResourceSide::default()
            }
        })
    };
    authorize(ctx.caller, request, &authority, &questions, &side).map_err(|denial| {
        failed
            .take()
            .unwrap_or_else(|| told(service, &denial, ctx, &authority, &questions))
    })
}

/// The denial as a service tells it; EC2's carries the sealed story of the decision (IAM-62).
fn told(service: &str, denial: &Denial, ctx: &Ctx<'_>, authority: &Authority, questions: &[Question]) -> ApiError {
    let mut error = denied(service, denial);
    if service == "ec2"
        && let Some(blob) = crate::sts::message::encoded(ctx.master, ctx.ids, authority, questions, denial)
    {
        error.message.push_str(". Encoded authorization failure message: ");
        error.message.push_str(&blob);
    }
    error
}

/// How a service says no (IAM-47, IAM-62).
pub fn denied(service: &str, denial: &Denial) -> ApiError {
    match service {
        "ec2" => {
            let text = format!("You are not authorized to perform this operation. {denial}");
            ApiError::client("UnauthorizedOperation", text).with_status(403)
        }
        "iam" | "sts" | "cloudformation" | "s3" => {
            ApiError::client("AccessDenied", denial.to_string()).with_status(403)
        }
        "sagemaker-runtime" | "sagemaker-featurestore-runtime" => {
            ApiError::client("AccessDeniedException", denial.to_string()).with_status(403)
        }
        _ => ApiError::client("AccessDeniedException", denial.to_string()),
    }
}

/// All served operations, by (service, operation).
pub struct Dispatch {
    handlers: HashMap<(&'static str, &'static str), Handler>,
}

impl Default for Dispatch {
    fn default() -> Self {
        let all = [
            crate::sagemaker::handlers(),
            crate::featurestore::handlers(),
            crate::iam::handlers(),
            crate::iam::simulate::handlers(),
            crate::sts::handlers(),
            crate::cloudtrail::handlers(),
            crate::cloudwatch::handlers(),
            crate::ecr::handlers(),
            crate::logs::handlers(),
            crate::kms::handlers(),
            crate::ec2::handlers(),
        ];
        let handlers = all
            .into_iter()
            .flatten()
            .map(|h| ((h.service, h.operation), h))
            .collect();
        Self { handlers }
    }
}

impl Dispatch {
    #[cfg(test)]
    pub(crate) fn handlers(&self) -> impl Iterator<Item = &Handler> {
        self.handlers.values()
    }

    /// Runs one operation; `None` when it has no handler.
    pub fn call(
        &self,
        service: &str,
        operation: &str,
        input: Document,
        ctx: &Ctx<'_>,
    ) -> Option<Result<Document, ApiError>> {
        let handler = self.handlers.get(&(service, operation))?;
        Some((handler.run)(input, ctx))
    }
}
