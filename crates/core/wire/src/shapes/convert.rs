//! Between Rust values and documents.

use crate::{ApiError, Document};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;

/// A document that is not what a struct wants. Documents that were checked against the model never give it, so it is an
/// engine fault when it reaches a handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} is not {wanted}")]
pub struct ShapeError {
    at: String,
    wanted: &'static str,
}

impl ShapeError {
    /// `at` names the member or shape, `wanted` what it should have been.
    pub fn new(at: impl Into<String>, wanted: &'static str) -> Self {
        Self { at: at.into(), wanted }
    }

    fn inside(self, member: &str) -> Self {
        Self {
            at: format!("{member}: {}", self.at),
            wanted: self.wanted,
        }
    }
}

impl From<ShapeError> for ApiError {
    fn from(error: ShapeError) -> Self {
        Self::internal(error)
    }
}

/// A Rust type that stands for a shape.
pub trait Shape: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// When the document has another type.
    fn from_document(document: Document) -> Result<Self, ShapeError>;

    /// The document form. Absent members are left out.
    fn into_document(self) -> Document;
}

/// The members of a structure while it is taken apart or put together.
#[derive(Default)]
pub struct Members(IndexMap<String, Document>);

impl Members {
    /// No members yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The members of `document`.
    ///
    /// # Errors
    /// When it is not a structure.
    pub fn of(shape: &'static str, document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Map(members) => Ok(Self(members)),
            _ => Err(ShapeError::new(shape, "a structure")),
        }
    }

    /// Takes a member that must be there.
    ///
    /// # Errors
    /// When it is absent or has another type.
    pub fn required<T: Shape>(&mut self, member: &str) -> Result<T, ShapeError> {
        self.optional(member)?.ok_or_else(|| ShapeError::new(member, "present"))
    }

    /// Takes a member that may be absent.
    ///
    /// # Errors
    /// When it has another type.
    pub fn optional<T: Shape>(&mut self, member: &str) -> Result<Option<T>, ShapeError> {
        let Some(value) = self.0.get_mut(member) else {
            return Ok(None);
        };
        // The rest of this entry is never read again; an empty list costs no allocation.
        let taken = std::mem::replace(value, Document::List(Vec::new()));
        T::from_document(taken).map(Some).map_err(|error| error.inside(member))
    }

    /// Adds a member unless it is absent.
    pub fn set<T: Shape>(&mut self, member: &str, value: Option<T>) {
        if let Some(value) = value {
            self.0.insert(member.into(), value.into_document());
        }
    }

    /// The structure.
    pub fn into_document(self) -> Document {
        Document::Map(self.0)
    }
}

impl Shape for String {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::String(text) => Ok(text),
            _ => Err(ShapeError::new("value", "a string")),
        }
    }

    fn into_document(self) -> Document {
        Document::String(self)
    }
}

impl Shape for bool {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Bool(value) => Ok(value),
            _ => Err(ShapeError::new("value", "a boolean")),
        }
    }

    fn into_document(self) -> Document {
        Document::Bool(self)
    }
}

/// Integers, longs and timestamps (milliseconds since the epoch).
impl Shape for i64 {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Integer(value) | Document::Timestamp(value) => Ok(value),
            _ => Err(ShapeError::new("value", "an integer")),
        }
    }

    fn into_document(self) -> Document {
        Document::Integer(self)
    }
}

impl Shape for f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "AWS's floats are read from decimal text with the same loss"
    )]
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Float(value) => Ok(value),
            Document::Integer(value) => Ok(value as f64),
            _ => Err(ShapeError::new("value", "a number")),
        }
    }

    fn into_document(self) -> Document {
        Document::Float(self)
    }
}

/// Blobs; a string is read as base64, the form they have in stored records.
impl Shape for Vec<u8> {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Blob(bytes) => Ok(bytes),
            Document::String(text) => STANDARD.decode(text).map_err(|_| ShapeError::new("value", "base64")),
            _ => Err(ShapeError::new("value", "a blob")),
        }
    }

    fn into_document(self) -> Document {
        Document::Blob(self)
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::List(items) => items.into_iter().map(T::from_document).collect(),
            _ => Err(ShapeError::new("value", "a list")),
        }
    }

    fn into_document(self) -> Document {
        Document::List(self.into_iter().map(T::into_document).collect())
    }
}

impl<T: Shape> Shape for IndexMap<String, T> {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        match document {
            Document::Map(entries) => entries
                .into_iter()
                .map(|(key, value)| T::from_document(value).map(|value| (key, value)))
                .collect(),
            _ => Err(ShapeError::new("value", "a map")),
        }
    }

    fn into_document(self) -> Document {
        Document::Map(
            self.into_iter()
                .map(|(key, value)| (key, value.into_document()))
                .collect(),
        )
    }
}

impl<T: Shape> Shape for Box<T> {
    fn from_document(document: Document) -> Result<Self, ShapeError> {
        T::from_document(document).map(Self::new)
    }

    fn into_document(self) -> Document {
        (*self).into_document()
    }
}
