//! CreateNotebookInstance, Describe, List, Start, Stop, Update, Delete (SM-46).

use super::check::{attachment, pass_role, refuse, refused, role, unsupported};
use super::listing::{Listing, page};
use super::notebook_lifecycle;
use super::training_spec::instance_type;
use super::{conditions, create, creating, find, shapes, tag, update};
use crate::platform::Actor;
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::{
    JobNetwork, NotebookEvent, NotebookInstance as Instance, NotebookRun, NotebookSpec, NotebookStatus, VpcAttachment,
};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::Stored;
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;

/// `VolumeSizeInGB` where the request says nothing.
const VOLUME_GB: i64 = 5;
/// `PlatformIdentifier` where the request says nothing.
const PLATFORM: &str = "notebook-al2-v3";

/// SM-60: Terraform and the waiters look for this text.
pub(super) fn missing() -> ApiError {
    ApiError::validation("RecordNotFound")
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Cannot create a duplicate Notebook Instance ({arn})"))
}

/// SM-60: an operation that the instance's status does not allow.
fn rejected(instance: &Instance, allowed: &str, wanted: &str) -> ApiError {
    ApiError::validation(format!(
        "Status ({}) not in ([{allowed}]). Unable to transition to ({wanted}) for Notebook Instance ({})",
        instance.status.as_str(),
        instance.arn
    ))
}

impl Operation for shapes::CreateNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateNotebookInstance";
    type Output = shapes::CreateNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Instance::arn(&ctx.caller.scope, &self.notebook_instance_name);
        let question = Question::on("sagemaker:CreateNotebookInstance", &arn);
        let question = conditions::notebook(question, &ctx.caller.scope, self);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        questions.push(pass_role(&self.role_arn, &arn));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Instance::arn(scope, &request.notebook_instance_name);
        let key = Instance::key(scope, &request.notebook_instance_name);
        let tags = tag::of_request(request.tags.clone())?;
        let settings = ctx.platform.settings();
        let Some(image) = &settings.notebooks.image else {
            return Err(ApiError::validation(
                "This engine runs no notebook instances: its operator has to set notebooks.image, the Jupyter image that \
                 they run (docs/operations.md).",
            ));
        };
        not_here(
            request.ip_address_type,
            request.kms_key_id.is_some(),
            request.accelerator_types.as_deref(),
            request.default_code_repository.is_some(),
            request.additional_code_repositories.as_deref(),
        )?;
        let instance_type = instance_type(Some(&request.instance_type), &settings.instances)?;
        let role_arn = role(ctx, &request.role_arn)?;
        let lifecycle = request.lifecycle_config_name.as_deref();
        if find::<Instance>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        let lifecycle_config = lifecycle.map(|name| notebook_lifecycle::known(ctx, name)).transpose()?;
        let actor = Actor {
            scope: scope.clone(),
            role_arn: role_arn.clone(),
            owner_arn: arn.clone(),
        };
        ctx.platform.assume(&actor).map_err(refused)?;
        let network = JobNetwork::new(None, network(ctx, &actor, &request)?);
        ctx.platform.check_image(&actor, image).map_err(refused)?;
        let created = ctx.clock.now();
        let service = request.instance_metadata_service_configuration;
        let instance = Instance {
            name: request.notebook_instance_name,
            arn: arn.clone(),
            created,
            modified: created,
            status: NotebookStatus::Pending,
            failure_reason: None,
            spec: NotebookSpec {
                instance_type,
                role_arn,
                network,
                root_access: request.root_access != Some(shapes::RootAccess::Disabled),
                volume_gb: volume(request.volume_size_in_gb.unwrap_or(VOLUME_GB))?,
                platform: request.platform_identifier.unwrap_or_else(|| PLATFORM.into()),
                lifecycle_config,
                metadata_version: service.map(|service| service.minimum_instance_metadata_service_version),
            },
            run: NotebookRun::new(created),
            tags,
        };
        create(ctx, &key, &instance, || taken(&arn))?;
        Ok(shapes::CreateNotebookInstanceOutput {
            notebook_instance_arn: Some(arn.to_string()),
        })
    }
}

