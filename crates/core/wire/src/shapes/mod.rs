//! Typed structs of the served operations: generated, except for this file and [`convert`].

mod convert;

pub mod cloudtrail;
pub mod cloudwatch;
pub mod ec2;
pub mod ecr;
pub mod iam;
pub mod kms;
pub mod logs;
pub mod sagemaker;
pub mod sagemaker_featurestore_runtime;
pub mod sagemaker_runtime;
pub mod sts;

pub use convert::{Members, Shape, ShapeError};

/// The two conversions between a struct and a [`crate::Document`], member by member.
macro_rules! structure {
    ($name:ident $($kind:ident $field:ident $member:literal,)*) => {
        impl TryFrom<crate::Document> for $name {
            type Error = crate::shapes::ShapeError;

            #[allow(unused_mut, unused_variables, reason = "a structure may have no members")]
            fn try_from(document: crate::Document) -> Result<Self, Self::Error> {
                let mut members = crate::shapes::Members::of(stringify!($name), document)?;
                Ok(Self { $($field: members.$kind($member)?,)* })
            }
        }

        impl From<$name> for crate::Document {
            #[allow(unused_mut, unused_variables, reason = "a structure may have no members")]
            fn from(value: $name) -> Self {
                let mut members = crate::shapes::Members::new();
                $(crate::shapes::structure!(@set members value $kind $field $member);)*
                members.into_document()
            }
        }

        impl crate::shapes::Shape for $name {
            fn from_document(document: crate::Document) -> Result<Self, crate::shapes::ShapeError> {
                Self::try_from(document)
            }

            fn into_document(self) -> crate::Document {
                self.into()
            }
        }
    };
    (@set $members:ident $value:ident required $field:ident $member:literal) => {
        $members.set($member, Some($value.$field))
    };
    (@set $members:ident $value:ident optional $field:ident $member:literal) => {
        $members.set($member, $value.$field)
    };
}

/// An enum of AWS's string values.
macro_rules! string_enum {
    ($(#[$doc:meta])* $name:ident $($variant:ident = $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $(
            #[doc = concat!("`", $text, "`.")]
            $variant,
        )* }

        impl $name {
            /// Every value, in the model's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// AWS's spelling.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::shapes::ShapeError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let unknown = || crate::shapes::ShapeError::new(stringify!($name), "one of its values");
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(unknown)
            }
        }

        impl crate::shapes::Shape for $name {
            fn from_document(document: crate::Document) -> Result<Self, crate::shapes::ShapeError> {
                <String as crate::shapes::Shape>::from_document(document)?.parse()
            }

            fn into_document(self) -> crate::Document {
                crate::Document::String(self.as_str().into())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {string_enum, structure};

#[cfg(test)]
mod tests;
