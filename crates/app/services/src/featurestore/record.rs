//! PutRecord, GetRecord, BatchGetRecord, DeleteRecord.

use super::values::{Checked, checked, checked_identifier};
use super::{absent, event_time, group, invalid, not_found, shapes, stored_record};
use crate::sagemaker::ask_feature_group as ask;
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::feature_group::{FeatureValue, Ttl, TtlUnit};
use isolarium_model::sagemaker::{FeatureGroup, FeatureRecord};
use isolarium_model::{Key, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::{Batch, Expect, StoreError, Stored};
use isolarium_wire::ApiError;

/// Changes one record until the write meets what it read; `decide` says what becomes of it.
fn change(
    ctx: &Ctx<'_>,
    key: &Key,
    decide: impl Fn(Option<&FeatureRecord>) -> Result<Decision, ApiError>,
) -> Result<(), ApiError> {
    loop {
        let found = stored_record(ctx, key)?;
        let expect = found
            .as_ref()
            .map_or(Expect::Absent, |stored| Expect::At(stored.revision));
        let now = ctx.clock.now();
        let living = found
            .as_ref()
            .map(|stored| &stored.record)
            .filter(|record| record.lives(now));
        let batch = match decide(living)? {
            Decision::Keep => return Ok(()),
            Decision::Write(record) => Batch::default().put(key, expect, &record).map_err(ApiError::internal)?,
            Decision::Remove if found.is_none() => return Ok(()),
            Decision::Remove => Batch::default().delete::<FeatureRecord>(key, expect),
        };
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}

/// What a write does to the version that is there.
enum Decision {
    /// It is newer, or as new: it stays.
    Keep,
    Write(FeatureRecord),
    Remove,
}

/// Whether a version of `time` replaces the one that is there: only a later one does.
fn replaces(time: Timestamp, living: Option<&FeatureRecord>) -> bool {
    living.is_none_or(|living| living.event_time < time)
}

/// Records go to the online store; nothing else can be asked for.
fn online_alone(target_stores: Option<&Vec<shapes::TargetStore>>) -> Result<(), ApiError> {
    match target_stores {
        Some(stores) if stores.contains(&shapes::TargetStore::OfflineStore) => {
            Err(invalid("The FeatureGroup has no offline store."))
        }
        Some(_) | None => Ok(()),
    }
}

fn ttl(given: shapes::TtlDuration) -> Result<Ttl, ApiError> {
    let unit = match given.unit {
        shapes::TtlDurationUnit::Seconds => TtlUnit::Seconds,
        shapes::TtlDurationUnit::Minutes => TtlUnit::Minutes,
        shapes::TtlDurationUnit::Hours => TtlUnit::Hours,
        shapes::TtlDurationUnit::Days => TtlUnit::Days,
        shapes::TtlDurationUnit::Weeks => TtlUnit::Weeks,
    };
    let value = u32::try_from(given.value).map_err(|_| invalid("The TtlDuration is out of range."))?;
    Ok(Ttl { unit, value })
}

impl Operation for shapes::PutRecordRequest {
    const SERVICE: &'static str = "sagemaker-featurestore-runtime";
    const NAME: &'static str = "PutRecord";
    type Output = shapes::PutRecordOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:PutRecord", &self.feature_group_name)]
    }

    /// Writes a version unless a version as new or newer is there: that is no error (a historic record).
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let given = request.feature_group_name.as_str();
        let group = &group(ctx, given)?.ok_or_else(|| invalid(absent(given)))?.record;
        online_alone(request.target_stores.as_ref())?;
        let ttl = request.ttl_duration.map(ttl).transpose()?.or(group.ttl);
        let Checked {
            identifier,
            event_time,
            values,
        } = checked(group, request.record)?;
        let record = FeatureRecord {
            event_time,
            values: Some(values),
            expires: ttl.map(|ttl| event_time.after(ttl.duration())),
        };
        change(ctx, &group.record_key(&ctx.caller.scope, &identifier), |living| {
            Ok(match replaces(event_time, living) {
                true => Decision::Write(record.clone()),
                false => Decision::Keep,
            })
        })?;
        Ok(shapes::PutRecordOutput {})
    }
}

impl Operation for shapes::DeleteRecordRequest {
    const SERVICE: &'static str = "sagemaker-featurestore-runtime";
    const NAME: &'static str = "DeleteRecord";
    type Output = shapes::DeleteRecordOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteRecord", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let given = request.feature_group_name.as_str();
        let group = &group(ctx, given)?.ok_or_else(|| invalid(absent(given)))?.record;
        online_alone(request.target_stores.as_ref())?;
        let identifier = checked_identifier(&request.record_identifier_value_as_string)?;
        let feature = group.feature(&group.event_time);
        let feature = feature.ok_or_else(|| ApiError::internal("a feature group has no event time"))?;
        let time = event_time::read(feature.kind, &request.event_time)?;
        let hard = request.deletion_mode == Some(shapes::DeletionMode::HardDelete);
        change(ctx, &group.record_key(&ctx.caller.scope, identifier), |living| {
            Ok(match (replaces(time, living), hard) {
                (true, true) => Decision::Remove,
                // The mark keeps versions out that are older than the deletion.
                (true, false) => Decision::Write(FeatureRecord {
                    event_time: time,
                    values: None,
                    expires: group.ttl.map(|ttl| time.after(ttl.duration())),
                }),
                (false, false) => Decision::Keep,
                (false, true) => {
                    return Err(invalid(
                        "The EventTime of a HardDelete must be later than the event time of the record in the online \
                         store.",
                    ));
                }
            })
        })?;
        Ok(shapes::DeleteRecordOutput {})
    }
}

