//! Filter patterns of FilterLogEvents: terms, `"quoted phrases"`, `-excluded`, `?any of these`, and conditions on JSON
//! events such as `{ $.level = "ERROR" && $.latency > 100 }`. After AWS's "Filter pattern syntax". Patterns over
//! columns (`[a, b]`) and regular expressions (`%...%`) are refused.

mod json;

use json::Condition;

/// Deepest nesting of parentheses in a JSON condition.
const DEPTH: usize = 32;

/// A parsed pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Everything,
    Terms {
        all: Vec<String>,
        any: Vec<String>,
        none: Vec<String>,
    },
    Json(Condition),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("a quoted phrase is not closed")]
    OpenQuote,
    #[error("patterns over columns and regular expressions are not supported")]
    Unsupported,
    #[error("the JSON condition is malformed at position {0}")]
    Json(usize),
}

impl Pattern {
    /// The pattern that every event matches.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }

    /// Parses a pattern; blank text matches everything.
    ///
    /// # Errors
    /// When the text is malformed or of an unsupported kind.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::everything());
        }
        if text.starts_with('{') {
            return json::parse(text).map(|condition| Self(Kind::Json(condition)));
        }
        if text.starts_with('[') || text.starts_with('%') {
            return Err(BadPattern::Unsupported);
        }
        let (mut all, mut any, mut none) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let into = match first {
                '-' => &mut none,
                '?' => &mut any,
                _ => &mut all,
            };
            let body = rest.strip_prefix(['-', '?']).unwrap_or(rest);
            let (term, after) = take_term(body)?;
            into.extend((!term.is_empty()).then_some(term));
            rest = after.trim_start();
        }
        Ok(Self(Kind::Terms { all, any, none }))
    }

    /// Whether a message matches. Terms match anywhere and with regard to case.
    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Kind::Everything => true,
            Kind::Terms { all, any, none } => {
                all.iter().all(|term| message.contains(term))
                    // Optional terms say nothing beside required ones.
                    && (!all.is_empty() || any.is_empty() || any.iter().any(|term| message.contains(term)))
                    && !none.iter().any(|term| message.contains(term))
            }
            Kind::Json(condition) => serde_json::from_str(message).is_ok_and(|value| condition.holds(&value)),
        }
    }
}

/// One term, quoted or up to the next blank, and the text behind it.
fn take_term(text: &str) -> Result<(String, &str), BadPattern> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (term, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Ok((term.into(), rest));
    };
    let mut term = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((term, chars.as_str())),
            '\\' => term.extend(chars.next()),
            c => term.push(c),
        }
    }
    Err(BadPattern::OpenQuote)
}

#[cfg(test)]
mod tests;
