//! Checks that several creations share, in SM-17's order.

use super::shapes;
use crate::Ctx;
use crate::platform::{Actor, PlatformError};
use isolarium_model::Arn;
use isolarium_model::sagemaker::S3Uri;
use isolarium_policy::Question;
use isolarium_wire::ApiError;

/// What IAM calls this service when a role is passed to it.
const SERVICE: &str = "sagemaker.amazonaws.com";

/// Asks whether the caller may pass the role (IAM-51). A text that is no ARN is asked about as it is, and refused later.
pub(super) fn pass_role(role_arn: &str, receiver: &Arn) -> Question {
    let question = match role_arn.parse::<Arn>() {
        Ok(arn) => crate::iam::pass_role_question(&arn, SERVICE),
        Err(_) => Question {
            resource: role_arn.into(),
            ..Question::any("iam:PassRole")
        },
    };
    question.with("iam:AssociatedResourceArn", receiver.to_string())
}

/// The role of a request: of the caller's own account.
pub(super) fn role(ctx: &Ctx<'_>, text: &str) -> Result<Arn, ApiError> {
    let arn: Arn = text
        .parse()
        .map_err(|_| ApiError::validation(format!("\"{text}\" is not the ARN of a role.")))?;
    if arn.account().as_ref() != Some(&ctx.caller.scope.account) {
        return Err(ApiError::validation("Cross-account pass role is not allowed."));
    }
    Ok(arn)
}

/// What a refusal of the platform means for the caller.
pub(super) fn refused(error: PlatformError) -> ApiError {
    match error {
        PlatformError::Engine(cause) => ApiError::internal(cause),
        readable => ApiError::validation(readable.to_string()),
    }
}

/// NI-20, SM-45: a managed image that needs S3 at run time cannot be isolated.
pub(super) fn isolation(ctx: &Ctx<'_>, owner: &Arn, image: &str, isolated: bool) -> Result<(), ApiError> {
    match ctx.platform.settings().managed_images.family_without_isolation(image) {
        Some(family) if isolated => Err(ApiError::validation(format!(
            "EnableNetworkIsolation cannot be true for \"{owner}\": the image {image} belongs to the managed {family} \
             images, which need access to Amazon S3 at run time."
        ))),
        _ => Ok(()),
    }
}

/// A request member that the engine does not carry out yet.
pub(super) fn unsupported(what: &str) -> ApiError {
    ApiError::validation(format!(
        "{what} is not supported by this engine yet; see docs/known-limits.md."
    ))
}

/// Refuses the first member that is there.
pub(super) fn refuse(members: &[(bool, &str)]) -> Result<(), ApiError> {
    members
        .iter()
        .find(|(present, _)| *present)
        .map_or(Ok(()), |(_, what)| Err(unsupported(what)))
}

/// NET-61, BT-6: a role that may not attach to a VPC is refused first; see [`vpc`] for the rest.
pub(super) fn attachment(ctx: &Ctx<'_>, actor: &Actor, config: Option<&shapes::VpcConfig>) -> Result<(), ApiError> {
    if config.is_some() {
        ctx.platform.check_network(actor).map_err(refused)?;
    }
    vpc(config)
}

/// VPC attachment comes with the network service: until then nothing that asks for it is accepted.
pub(super) fn vpc(config: Option<&shapes::VpcConfig>) -> Result<(), ApiError> {
    match config {
        None => Ok(()),
        Some(_) => Err(unsupported(
            "VpcConfig (attachment to a VPC arrives with network support, so it)",
        )),
    }
}

/// An S3 address of a request.
pub(super) fn s3_uri(member: &str, text: &str) -> Result<S3Uri, ApiError> {
    text.parse()
        .map_err(|_| ApiError::validation(format!("{member} \"{text}\" is not a valid S3 URI.")))
}

/// SM-60: an input without objects.
pub(super) fn has_objects(ctx: &Ctx<'_>, actor: &Actor, uri: &S3Uri, given: &str) -> Result<(), ApiError> {
    let empty = || {
        ApiError::validation(format!(
            "No S3 objects found under S3 URL \"{given}\" given in input data source. Please ensure that the bucket \
             exists in the selected region ({}), that objects exist under that S3 prefix, and that the role \"{}\" has \
             \"s3:ListBucket\" permissions on bucket \"{}\".",
            ctx.caller.scope.region, actor.role_arn, uri.bucket
        ))
    };
    match ctx.platform.any_object(actor, uri) {
        Ok(true) => Ok(()),
        Ok(false) | Err(PlatformError::Unusable(_) | PlatformError::Denied(_)) => Err(empty()),
        Err(error) => Err(refused(error)),
    }
}

/// SM-60: model data that the role cannot read.
pub(super) fn model_data(
    ctx: &Ctx<'_>,
    actor: &Actor,
    uri: &S3Uri,
    given: &str,
    is_prefix: bool,
) -> Result<(), ApiError> {
    let found = if is_prefix {
        ctx.platform.any_object(actor, uri)
    } else {
        ctx.platform.check_object(actor, uri).map(|()| true)
    };
    match found {
        Ok(true) => Ok(()),
        Ok(false) | Err(PlatformError::Unusable(_) | PlatformError::Denied(_)) => Err(ApiError::validation(format!(
            "Could not access model data at {given}. Please ensure that the role \"{}\" exists and that its trust \
             relationship policy allows the action \"sts:AssumeRole\" for the service principal \"{SERVICE}\". Also ensure \
             that the role has \"s3:GetObject\" permissions and that the object is located in {}.",
            actor.role_arn, ctx.caller.scope.region
        ))),
        Err(error) => Err(refused(error)),
    }
}
