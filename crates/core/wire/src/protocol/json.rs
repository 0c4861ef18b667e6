//! Documents in JSON, for awsJson and restJson1.

use crate::Document;
use crate::catalog::service::{Kind, Member, Service, ShapeId, Structure};
use crate::timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde_json::{Number, Value};

/// Why a body is not what the operation takes: the text of a `SerializationException`.
pub type Mismatch = String;

/// Reads the members that travel in the body.
///
/// # Errors
/// When the body is not JSON or a value has the wrong type.
pub fn read(service: &Service, structure: &Structure, body: &[u8]) -> Result<IndexMap<String, Document>, Mismatch> {
    let value: Value = match body {
        [] => return Ok(IndexMap::new()),
        body => serde_json::from_slice(body).map_err(|error| malformed(&error))?,
    };
    match value {
        Value::Object(members) => structure_members(service, structure, members),
        _ => Err("Expected a structure at the start of the body.".into()),
    }
}

fn malformed(error: &serde_json::Error) -> Mismatch {
    format!(
        "The body is not valid JSON at line {}, column {}.",
        error.line(),
        error.column()
    )
}

fn structure_members(
    service: &Service,
    structure: &Structure,
    mut given: serde_json::Map<String, Value>,
) -> Result<IndexMap<String, Document>, Mismatch> {
    let mut members = IndexMap::new();
    // In the model's order, whatever the client's; what the model does not know is ignored (SM-5).
    for member in structure
        .members
        .iter()
        .filter(|member| in_body(service, structure, member))
    {
        match given.remove(member.wire_name()) {
            None | Some(Value::Null) => {}
            Some(value) => {
                members.insert(member.name.to_owned(), convert(service, member.shape, value)?);
            }
        }
    }
    Ok(members)
}

/// Whether a member travels in the JSON body.
pub fn in_body(service: &Service, structure: &Structure, member: &Member) -> bool {
    use crate::catalog::service::Location;
    member.location == Location::Body && !service.beside(structure, member)
}

fn convert(service: &Service, id: ShapeId, value: Value) -> Result<Document, Mismatch> {
    Ok(match (&service.shape(id).kind, value) {
        (Kind::Structure(structure), Value::Object(members)) => {
            Document::Map(structure_members(service, structure, members)?)
        }
        (Kind::List(list), Value::Array(items)) => Document::List(
            items
                .into_iter()
                .map(|item| convert(service, list.member, item))
                .collect::<Result<_, _>>()?,
        ),
        (Kind::Map(map), Value::Object(entries)) => {
            let mut converted = IndexMap::with_capacity(entries.len());
            for (key, value) in entries {
                converted.insert(key, convert(service, map.value, value)?);
            }
            Document::Map(converted)
        }
        (Kind::Text(_), Value::String(text)) => Document::String(text),
        (Kind::Boolean, Value::Bool(value)) => Document::Bool(value),
        (Kind::Integer(_), Value::Number(number)) => Document::Integer(integer(&number, true)?),
        (Kind::Long(_), Value::Number(number)) => Document::Integer(integer(&number, false)?),
        (Kind::Float(_), Value::Number(number)) => {
            Document::Float(number.as_f64().ok_or("The number is out of range.")?)
        }
        (Kind::Float(_), Value::String(text)) => Document::Float(match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err("STRING_VALUE can not be converted to a Double".into()),
        }),
        (Kind::Timestamp, Value::Number(number)) => {
            let millis = number.as_f64().and_then(timestamp::from_seconds);
            Document::Timestamp(millis.ok_or("The timestamp is out of range.")?)
        }
        (Kind::Timestamp, Value::String(text)) => {
            Document::Timestamp(timestamp::parse(&text).ok_or("STRING_VALUE can not be converted to a Timestamp")?)
        }
        (Kind::Blob(_), Value::String(text)) => Document::Blob(
            STANDARD
                .decode(text)
                .map_err(|_| "STRING_VALUE can not be converted to a Blob")?,
        ),
        (wanted, value) => return Err(wrong_type(wanted, &value)),
    })
}

fn integer(number: &Number, narrow: bool) -> Result<i64, Mismatch> {
    let wanted = if narrow { "an Integer" } else { "a Long" };
    let value = number
        .as_i64()
        .ok_or_else(|| format!("NUMBER_VALUE can not be converted to {wanted}"))?;
    if narrow && i32::try_from(value).is_err() {
        return Err("NUMBER_VALUE can not be converted to an Integer".into());
    }
    Ok(value)
}

fn wrong_type(wanted: &Kind, value: &Value) -> Mismatch {
    let given = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) if !matches!(wanted, Kind::Structure(_) | Kind::Map(_)) => {
            return "Start of list found where not expected.".into();
        }
        Value::Object(_) if !matches!(wanted, Kind::List(_)) => {
            return "Start of structure or map found where not expected.".into();
        }
        Value::Array(_) | Value::Object(_) => "",
    };
    let wanted = match wanted {
        Kind::Structure(_) | Kind::Map(_) => return "Expected map or null".into(),
        Kind::List(_) => return "Expected list or null".into(),
        Kind::Text(_) => "a String",
        Kind::Integer(_) => "an Integer",
        Kind::Long(_) => "a Long",
        Kind::Float(_) => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Blob(_) => "a Blob",
        Kind::Timestamp => "a Timestamp",
    };
    format!("{given} can not be converted to {wanted}")
}

/// Writes the members of a structure that travel in the body.
pub fn write(service: &Service, structure: &Structure, members: &IndexMap<String, Document>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for member in structure
        .members
        .iter()
        .filter(|member| in_body(service, structure, member))
    {
        let Some(value) = members.get(member.name) else {
            continue;
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_text(member.wire_name(), out);
        out.push(b':');
        write_value(service, member.shape, value, out);
    }
    out.push(b'}');
}

fn write_value(service: &Service, id: ShapeId, value: &Document, out: &mut Vec<u8>) {
    match (&service.shape(id).kind, value) {
        (Kind::Structure(structure), Document::Map(members)) => write(service, structure, members, out),
        (Kind::List(list), Document::List(items)) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_value(service, list.member, item, out);
            }
            out.push(b']');
        }
        (Kind::Map(map), Document::Map(entries)) => {
            out.push(b'{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write_value(service, map.value, value, out);
            }
            out.push(b'}');
        }
        (Kind::Timestamp, Document::Timestamp(millis) | Document::Integer(millis)) => {
            out.extend_from_slice(timestamp::to_seconds(*millis).as_bytes());
        }
        (_, value) => write_plain(value, out),
    }
}

/// Writes a value as its own type has it, where the model has nothing to add.
pub fn write_plain(value: &Document, out: &mut Vec<u8>) {
    match value {
        Document::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Document::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Document::Float(value) if value.is_finite() => out.extend_from_slice(float(*value).as_bytes()),
        Document::Float(value) => write_text(super::non_finite(*value), out),
        Document::String(text) => write_text(text, out),
        Document::Blob(bytes) => write_text(&STANDARD.encode(bytes), out),
        Document::Timestamp(millis) => out.extend_from_slice(timestamp::to_seconds(*millis).as_bytes()),
        Document::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_plain(item, out);
            }
            out.push(b']');
        }
        Document::Map(entries) => {
            out.push(b'{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write_plain(value, out);
            }
            out.push(b'}');
        }
    }
}

fn float(value: f64) -> String {
    Number::from_f64(value)
        .map(|number| number.to_string())
        .unwrap_or_default()
}

/// A JSON string with its quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}
