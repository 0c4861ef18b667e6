//! Repositories, their tags, and the authorization token.

use super::{ask, invalid, page, refuse, registry_of, shapes, shelf, within};
use crate::{Caller, Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::ecr::{Repository, is_repository_name};
use isolarium_policy::{Granted, Question};
use isolarium_store::Query;
use isolarium_wire::ApiError;

impl Operation for shapes::CreateRepositoryRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "CreateRepository";
    type Output = shapes::CreateRepositoryResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let asked = ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:CreateRepository",
            &self.repository_name,
        );
        let tagged = |question| with_tags(question, self.tags.iter().flatten());
        asked.into_iter().map(tagged).collect()
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        if !is_repository_name(&request.repository_name) {
            return Err(invalid(
                "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression \
                 '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''",
            ));
        }
        let immutable_tags = match request.image_tag_mutability {
            None | Some(shapes::ImageTagMutability::Mutable) => false,
            Some(shapes::ImageTagMutability::Immutable) => true,
            Some(_) => return Err(invalid("Exclusion filters for tag mutability are not supported.")),
        };
        if request
            .encryption_configuration
            .is_some_and(|c| c.encryption_type != shapes::EncryptionType::Aes256)
        {
            return Err(invalid("Repositories encrypted with a KMS key are not supported."));
        }
        let scans = request.image_scanning_configuration.and_then(|c| c.scan_on_push);
        if scans == Some(true) {
            return Err(invalid("Images are not scanned here: scanOnPush must be false."));
        }
        let now = ctx.clock.now();
        let repository = Repository {
            name: request.repository_name,
            created: now,
            modified: now,
            immutable_tags,
            tags: request
                .tags
                .unwrap_or_default()
                .into_iter()
                .map(|tag| (tag.key, tag.value))
                .collect(),
            policy: None,
        };
        shelf(ctx)
            .create(&repository)
            .map_err(|error| refuse(ctx, &repository.name, error))?;
        Ok(shapes::CreateRepositoryResponse {
            repository: Some(described(ctx, repository)),
        })
    }
}

fn described(ctx: &Ctx<'_>, repository: Repository) -> shapes::Repository {
    let scope = &ctx.caller.scope;
    shapes::Repository {
        repository_arn: Some(Repository::arn(scope, &repository.name).to_string()),
        registry_id: Some(scope.account.to_string()),
        repository_uri: Some(Repository::uri(scope, &repository.name)),
        repository_name: Some(repository.name),
        created_at: Some(repository.created.0),
        image_tag_mutability: Some(match repository.immutable_tags {
            true => shapes::ImageTagMutability::Immutable,
            false => shapes::ImageTagMutability::Mutable,
        }),
        image_tag_mutability_exclusion_filters: None,
        image_scanning_configuration: Some(shapes::ImageScanningConfiguration {
            scan_on_push: Some(false),
        }),
        encryption_configuration: Some(shapes::EncryptionConfiguration::new(shapes::EncryptionType::Aes256)),
    }
}

impl Operation for shapes::DeleteRepositoryRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "DeleteRepository";
    type Output = shapes::DeleteRepositoryResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:DeleteRepository",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let name = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let gone = shelf(ctx)
            .delete(name, request.force == Some(true))
            .map_err(|error| refuse(ctx, name, error))?;
        Ok(shapes::DeleteRepositoryResponse {
            repository: Some(described(ctx, gone)),
        })
    }
}

impl Operation for shapes::DescribeRepositoriesRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "DescribeRepositories";
    type Output = shapes::DescribeRepositoriesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let on = |name: &str| ask(ctx, self.registry_id.as_deref(), "ecr:DescribeRepositories", name);
        match &self.repository_names {
            Some(names) => names.iter().flat_map(|name| on(name)).collect(),
            None => on("*"),
        }
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let names = request.repository_names.unwrap_or_default();
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        if !names.is_empty() {
            let mut found = Vec::new();
            for name in names {
                let stored = shelf(ctx)
                    .repository(&name)
                    .map_err(|error| refuse(ctx, &name, error))?;
                found.push(described(ctx, stored.record));
            }
            return Ok(shapes::DescribeRepositoriesResponse {
                repositories: Some(found),
                next_token: None,
            });
        }
        let all = ctx
            .store
            .query::<Repository>(&Query::all(&ctx.caller.scope))
            .map_err(ApiError::internal)?
            .rows;
        let (rows, next_token) = page(
            all,
            |row| row.record.name.clone(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        let repositories = rows.into_iter().map(|row| described(ctx, row.record)).collect();
        Ok(shapes::DescribeRepositoriesResponse {
            repositories: Some(repositories),
            next_token,
        })
    }
}

