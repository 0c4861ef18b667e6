use super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal};
use isolarium_model::sagemaker::{FeatureRecord, FeatureRemains};
use isolarium_model::{Key, Timestamp};
use isolarium_store::state::{Batch, Listener, Query, RawPage, Recent, Revision};
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::shapes::sagemaker as control;
use isolarium_wire::{ApiError, Document};
use std::sync::atomic::Ordering;

const SERVICE: &str = "sagemaker-featurestore-runtime";

fn definition(name: &str, kind: control::FeatureType) -> control::FeatureDefinition {
    control::FeatureDefinition {
        feature_name: name.into(),
        feature_type: kind,
        collection_type: None,
        collection_config: None,
    }
}

fn group(name: &str) -> control::CreateFeatureGroupRequest {
    control::CreateFeatureGroupRequest {
        feature_group_name: name.into(),
        record_identifier_feature_name: "id".into(),
        event_time_feature_name: "at".into(),
        feature_definitions: vec![
            definition("id", control::FeatureType::String),
            definition("at", control::FeatureType::Fractional),
            definition("count", control::FeatureType::Integral),
        ],
        online_store_config: Some(control::OnlineStoreConfig {
            enable_online_store: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn make(fixture: &Fixture, request: control::CreateFeatureGroupRequest) {
    let made: Result<control::CreateFeatureGroupResponse, _> = fixture.call("sagemaker", "CreateFeatureGroup", request);
    made.unwrap();
}

fn one(name: &str, text: &str) -> FeatureValue {
    FeatureValue {
        feature_name: name.into(),
        value_as_string: Some(text.into()),
        value_as_string_list: None,
    }
}

fn put_values(fixture: &Fixture, record: Vec<FeatureValue>) -> Result<PutRecordOutput, ApiError> {
    let request = PutRecordRequest {
        feature_group_name: "g".into(),
        record,
        ..Default::default()
    };
    fixture.call(SERVICE, "PutRecord", request)
}

fn put(fixture: &Fixture, id: &str, at: &str, count: &str) {
    put_values(fixture, vec![one("id", id), one("at", at), one("count", count)]).unwrap();
}

fn delete(fixture: &Fixture, id: &str, at: &str, mode: DeletionMode) -> Result<DeleteRecordOutput, ApiError> {
    let request = DeleteRecordRequest {
        feature_group_name: "g".into(),
        record_identifier_value_as_string: id.into(),
        event_time: at.into(),
        deletion_mode: Some(mode),
        ..Default::default()
    };
    fixture.call(SERVICE, "DeleteRecord", request)
}

fn get(fixture: &Fixture, group: &str, id: &str) -> Result<GetRecordResponse, ApiError> {
    let request = GetRecordRequest {
        feature_group_name: group.into(),
        record_identifier_value_as_string: id.into(),
        expiration_time_response: Some(ExpirationTimeResponse::Enabled),
        ..Default::default()
    };
    fixture.call(SERVICE, "GetRecord", request)
}

fn count(fixture: &Fixture, id: &str) -> Option<String> {
    let record = get(fixture, "g", id).unwrap().record?;
    record
        .into_iter()
        .find(|one| one.feature_name == "count")?
        .value_as_string
}

fn later(fixture: &Fixture, seconds: i64) {
    fixture.clock.0.fetch_add(seconds * 1000, Ordering::Relaxed);
}

#[test]
fn the_latest_event_time_wins_in_whatever_order_versions_arrive() {
    let fixture = Fixture::new();
    make(&fixture, group("g"));
    assert_eq!(count(&fixture, "a"), None);
    put(&fixture, "a", "100.5", "1");
    put(&fixture, "a", "99", "2");
    put(&fixture, "a", "100.5", "3");
    assert_eq!(
        count(&fixture, "a").as_deref(),
        Some("1"),
        "older and equal ones stay out"
    );
    put(&fixture, "a", "100.501", "4");
    assert_eq!(count(&fixture, "a").as_deref(), Some("4"));
    // A version replaces the whole record: what it leaves out is gone.
    put_values(&fixture, vec![one("at", "101"), one("id", "a")]).unwrap();
    assert_eq!(count(&fixture, "a"), None);
    let names: Vec<_> = get(&fixture, "g", "a").unwrap().record.unwrap();
    assert_eq!(names, [one("at", "101"), one("id", "a")]);
}

#[test]
fn soft_deletion_keeps_older_versions_out_and_hard_deletion_forgets() {
    let fixture = Fixture::new();
    make(&fixture, group("g"));
    put(&fixture, "a", "100", "1");
    delete(&fixture, "a", "99", DeletionMode::SoftDelete).unwrap();
    assert_eq!(
        count(&fixture, "a").as_deref(),
        Some("1"),
        "a soft deletion of the past does nothing"
    );
    let (code, text) = refusal(delete(&fixture, "a", "100", DeletionMode::HardDelete));
    assert_eq!(code, "ValidationError");
    assert!(text.contains("HardDelete must be later"), "{text}");
    delete(&fixture, "a", "110", DeletionMode::SoftDelete).unwrap();
    assert_eq!(count(&fixture, "a"), None);
    put(&fixture, "a", "105", "2");
    assert_eq!(count(&fixture, "a"), None, "the mark is newer");
    put(&fixture, "a", "111", "3");
    assert_eq!(count(&fixture, "a").as_deref(), Some("3"));
    delete(&fixture, "a", "120", DeletionMode::HardDelete).unwrap();
    put(&fixture, "a", "1", "4");
    assert_eq!(
        count(&fixture, "a").as_deref(),
        Some("4"),
        "nothing is left that could be newer"
    );
}

#[test]
fn a_record_ends_its_time_to_live_after_its_event_time() {
    let fixture = Fixture::new();
    let mut request = group("g");
    request.online_store_config.as_mut().unwrap().ttl_duration = Some(control::TtlDuration {
        unit: Some(control::TtlDurationUnit::Minutes),
        value: Some(2),
    });
    make(&fixture, request);
    let now = START / 1000;
    put(&fixture, "a", &now.to_string(), "1");
    let own = PutRecordRequest {
        feature_group_name: "g".into(),
        record: vec![one("id", "b"), one("at", &now.to_string()), one("count", "2")],
        ttl_duration: Some(TtlDuration {
            unit: TtlDurationUnit::Hours,
            value: 1,
        }),
        ..Default::default()
    };
    let _: PutRecordOutput = fixture.call(SERVICE, "PutRecord", own).unwrap();
    let expires = get(&fixture, "g", "a").unwrap().expires_at;
    assert_eq!(expires.as_deref(), Some("2023-11-14T22:15:20.000Z"));
    later(&fixture, 119);
    assert_eq!(count(&fixture, "a").as_deref(), Some("1"));
    later(&fixture, 1);
    assert_eq!(count(&fixture, "a"), None);
    assert_eq!(count(&fixture, "b").as_deref(), Some("2"), "control: a time of its own");
    let store: &dyn StateStore = &fixture.store;
    let now = Timestamp(fixture.clock.0.load(Ordering::Relaxed));
    assert_eq!(super::housekeeping::sweep(store, now).unwrap(), 1);
    assert_eq!(store.all::<FeatureRecord>().unwrap().len(), 1);
    assert_eq!(count(&fixture, "b").as_deref(), Some("2"));
}

#[test]
fn what_does_not_fit_the_group_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let mut request = group("g");
    let vector = control::FeatureDefinition {
        collection_type: Some(control::CollectionType::Vector),
        collection_config: Some(control::CollectionConfig {
            vector_config: Some(control::VectorConfig { dimension: 2 }),
        }),
        ..definition("vector", control::FeatureType::Fractional)
    };
    let set = control::FeatureDefinition {
        collection_type: Some(control::CollectionType::Set),
        ..definition("set", control::FeatureType::Integral)
    };
    request.feature_definitions.extend([vector, set]);
    let standard: Result<control::CreateFeatureGroupResponse, _> =
        fixture.call("sagemaker", "CreateFeatureGroup", request.clone());
    assert!(refusal(standard).1.contains("InMemory"));
    request.online_store_config.as_mut().unwrap().storage_type = Some(control::StorageType::InMemory);
    make(&fixture, request);
    let many = |name: &str, texts: &[&str]| FeatureValue {
        feature_name: name.into(),
        value_as_string: None,
        value_as_string_list: Some(texts.iter().map(ToString::to_string).collect()),
    };
    let (id, at) = (one("id", "a"), one("at", "1"));
    for (record, reason) in [
        (vec![id.clone()], "required feature at"),
        (vec![at.clone()], "required feature id"),
        (vec![id.clone(), at.clone(), one("other", "1")], "has no feature other"),
        (vec![id.clone(), at.clone(), id.clone()], "Duplicate feature id"),
        (vec![id.clone(), one("at", "yesterday")], "is not of type Fractional"),
        (vec![id.clone(), one("at", "-1")], "must be seconds since the epoch"),
        (
            vec![id.clone(), at.clone(), one("count", "1.5")],
            "is not of type Integral",
        ),
        (
            vec![id.clone(), at.clone(), one("vector", "1")],
            "needs ValueAsStringList",
        ),
        (
            vec![id.clone(), at.clone(), many("count", &["1"])],
            "needs ValueAsString and",
        ),
        (
            vec![id.clone(), at.clone(), many("vector", &["1"])],
            "vector of 2 values",
        ),
        (vec![id.clone(), at.clone(), many("set", &["1", "1"])], "given twice"),
        (vec![one("id", &"x".repeat(2049)), at.clone()], "at most 2048 bytes"),
    ] {
        let (code, text) = refusal(put_values(&fixture, record));
        assert_eq!(code, "ValidationError");
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(get(&fixture, "g", "a").unwrap().record, None);
    let whole = vec![id, at, many("vector", &["0.5", "-1e3"]), many("set", &["1", "2"])];
    put_values(&fixture, whole.clone()).unwrap();
    assert_eq!(get(&fixture, "g", "a").unwrap().record, Some(whole), "control");
}

#[test]
fn a_group_that_is_made_anew_does_not_see_the_records_of_the_old_one() {
    let fixture = Fixture::new();
    make(&fixture, group("g"));
    put(&fixture, "a", "1", "1");
    assert_eq!(refusal(get(&fixture, "other", "a")).0, "ResourceNotFound");
    let request = control::DeleteFeatureGroupRequest {
        feature_group_name: "g".into(),
    };
    let _: control::DeleteFeatureGroupOutput = fixture.call("sagemaker", "DeleteFeatureGroup", request).unwrap();
    assert_eq!(refusal(get(&fixture, "g", "a")).0, "ResourceNotFound");
    make(&fixture, group("g"));
    assert_eq!(count(&fixture, "a"), None);
    put(&fixture, "b", "1", "2");
    let store: &dyn StateStore = &fixture.store;
    assert_eq!(
        super::housekeeping::sweep(store, Timestamp(START)).unwrap(),
        0,
        "writes may be under way"
    );
    assert_eq!(super::housekeeping::sweep(store, Timestamp(START + 60_000)).unwrap(), 1);
    assert!(store.all::<FeatureRemains>().unwrap().is_empty());
    assert_eq!(count(&fixture, "b").as_deref(), Some("2"));
}

/// A store whose next commit meets a change of somebody else.
struct Contended<'a> {
    store: &'a dyn StateStore,
    once: std::sync::atomic::AtomicBool,
}

impl StateStore for Contended<'_> {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
        self.store.get_raw(kind, key)
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError> {
        self.store.query_raw(kind, query)
    }

    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError> {
        self.store.all_raw(kind, statuses)
    }

    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.counts()
    }

    fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        if self.once.swap(false, Ordering::Relaxed) {
            let (kind, name) = (String::new(), String::new());
            return Err(StoreError::Conflict { kind, name });
        }
        self.store.commit(batch)
    }

    fn subscribe(&self, listener: Listener) {
        self.store.subscribe(listener);
    }

    fn recent(&self) -> &Recent {
        self.store.recent()
    }
}

