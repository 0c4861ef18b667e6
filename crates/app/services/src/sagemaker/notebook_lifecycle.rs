//! CreateNotebookInstanceLifecycleConfig, Describe, List, Update, Delete (SM-46).

use super::listing::{Listing, page};
use super::{create, creating, delete, find, shapes, tag, update};
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isolarium_model::Arn;
use isolarium_model::sagemaker::NotebookLifecycleConfig as Config;
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;

/// An operation on a configuration that is not there.
fn missing(doing: &str, arn: &Arn) -> ApiError {
    ApiError::validation(format!(
        "Unable to {doing} Notebook Instance Lifecycle Config '{arn}'. (Details: Notebook Instance Lifecycle Config does \
         not exist.)"
    ))
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!(
        "Unable to create Notebook Instance Lifecycle Config {arn}. (Details: Notebook Instance Lifecycle Config already \
         exists.)"
    ))
}

/// The name, as its owner spelled it, of a configuration that a notebook instance is to use.
pub(super) fn known(ctx: &Ctx<'_>, name: &str) -> Result<String, ApiError> {
    let found = find::<Config>(ctx, &Config::key(&ctx.caller.scope, name))?;
    let found = found.ok_or_else(|| missing("describe", &Config::arn(&ctx.caller.scope, name)))?;
    Ok(found.record.name)
}

/// The script of a hook: base64, at most 16,384 characters of it, which the model checks.
fn script(member: &str, given: Option<Vec<shapes::NotebookInstanceLifecycleHook>>) -> Result<Option<String>, ApiError> {
    let Some(content) = given.into_iter().flatten().find_map(|hook| hook.content) else {
        return Ok(None);
    };
    // Clients break long lines.
    let joined: String = content.split_ascii_whitespace().collect();
    match STANDARD.decode(&joined) {
        Ok(bytes) if !bytes.is_empty() => Ok(Some(content)),
        Ok(_) | Err(_) => Err(ApiError::validation(format!(
            "The content of {member} must be a script encoded in base64."
        ))),
    }
}

fn shown(script: Option<String>) -> Option<Vec<shapes::NotebookInstanceLifecycleHook>> {
    script.map(|content| vec![shapes::NotebookInstanceLifecycleHook { content: Some(content) }])
}

impl Operation for shapes::CreateNotebookInstanceLifecycleConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateNotebookInstanceLifecycleConfig";
    type Output = shapes::CreateNotebookInstanceLifecycleConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Config::arn(&ctx.caller.scope, &self.notebook_instance_lifecycle_config_name);
        let question = Question::on("sagemaker:CreateNotebookInstanceLifecycleConfig", &arn);
        creating(question, &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let name = request.notebook_instance_lifecycle_config_name;
        let arn = Config::arn(&ctx.caller.scope, &name);
        let key = Config::key(&ctx.caller.scope, &name);
        let created = ctx.clock.now();
        let config = Config {
            name,
            arn: arn.clone(),
            created,
            modified: created,
            on_create: script("OnCreate", request.on_create)?,
            on_start: script("OnStart", request.on_start)?,
            tags: tag::of_request(request.tags)?,
        };
        create(ctx, &key, &config, || taken(&arn))?;
        Ok(shapes::CreateNotebookInstanceLifecycleConfigOutput {
            notebook_instance_lifecycle_config_arn: Some(arn.to_string()),
        })
    }
}

/// Asks about one configuration.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Config::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeNotebookInstanceLifecycleConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeNotebookInstanceLifecycleConfig";
    type Output = shapes::DescribeNotebookInstanceLifecycleConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let name = &self.notebook_instance_lifecycle_config_name;
        vec![ask(ctx, "sagemaker:DescribeNotebookInstanceLifecycleConfig", name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (
            &ctx.caller.scope,
            &request.get().notebook_instance_lifecycle_config_name,
        );
        let found = find::<Config>(ctx, &Config::key(scope, name))?;
        let config = found
            .ok_or_else(|| missing("describe", &Config::arn(scope, name)))?
            .record;
        Ok(shapes::DescribeNotebookInstanceLifecycleConfigOutput {
            notebook_instance_lifecycle_config_arn: Some(config.arn.to_string()),
            notebook_instance_lifecycle_config_name: Some(config.name),
            on_create: shown(config.on_create),
            on_start: shown(config.on_start),
            last_modified_time: Some(config.modified.0),
            creation_time: Some(config.created.0),
        })
    }
}

impl Operation for shapes::ListNotebookInstanceLifecycleConfigsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListNotebookInstanceLifecycleConfigs";
    type Output = shapes::ListNotebookInstanceLifecycleConfigsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListNotebookInstanceLifecycleConfigs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::NotebookInstanceLifecycleConfigSortKey::Name => SortBy::Name,
                shapes::NotebookInstanceLifecycleConfigSortKey::CreationTime => SortBy::Created,
                shapes::NotebookInstanceLifecycleConfigSortKey::LastModifiedTime => SortBy::Modified,
            }),
            descending: request.sort_order == Some(shapes::NotebookInstanceLifecycleConfigSortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<Config>(ctx, listing)?;
        let configs = rows
            .into_iter()
            .map(|row| shapes::NotebookInstanceLifecycleConfigSummary {
                notebook_instance_lifecycle_config_name: row.record.name,
                notebook_instance_lifecycle_config_arn: row.record.arn.to_string(),
                creation_time: Some(row.record.created.0),
                last_modified_time: Some(row.record.modified.0),
            });
        Ok(shapes::ListNotebookInstanceLifecycleConfigsOutput {
            notebook_instance_lifecycle_configs: Some(configs.collect()),
            next_token,
        })
    }
}

impl Operation for shapes::UpdateNotebookInstanceLifecycleConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateNotebookInstanceLifecycleConfig";
    type Output = shapes::UpdateNotebookInstanceLifecycleConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let name = &self.notebook_instance_lifecycle_config_name;
        vec![ask(ctx, "sagemaker:UpdateNotebookInstanceLifecycleConfig", name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let name = request.notebook_instance_lifecycle_config_name;
        let (scope, now) = (&ctx.caller.scope, ctx.clock.now());
        // A hook that is given without a script is taken away; one that is not given stays.
        let (creates, starts) = (request.on_create.is_some(), request.on_start.is_some());
        let on_create = script("OnCreate", request.on_create)?;
        let on_start = script("OnStart", request.on_start)?;
        let gone = || missing("update", &Config::arn(scope, &name));
        update::<Config>(ctx, &Config::key(scope, &name), gone, |config| {
            if creates {
                config.on_create.clone_from(&on_create);
            }
            if starts {
                config.on_start.clone_from(&on_start);
            }
            config.modified = now;
            Ok(())
        })?;
        Ok(shapes::UpdateNotebookInstanceLifecycleConfigOutput {})
    }
}

impl Operation for shapes::DeleteNotebookInstanceLifecycleConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteNotebookInstanceLifecycleConfig";
    type Output = shapes::DeleteNotebookInstanceLifecycleConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let name = &self.notebook_instance_lifecycle_config_name;
        vec![ask(ctx, "sagemaker:DeleteNotebookInstanceLifecycleConfig", name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (
            &ctx.caller.scope,
            &request.get().notebook_instance_lifecycle_config_name,
        );
        let key = Config::key(scope, name);
        delete::<Config>(ctx, &key, || missing("delete", &Config::arn(scope, name)))?;
        Ok(shapes::DeleteNotebookInstanceLifecycleConfigOutput {})
    }
}