/// Refuses names that are no features of the group.
fn known(group: &FeatureGroup, names: Option<&[String]>) -> Result<(), ApiError> {
    match names.into_iter().flatten().find(|name| group.feature(name).is_none()) {
        Some(name) => Err(invalid(format_args!(
            "FeatureGroup {} has no feature {name}.",
            group.name
        ))),
        None => Ok(()),
    }
}

/// What a read finds of a record that is there and not deleted.
struct Found {
    values: Vec<shapes::FeatureValue>,
    expires_at: Option<String>,
}

fn read(
    ctx: &Ctx<'_>,
    group: &FeatureGroup,
    identifier: &str,
    names: Option<&[String]>,
    expiry: Option<shapes::ExpirationTimeResponse>,
) -> Result<Option<Found>, ApiError> {
    let key = group.record_key(&ctx.caller.scope, checked_identifier(identifier)?);
    let now = ctx.clock.now();
    let found = stored_record(ctx, &key)?.map(|Stored { record, .. }| record);
    let Some(record) = found.filter(|record| record.lives(now)) else {
        return Ok(None);
    };
    let Some(values) = record.values else { return Ok(None) };
    let asked = values
        .into_iter()
        .filter(|(name, _)| names.is_none_or(|names| names.contains(name)));
    let values: Vec<_> = asked
        .map(|(feature_name, value)| match value {
            FeatureValue::One(text) => shapes::FeatureValue {
                feature_name,
                value_as_string: Some(text),
                value_as_string_list: None,
            },
            FeatureValue::Many(texts) => shapes::FeatureValue {
                feature_name,
                value_as_string: None,
                value_as_string_list: Some(texts),
            },
        })
        .collect();
    let wanted = expiry == Some(shapes::ExpirationTimeResponse::Enabled);
    let expires_at = record.expires.filter(|_| wanted).map(event_time::shown);
    // A record has at least one value in an answer; one without any of the features asked for is as good as none.
    Ok((!values.is_empty()).then_some(Found { values, expires_at }))
}

impl Operation for shapes::GetRecordRequest {
    const SERVICE: &'static str = "sagemaker-featurestore-runtime";
    const NAME: &'static str = "GetRecord";
    type Output = shapes::GetRecordResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:GetRecord", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let given = request.feature_group_name.as_str();
        let group = &group(ctx, given)?.ok_or_else(|| not_found(given))?.record;
        let names = request.feature_names.as_deref();
        known(group, names)?;
        let identifier = &request.record_identifier_value_as_string;
        let found = read(ctx, group, identifier, names, request.expiration_time_response)?;
        let (record, expires_at) = found.map_or((None, None), |found| (Some(found.values), found.expires_at));
        Ok(shapes::GetRecordResponse { record, expires_at })
    }
}

impl Operation for shapes::BatchGetRecordRequest {
    const SERVICE: &'static str = "sagemaker-featurestore-runtime";
    const NAME: &'static str = "BatchGetRecord";
    type Output = shapes::BatchGetRecordResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for identifier in &self.identifiers {
            let question = ask(ctx, "sagemaker:BatchGetRecord", &identifier.feature_group_name);
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let mut answer = shapes::BatchGetRecordResponse::default();
        for asked in &request.identifiers {
            let given = asked.feature_group_name.as_str();
            let names = asked.feature_names.as_deref();
            let group = group(ctx, given)?;
            for identifier in &asked.record_identifiers_value_as_string {
                let found = match &group {
                    None => Err(not_found(given)),
                    Some(group) => known(&group.record, names)
                        .and_then(|()| read(ctx, &group.record, identifier, names, request.expiration_time_response)),
                };
                match found {
                    Ok(None) => {}
                    Ok(Some(found)) => answer.records.push(shapes::BatchGetRecordResultDetail {
                        feature_group_name: given.into(),
                        record_identifier_value_as_string: identifier.clone(),
                        record: found.values,
                        expires_at: found.expires_at,
                    }),
                    Err(error) if error.status >= 500 => return Err(error),
                    Err(error) => answer.errors.push(shapes::BatchGetRecordError {
                        feature_group_name: given.into(),
                        record_identifier_value_as_string: identifier.clone(),
                        error_code: error.code,
                        error_message: error.message,
                    }),
                }
            }
        }
        Ok(answer)
    }
}