/// What notebook instances of this engine do not have.
fn not_here(
    addresses: Option<shapes::IPAddressType>,
    key: bool,
    accelerators: Option<&[shapes::NotebookInstanceAcceleratorType]>,
    repository: bool,
    repositories: Option<&[String]>,
) -> Result<(), ApiError> {
    refuse(&[
        (
            addresses == Some(shapes::IPAddressType::Dualstack),
            "IpAddressType dualstack",
        ),
        (key, "KmsKeyId of a notebook instance"),
        (accelerators.is_some_and(|all| !all.is_empty()), "AcceleratorTypes"),
        (repository, "DefaultCodeRepository"),
        (
            repositories.is_some_and(|all| !all.is_empty()),
            "AdditionalCodeRepositories",
        ),
    ])
}

fn volume(given: i64) -> Result<u32, ApiError> {
    u32::try_from(given).map_err(|_| ApiError::validation("VolumeSizeInGB must be from 5 to 16384."))
}

/// Where the instance is to be: the platform network, or a VPC's subnet alone (SM-46).
fn network(
    ctx: &Ctx<'_>,
    actor: &Actor,
    request: &shapes::CreateNotebookInstanceInput,
) -> Result<Option<VpcAttachment>, ApiError> {
    let groups = request.security_group_ids.clone().unwrap_or_default();
    let direct = request.direct_internet_access != Some(shapes::DirectInternetAccess::Disabled);
    match (&request.subnet_id, direct) {
        (None, true) if groups.is_empty() => Ok(None),
        (None, true) => Err(ApiError::validation(
            "SecurityGroupIds cannot be given without SubnetId.",
        )),
        (None, false) => Err(ApiError::validation(
            "DirectInternetAccess can be Disabled only together with SubnetId and SecurityGroupIds.",
        )),
        (Some(_), _) if groups.is_empty() => Err(ApiError::validation(
            "SubnetId needs at least one security group in SecurityGroupIds.",
        )),
        (Some(_), true) => Err(unsupported("DirectInternetAccess Enabled together with SubnetId")),
        (Some(subnet), false) => {
            let config = shapes::VpcConfig {
                subnets: vec![subnet.clone()],
                security_group_ids: groups,
            };
            attachment(ctx, actor, Some(&config))
        }
    }
}

/// Asks about one instance.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Instance::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeNotebookInstance";
    type Output = shapes::DescribeNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(
            ctx,
            "sagemaker:DescribeNotebookInstance",
            &self.notebook_instance_name,
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let scope = &ctx.caller.scope;
        let name = &request.get().notebook_instance_name;
        let found = find::<Instance>(ctx, &Instance::key(scope, name))?;
        let instance = found.ok_or_else(missing)?.record;
        let url = url(ctx, &instance);
        let Instance { spec, run, .. } = instance;
        let vpc = spec.network.vpc();
        let place = run.placement.as_ref().and_then(|placement| placement.vpc());
        let enabled = |on: bool| {
            if on {
                shapes::RootAccess::Enabled
            } else {
                shapes::RootAccess::Disabled
            }
        };
        Ok(shapes::DescribeNotebookInstanceOutput {
            notebook_instance_arn: Some(instance.arn.to_string()),
            notebook_instance_name: Some(instance.name),
            notebook_instance_status: Some(instance.status.as_str().parse()?),
            failure_reason: instance.failure_reason.map(|reason| reason.to_string()),
            url: Some(url),
            subnet_id: vpc.and_then(|vpc| vpc.subnets.first().map(ToString::to_string)),
            security_groups: vpc.map(|vpc| vpc.groups.iter().map(ToString::to_string).collect()),
            network_interface_id: place.map(|place| place.container.to_string()),
            direct_internet_access: Some(if vpc.is_some() {
                shapes::DirectInternetAccess::Disabled
            } else {
                shapes::DirectInternetAccess::Enabled
            }),
            instance_type: Some(spec.instance_type),
            ip_address_type: Some(shapes::IPAddressType::Ipv4),
            role_arn: Some(spec.role_arn.to_string()),
            kms_key_id: None,
            last_modified_time: Some(instance.modified.0),
            creation_time: Some(instance.created.0),
            notebook_instance_lifecycle_config_name: spec.lifecycle_config,
            volume_size_in_gb: Some(i64::from(spec.volume_gb)),
            accelerator_types: None,
            default_code_repository: None,
            additional_code_repositories: None,
            root_access: Some(enabled(spec.root_access)),
            platform_identifier: Some(spec.platform),
            instance_metadata_service_configuration: spec.metadata_version.map(|version| {
                shapes::InstanceMetadataServiceConfiguration {
                    minimum_instance_metadata_service_version: version,
                }
            }),
        })
    }
}

