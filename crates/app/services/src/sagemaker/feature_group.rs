//! CreateFeatureGroup, Describe, List, Update, Delete. A group has an online store; its records are `featurestore`'s.

use super::check::{pass_role, refuse, refused, role, unsupported};
use super::listing::{Listing, page};
use super::{conditions, create, creating, find, shapes, stored, tag, update};
use crate::platform::Actor;
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::feature_group::{Collection, FeatureType, Ttl, TtlUnit};
use isolarium_model::sagemaker::{Feature, FeatureGroup, FeatureRemains};
use isolarium_model::{Arn, Key, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;

/// Most features of a group.
const MOST_FEATURES: usize = 2500;
/// Columns that AWS adds to every record by itself.
const RESERVED: [&str; 3] = ["is_deleted", "write_time", "api_invocation_time"];

/// There is no such group.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::client(
        "ResourceNotFound",
        format!("Resource Not Found: Amazon SageMaker can't find a FeatureGroup with name {name}."),
    )
}

fn taken(name: &str) -> ApiError {
    ApiError::client(
        "ResourceInUse",
        format!(
            "Resource Already Exists: FeatureGroup with name {name} already exists. Choose a different name. Info: \
             Feature Group '{name}' already exists."
        ),
    )
}

/// The name in a member that takes a name or an ARN; an ARN of another account or region names nothing here.
pub(crate) fn named<'a>(ctx: &Ctx<'_>, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    let (_, name) = given.rsplit_once('/')?;
    let own = FeatureGroup::arn(&ctx.caller.scope, name);
    own.as_str().eq_ignore_ascii_case(given).then_some(name)
}

/// Asks about one group, given by name or ARN.
pub(crate) fn ask(ctx: &Ctx<'_>, action: &str, given: &str) -> Question {
    match given.parse::<Arn>() {
        Ok(arn) => Question::on(action, &arn),
        Err(_) => Question::on(action, &FeatureGroup::arn(&ctx.caller.scope, given)),
    }
}

pub(super) fn existing(ctx: &Ctx<'_>, given: &str) -> Result<FeatureGroup, ApiError> {
    let key = key(ctx, given)?;
    Ok(find::<FeatureGroup>(ctx, &key)?.ok_or_else(|| missing(given))?.record)
}

pub(super) fn key(ctx: &Ctx<'_>, given: &str) -> Result<Key, ApiError> {
    let name = named(ctx, given).ok_or_else(|| missing(given))?;
    Ok(FeatureGroup::key(&ctx.caller.scope, name))
}

impl Operation for shapes::CreateFeatureGroupRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateFeatureGroup";
    type Output = shapes::CreateFeatureGroupResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let arn = FeatureGroup::arn(scope, &self.feature_group_name);
        let question = Question::on("sagemaker:CreateFeatureGroup", &arn);
        let mut questions = creating(
            conditions::feature_group(question, scope, self),
            &arn,
            self.tags.as_ref(),
        );
        questions.extend(self.role_arn.iter().map(|role| pass_role(role, &arn)));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let (scope, name) = (&ctx.caller.scope, request.feature_group_name.as_str());
        let arn = FeatureGroup::arn(scope, name);
        let tags = tag::of_request(request.tags)?;
        let online = request.online_store_config.unwrap_or_default();
        refuse(&[
            (request.offline_store_config.is_some(), "OfflineStoreConfig"),
            (online.security_config.is_some(), "OnlineStoreConfig.SecurityConfig"),
            (
                request
                    .throughput_config
                    .is_some_and(|config| config.throughput_mode == shapes::ThroughputMode::Provisioned),
                "ThroughputConfig with ThroughputMode Provisioned",
            ),
        ])?;
        if online.enable_online_store != Some(true) {
            return Err(ApiError::validation(
                "Validation Error: OnlineStoreConfig or OfflineStoreConfig must be specified, and this engine has no \
                 offline store: set OnlineStoreConfig.EnableOnlineStore to true.",
            ));
        }
        let storage = online.storage_type.unwrap_or(shapes::StorageType::Standard);
        let now = ctx.clock.now();
        let features = defined(&request.feature_definitions, storage, now)?;
        names_are_sound(&features)?;
        special(
            &features,
            &request.record_identifier_feature_name,
            "RecordIdentifierFeatureName",
            FeatureType::Fractional,
        )?;
        special(
            &features,
            &request.event_time_feature_name,
            "EventTimeFeatureName",
            FeatureType::Integral,
        )?;
        if request.record_identifier_feature_name == request.event_time_feature_name {
            return Err(ApiError::validation(
                "Validation Error: RecordIdentifierFeatureName and EventTimeFeatureName must differ.",
            ));
        }
        let key = FeatureGroup::key(scope, name);
        if find::<FeatureGroup>(ctx, &key)?.is_some() {
            return Err(taken(name));
        }
        let role_arn = request.role_arn.as_deref().map(|text| role(ctx, text)).transpose()?;
        if let Some(role_arn) = &role_arn {
            let actor = Actor {
                scope: scope.clone(),
                role_arn: role_arn.clone(),
                owner_arn: arn.clone(),
            };
            ctx.platform.assume(&actor).map_err(refused)?;
        }
        let group = FeatureGroup {
            name: name.into(),
            arn: arn.clone(),
            created: now,
            modified: now,
            generation: ctx.ids.hex(16).into(),
            record_identifier: request.record_identifier_feature_name,
            event_time: request.event_time_feature_name,
            features,
            ttl: online.ttl_duration.map(ttl).transpose()?,
            storage: storage.as_str().into(),
            role_arn,
            description: request.description,
            updated: false,
            tags,
        };
        create(ctx, &key, &group, || taken(&group.name))?;
        Ok(shapes::CreateFeatureGroupResponse {
            feature_group_arn: arn.to_string(),
        })
    }
}

