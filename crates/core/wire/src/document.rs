//! A protocol-neutral value: what every AWS protocol carries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A decoded value. Members that were absent are absent from the map; there is no null (clients trip over it).
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Blob(Vec<u8>),
    /// Milliseconds since the epoch.
    Timestamp(i64),
    List(Vec<Document>),
    /// A structure or a map. Member names are the model's, order is kept.
    Map(IndexMap<String, Document>),
}

/// Members that are looked through one by one: so few are compared before a name is hashed.
const FEW: usize = 8;

/// The member called `name`.
pub fn member<'a>(members: &'a IndexMap<String, Document>, name: &str) -> Option<&'a Document> {
    if members.len() > FEW {
        return members.get(name);
    }
    members.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// The form that stored records have: JSON under the model's member names, timestamps as integers, blobs as base64.
/// Reading it back gives integers and strings for these two; the generated structs accept both.
impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) | Self::Timestamp(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Blob(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Self::List(items) => items.serialize(serializer),
            Self::Map(members) => members.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Document;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value without null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Document, E> {
        i64::try_from(value)
            .map(Document::Integer)
            .map_err(|_| E::custom("integer out of range"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Document, E> {
        Ok(Document::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Document, E> {
        Ok(Document::String(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Document, E> {
        Ok(Document::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Document::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Document, A::Error> {
        let mut map = IndexMap::new();
        // Null means absent.
        while let Some((key, value)) = entries.next_entry::<String, Option<Document>>()? {
            if let Some(value) = value {
                map.insert(key, value);
            }
        }
        Ok(Document::Map(map))
    }
}