impl Operation for shapes::GetAuthorizationTokenRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "GetAuthorizationToken";
    type Output = shapes::GetAuthorizationTokenResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("ecr:GetAuthorizationToken")]
    }

    fn execute(_: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        // The token speaks for the caller, whatever registries it names; each pull and push is authorized by itself.
        let (token, expires) = ctx
            .registry
            .key
            .login(ctx.caller, ctx.clock.now())
            .ok_or_else(|| ApiError::internal("the caller cannot be written into a token"))?;
        let data = shapes::AuthorizationData {
            authorization_token: Some(token),
            expires_at: Some(expires.0),
            proxy_endpoint: Some(ctx.registry.endpoint.clone()),
        };
        Ok(shapes::GetAuthorizationTokenResponse {
            authorization_data: Some(vec![data]),
        })
    }
}

fn with_tags<'t>(question: Question, tags: impl Iterator<Item = &'t shapes::Tag>) -> Question {
    question.with_request_tags(tags.map(|tag| (&tag.key, &tag.value)))
}

/// The caller, speaking of the registry in an ARN, and the repository that the ARN names.
fn named(ctx: &Ctx<'_>, text: &str) -> Result<(Caller, String), ApiError> {
    let bad = || {
        invalid(format!(
            "Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN' {text}"
        ))
    };
    let arn: Arn = text.parse().map_err(|_| bad())?;
    let name = arn
        .resource()
        .strip_prefix("repository/")
        .filter(|_| arn.service() == "ecr" && arn.region().as_ref() == Some(&ctx.caller.scope.region))
        .ok_or_else(bad)?;
    let account = arn.account().ok_or_else(bad)?;
    Ok((registry_of(ctx, Some(account.as_str())), name.into()))
}

fn ask_arn(ctx: &Ctx<'_>, action: &str, arn: &str) -> Question {
    match named(ctx, arn) {
        Ok((registry, name)) => Question::on(action, &Repository::arn(&registry.scope, &name)),
        Err(_) => Question::any(action),
    }
}

impl Operation for shapes::ListTagsForResourceRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "ListTagsForResource";
    type Output = shapes::ListTagsForResourceResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask_arn(ctx, "ecr:ListTagsForResource", &self.resource_arn)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (registry, name) = named(ctx, &request.get().resource_arn)?;
        let ctx = &within(ctx, &registry);
        let stored = shelf(ctx)
            .repository(&name)
            .map_err(|error| refuse(ctx, &name, error))?;
        let tags = stored
            .record
            .tags
            .into_iter()
            .map(|(key, value)| shapes::Tag { key, value })
            .collect();
        Ok(shapes::ListTagsForResourceResponse { tags: Some(tags) })
    }
}

impl Operation for shapes::TagResourceRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "TagResource";
    type Output = shapes::TagResourceResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![with_tags(
            ask_arn(ctx, "ecr:TagResource", &self.resource_arn),
            self.tags.iter(),
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let (registry, name) = named(ctx, &request.resource_arn)?;
        let ctx = &within(ctx, &registry);
        let add = |repository: &mut Repository| {
            repository
                .tags
                .extend(request.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())));
        };
        shelf(ctx)
            .update(&name, add)
            .map_err(|error| refuse(ctx, &name, error))?;
        Ok(shapes::TagResourceResponse {})
    }
}

impl Operation for shapes::UntagResourceRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "UntagResource";
    type Output = shapes::UntagResourceResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask_arn(ctx, "ecr:UntagResource", &self.resource_arn);
        vec![question.with_tag_keys(&self.tag_keys)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let (registry, name) = named(ctx, &request.resource_arn)?;
        let ctx = &within(ctx, &registry);
        let remove = |repository: &mut Repository| repository.tags.retain(|key, _| !request.tag_keys.contains(key));
        shelf(ctx)
            .update(&name, remove)
            .map_err(|error| refuse(ctx, &name, error))?;
        Ok(shapes::UntagResourceResponse {})
    }
}
