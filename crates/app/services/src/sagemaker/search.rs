//! Search: resources by what Describe would tell of them (SM-14).

mod filter;

use super::{
    endpoint_view, feature_group, feature_metadata, model, model_package, model_package_group, shapes, stored,
    training_job,
};
use crate::{Ctx, Operation};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use filter::{Leaf, Place, matches, values};
use isolarium_model::Record;
use isolarium_model::sagemaker::model_package::{ModelPackage, ModelPackageGroup};
use isolarium_model::sagemaker::{Endpoint, FeatureGroup, Model, Tags, TrainingJob};
use isolarium_policy::{Granted, Question};
use isolarium_store::Query;
use isolarium_wire::catalog::service::{Kind, ShapeId};
use isolarium_wire::catalog::{self, Service};
use isolarium_wire::{ApiError, Document};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Results of a page when the request names no number.
const PAGE: usize = 10;

impl Operation for shapes::SearchRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "Search";
    type Output = Document;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        let conditions = self.visibility_conditions.iter().flatten();
        let question = conditions.fold(Question::any("sagemaker:Search"), |question, condition| {
            let key = condition.key.as_deref().unwrap_or_default();
            let value = condition.value.as_deref().unwrap_or_default();
            question.with(&format!("sagemaker:SearchVisibilityCondition/{key}"), value)
        });
        vec![question]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.cross_account_filter_option == Some(shapes::CrossAccountFilterOption::CrossAccount) {
            return Err(ApiError::validation(
                "CrossAccountFilterOption CrossAccount is not supported: nothing is shared between accounts.",
            ));
        }
        let member = member(request.resource)?;
        let service = catalog::by_name("sagemaker").map(catalog::Entry::model);
        let (service, shape) = service
            .and_then(|service| Some((service, shape_of(service, member)?)))
            .ok_or_else(|| ApiError::internal("the model has no Search"))?;
        let mut found = Vec::new();
        for (name, document) in documents(ctx, request.resource)? {
            let place = Place {
                service,
                shape,
                document: &document,
            };
            if visible(place, request.visibility_conditions.as_deref())?
                && matches(place, request.search_expression.as_ref())?
            {
                let sorted = sort_value(place, request.sort_by.as_deref())?;
                found.push((Position { sorted, name }, document));
            }
        }
        let hits = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let descending = request.sort_order != Some(shapes::SearchSortOrder::Ascending);
        let order = |a: &Position, b: &Position| {
            let by_value = a.sorted.cmp_with(&b.sorted);
            let by_value = if descending { by_value.reverse() } else { by_value };
            by_value.then_with(|| a.name.cmp(&b.name))
        };
        found.sort_by(|(a, _), (b, _)| order(a, b));
        if let Some(token) = request.next_token.as_deref().filter(|token| !token.is_empty()) {
            let after = Position::read(token)?;
            found.retain(|(position, _)| order(position, &after).is_gt());
        }
        let most = request
            .max_results
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(PAGE);
        let more = found.len() > most;
        found.truncate(most);
        let next_token = found.last().filter(|_| more).map(|(position, _)| position.token());
        let results = found.into_iter().map(|(_, document)| map([(member, document)]));
        let total = map([
            ("Value", Document::Integer(hits)),
            ("Relation", Document::String("EqualTo".into())),
        ]);
        let mut answer = vec![("Results", Document::List(results.collect())), ("TotalHits", total)];
        if let Some(token) = next_token.transpose()? {
            answer.push(("NextToken", Document::String(token)));
        }
        Ok(map(answer))
    }
}

