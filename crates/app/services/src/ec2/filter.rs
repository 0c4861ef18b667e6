//! `Filter.N`: a resource passes when every filter has a value that one of the resource's matches (NET-81).

use super::error;
use super::shapes;
use isolarium_model::ec2::Tags;
use isolarium_wire::ApiError;

/// Filters of a request, their names checked.
pub(super) struct Filters(Vec<(Named, Vec<Wildcard>)>);

/// What a filter looks at.
enum Named {
    /// `tag:KEY`.
    Tag(String),
    /// `tag-key`.
    TagKey,
    /// One of the operation's own names.
    Own(String),
}

impl Filters {
    /// Reads the filters of a request. `names` are the operation's own; `tag-key` and `tag:KEY` are added to them.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a filter that the operation does not have, or one without values.
    pub(super) fn read(given: Option<&Vec<shapes::Filter>>, names: &[&str]) -> Result<Self, ApiError> {
        Self::with(given, |name| names.contains(&name))
    }

    /// The same, with the operation's own names as a test.
    fn with(given: Option<&Vec<shapes::Filter>>, own: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let mut filters = Vec::new();
        for filter in given.into_iter().flatten() {
            let name = filter.name.as_deref().unwrap_or("null");
            let named = match name.strip_prefix("tag:") {
                Some(key) if !key.is_empty() => Named::Tag(key.to_owned()),
                _ if name == "tag-key" => Named::TagKey,
                _ if own(name) => Named::Own(name.to_owned()),
                _ => return Err(error::invalid(format!("The filter '{name}' is invalid"))),
            };
            let values: Vec<Wildcard> = filter.values.iter().flatten().map(|text| Wildcard::new(text)).collect();
            if values.is_empty() {
                return Err(error::invalid(format!("The filter '{name}' has no values")));
            }
            filters.push((named, values));
        }
        Ok(Self(filters))
    }

    /// Whether a resource passes. `values` gives what it has for one of the operation's own filter names.
    pub(super) fn pass(&self, tags: &Tags, values: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(named, wanted)| {
            let any = |text: &str| wanted.iter().any(|pattern| pattern.matches(text));
            match named {
                Named::Tag(key) => tags.get(key).is_some_and(|value| any(value)),
                Named::TagKey => tags.keys().any(|key| any(key)),
                Named::Own(name) => values(name).iter().any(|value| any(value)),
            }
        })
    }
}

/// A value with `*` (any run) and `?` (any one character); `\` takes the next character as it is. Case matters.
struct Wildcard(Vec<Piece>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Run,
    One,
    Letter(char),
}

impl Wildcard {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                '*' => Piece::Run,
                '?' => Piece::One,
                '\\' => Piece::Letter(letters.next().unwrap_or('\\')),
                other => Piece::Letter(other),
            });
        }
        Self(pieces)
    }

    /// Whether the whole text matches; steps back to the last `*` alone, so the cost is at most the product of lengths.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut piece, mut at) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.0.get(piece), text.get(at)) {
                (None, None) => return true,
                (Some(Piece::Run), _) => {
                    back = Some((piece, at));
                    piece += 1;
                    continue;
                }
                (Some(Piece::One), Some(_)) => true,
                (Some(Piece::Letter(wanted)), Some(found)) => wanted == found,
                _ => false,
            };
            if fits {
                (piece, at) = (piece + 1, at + 1);
                continue;
            }
            match back {
                Some((run, from)) if from < text.len() => {
                    back = Some((run, from + 1));
                    (piece, at) = (run + 1, from + 1);
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, values: &[&str]) -> shapes::Filter {
        shapes::Filter {
            name: Some(name.into()),
            values: Some(values.iter().map(ToString::to_string).collect()),
        }
    }

    /// Proves: NET-81
    #[test]
    fn values_have_wildcards() {
        let cases = [
            ("vpc-1", "vpc-1", true),
            ("vpc-1", "vpc-12", false),
            ("vpc-*", "vpc-12", true),
            ("*", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d", "abcbd", true),
            ("*b*d", "abcbde", false),
            ("**a", "bba", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("A", "a", false),
            ("é?", "éß", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Wildcard::new(pattern).matches(text), expected, "{pattern} {text}");
        }
        let long = "a".repeat(4000);
        assert!(!Wildcard::new(&"a*".repeat(200)).matches(&format!("{long}b").replace('a', "c")));
    }

    /// Proves: NET-81
    #[test]
    fn all_filters_must_pass_and_any_value_of_each() {
        let tags = Tags::from([("team".into(), "ml".into())]);
        let values = |name: &str| match name {
            "state" => vec!["available".to_owned()],
            _ => vec!["10.0.0.0/16".to_owned(), "10.1.0.0/16".to_owned()],
        };
        let passes = |filters: &[shapes::Filter]| {
            let filters = filters.to_vec();
            Filters::read(Some(&filters), &["state", "cidr"]).map(|read| read.pass(&tags, values))
        };
        assert!(passes(&[]).unwrap());
        assert!(passes(&[filter("state", &["pending", "available"])]).unwrap());
        assert!(passes(&[filter("cidr", &["10.1.*"]), filter("tag:team", &["m?"])]).unwrap());
        assert!(!passes(&[filter("cidr", &["10.2.*"]), filter("tag:team", &["m?"])]).unwrap());
        assert!(passes(&[filter("tag-key", &["team"])]).unwrap());
        assert!(!passes(&[filter("tag:other", &["*"])]).unwrap());
        for bad in [filter("colour", &["red"]), filter("tag:", &["x"]), filter("state", &[])] {
            assert_eq!(passes(&[bad]).unwrap_err().code, "InvalidParameterValue");
        }
    }
}
