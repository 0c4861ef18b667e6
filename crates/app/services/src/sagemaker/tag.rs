//! AddTags, ListTags, DeleteTags, and tags in creations (SM-13).

use super::{shapes, stored, update};
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::{
    Algorithm, Endpoint, EndpointConfig, FeatureGroup, MAX_TAGS, Model, ModelPackage, ModelPackageGroup,
    NotebookInstance, NotebookLifecycleConfig, ProcessingJob, Tags, TrainingJob, TransformJob, TuningJob,
};
use isolarium_model::{Arn, Key, Record};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;

/// Adds the condition keys of tags that a request sets.
pub(super) fn requested(question: Question, tags: &[shapes::Tag]) -> Question {
    question.with_request_tags(tags.iter().map(|tag| (&tag.key, &tag.value)))
}

/// The tags of a creation.
pub(super) fn of_request(tags: Option<Vec<shapes::Tag>>) -> Result<Tags, ApiError> {
    let mut merged = Tags::new();
    for tag in tags.into_iter().flatten() {
        if merged.insert(tag.key.clone(), tag.value).is_some() {
            return Err(ApiError::validation(format!("Duplicate tag keys found: {}.", tag.key)));
        }
    }
    within_limit(merged)
}

fn within_limit(tags: Tags) -> Result<Tags, ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(ApiError::validation(format!(
            "A resource can have at most {MAX_TAGS} tags."
        )));
    }
    if let Some(key) = tags.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(ApiError::validation(format!(
            "Tag keys may not begin with \"aws:\": {key}."
        )));
    }
    Ok(tags)
}

fn listed(tags: Tags) -> Vec<shapes::Tag> {
    tags.into_iter()
        .map(|(key, value)| shapes::Tag { key, value })
        .collect()
}

/// The nouns that carry tags.
enum Tagged {
    Model(Key),
    EndpointConfig(Key),
    Endpoint(Key),
    TrainingJob(Key),
    FeatureGroup(Key),
    ProcessingJob(Key),
    TransformJob(Key),
    TuningJob(Key),
    Algorithm(Key),
    ModelPackage(Key),
    ModelPackageGroup(Key),
    Notebook(Key),
    NotebookLifecycle(Key),
}

impl Tagged {
    fn of(ctx: &Ctx<'_>, text: &str) -> Result<Self, ApiError> {
        let arn: Arn = text.parse().map_err(|_| missing(text))?;
        let scope = &ctx.caller.scope;
        let own = arn.service() == "sagemaker"
            && arn.account().as_ref() == Some(&scope.account)
            && arn.region().as_ref() == Some(&scope.region);
        let (kind, name) = arn
            .resource()
            .split_once('/')
            .filter(|_| own)
            .ok_or_else(|| missing(text))?;
        match kind {
            "model" => Ok(Self::Model(Model::key(scope, name))),
            "endpoint-config" => Ok(Self::EndpointConfig(EndpointConfig::key(scope, name))),
            "endpoint" => Ok(Self::Endpoint(Endpoint::key(scope, name))),
            "training-job" => Ok(Self::TrainingJob(TrainingJob::key(scope, name))),
            "feature-group" => Ok(Self::FeatureGroup(FeatureGroup::key(scope, name))),
            "processing-job" => Ok(Self::ProcessingJob(ProcessingJob::key(scope, name))),
            "transform-job" => Ok(Self::TransformJob(TransformJob::key(scope, name))),
            "algorithm" => Ok(Self::Algorithm(Algorithm::key(scope, name))),
            "model-package" => Ok(Self::ModelPackage(ModelPackage::key(scope, name))),
            "model-package-group" => Ok(Self::ModelPackageGroup(ModelPackageGroup::key(scope, name))),
            "hyper-parameter-tuning-job" => Ok(Self::TuningJob(TuningJob::key(scope, name))),
            "notebook-instance" => Ok(Self::Notebook(NotebookInstance::key(scope, name))),
            "notebook-instance-lifecycle-config" => {
                Ok(Self::NotebookLifecycle(NotebookLifecycleConfig::key(scope, name)))
            }
            _ => Err(missing(text)),
        }
    }