fn map(members: impl IntoIterator<Item = (&'static str, Document)>) -> Document {
    Document::Map(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// The member of a result for each kind of resource that there is.
fn member(resource: shapes::ResourceType) -> Result<&'static str, ApiError> {
    match resource {
        shapes::ResourceType::TrainingJob => Ok("TrainingJob"),
        shapes::ResourceType::Endpoint => Ok("Endpoint"),
        shapes::ResourceType::Model => Ok("Model"),
        shapes::ResourceType::ModelPackage => Ok("ModelPackage"),
        shapes::ResourceType::ModelPackageGroup => Ok("ModelPackageGroup"),
        shapes::ResourceType::FeatureGroup => Ok("FeatureGroup"),
        shapes::ResourceType::FeatureMetadata => Ok("FeatureMetadata"),
        other => Err(ApiError::validation(format!(
            "Searching resources of type {other} is not supported by this engine yet; see docs/known-limits.md."
        ))),
    }
}

/// The shape of one result's member.
fn shape_of(service: &Service, member: &str) -> Option<ShapeId> {
    let answer = service.structure(service.operation("Search")?.output?)?;
    let Kind::List(list) = &service.shape(answer.member("Results")?.shape).kind else {
        return None;
    };
    Some(service.structure(list.member)?.member(member)?.shape)
}

/// Everything of one kind in the caller's account and region: unique names and members as a result shows them.
fn documents(ctx: &Ctx<'_>, resource: shapes::ResourceType) -> Result<Vec<(String, Document)>, ApiError> {
    match resource {
        shapes::ResourceType::TrainingJob => each::<TrainingJob>(ctx, |job| {
            let tags = job.tags.clone();
            let shown = training_job::view(job.clone(), ctx.clock.now())?;
            Ok(vec![(job.name, tagged(shown.into(), &tags))])
        }),
        shapes::ResourceType::Endpoint => each::<Endpoint>(ctx, |endpoint| {
            let (name, tags) = (endpoint.name.clone(), endpoint.tags.clone());
            Ok(vec![(
                name,
                tagged(endpoint_view::described(ctx, endpoint)?.into(), &tags),
            )])
        }),
        shapes::ResourceType::Model => each::<Model>(ctx, |one| {
            let (name, tags) = (one.name.clone(), one.tags.clone());
            let inner = tagged(model::described(one)?.into(), &tags);
            Ok(vec![(
                name,
                Document::Map([("Model".to_owned(), inner)].into_iter().collect()),
            )])
        }),
        // Versions of a group share its name.
        shapes::ResourceType::ModelPackage => each::<ModelPackage>(ctx, |one| {
            let shown = model_package::described(&one)?;
            Ok(vec![(one.arn.to_string(), tagged(shown.into(), &one.tags))])
        }),
        shapes::ResourceType::ModelPackageGroup => each::<ModelPackageGroup>(ctx, |group| {
            let (name, tags) = (group.name.clone(), group.tags.clone());
            Ok(vec![(
                name,
                tagged(model_package_group::described(group).into(), &tags),
            )])
        }),
        shapes::ResourceType::FeatureGroup => each::<FeatureGroup>(ctx, |group| {
            let (name, tags) = (group.name.clone(), group.tags.clone());
            Ok(vec![(name, tagged(feature_group::described(group).into(), &tags))])
        }),
        shapes::ResourceType::FeatureMetadata => each::<FeatureGroup>(ctx, |group| {
            let features = group.features.iter().map(|feature| {
                let name = format!("{}/{}", group.name, feature.name);
                (name, feature_metadata::described(&group, feature).into())
            });
            Ok(features.collect())
        }),
        _ => Ok(Vec::new()),
    }
}

type Described = Vec<(String, Document)>;

fn each<R: Record>(ctx: &Ctx<'_>, show: impl Fn(R) -> Result<Described, ApiError>) -> Result<Described, ApiError> {
    let page = ctx.store.query::<R>(&Query::all(&ctx.caller.scope)).map_err(stored)?;
    let mut all = Vec::new();
    for row in page.rows {
        all.extend(show(row.record)?);
    }
    Ok(all)
}

fn tagged(mut document: Document, tags: &Tags) -> Document {
    if let Document::Map(members) = &mut document
        && !tags.is_empty()
    {
        let tags = tags.iter().map(|(key, value)| {
            let pair = [("Key", key), ("Value", value)];
            map(pair.map(|(name, text)| (name, Document::String(text.clone()))))
        });
        members.insert("Tags".to_owned(), Document::List(tags.collect()));
    }
    document
}

/// Whether all visibility conditions hold: each names a property and its value.
fn visible(place: Place<'_>, conditions: Option<&[shapes::VisibilityConditions]>) -> Result<bool, ApiError> {
    for condition in conditions.unwrap_or_default() {
        let (Some(key), Some(value)) = (&condition.key, &condition.value) else {
            return Err(ApiError::validation(
                "Each of VisibilityConditions needs a Key and a Value.",
            ));
        };
        if !values(place, key)?.iter().any(|leaf| leaf.equals(value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a result is sorted by. Without a wish the last change counts, and the creation of what never changes.
fn sort_value(place: Place<'_>, wanted: Option<&str>) -> Result<Sorted, ApiError> {
    let first = |name: &str| values(place, name).map(|found| found.first().map(Sorted::of));
    match wanted {
        Some(name) => Ok(first(name)?.unwrap_or(Sorted::Nothing)),
        None => {
            let changed = first("LastModifiedTime").ok().flatten();
            let made = || first("CreationTime").ok().flatten();
            Ok(changed.or_else(made).unwrap_or(Sorted::Nothing))
        }
    }
}

/// A value to sort by; numbers and times before texts, what is missing before both.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Sorted {
    Number(f64),
    Text(String),
    Nothing,
}

impl Sorted {
    fn of(leaf: &Leaf<'_>) -> Self {
        match leaf {
            Leaf::Text(text) => Self::Text((*text).to_owned()),
            Leaf::Bool(value) => Self::Text(value.to_string()),
            Leaf::Number(number) => Self::Number(*number),
            Leaf::Time(millis) => Self::Number(filter::as_float(*millis)),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        }
    }

    fn cmp_with(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Where a result stands; the next page begins behind the last one's, whatever came or went (SM-11).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Position {
    sorted: Sorted,
    name: String,
}

impl Position {
    fn token(&self) -> Result<String, ApiError> {
        let text = serde_json::to_vec(self).map_err(ApiError::internal)?;
        Ok(URL_SAFE_NO_PAD.encode(text))
    }

    fn read(token: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.ok_or_else(|| ApiError::validation("The NextToken that was given is not valid."))
    }
}

#[cfg(test)]
mod tests;