/// The features of a request.
fn defined(
    definitions: &[shapes::FeatureDefinition],
    storage: shapes::StorageType,
    now: Timestamp,
) -> Result<Vec<Feature>, ApiError> {
    let feature = |definition: &shapes::FeatureDefinition| {
        let kind = match definition.feature_type {
            shapes::FeatureType::Integral => FeatureType::Integral,
            shapes::FeatureType::Fractional => FeatureType::Fractional,
            shapes::FeatureType::String => FeatureType::String,
        };
        let collection = collection(definition)?;
        if collection.is_some() && storage != shapes::StorageType::InMemory {
            return Err(ApiError::validation(format!(
                "Validation Error: feature {} is a collection; collections need the storage type InMemory.",
                definition.feature_name
            )));
        }
        Ok(Feature {
            name: definition.feature_name.clone(),
            kind,
            collection,
            created: now,
            modified: now,
            description: None,
            parameters: Default::default(),
        })
    };
    definitions.iter().map(feature).collect()
}

fn collection(definition: &shapes::FeatureDefinition) -> Result<Option<Collection>, ApiError> {
    let vector = definition
        .collection_config
        .as_ref()
        .and_then(|config| config.vector_config.as_ref());
    let wrong = |what: &str| {
        Err(ApiError::validation(format!(
            "Validation Error: feature {}: {what}.",
            definition.feature_name
        )))
    };
    match (definition.collection_type, vector) {
        (None, None) => Ok(None),
        (Some(shapes::CollectionType::List), None) => Ok(Some(Collection::List)),
        (Some(shapes::CollectionType::Set), None) => Ok(Some(Collection::Set)),
        (Some(shapes::CollectionType::Vector), Some(vector)) => {
            if definition.feature_type != shapes::FeatureType::Fractional {
                return wrong("the values of a vector are Fractional");
            }
            match u16::try_from(vector.dimension) {
                Ok(dimension) => Ok(Some(Collection::Vector { dimension })),
                Err(_) => wrong("the dimension is out of range"),
            }
        }
        (Some(shapes::CollectionType::Vector), None) => wrong("a vector needs a VectorConfig"),
        (_, Some(_)) => wrong("only a Vector has a VectorConfig"),
    }
}

