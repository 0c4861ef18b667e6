//! Checks that several creations share, in SM-17's order.

use super::shapes;
use crate::Ctx;
use crate::platform::{Actor, PlatformError};
use isolarium_model::Arn;
use isolarium_model::ec2::group::{Direction, Peer as RulePeer};
use isolarium_model::ec2::id::{GroupKind, Id, Kind, SubnetKind};
use isolarium_model::ec2::traffic::Match;
use isolarium_model::ec2::vpc::Tenancy;
use isolarium_model::ec2::{self, Resource, SecurityGroup, Subnet};
use isolarium_model::sagemaker::EncryptedVolume;
use isolarium_model::sagemaker::model_package::PackageUse;
use isolarium_model::sagemaker::network::ENCRYPTED_PORT;
use isolarium_model::sagemaker::volume::takes_volume_key;
use isolarium_model::sagemaker::{JobNetwork, S3Uri, VpcAttachment};
use isolarium_policy::Question;
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

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

/// NI-15, NI-16, SM-45, D-13: a product of the marketplace must run isolated.
pub(super) fn product(owner: &Arn, product: &Arn, isolated: bool) -> Result<(), ApiError> {
    if isolated {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "EnableNetworkIsolation must be true for \"{owner}\": \"{product}\" is an AWS Marketplace product, and products of the \
         marketplace run with network isolation only."
    )))
}

/// An instance type that the package of a model does not support; an empty list has them all.
pub(super) fn packaged_type<'a>(
    package: Option<&'a PackageUse>,
    types: impl Fn(&'a PackageUse) -> &'a BTreeSet<String>,
    instance_type: &str,
) -> Result<(), ApiError> {
    let Some(package) = package else { return Ok(()) };
    let types = types(package);
    if types.is_empty() || types.contains(instance_type) {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "The instance type {instance_type} is not supported by the model package \"{}\".",
        package.arn
    )))
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

/// Where in whose VPC a request wants to be. The role must be able to attach (NET-61, BT-6), and the parts must be there
/// and belong together (NET-62, NET-63). How many addresses are free is not asked (NET-65).
pub(super) fn attachment(
    ctx: &Ctx<'_>,
    actor: &Actor,
    config: Option<&shapes::VpcConfig>,
) -> Result<Option<VpcAttachment>, ApiError> {
    let Some(config) = config else { return Ok(None) };
    ctx.platform.check_network(actor).map_err(refused)?;
    let mut subnets: Vec<Subnet> = Vec::new();
    for given in &config.subnets {
        let missing = || ApiError::validation(format!("The subnet ID '{given}' does not exist"));
        subnets.push(part::<Subnet, _>(ctx, given)?.ok_or_else(missing)?);
    }
    let mut groups: Vec<SecurityGroup> = Vec::new();
    for given in &config.security_group_ids {
        let missing = || ApiError::validation(format!("The security group '{given}' does not exist"));
        groups.push(part::<SecurityGroup, _>(ctx, given)?.ok_or_else(missing)?);
    }
    let (Some(first), false) = (subnets.first(), groups.is_empty()) else {
        return Err(ApiError::validation(
            "VpcConfig needs at least one subnet and one security group.",
        ));
    };
    let vpc = first.vpc;
    if let Some(other) = subnets.iter().find(|subnet| subnet.vpc != vpc) {
        return Err(ApiError::validation(format!(
            "All subnets of VpcConfig must belong to one VPC: subnet {} belongs to {vpc}, subnet {} to {}.",
            first.id, other.id, other.vpc
        )));
    }
    if let Some(group) = groups.iter().find(|group| group.vpc != vpc) {
        return Err(ApiError::validation(format!(
            "Security group {} and subnet {} belong to different networks: the group belongs to {}, the subnet to {vpc}.",
            group.id, first.id, group.vpc
        )));
    }
    Ok(Some(VpcAttachment {
        vpc,
        subnets: subnets.iter().map(|subnet| subnet.id).collect(),
        groups: groups.iter().map(|group| group.id).collect(),
    }))
}