#[test]
fn what_is_left_of_a_group_is_remembered_until_it_is_gone() {
    let fixture = Fixture::new();
    make(&fixture, group("g"));
    put(&fixture, "a", "1", "1");
    let request = control::DeleteFeatureGroupRequest {
        feature_group_name: "g".into(),
    };
    let _: control::DeleteFeatureGroupOutput = fixture.call("sagemaker", "DeleteFeatureGroup", request).unwrap();
    let store = Contended {
        store: &fixture.store,
        once: true.into(),
    };
    let later = Timestamp(START + 60_000);
    let left = || {
        let plain: &dyn StateStore = &fixture.store;
        plain.all::<FeatureRemains>().unwrap()
    };
    assert_eq!(super::housekeeping::sweep(&store, later).unwrap(), 0);
    assert_eq!(left().len(), 1);
    assert_eq!(super::housekeeping::sweep(&store, later).unwrap(), 1);
    assert!(left().is_empty());
    let plain: &dyn StateStore = &fixture.store;
    assert!(plain.all::<FeatureRecord>().unwrap().is_empty());
}

#[test]
fn a_batch_tells_what_it_found_and_what_went_wrong() {
    let fixture = Fixture::new();
    make(&fixture, group("g"));
    put(&fixture, "a", "1", "1");
    let ask = |group: &str, ids: &[&str]| BatchGetRecordIdentifier {
        feature_group_name: group.into(),
        record_identifiers_value_as_string: ids.iter().map(ToString::to_string).collect(),
        feature_names: Some(vec!["count".into()]),
    };
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:feature-group/g";
    let foreign = "arn:aws:sagemaker:eu-west-1:123456789012:feature-group/g";
    let request = BatchGetRecordRequest {
        identifiers: vec![ask("g", &["a", "b"]), ask(arn, &["a"]), ask(foreign, &["a"])],
        expiration_time_response: None,
    };
    let answer: BatchGetRecordResponse = fixture.call(SERVICE, "BatchGetRecord", request).unwrap();
    let found: Vec<_> = answer
        .records
        .iter()
        .map(|one| (one.feature_group_name.as_str(), one.record.clone()))
        .collect();
    assert_eq!(found, [("g", vec![one("count", "1")]), (arn, vec![one("count", "1")])]);
    let errors: Vec<_> = answer.errors.iter().map(|one| one.error_code.as_str()).collect();
    assert_eq!(errors, ["ResourceNotFound"]);
    let members: Document = answer.into();
    assert!(matches!(members, Document::Map(members) if members.contains_key("UnprocessedIdentifiers")));
}