/// Names that are used once and are not AWS's own.
fn names_are_sound(features: &[Feature]) -> Result<(), ApiError> {
    if features.len() > MOST_FEATURES {
        return Err(ApiError::client(
            "ResourceLimitExceeded",
            format!("A feature group can have at most {MOST_FEATURES} features."),
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for feature in features {
        if RESERVED.contains(&feature.name.as_str()) {
            return Err(ApiError::validation(format!(
                "Validation Error: FeatureName {} is reserved.",
                feature.name
            )));
        }
        if !seen.insert(feature.name.as_str()) {
            return Err(ApiError::validation(format!(
                "Validation Error: Duplicate feature name {}.",
                feature.name
            )));
        }
    }
    Ok(())
}

/// The feature that a member of the request singles out: one value, of any type but one.
fn special(features: &[Feature], name: &str, member: &str, not: FeatureType) -> Result<(), ApiError> {
    let Some(feature) = features.iter().find(|feature| feature.name == name) else {
        return Err(ApiError::validation(format!(
            "Validation Error: {member} {name} is not among the FeatureDefinitions."
        )));
    };
    if feature.collection.is_some() || feature.kind == not {
        return Err(ApiError::validation(format!(
            "Validation Error: {member} {name} must have one value, and its FeatureType may not be {not:?}."
        )));
    }
    Ok(())
}

fn ttl(given: shapes::TtlDuration) -> Result<Ttl, ApiError> {
    let unit = match given.unit {
        Some(shapes::TtlDurationUnit::Seconds) => TtlUnit::Seconds,
        Some(shapes::TtlDurationUnit::Minutes) => TtlUnit::Minutes,
        Some(shapes::TtlDurationUnit::Hours) => TtlUnit::Hours,
        Some(shapes::TtlDurationUnit::Days) => TtlUnit::Days,
        Some(shapes::TtlDurationUnit::Weeks) => TtlUnit::Weeks,
        None => return Err(ApiError::validation("Validation Error: TtlDuration needs a Unit.")),
    };
    let value = given.value.and_then(|value| u32::try_from(value).ok());
    let value = value.ok_or_else(|| ApiError::validation("Validation Error: TtlDuration needs a Value."))?;
    Ok(Ttl { unit, value })
}

fn shown_ttl(ttl: Ttl) -> shapes::TtlDuration {
    let unit = match ttl.unit {
        TtlUnit::Seconds => shapes::TtlDurationUnit::Seconds,
        TtlUnit::Minutes => shapes::TtlDurationUnit::Minutes,
        TtlUnit::Hours => shapes::TtlDurationUnit::Hours,
        TtlUnit::Days => shapes::TtlDurationUnit::Days,
        TtlUnit::Weeks => shapes::TtlDurationUnit::Weeks,
    };
    shapes::TtlDuration {
        unit: Some(unit),
        value: Some(i64::from(ttl.value)),
    }
}

/// A feature's type in AWS's spelling.
pub(super) fn shown_type(kind: FeatureType) -> shapes::FeatureType {
    match kind {
        FeatureType::Integral => shapes::FeatureType::Integral,
        FeatureType::Fractional => shapes::FeatureType::Fractional,
        FeatureType::String => shapes::FeatureType::String,
    }
}

fn shown_feature(feature: Feature) -> shapes::FeatureDefinition {
    let (collection_type, dimension) = match feature.collection {
        None => (None, None),
        Some(Collection::List) => (Some(shapes::CollectionType::List), None),
        Some(Collection::Set) => (Some(shapes::CollectionType::Set), None),
        Some(Collection::Vector { dimension }) => (Some(shapes::CollectionType::Vector), Some(dimension)),
    };
    shapes::FeatureDefinition {
        feature_name: feature.name,
        feature_type: shown_type(feature.kind),
        collection_type,
        collection_config: dimension.map(|dimension| shapes::CollectionConfig {
            vector_config: Some(shapes::VectorConfig {
                dimension: i64::from(dimension),
            }),
        }),
    }
}

impl Operation for shapes::DescribeFeatureGroupRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeFeatureGroup";
    type Output = shapes::DescribeFeatureGroupResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeFeatureGroup", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.next_token.is_some_and(|token| !token.is_empty()) {
            // All definitions fit into one answer: no token was ever given out.
            return Err(ApiError::validation("The NextToken that was given is not valid."));
        }
        Ok(described(existing(ctx, &request.feature_group_name)?))
    }
}

/// A group as DescribeFeatureGroup tells it.
pub(super) fn described(group: FeatureGroup) -> shapes::DescribeFeatureGroupResponse {
    shapes::DescribeFeatureGroupResponse {
        feature_group_arn: group.arn.to_string(),
        feature_group_name: group.name,
        record_identifier_feature_name: group.record_identifier,
        event_time_feature_name: group.event_time,
        feature_definitions: group.features.into_iter().map(shown_feature).collect(),
        creation_time: group.created.0,
        last_modified_time: Some(group.modified.0),
        online_store_config: Some(shapes::OnlineStoreConfig {
            security_config: None,
            enable_online_store: Some(true),
            ttl_duration: group.ttl.map(shown_ttl),
            storage_type: group.storage.parse().ok(),
        }),
        offline_store_config: None,
        throughput_config: Some(shapes::ThroughputConfigDescription {
            throughput_mode: shapes::ThroughputMode::OnDemand,
            provisioned_read_capacity_units: None,
            provisioned_write_capacity_units: None,
        }),
        role_arn: group.role_arn.map(|arn| arn.to_string()),
        feature_group_status: Some(shapes::FeatureGroupStatus::Created),
        offline_store_status: None,
        last_update_status: group.updated.then_some(shapes::LastUpdateStatus {
            status: shapes::LastUpdateStatusValue::Successful,
            failure_reason: None,
        }),
        failure_reason: None,
        description: group.description,
        next_token: String::new(),
        online_store_total_size_bytes: None,
    }
}

