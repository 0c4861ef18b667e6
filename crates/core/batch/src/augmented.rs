//! Augmented manifests: a JSON object a line, of which some attributes are sent (CC-27).

use isolarium_model::sagemaker::S3Uri;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// An attribute with this ending names an object whose bytes are sent.
const REFERENCE: &str = "-ref";

/// One thing that is sent for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An object's bytes.
    Object(S3Uri),
    /// A text without its quotes; any other value as the line has it.
    Value(Vec<u8>),
}

/// Why a line cannot be sent. `Display` is for the job's owner, who is told which line it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("it is no JSON object")]
    Json,
    #[error("it has no attribute \"{0}\"")]
    Missing(String),
    #[error("the attribute \"{0}\" does not hold the S3 URI of an object")]
    Reference(String),
}

/// What is sent for a line, in the order of `attributes`.
///
/// # Errors
/// [`BadLine`].
pub fn pieces(line: &[u8], attributes: &[String]) -> Result<Vec<Piece>, BadLine> {
    let found: BTreeMap<String, &RawValue> = serde_json::from_slice(line).map_err(|_| BadLine::Json)?;
    let piece = |name: &String| {
        let value = found.get(name).ok_or_else(|| BadLine::Missing(name.clone()))?.get();
        let text = serde_json::from_str::<String>(value).ok();
        if !name.ends_with(REFERENCE) {
            return Ok(Piece::Value(text.unwrap_or_else(|| value.to_owned()).into_bytes()));
        }
        let uri = text.and_then(|text| text.parse::<S3Uri>().ok());
        let uri = uri.filter(|uri| !uri.key.is_empty());
        uri.map(Piece::Object).ok_or_else(|| BadLine::Reference(name.clone()))
    };
    attributes.iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, attributes: &[&str]) -> Result<Vec<Piece>, BadLine> {
        let attributes: Vec<String> = attributes.iter().map(ToString::to_string).collect();
        pieces(line.as_bytes(), &attributes)
    }

    fn value(text: &str) -> Piece {
        Piece::Value(text.into())
    }

    /// Proves: CC-27
    #[test]
    fn attributes_are_sent_in_the_order_of_the_request() {
        let line = r#"{"author": "Herman Melville", "line": "Call me\nIshmael", "book": "Moby Dick"}"#;
        assert_eq!(
            of(line, &["book", "line"]),
            Ok(vec![value("Moby Dick"), value("Call me\nIshmael")])
        );
        let line = r#"{"image-ref": "s3://b/foo/1.jpg", "is-a-cat": 1, "box": {"z": [1, 2.50], "a": null}}"#;
        let uri = Piece::Object("s3://b/foo/1.jpg".parse().unwrap());
        assert_eq!(
            of(line, &["image-ref", "is-a-cat", "box"]),
            Ok(vec![uri, value("1"), value(r#"{"z": [1, 2.50], "a": null}"#)])
        );
    }

    /// Proves: CC-27
    #[test]
    fn lines_that_cannot_be_sent_are_told_apart() {
        assert_eq!(of("[1]", &["a"]), Err(BadLine::Json));
        assert_eq!(of("{\"a\": 1", &["a"]), Err(BadLine::Json));
        assert_eq!(of("{\"b\": 1}", &["a"]), Err(BadLine::Missing("a".into())));
        for bad in ["1", "\"file\"", "\"s3://bucket\"", "\"s3://bucket/\"", "null"] {
            let line = format!("{{\"x-ref\": {bad}}}");
            assert_eq!(of(&line, &["x-ref"]), Err(BadLine::Reference("x-ref".into())), "{bad}");
        }
    }
}
