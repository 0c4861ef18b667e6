//! From an embedded compact model to a [`Service`].

use super::pattern::Pattern;
use super::service::{
    ErrorShape, Kind, List, Location, Map, Member, Operation, Range, Service, Shape, ShapeId, Structure, Text,
};
use flate2::read::GzDecoder;
use indexmap::IndexMap;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the embedded model cannot be unpacked")]
    Unpack(#[source] std::io::Error),
    #[error("the embedded model is not JSON of the expected form")]
    Parse(#[source] serde_json::Error),
    #[error("the embedded model names the shape {0}, which it does not have")]
    Dangling(String),
}

#[derive(Deserialize)]
struct RawModel<'a> {
    #[serde(borrow)]
    metadata: RawMetadata<'a>,
    #[serde(borrow)]
    operations: HashMap<Cow<'a, str>, RawOperation<'a>>,
    #[serde(borrow)]
    shapes: IndexMap<Cow<'a, str>, RawShape<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    aws_query_compatible: Option<serde::de::IgnoredAny>,
    #[serde(borrow)]
    xml_namespace: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawOperation<'a> {
    #[serde(borrow)]
    http: RawHttp<'a>,
    input: Option<RawReference<'a>>,
    output: Option<RawReference<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    request_uri: Cow<'a, str>,
    response_code: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReference<'a> {
    #[serde(borrow)]
    shape: Cow<'a, str>,
    location: Option<Cow<'a, str>>,
    location_name: Option<Cow<'a, str>>,
    query_name: Option<Cow<'a, str>>,
    result_wrapper: Option<Cow<'a, str>>,
    #[serde(default)]
    eventpayload: bool,
}

#[derive(Deserialize)]
struct RawShape<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    members: IndexMap<Cow<'a, str>, RawReference<'a>>,
    #[serde(default)]
    required: Vec<Cow<'a, str>>,
    payload: Option<Cow<'a, str>>,
    #[serde(default)]
    eventstream: bool,
    #[serde(default)]
    exception: bool,
    error: Option<RawError<'a>>,
    #[serde(default)]
    fault: bool,
    member: Option<RawReference<'a>>,
    key: Option<RawReference<'a>>,
    value: Option<RawReference<'a>>,
    #[serde(default)]
    flattened: bool,
    #[serde(default)]
    sensitive: bool,
    min: Option<f64>,
    max: Option<f64>,
    pattern: Option<Cow<'a, str>>,
    #[serde(default, rename = "enum")]
    values: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawError<'a> {
    code: Option<Cow<'a, str>>,
    http_status_code: Option<u16>,
}