impl Operation for shapes::ListFeatureGroupsRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListFeatureGroups";
    type Output = shapes::ListFeatureGroupsResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListFeatureGroups")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        // There are no offline stores, so none has a status.
        if request.offline_store_status_equals.is_some() {
            return Ok(shapes::ListFeatureGroupsResponse {
                feature_group_summaries: Vec::new(),
                next_token: None,
            });
        }
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::FeatureGroupSortBy::Name | shapes::FeatureGroupSortBy::OfflineStoreStatus => SortBy::Name,
                shapes::FeatureGroupSortBy::FeatureGroupStatus => SortBy::Status,
                shapes::FeatureGroupSortBy::CreationTime => SortBy::Created,
            }),
            descending: request.sort_order == Some(shapes::FeatureGroupSortOrder::Descending),
            next_token: request.next_token.filter(|token| !token.is_empty()),
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request
                .feature_group_status_equals
                .map(shapes::FeatureGroupStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<FeatureGroup>(ctx, listing)?;
        let summaries = rows.into_iter().map(|row| shapes::FeatureGroupSummary {
            feature_group_name: row.record.name,
            feature_group_arn: row.record.arn.to_string(),
            creation_time: row.record.created.0,
            feature_group_status: Some(shapes::FeatureGroupStatus::Created),
            offline_store_status: None,
        });
        Ok(shapes::ListFeatureGroupsResponse {
            feature_group_summaries: summaries.collect(),
            next_token,
        })
    }
}

impl Operation for shapes::UpdateFeatureGroupRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateFeatureGroup";
    type Output = shapes::UpdateFeatureGroupResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:UpdateFeatureGroup", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let throughput = request
            .throughput_config
            .as_ref()
            .and_then(|config| config.throughput_mode);
        if throughput == Some(shapes::ThroughputMode::Provisioned) {
            return Err(unsupported("ThroughputConfig with ThroughputMode Provisioned"));
        }
        let online = request.online_store_config.clone().unwrap_or_default();
        let new_ttl = online.ttl_duration.map(ttl).transpose()?;
        let additions = request.feature_additions.unwrap_or_default();
        let now = ctx.clock.now();
        let given = request.feature_group_name.as_str();
        let group = update::<FeatureGroup>(
            ctx,
            &key(ctx, given)?,
            || missing(given),
            |group| {
                let storage = group.storage.parse().map_err(ApiError::internal)?;
                if online.storage_type.is_some_and(|wanted| wanted != storage) {
                    return Err(unsupported("Changing the StorageType of a feature group"));
                }
                group.features.extend(defined(&additions, storage, now)?);
                names_are_sound(&group.features)?;
                group.ttl = new_ttl.or(group.ttl);
                group.modified = now;
                group.updated = true;
                Ok(())
            },
        )?;
        Ok(shapes::UpdateFeatureGroupResponse {
            feature_group_arn: group.arn.to_string(),
        })
    }
}

impl Operation for shapes::DeleteFeatureGroupRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteFeatureGroup";
    type Output = shapes::DeleteFeatureGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteFeatureGroup", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().feature_group_name;
        let key = FeatureGroup::key(&ctx.caller.scope, name);
        loop {
            let group = find::<FeatureGroup>(ctx, &key)?.ok_or_else(|| missing(name))?;
            let remains = FeatureRemains {
                generation: group.record.generation.clone(),
                deleted: ctx.clock.now(),
            };
            let remains_key = Key::exact(&ctx.caller.scope, &remains.generation);
            let batch = Batch::default()
                .delete::<FeatureGroup>(&key, Expect::At(group.revision))
                .put(&remains_key, Expect::Any, &remains)
                .map_err(stored)?;
            match ctx.store.commit(batch) {
                Ok(_) => return Ok(shapes::DeleteFeatureGroupOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}
