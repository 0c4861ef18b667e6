//! What a record of a request must be to become one of the store.

use super::{event_time, invalid, shapes};
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::FeatureGroup;
use isolarium_model::sagemaker::feature_group::{Collection, Feature, FeatureType, FeatureValue};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// Bytes of a record identifier.
const LONGEST_IDENTIFIER: usize = 2 << 10;
/// Bytes of all names and values of a record.
const LARGEST_RECORD: usize = 350 << 10;

/// A record that fits its group.
pub(super) struct Checked {
    pub identifier: String,
    pub event_time: Timestamp,
    pub values: Vec<(String, FeatureValue)>,
}

/// Checks names and types of a record.
///
/// # Errors
/// `ValidationError` with what is wrong first.
pub(super) fn checked(group: &FeatureGroup, record: Vec<shapes::FeatureValue>) -> Result<Checked, ApiError> {
    let (mut identifier, mut time) = (None, None);
    let (mut values, mut seen, mut size) = (Vec::new(), BTreeSet::new(), 0_usize);
    for given in record {
        let name = given.feature_name.clone();
        let Some(feature) = group.feature(&name) else {
            return Err(invalid(format_args!(
                "FeatureGroup {} has no feature {name}.",
                group.name
            )));
        };
        if !seen.insert(name.clone()) {
            return Err(invalid(format_args!("Duplicate feature {name} in the record.")));
        }
        let value = value(feature, given)?;
        size = size.saturating_add(name.len()).saturating_add(match &value {
            FeatureValue::One(text) => text.len(),
            FeatureValue::Many(texts) => texts.iter().map(String::len).sum(),
        });
        if let FeatureValue::One(text) = &value {
            if name == group.record_identifier {
                identifier = Some(checked_identifier(text)?.to_owned());
            } else if name == group.event_time {
                time = Some(event_time::read(feature.kind, text)?);
            }
        }
        values.push((name, value));
    }
    if size > LARGEST_RECORD {
        return Err(invalid(format_args!(
            "A record can have at most {LARGEST_RECORD} bytes."
        )));
    }
    let lacking = |name: &str| invalid(format_args!("The record has no value for the required feature {name}."));
    Ok(Checked {
        identifier: identifier.ok_or_else(|| lacking(&group.record_identifier))?,
        event_time: time.ok_or_else(|| lacking(&group.event_time))?,
        values,
    })
}

/// The identifier of a record, as requests of every operation give it.
pub(super) fn checked_identifier(text: &str) -> Result<&str, ApiError> {
    match text.len() {
        0 => Err(invalid("The record identifier is empty.")),
        1..=LONGEST_IDENTIFIER => Ok(text),
        _ => Err(invalid(format_args!(
            "A record identifier can have at most {LONGEST_IDENTIFIER} bytes."
        ))),
    }
}

fn value(feature: &Feature, given: shapes::FeatureValue) -> Result<FeatureValue, ApiError> {
    let name = &feature.name;
    match (feature.collection, given.value_as_string, given.value_as_string_list) {
        (None, Some(text), None) => scalar(feature, &text).map(|()| FeatureValue::One(text)),
        (Some(collection), None, Some(texts)) => {
            texts.iter().try_for_each(|text| scalar(feature, text))?;
            match collection {
                Collection::Vector { dimension } if texts.len() != usize::from(dimension) => {
                    Err(invalid(format_args!(
                        "Feature {name} is a vector of {dimension} values, and {} were given.",
                        texts.len()
                    )))
                }
                Collection::Set if texts.iter().collect::<BTreeSet<_>>().len() != texts.len() => Err(invalid(
                    format_args!("Feature {name} is a set, and a value was given twice."),
                )),
                Collection::Set | Collection::List | Collection::Vector { .. } => Ok(FeatureValue::Many(texts)),
            }
        }
        (None, _, _) => Err(invalid(format_args!(
            "Feature {name} needs ValueAsString and nothing else."
        ))),
        (Some(_), _, _) => Err(invalid(format_args!(
            "Feature {name} is a collection and needs ValueAsStringList and nothing else."
        ))),
    }
}

fn scalar(feature: &Feature, text: &str) -> Result<(), ApiError> {
    let fits = match feature.kind {
        FeatureType::String => true,
        FeatureType::Integral => text.parse::<i64>().is_ok(),
        FeatureType::Fractional => text.parse::<f64>().is_ok_and(f64::is_finite),
    };
    if fits {
        return Ok(());
    }
    Err(invalid(format_args!(
        "The value {} of feature {} is not of type {:?}.",
        crate::audit::beginning(text, 64),
        feature.name,
        feature.kind
    )))
}
