//! What is known of the resource that a question is about, as condition keys: whose it is, `aws:ResourceAccount`, and its
//! tags, `aws:ResourceTag/KEY` and the service's own spelling (IAM-16). Read in one place for every service, so that no
//! operation can forget them.

use isolarium_model::ecr::Repository;
use isolarium_model::iam::{Policy, Role, User};
use isolarium_model::logs::GroupName;
use isolarium_model::sagemaker::{
    Algorithm, Endpoint, EndpointConfig, FeatureGroup, Model, ModelPackage, ModelPackageGroup, NotebookInstance,
    NotebookLifecycleConfig, ProcessingJob, TrainingJob, TransformJob, TuningJob,
};
use isolarium_model::{AccountId, Arn, Key, Principal, Record, Scope};
use isolarium_policy::Question;
use isolarium_store::{LogStore, StateStore};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

type Tags = BTreeMap<String, String>;

/// Adds the owner and the tags of the resource to a question. A resource without tags, or that does not exist, adds none;
/// neither does the one that the action is about to make, which has none yet. `logs` may be absent where no log group can
/// be meant.
///
/// # Errors
/// When the tags cannot be read: an unread tag must not let a caller past a Deny.
pub fn added(
    store: &dyn StateStore,
    logs: Option<&dyn LogStore>,
    caller: &Principal,
    question: Question,
) -> Result<Question, ApiError> {
    let question = with_owner(caller, question);
    let Ok(arn) = question.resource.parse::<Arn>() else {
        return Ok(question);
    };
    let [_, _, service, .., resource] = arn.parts();
    if makes(&question.action, resource) {
        return Ok(question);
    }
    if service == "ec2" {
        return crate::ec2::facts::added(store, question, &arn);
    }
    if service == "kms" {
        return crate::kms::added(store, question).map_err(ApiError::internal);
    }
    let prefixes: &[&str] = match service {
        "sagemaker" => &["aws:ResourceTag/", "sagemaker:ResourceTag/"],
        "ecr" => &["aws:ResourceTag/", "ecr:ResourceTag/"],
        "iam" if !resource.starts_with("policy/") => &["aws:ResourceTag/", "iam:ResourceTag/"],
        _ => &["aws:ResourceTag/"],
    };
    let tags = tags_of(store, logs, &arn)?;
    Ok(tags.iter().fold(question, |question, (key, value)| {
        prefixes.iter().fold(question, |question, prefix| {
            question.with(&format!("{prefix}{key}"), value.clone())
        })
    }))
}

/// `aws:ResourceAccount` is the account that the ARN names; where it names none, as `*` does, the caller's own.
fn with_owner(caller: &Principal, question: Question) -> Question {
    let parts = isolarium_model::arn::split(&question.resource);
    let named = parts.map(|[_, _, _, _, account, _]| account);
    let owner = named
        .filter(|named| !named.is_empty())
        .or_else(|| caller.account().map(AccountId::as_str))
        .map(str::to_owned);
    match owner {
        Some(owner) => question.with("aws:ResourceAccount", owner),
        None => question,
    }
}

/// Whether the action creates a resource of this very kind: `CreateEndpointConfig` an `endpoint-config`.
fn makes(action: &str, resource: &str) -> bool {
    let Some((_, noun)) = action.split_once(":Create") else {
        return false;
    };
    let kind = resource.split(['/', ':']).next().unwrap_or_default();
    noun.to_ascii_lowercase() == kind.replace('-', "")
}

fn tags_of(store: &dyn StateStore, logs: Option<&dyn LogStore>, arn: &Arn) -> Result<Tags, ApiError> {
    let [_, _, service, region, account, resource] = arn.parts();
    if service == "iam" {
        return identity(store, arn);
    }
    let (Ok(account), Ok(region)) = (account.parse(), region.parse()) else {
        return Ok(Tags::new());
    };
    let scope = Scope { account, region };
    match (service, resource.split_once(['/', ':'])) {
        ("sagemaker", Some(("model", name))) => read::<Model>(store, &Model::key(&scope, name), |record| &record.tags),
        ("sagemaker", Some(("endpoint-config", name))) => {
            read::<EndpointConfig>(store, &EndpointConfig::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("endpoint", name))) => {
            read::<Endpoint>(store, &Endpoint::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("training-job", name))) => {
            read::<TrainingJob>(store, &TrainingJob::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("feature-group", name))) => {
            read::<FeatureGroup>(store, &FeatureGroup::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("processing-job", name))) => {
            read::<ProcessingJob>(store, &ProcessingJob::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("transform-job", name))) => {
            read::<TransformJob>(store, &TransformJob::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("algorithm", name))) => {
            read::<Algorithm>(store, &Algorithm::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("model-package", name))) => {
            read::<ModelPackage>(store, &ModelPackage::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("model-package-group", name))) => {
            read::<ModelPackageGroup>(store, &ModelPackageGroup::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("hyper-parameter-tuning-job", name))) => {
            read::<TuningJob>(store, &TuningJob::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("notebook-instance", name))) => {
            read::<NotebookInstance>(store, &NotebookInstance::key(&scope, name), |record| &record.tags)
        }
        ("sagemaker", Some(("notebook-instance-lifecycle-config", name))) => {
            let key = NotebookLifecycleConfig::key(&scope, name);
            read::<NotebookLifecycleConfig>(store, &key, |record| &record.tags)
        }
        ("ecr", Some(("repository", name))) => {
            read::<Repository>(store, &Repository::key(&scope, name), |record| &record.tags)
        }
        ("logs", Some(("log-group", rest))) => {
            // A stream has no tags of its own: its group's count.
            let name = rest.split_once(":log-stream:").map_or(rest, |(name, _)| name);
            let name = name.strip_suffix(":*").unwrap_or(name);
            let found = logs.map(|logs| logs.group(&GroupName::new(&scope, name))).transpose();
            Ok(found
                .map_err(ApiError::internal)?
                .flatten()
                .map(|group| group.tags)
                .unwrap_or_default())
        }
        _ => Ok(Tags::new()),
    }
}

/// Tags of a user, role or managed policy, if the ARN is its own: one with another path is another's.
fn identity(store: &dyn StateStore, arn: &Arn) -> Result<Tags, ApiError> {
    if let Some(key) = Role::key_of(arn) {
        let role = store.get::<Role>(&key).map_err(ApiError::internal)?;
        let role = role.map(|found| found.record).filter(|role| role.arn() == *arn);
        return Ok(role.map(|role| role.attachments.tags).unwrap_or_default());
    }
    if let Some(key) = Policy::key_of(arn) {
        let policy = store.get::<Policy>(&key).map_err(ApiError::internal)?;
        let policy = policy.map(|found| found.record).filter(|policy| policy.arn == *arn);
        return Ok(policy.map(|policy| policy.tags).unwrap_or_default());
    }
    let user = arn.resource().strip_prefix("user/").zip(arn.account());
    let Some((path, account)) = user else {
        return Ok(Tags::new());
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    let user = store
        .get::<User>(&User::key(&account, name))
        .map_err(ApiError::internal)?;
    let user = user.map(|found| found.record).filter(|user| user.arn() == *arn);
    Ok(user.map(|user| user.attachments.tags).unwrap_or_default())
}

fn read<R: Record>(store: &dyn StateStore, key: &Key, tags: impl Fn(&R) -> &Tags) -> Result<Tags, ApiError> {
    let found = store.shared::<R>(key).map_err(ApiError::internal)?;
    Ok(found.map(|found| tags(&found.record).clone()).unwrap_or_default())
}
