//! Documents in CBOR, for rpcV2Cbor.

use crate::Document;
use crate::catalog::service::{Kind, Service, ShapeId, Structure};
use crate::timestamp;
use indexmap::IndexMap;
use minicbor::data::{Tag, Type};
use minicbor::decode::{Decoder, Error};

/// Nesting after which a body is refused.
const DEEPEST: usize = 64;

/// Reads a request's body.
///
/// # Errors
/// When it is not CBOR, is nested too deeply or has a value of the wrong type.
pub fn read(service: &Service, structure: &Structure, body: &[u8]) -> Result<IndexMap<String, Document>, String> {
    if body.is_empty() {
        return Ok(IndexMap::new());
    }
    let mut decoder = Decoder::new(body);
    let members = read_members(service, structure, &mut decoder, 0);
    members.map_err(|error| format!("The body is not the CBOR that the operation takes: {error}."))
}

/// Calls `entry` for each of a collection's items, of known or unknown number.
fn each(
    decoder: &mut Decoder<'_>,
    length: Option<u64>,
    mut entry: impl FnMut(&mut Decoder<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = length;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(left) => *left -= 1,
            None if decoder.datatype()? == Type::Break => return decoder.skip(),
            None => {}
        }
        entry(decoder)?;
    }
}

fn read_members(
    service: &Service,
    structure: &Structure,
    decoder: &mut Decoder<'_>,
    depth: usize,
) -> Result<IndexMap<String, Document>, Error> {
    let mut members = IndexMap::new();
    let length = decoder.map()?;
    each(decoder, length, |decoder| {
        let key = text(decoder)?;
        match structure.members.iter().find(|member| member.wire_name() == key) {
            Some(member) if !is_null(decoder)? => {
                let value = read_value(service, member.shape, decoder, depth + 1)?;
                members.insert(member.name.to_owned(), value);
            }
            _ => decoder.skip()?,
        }
        Ok(())
    })?;
    Ok(members)
}

fn is_null(decoder: &Decoder<'_>) -> Result<bool, Error> {
    Ok(matches!(decoder.datatype()?, Type::Null | Type::Undefined))
}

fn text(decoder: &mut Decoder<'_>) -> Result<String, Error> {
    decoder.str_iter()?.collect()
}

fn read_value(service: &Service, id: ShapeId, decoder: &mut Decoder<'_>, depth: usize) -> Result<Document, Error> {
    if depth > DEEPEST {
        return Err(Error::message("it is nested too deeply"));
    }
    Ok(match &service.shape(id).kind {
        Kind::Structure(structure) => Document::Map(read_members(service, structure, decoder, depth)?),
        Kind::List(list) => {
            let mut items = Vec::new();
            let length = decoder.array()?;
            each(decoder, length, |decoder| {
                items.push(read_value(service, list.member, decoder, depth + 1)?);
                Ok(())
            })?;
            Document::List(items)
        }
        Kind::Map(map) => {
            let mut entries = IndexMap::new();
            let length = decoder.map()?;
            each(decoder, length, |decoder| {
                let key = text(decoder)?;
                if is_null(decoder)? {
                    return decoder.skip();
                }
                entries.insert(key, read_value(service, map.value, decoder, depth + 1)?);
                Ok(())
            })?;
            Document::Map(entries)
        }
        Kind::Text(_) => Document::String(text(decoder)?),
        Kind::Boolean => Document::Bool(decoder.bool()?),
        Kind::Integer(_) => Document::Integer(decoder.i32()?.into()),
        Kind::Long(_) => Document::Integer(decoder.i64()?),
        Kind::Float(_) => Document::Float(number(decoder)?),
        Kind::Blob(_) => {
            let mut bytes = Vec::new();
            for part in decoder.bytes_iter()? {
                bytes.extend_from_slice(part?);
            }
            Document::Blob(bytes)
        }
        Kind::Timestamp => {
            if decoder.tag()? != Tag::new(1) {
                return Err(Error::message("a timestamp has another tag than 1"));
            }
            let millis = timestamp::from_seconds(number(decoder)?);
            Document::Timestamp(millis.ok_or_else(|| Error::message("a timestamp is out of range"))?)
        }
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "AWS's floats carry integers with the same loss"
)]
fn number(decoder: &mut Decoder<'_>) -> Result<f64, Error> {
    Ok(match decoder.datatype()? {
        Type::F16 => decoder.f16()?.into(),
        Type::F32 => decoder.f32()?.into(),
        Type::F64 => decoder.f64()?,
        _ => decoder.i64()? as f64,
    })
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// Writes the members of a structure.
pub fn write(service: &Service, structure: &Structure, members: &IndexMap<String, Document>, out: &mut Vec<u8>) {
    let present = || {
        structure
            .members
            .iter()
            .filter_map(|member| Some((member, members.get(member.name)?)))
    };
    start(MAP, present().count(), out);
    for (member, value) in present() {
        write_text(member.wire_name(), out);
        write_value(service, member.shape, value, out);
    }
}

fn write_value(service: &Service, id: ShapeId, value: &Document, out: &mut Vec<u8>) {
    match (&service.shape(id).kind, value) {
        (Kind::Structure(structure), Document::Map(members)) => write(service, structure, members, out),
        (Kind::List(list), Document::List(items)) => {
            start(ARRAY, items.len(), out);
            for item in items {
                write_value(service, list.member, item, out);
            }
        }
        (Kind::Map(map), Document::Map(entries)) => {
            start(MAP, entries.len(), out);
            for (key, value) in entries {
                write_text(key, out);
                write_value(service, map.value, value, out);
            }
        }
        (Kind::Timestamp, Document::Integer(millis)) => write_plain(&Document::Timestamp(*millis), out),
        (_, value) => write_plain(value, out),
    }
}

/// Writes a value as its own type has it.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of the calendar fit a double")]
pub fn write_plain(value: &Document, out: &mut Vec<u8>) {
    match value {
        Document::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
        Document::Integer(value) if *value < 0 => head(NEGATIVE, !value.cast_unsigned(), out),
        Document::Integer(value) => head(UNSIGNED, value.cast_unsigned(), out),
        Document::Float(value) => {
            out.push(0xfb);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Document::String(text) => write_text(text, out),
        Document::Blob(bytes) => {
            start(BYTES, bytes.len(), out);
            out.extend_from_slice(bytes);
        }
        Document::Timestamp(millis) => {
            head(TAG, 1, out);
            write_plain(&Document::Float(*millis as f64 / 1000.0), out);
        }
        Document::List(items) => {
            start(ARRAY, items.len(), out);
            items.iter().for_each(|item| write_plain(item, out));
        }
        Document::Map(entries) => {
            start(MAP, entries.len(), out);
            for (key, value) in entries {
                write_text(key, out);
                write_plain(value, out);
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    start(TEXT, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn start(major: u8, length: usize, out: &mut Vec<u8>) {
    head(major, u64::try_from(length).unwrap_or(u64::MAX), out);
}

/// A major type with its argument in the shortest form.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    if let Ok(small) = u8::try_from(argument) {
        if small < 24 {
            out.push(major | small);
        } else {
            out.extend_from_slice(&[major | 24, small]);
        }
    } else if let Ok(short) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&argument.to_be_bytes());
    }
}