/// The host name under which the instance is opened.
fn url(ctx: &Ctx<'_>, instance: &Instance) -> String {
    let notebooks = &ctx.platform.settings().notebooks;
    notebooks.host(&ctx.caller.scope, &instance.name)
}

impl Operation for shapes::ListNotebookInstancesInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListNotebookInstances";
    type Output = shapes::ListNotebookInstancesOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListNotebookInstances")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        // No instance has a repository.
        let impossible = request
            .default_code_repository_contains
            .as_ref()
            .is_some_and(|text| !text.is_empty())
            || request.additional_code_repository_equals.is_some();
        let part = request
            .notebook_instance_lifecycle_config_name_contains
            .as_ref()
            .map(|text| text.to_ascii_lowercase());
        let fits = |row: &Stored<Instance>| {
            let config = row.record.spec.lifecycle_config.as_deref().unwrap_or_default();
            !impossible
                && part
                    .as_ref()
                    .is_none_or(|part| config.to_ascii_lowercase().contains(part))
        };
        let wanted = request.max_results.unwrap_or(10);
        let mut token = request.next_token;
        let mut rows = Vec::new();
        loop {
            let left = wanted.saturating_sub(i64::try_from(rows.len()).unwrap_or(i64::MAX));
            let listing = Listing {
                // By name unless asked otherwise, as its model says.
                sort_by: Some(request.sort_by.map_or(SortBy::Name, |by| match by {
                    shapes::NotebookInstanceSortKey::Name => SortBy::Name,
                    shapes::NotebookInstanceSortKey::CreationTime => SortBy::Created,
                    shapes::NotebookInstanceSortKey::Status => SortBy::Status,
                })),
                descending: request.sort_order == Some(shapes::NotebookInstanceSortOrder::Descending),
                next_token: token,
                max_results: Some(left),
                name_contains: request.name_contains.clone(),
                status: request.status_equals.map(shapes::NotebookInstanceStatus::as_str),
                created_after: request.creation_time_after,
                created_before: request.creation_time_before,
                modified_after: request.last_modified_time_after,
                modified_before: request.last_modified_time_before,
            };
            let (found, next) = page::<Instance>(ctx, listing)?;
            rows.extend(found.into_iter().filter(&fits));
            token = next;
            if token.is_none() || i64::try_from(rows.len()).is_ok_and(|count| count >= wanted) {
                break;
            }
        }
        let summaries = rows.into_iter().map(|row| {
            let instance = row.record;
            Ok(shapes::NotebookInstanceSummary {
                url: Some(url(ctx, &instance)),
                notebook_instance_name: instance.name,
                notebook_instance_arn: instance.arn.to_string(),
                notebook_instance_status: Some(instance.status.as_str().parse()?),
                instance_type: Some(instance.spec.instance_type),
                creation_time: Some(instance.created.0),
                last_modified_time: Some(instance.modified.0),
                notebook_instance_lifecycle_config_name: instance.spec.lifecycle_config,
                default_code_repository: None,
                additional_code_repositories: None,
            })
        });
        Ok(shapes::ListNotebookInstancesOutput {
            notebook_instances: Some(summaries.collect::<Result<_, ApiError>>()?),
            next_token: token,
        })
    }
}

/// Moves an instance along its lifecycle, if it is in a status from which it may.
fn moved(
    ctx: &Ctx<'_>,
    name: &str,
    event: NotebookEvent,
    (allowed, wanted): (&str, &str),
    mut change: impl FnMut(&mut Instance, Timestamp) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let (key, now) = (Instance::key(&ctx.caller.scope, name), ctx.clock.now());
    update::<Instance>(ctx, &key, missing, |instance| {
        if instance.status.on(event).is_err() {
            return Err(rejected(instance, allowed, wanted));
        }
        change(instance, now)?;
        instance.apply(event, now).map_err(ApiError::internal)
    })
    .map(drop)
}

