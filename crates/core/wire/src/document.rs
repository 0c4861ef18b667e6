//! A protocol-neutral value: what every AWS protocol carries.

use indexmap::IndexMap;

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