    fn tags(&self, ctx: &Ctx<'_>) -> Result<Option<Tags>, ApiError> {
        fn of<R: Record>(ctx: &Ctx<'_>, key: &Key, tags: impl Fn(R) -> Tags) -> Result<Option<Tags>, ApiError> {
            Ok(ctx.store.get::<R>(key).map_err(stored)?.map(|found| tags(found.record)))
        }
        match self {
            Self::Model(key) => of::<Model>(ctx, key, |model| model.tags),
            Self::EndpointConfig(key) => of::<EndpointConfig>(ctx, key, |config| config.tags),
            Self::Endpoint(key) => of::<Endpoint>(ctx, key, |endpoint| endpoint.tags),
            Self::TrainingJob(key) => of::<TrainingJob>(ctx, key, |job| job.tags),
            Self::FeatureGroup(key) => of::<FeatureGroup>(ctx, key, |group| group.tags),
            Self::ProcessingJob(key) => of::<ProcessingJob>(ctx, key, |job| job.tags),
            Self::TransformJob(key) => of::<TransformJob>(ctx, key, |job| job.tags),
            Self::TuningJob(key) => of::<TuningJob>(ctx, key, |job| job.tags),
            Self::Algorithm(key) => of::<Algorithm>(ctx, key, |one| one.tags),
            Self::ModelPackage(key) => of::<ModelPackage>(ctx, key, |one| one.tags),
            Self::ModelPackageGroup(key) => of::<ModelPackageGroup>(ctx, key, |one| one.tags),
            Self::Notebook(key) => of::<NotebookInstance>(ctx, key, |one| one.tags),
            Self::NotebookLifecycle(key) => of::<NotebookLifecycleConfig>(ctx, key, |one| one.tags),
        }
    }

    fn change(
        &self,
        ctx: &Ctx<'_>,
        arn: &str,
        change: impl Fn(&Tags) -> Result<Tags, ApiError>,
    ) -> Result<Tags, ApiError> {
        let gone = || missing(arn);
        Ok(match self {
            Self::Model(key) => {
                update::<Model>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::EndpointConfig(key) => {
                update::<EndpointConfig>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::Endpoint(key) => {
                update::<Endpoint>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::TrainingJob(key) => {
                update::<TrainingJob>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::FeatureGroup(key) => {
                update::<FeatureGroup>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::ProcessingJob(key) => {
                update::<ProcessingJob>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::TransformJob(key) => {
                update::<TransformJob>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::TuningJob(key) => {
                update::<TuningJob>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::Algorithm(key) => {
                update::<Algorithm>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::ModelPackage(key) => {
                update::<ModelPackage>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::ModelPackageGroup(key) => {
                update::<ModelPackageGroup>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::Notebook(key) => {
                update::<NotebookInstance>(ctx, key, gone, |one| change(&one.tags).map(|tags| one.tags = tags))?.tags
            }
            Self::NotebookLifecycle(key) => {
                let tagged = |one: &mut NotebookLifecycleConfig| change(&one.tags).map(|tags| one.tags = tags);
                update::<NotebookLifecycleConfig>(ctx, key, gone, tagged)?.tags
            }
        })
    }
}

/// Tags on a resource that is not there (SM-13).
fn missing(arn: &str) -> ApiError {
    ApiError::validation(format!("Could not find resource \"{arn}\"."))
}

/// Asks about a tag operation. What is no ARN is asked about as everything and refused later.
fn ask(action: &str, text: &str) -> Question {
    match text.parse::<Arn>() {
        Ok(arn) => Question::on(action, &arn),
        Err(_) => Question::any(action),
    }
}

impl Operation for shapes::AddTagsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "AddTags";
    type Output = shapes::AddTagsOutput;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![requested(ask("sagemaker:AddTags", &self.resource_arn), &self.tags)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let added = of_request(Some(request.tags))?;
        let tags = Tagged::of(ctx, &request.resource_arn)?.change(ctx, &request.resource_arn, |tags| {
            let mut merged = tags.clone();
            merged.extend(added.clone());
            within_limit(merged)
        })?;
        Ok(shapes::AddTagsOutput {
            tags: Some(listed(tags)),
        })
    }
}

impl Operation for shapes::ListTagsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListTags";
    type Output = shapes::ListTagsOutput;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![ask("sagemaker:ListTags", &self.resource_arn)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let tags = Tagged::of(ctx, &request.resource_arn)?
            .tags(ctx)?
            .ok_or_else(|| missing(&request.resource_arn))?;
        // At most 50 tags exist and a page has at least 50 (SM-13): there is only one page.
        Ok(shapes::ListTagsOutput {
            tags: Some(listed(tags)),
            next_token: None,
        })
    }
}

impl Operation for shapes::DeleteTagsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteTags";
    type Output = shapes::DeleteTagsOutput;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        let question = ask("sagemaker:DeleteTags", &self.resource_arn);
        vec![question.with_tag_keys(&self.tag_keys)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        Tagged::of(ctx, &request.resource_arn)?.change(ctx, &request.resource_arn, |tags| {
            Ok(tags
                .iter()
                .filter(|(key, _)| !request.tag_keys.contains(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect())
        })?;
        Ok(shapes::DeleteTagsOutput {})
    }
}