impl Operation for shapes::StartNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StartNotebookInstance";
    type Output = shapes::StartNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(
            ctx,
            "sagemaker:StartNotebookInstance",
            &self.notebook_instance_name,
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().notebook_instance_name;
        let texts = ("Stopped, Failed", "Pending");
        moved(ctx, name, NotebookEvent::StartRequested, texts, |_, _| Ok(()))?;
        Ok(shapes::StartNotebookInstanceOutput {})
    }
}

impl Operation for shapes::StopNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StopNotebookInstance";
    type Output = shapes::StopNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:StopNotebookInstance", &self.notebook_instance_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().notebook_instance_name;
        let texts = ("InService", "Stopping");
        moved(ctx, name, NotebookEvent::StopRequested, texts, |_, _| Ok(()))?;
        Ok(shapes::StopNotebookInstanceOutput {})
    }
}

impl Operation for shapes::DeleteNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteNotebookInstance";
    type Output = shapes::DeleteNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(
            ctx,
            "sagemaker:DeleteNotebookInstance",
            &self.notebook_instance_name,
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().notebook_instance_name;
        let texts = ("Stopped, Failed", "Deleting");
        moved(ctx, name, NotebookEvent::DeleteRequested, texts, |_, _| Ok(()))?;
        Ok(shapes::DeleteNotebookInstanceOutput {})
    }
}

impl Operation for shapes::UpdateNotebookInstanceInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateNotebookInstance";
    type Output = shapes::UpdateNotebookInstanceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Instance::arn(&ctx.caller.scope, &self.notebook_instance_name);
        let question = Question::on("sagemaker:UpdateNotebookInstance", &arn);
        let mut questions = vec![conditions::notebook_update(question, &ctx.caller.scope, self)];
        questions.extend(self.role_arn.iter().map(|given| pass_role(given, &arn)));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        not_here(
            request.ip_address_type,
            false,
            request.accelerator_types.as_deref(),
            request.default_code_repository.is_some(),
            request.additional_code_repositories.as_deref(),
        )?;
        let disassociate = request.disassociate_lifecycle_config == Some(true);
        if disassociate && request.lifecycle_config_name.is_some() {
            return Err(ApiError::validation(
                "LifecycleConfigName and DisassociateLifecycleConfig cannot be given together.",
            ));
        }
        let table = &ctx.platform.settings().instances;
        let new_type = request.instance_type.as_deref();
        let new_type = new_type.map(|given| instance_type(Some(given), table)).transpose()?;
        let new_role = request.role_arn.as_deref().map(|given| role(ctx, given)).transpose()?;
        if let Some(role_arn) = &new_role {
            let actor = Actor {
                scope: scope.clone(),
                role_arn: role_arn.clone(),
                owner_arn: Instance::arn(scope, &request.notebook_instance_name),
            };
            ctx.platform.assume(&actor).map_err(refused)?;
        }
        let config = request.lifecycle_config_name.as_deref();
        let config = config.map(|name| notebook_lifecycle::known(ctx, name)).transpose()?;
        let size = request.volume_size_in_gb.map(volume).transpose()?;
        let texts = ("Stopped, Failed", "Updating");
        let name = &request.notebook_instance_name;
        moved(ctx, name, NotebookEvent::UpdateRequested, texts, |instance, _| {
            let spec = &mut instance.spec;
            if let Some(size) = size {
                if size < spec.volume_gb {
                    return Err(ApiError::validation(format!(
                        "VolumeSizeInGB can only grow: it is {}.",
                        spec.volume_gb
                    )));
                }
                spec.volume_gb = size;
            }
            if let Some(new) = &new_type {
                spec.instance_type.clone_from(new);
            }
            if let Some(new) = &new_role {
                spec.role_arn = new.clone();
            }
            if let Some(new) = request.root_access {
                spec.root_access = new == shapes::RootAccess::Enabled;
            }
            if let Some(new) = &request.platform_identifier {
                spec.platform.clone_from(new);
            }
            if let Some(new) = &request.instance_metadata_service_configuration {
                spec.metadata_version = Some(new.minimum_instance_metadata_service_version.clone());
            }
            if disassociate {
                spec.lifecycle_config = None;
            }
            if config.is_some() {
                spec.lifecycle_config.clone_from(&config);
            }
            Ok(())
        })?;
        Ok(shapes::UpdateNotebookInstanceOutput {})
    }
}

#[cfg(test)]
mod tests;