/// A part of a VPC of the caller's account and region, by the id in a request.
fn part<R, K: Kind>(ctx: &Ctx<'_>, given: &str) -> Result<Option<R>, ApiError>
where
    R: Resource + PartOf<Kind = K>,
{
    // A text that is no id names nothing.
    let Ok(id) = given.parse::<Id<K>>() else {
        return Ok(None);
    };
    let key = ec2::key(&ctx.caller.scope, id);
    let found = ctx.store.get::<R>(&key).map_err(super::stored)?;
    Ok(found.map(|stored| stored.record))
}

/// Which ids name a record.
trait PartOf {
    type Kind: Kind;
}

impl PartOf for Subnet {
    type Kind = SubnetKind;
}

impl PartOf for SecurityGroup {
    type Kind = GroupKind;
}

/// NET-7, NET-64: training runs on shared hosts.
pub(super) fn shared_tenancy(ctx: &Ctx<'_>, attachment: Option<&VpcAttachment>) -> Result<(), ApiError> {
    let Some(attachment) = attachment else { return Ok(()) };
    let key = ec2::key(&ctx.caller.scope, attachment.vpc);
    match ctx.store.get::<ec2::Vpc>(&key).map_err(super::stored)? {
        Some(vpc) if vpc.record.tenancy == Tenancy::Dedicated => Err(ApiError::validation(format!(
            "The VPC {} has dedicated tenancy. Training jobs need a VPC with default tenancy.",
            attachment.vpc
        ))),
        Some(_) | None => Ok(()),
    }
}

/// VPC-26: what to say about several instances in a VPC whose security groups keep them apart. That is the owner's choice, so
/// nothing is refused; whoever meant it otherwise reads why the instances never meet.
pub(super) fn no_way_between(
    ctx: &Ctx<'_>,
    attachment: Option<&VpcAttachment>,
    encrypted: bool,
) -> Result<Option<String>, ApiError> {
    let Some(attachment) = attachment else { return Ok(None) };
    let mut blocks = Vec::new();
    for subnet in &attachment.subnets {
        let key = ec2::key(&ctx.caller.scope, subnet);
        let found = ctx.store.get::<Subnet>(&key).map_err(super::stored)?;
        blocks.extend(found.map(|stored| stored.record.block));
    }
    let (mut inward, mut outward) = (false, false);
    for group in &attachment.groups {
        let key = ec2::key(&ctx.caller.scope, group);
        let found = ctx.store.get::<SecurityGroup>(&key).map_err(super::stored)?;
        for rule in found.iter().flat_map(|stored| stored.record.rules.values()) {
            // Groups see the encrypted packets alone.
            let carries = match rule.traffic {
                Match::All => true,
                Match::Udp { ports } => !encrypted || ports.range().contains(&ENCRYPTED_PORT),
                Match::Tcp { .. } | Match::Icmp { .. } => !encrypted,
            };
            if !carries {
                continue;
            }
            let among = match rule.peer {
                RulePeer::Group(peer) => attachment.groups.contains(&peer),
                RulePeer::Block(block) => blocks.iter().all(|subnet| block.contains(subnet)),
                RulePeer::PrefixList(_) => false,
            };
            match rule.direction {
                Direction::Ingress => inward |= among,
                Direction::Egress => outward |= among,
            }
        }
    }
    let missing = match (inward, outward) {
        (true, true) => return Ok(None),
        (false, true) => "inbound",
        (true, false) => "outbound",
        (false, false) => "inbound and outbound",
    };
    let groups: Vec<String> = attachment.groups.iter().map(ToString::to_string).collect();
    let what = match encrypted {
        true => format!(" to UDP port {ENCRYPTED_PORT}"),
        false => String::new(),
    };
    Ok(Some(format!(
        "Warning: the instances cannot reach each other, because no {missing} rule of {} admits members of the same group{what}",
        groups.join(", ")
    )))
}

/// `VpcConfig` as Describe gives it back.
pub(super) fn shown(network: &JobNetwork) -> Option<shapes::VpcConfig> {
    let texts = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>();
    network.vpc().map(|vpc| shapes::VpcConfig {
        security_group_ids: texts(&mut vpc.groups.iter().map(ToString::to_string)),
        subnets: texts(&mut vpc.subnets.iter().map(ToString::to_string)),
    })
}

/// An S3 address of a request.
pub(super) fn s3_uri(member: &str, text: &str) -> Result<S3Uri, ApiError> {
    text.parse()
        .map_err(|_| ApiError::validation(format!("{member} \"{text}\" is not a valid S3 URI.")))
}

/// SM-60: an input without objects. Data of a workload in a VPC is read through that VPC, and bucket policies may ask for
/// it (VPC-15): what they deny from here, they may allow from there.
pub(super) fn has_objects(
    ctx: &Ctx<'_>,
    actor: &Actor,
    uri: &S3Uri,
    given: &str,
    network: &JobNetwork,
) -> Result<(), ApiError> {
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
        Err(PlatformError::Denied(_)) if network.vpc().is_some() => Ok(()),
        Ok(false) | Err(PlatformError::Unusable(_) | PlatformError::Denied(_)) => Err(empty()),
        Err(error) => Err(refused(error)),
    }
}