/// One copy of every name. Models live as long as the program, so their names do too.
#[derive(Default)]
struct Names(HashSet<&'static str>);

impl Names {
    fn keep(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.0.get(text) {
            return known;
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.0.insert(kept);
        kept
    }

    fn keep_some(&mut self, text: &Option<Cow<'_, str>>) -> Option<&'static str> {
        text.as_deref().map(|text| self.keep(text))
    }
}

struct Loader<'a> {
    names: Names,
    ids: HashMap<&'a str, ShapeId>,
}

impl<'a> Loader<'a> {
    fn id(&self, reference: &RawReference<'_>) -> Result<ShapeId, LoadError> {
        self.ids
            .get(&*reference.shape)
            .copied()
            .ok_or_else(|| LoadError::Dangling(reference.shape.to_string()))
    }

    fn part(&self, part: &Option<RawReference<'a>>, of: &str) -> Result<ShapeId, LoadError> {
        part.as_ref()
            .map(|part| self.id(part))
            .unwrap_or_else(|| Err(LoadError::Dangling(of.into())))
    }

    fn member(&mut self, name: &str, raw: &RawReference<'_>, required: bool) -> Result<Member, LoadError> {
        Ok(Member {
            name: self.names.keep(name),
            location_name: self.names.keep_some(&raw.location_name),
            query_name: self.names.keep_some(&raw.query_name),
            location: match raw.location.as_deref() {
                Some("uri") => Location::Uri,
                Some("querystring") => Location::Query,
                Some("header") => Location::Header,
                Some("headers") => Location::Headers,
                Some("statusCode") => Location::StatusCode,
                _ => Location::Body,
            },
            shape: self.id(raw)?,
            required,
            event_payload: raw.eventpayload,
        })
    }

    fn shape(&mut self, name: &str, raw: &RawShape<'a>) -> Result<Shape, LoadError> {
        let range = Range {
            min: raw.min,
            max: raw.max,
        };
        let kind = match &*raw.kind {
            "structure" => {
                let mut members = Vec::with_capacity(raw.members.len());
                for (member, reference) in &raw.members {
                    members.push(self.member(member, reference, raw.required.contains(member))?);
                }
                Kind::Structure(Box::new(Structure {
                    members,
                    payload: self.names.keep_some(&raw.payload),
                    event_stream: raw.eventstream,
                }))
            }
            "list" => Kind::List(Box::new(List {
                member: self.part(&raw.member, name)?,
                member_name: raw
                    .member
                    .as_ref()
                    .and_then(|member| self.names.keep_some(&member.location_name)),
                flattened: raw.flattened,
                size: range,
            })),
            "map" => Kind::Map(Box::new(Map {
                key: self.part(&raw.key, name)?,
                value: self.part(&raw.value, name)?,
                key_name: raw
                    .key
                    .as_ref()
                    .and_then(|key| self.names.keep_some(&key.location_name)),
                value_name: raw
                    .value
                    .as_ref()
                    .and_then(|value| self.names.keep_some(&value.location_name)),
                flattened: raw.flattened,
                size: range,
            })),
            "integer" => Kind::Integer(range),
            "long" => Kind::Long(range),
            "float" | "double" => Kind::Float(range),
            "boolean" => Kind::Boolean,
            "blob" => Kind::Blob(range),
            "timestamp" => Kind::Timestamp,
            _ => Kind::Text(Box::new(Text {
                length: range,
                pattern: self.names.keep_some(&raw.pattern).map(Pattern::new),
                values: raw.values.iter().map(|value| self.names.keep(value)).collect(),
            })),
        };
        Ok(Shape {
            name: self.names.keep(name),
            kind,
            sensitive: raw.sensitive,
        })
    }
}

/// Unpacks and reads one embedded model.
pub fn load(name: &'static str, packed: &[u8]) -> Result<Service, LoadError> {
    let mut text = String::new();
    GzDecoder::new(packed)
        .read_to_string(&mut text)
        .map_err(LoadError::Unpack)?;
    let raw: RawModel<'_> = serde_json::from_str(&text).map_err(LoadError::Parse)?;
    let ids = raw
        .shapes
        .keys()
        .zip(0..)
        .map(|(name, at)| (&**name, ShapeId(at)))
        .collect();
    let mut loader = Loader {
        names: Names::default(),
        ids,
    };
    let mut shapes = Vec::with_capacity(raw.shapes.len());
    let mut errors = Vec::new();
    for (at, (shape_name, shape)) in (0..).zip(&raw.shapes) {
        shapes.push(loader.shape(shape_name, shape)?);
        if shape.exception {
            let stated = shape.error.as_ref();
            errors.push(ErrorShape {
                name: loader.names.keep(shape_name),
                query_code: stated.and_then(|error| loader.names.keep_some(&error.code)),
                status: stated
                    .and_then(|error| error.http_status_code)
                    .or(shape.fault.then_some(500)),
                shape: ShapeId(at),
            });
        }
    }
    let mut operations = Vec::with_capacity(raw.operations.len());
    for (operation_name, operation) in &raw.operations {
        let optional = |reference: &Option<RawReference<'_>>| reference.as_ref().map(|r| loader.id(r)).transpose();
        let (input, output) = (optional(&operation.input)?, optional(&operation.output)?);
        let names = &mut loader.names;
        operations.push(Operation {
            name: names.keep(operation_name),
            input,
            output,
            result_wrapper: operation
                .output
                .as_ref()
                .and_then(|output| names.keep_some(&output.result_wrapper)),
            method: names.keep(&operation.http.method),
            uri: names.keep(&operation.http.request_uri),
            status: operation.http.response_code.unwrap_or(200),
        });
    }
    operations.sort_by_key(|operation| operation.name);
    Ok(Service {
        name,
        api_version: loader.names.keep(&raw.metadata.api_version),
        xml_namespace: loader.names.keep_some(&raw.metadata.xml_namespace).unwrap_or_default(),
        query_compatible: raw.metadata.aws_query_compatible.is_some(),
        operations,
        shapes,
        errors,
    })
}
