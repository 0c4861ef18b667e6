//! Policies of repositories: what another account may do in them (IAM-23, IAM-67).

use super::{ask, invalid, refuse, registry_of, shapes, shelf, within};
use crate::iam::derived;
use crate::{Ctx, Operation};
use isolarium_model::ecr::Repository;
use isolarium_model::{Arn, Scope};
use isolarium_policy::{Document, DocumentKind, Granted, Question, ResourceSide};
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;

/// Most bytes of a policy.
const LARGEST: usize = 10_240;

/// The owner of a repository and its policy, for a question about it; `None` when the question is about something else.
///
/// # Errors
/// When the record cannot be read.
pub fn resource_side(store: &dyn StateStore, question: &Question) -> Result<Option<ResourceSide>, StoreError> {
    let Ok(arn) = question.resource.parse::<Arn>() else {
        return Ok(None);
    };
    let name = arn.resource().strip_prefix("repository/");
    let (Some(name), "ecr", Some(account), Some(region)) = (name, arn.service(), arn.account(), arn.region()) else {
        return Ok(None);
    };
    let scope = Scope { account, region };
    let stored = store.shared::<Repository>(&Repository::key(&scope, name))?;
    let text = stored.as_ref().and_then(|stored| stored.record.policy.as_deref());
    let policy = text.map(|text| {
        derived(
            &format!("repository policy of {name}"),
            &format!("{arn} {text}"),
            DocumentKind::Resource,
            || about(text, &arn).into(),
        )
    });
    Ok(Some(ResourceSide {
        owner: Some(scope.account),
        policies: policy.into_iter().collect(),
        ..ResourceSide::default()
    }))
}

/// A repository's policy names no resources: each statement speaks of the repository. A text that is no such document
/// stays as it is, and denies as unreadable.
fn about(text: &str, arn: &Arn) -> String {
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(text) else {
        return text.to_owned();
    };
    let add = |statement: &mut serde_json::Value| {
        if let Some(members) = statement.as_object_mut()
            && !members.contains_key("Resource")
            && !members.contains_key("NotResource")
        {
            members.insert("Resource".into(), arn.to_string().into());
        }
    };
    match document.get_mut("Statement") {
        Some(serde_json::Value::Array(statements)) => statements.iter_mut().for_each(add),
        Some(one) => add(one),
        None => {}
    }
    document.to_string()
}

fn missing(ctx: &Ctx<'_>, repository: &str) -> ApiError {
    ApiError::client(
        "RepositoryPolicyNotFoundException",
        format!(
            "Repository policy does not exist for the repository with name '{repository}' in the registry with id '{}'",
            ctx.caller.scope.account
        ),
    )
}

/// Sets or removes the policy and gives the one that was there.
fn replace(ctx: &Ctx<'_>, repository: &str, text: Option<&str>) -> Result<Option<String>, ApiError> {
    let refused = |error| refuse(ctx, repository, error);
    let before = shelf(ctx).repository(repository).map_err(refused)?.record.policy;
    shelf(ctx)
        .update(repository, |record| record.policy = text.map(str::to_owned))
        .map_err(refused)?;
    Ok(before)
}

impl Operation for shapes::SetRepositoryPolicyRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "SetRepositoryPolicy";
    type Output = shapes::SetRepositoryPolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:SetRepositoryPolicy",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let name = &request.repository_name;
        let text = request.policy_text;
        let bad = |why: &str| {
            invalid(format!(
                "Invalid parameter at 'PolicyText' failed to satisfy constraint: '{why}'"
            ))
        };
        if text.len() > LARGEST {
            return Err(bad(
                "Invalid repository policy provided: it is longer than 10240 characters",
            ));
        }
        let arn = Repository::arn(&ctx.caller.scope, name);
        Document::parse(&about(&text, &arn), DocumentKind::Resource)
            .map_err(|error| bad(&format!("Invalid repository policy provided: {error}")))?;
        replace(ctx, name, Some(&text))?;
        Ok(shapes::SetRepositoryPolicyResponse {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            repository_name: Some(name.clone()),
            policy_text: Some(text),
        })
    }
}

impl Operation for shapes::GetRepositoryPolicyRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "GetRepositoryPolicy";
    type Output = shapes::GetRepositoryPolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:GetRepositoryPolicy",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let name = request.repository_name;
        let found = shelf(ctx)
            .repository(&name)
            .map_err(|error| refuse(ctx, &name, error))?;
        let text = found.record.policy.ok_or_else(|| missing(ctx, &name))?;
        Ok(shapes::GetRepositoryPolicyResponse {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            repository_name: Some(name),
            policy_text: Some(text),
        })
    }
}

impl Operation for shapes::DeleteRepositoryPolicyRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "DeleteRepositoryPolicy";
    type Output = shapes::DeleteRepositoryPolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:DeleteRepositoryPolicy",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let name = request.repository_name;
        let text = replace(ctx, &name, None)?.ok_or_else(|| missing(ctx, &name))?;
        Ok(shapes::DeleteRepositoryPolicyResponse {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            repository_name: Some(name),
            policy_text: Some(text),
        })
    }
}