/// What must be at the address of model data when a model is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataRule {
    /// This object.
    Object,
    /// An object whose key begins so.
    AnyBelow,
    /// The same or none yet: models may be added later (CC-58).
    Below,
}

/// The key that a request names for what is to be stored: an empty name is none.
pub(super) fn given_key(key: Option<&String>) -> Option<String> {
    key.filter(|key| !key.is_empty()).cloned()
}

/// CC-36: a key of the account's own that is not there, or may not be used, would be found when everything is done.
pub(super) fn output_key(ctx: &Ctx<'_>, key: Option<&String>) -> Result<(), ApiError> {
    let Some(key) = key else { return Ok(()) };
    ctx.platform.check_key(&ctx.caller.scope, key).map_err(refused)
}

/// The encrypted storage volume that a request asks for: its `VolumeKmsKeyId` and `VolumeSizeInGB`. Local storage of some
/// instance types is encrypted by hardware, under a key that nobody names.
pub(super) fn encrypted_volume(
    key: Option<&String>,
    size_gb: Option<i64>,
    instance_types: &[&str],
) -> Result<Option<EncryptedVolume>, ApiError> {
    let Some(volume) = EncryptedVolume::asked(key, size_gb) else {
        return Ok(None);
    };
    match instance_types.iter().find(|name| !takes_volume_key(name)) {
        Some(local) => Err(ApiError::validation(format!(
            "VolumeKmsKeyId cannot be used with the instance type {local}, whose storage is local and encrypted by its hardware."
        ))),
        None => Ok(Some(volume)),
    }
}

/// As [`output_key`], of a storage volume.
pub(super) fn volume_key(ctx: &Ctx<'_>, volume: Option<&EncryptedVolume>) -> Result<(), ApiError> {
    output_key(ctx, volume.map(|volume| &volume.kms_key))
}

/// SM-60: model data that the role cannot read; as [`has_objects`] where it is read through a VPC.
pub(super) fn model_data(
    ctx: &Ctx<'_>,
    actor: &Actor,
    uri: &S3Uri,
    given: &str,
    rule: DataRule,
    network: &JobNetwork,
) -> Result<(), ApiError> {
    let found = match rule {
        DataRule::Object => ctx.platform.check_object(actor, uri).map(|()| true),
        DataRule::AnyBelow => ctx.platform.any_object(actor, uri),
        DataRule::Below => ctx.platform.any_object(actor, uri).map(|_| true),
    };
    match found {
        Ok(true) => Ok(()),
        Err(PlatformError::Denied(_)) if network.vpc().is_some() => Ok(()),
        Ok(false) | Err(PlatformError::Unusable(_) | PlatformError::Denied(_)) => Err(ApiError::validation(format!(
            "Could not access model data at {given}. Please ensure that the role \"{}\" exists and that its trust \
             relationship policy allows the action \"sts:AssumeRole\" for the service principal \"{SERVICE}\". Also ensure \
             that the role has \"s3:GetObject\" permissions and that the object is located in {}.",
            actor.role_arn, ctx.caller.scope.region
        ))),
        Err(error) => Err(refused(error)),
    }
}
