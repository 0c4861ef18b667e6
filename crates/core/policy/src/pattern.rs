//! Texts of a policy that match other texts: wildcards and policy variables (IAM-4, IAM-6).

use std::borrow::Cow;

/// One step of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `*`: any run of characters.
    Any,
    /// `?`: exactly one character.
    One,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Token(Token),
    /// `${key}` or `${key, 'default'}`, key lower-cased.
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// What a pattern's text may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) wildcards: bool,
    /// Only documents of version 2012-10-17 have variables; elsewhere `${` is plain text.
    pub(crate) variables: bool,
}

/// Why a pattern cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy variable is not of the form ${{key}} or ${{key, 'default'}}")]
pub struct BadVariable;

/// A text with wildcards and variables, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

impl Pattern {
    pub(crate) fn parse(text: &str, rules: Rules) -> Result<Self, BadVariable> {
        let mut parts = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if rules.variables
                && let Some(inner) = rest.strip_prefix("${")
            {
                let (inside, after) = inner.split_once('}').ok_or(BadVariable)?;
                parts.push(variable(inside)?);
                rest = after;
                continue;
            }
            parts.push(Part::Token(match first {
                '*' if rules.wildcards => Token::Any,
                '?' if rules.wildcards => Token::One,
                other => Token::Char(other),
            }));
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        }
        Ok(Self(parts))
    }

    /// The matcher with every variable replaced; `None` when a variable has neither value nor default. Replaced text is
    /// literal: a tag's value cannot smuggle a wildcard in.
    pub(crate) fn resolve<'v>(&self, value_of: impl Fn(&str) -> Option<&'v str>) -> Option<Vec<Token>> {
        let mut tokens = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            match part {
                Part::Token(token) => tokens.push(*token),
                Part::Variable { key, default } => {
                    let value = value_of(key)
                        .map(Cow::Borrowed)
                        .or(default.as_deref().map(Cow::Borrowed))?;
                    tokens.extend(value.chars().map(Token::Char));
                }
            }
        }
        Some(tokens)
    }
}

fn variable(inside: &str) -> Result<Part, BadVariable> {
    if let "*" | "?" | "$" = inside {
        return Ok(Part::Token(Token::Char(inside.chars().next().ok_or(BadVariable)?)));
    }
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => {
            let quoted = default
                .trim()
                .strip_prefix('\'')
                .and_then(|text| text.strip_suffix('\''));
            (key, Some(quoted.ok_or(BadVariable)?.to_owned()))
        }
    };
    let key = key.trim();
    let well_formed = key.contains(':') && !key.contains(['$', '{', '*', '?']);
    if !well_formed {
        return Err(BadVariable);
    }
    Ok(Part::Variable {
        key: key.to_lowercase(),
        default,
    })
}

/// Whether the tokens match the whole text. Characters at or after `fold_from` are compared without regard to ASCII
/// case (IAM-9). Takes at most tokens × characters steps.
pub(crate) fn matches(tokens: &[Token], text: &[char], fold_from: usize) -> bool {
    let (mut at_token, mut at_char) = (0, 0);
    // Where the last `*` was, and up to where it has eaten.
    let mut back: Option<(usize, usize)> = None;
    while let Some(given) = text.get(at_char) {
        let step = match tokens.get(at_token) {
            Some(Token::Any) => {
                back = Some((at_token, at_char));
                at_token += 1;
                continue;
            }
            Some(Token::One) => true,
            Some(Token::Char(wanted)) => {
                wanted == given || (at_char >= fold_from && wanted.eq_ignore_ascii_case(given))
            }
            None => false,
        };
        if step {
            at_token += 1;
            at_char += 1;
        } else if let Some((star, eaten)) = back {
            back = Some((star, eaten + 1));
            at_token = star + 1;
            at_char = eaten + 1;
        } else {
            return false;
        }
    }
    tokens.iter().skip(at_token).all(|token| *token == Token::Any)
}

/// A text to be matched, with the place from which case does not count.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    chars: Vec<char>,
    fold_from: usize,
}

impl Subject {
    /// The names of SageMaker's resources are compared without regard to case (IAM-9, D-8); all else counts case.
    pub(crate) fn resource(text: &str) -> Self {
        let mut fold_from = usize::MAX;
        let mut parts = text.splitn(6, ':');
        if parts.next() == Some("arn") && parts.nth(1) == Some("sagemaker") && parts.nth(2).is_some() {
            fold_from = text
                .chars()
                .enumerate()
                .filter(|(_, c)| *c == ':')
                .nth(4)
                .map_or(usize::MAX, |(at, _)| at + 1);
        }
        Self {
            chars: text.chars().collect(),
            fold_from,
        }
    }

    pub(crate) fn matched_by(&self, tokens: &[Token]) -> bool {
        matches(tokens, &self.chars, self.fold_from)
    }

    /// ArnLike: six parts, each matched by itself, so that no wildcard reaches across a colon (IAM-4, IAM-13).
    pub(crate) fn matched_as_arn(&self, tokens: &[Token]) -> bool {
        let mut wanted = tokens.splitn(6, |token| *token == Token::Char(':'));
        let mut given = self.chars.splitn(6, |c| *c == ':');
        for part in 0..6 {
            let (Some(wanted), Some(given)) = (wanted.next(), given.next()) else {
                return false;
            };
            let fold = part == 5 && self.fold_from != usize::MAX;
            if !matches(wanted, given, if fold { 0 } else { usize::MAX }) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::parse(
            pattern,
            Rules {
                wildcards: true,
                variables: false,
            },
        )
        .unwrap();
        Subject::resource(text).matched_by(&pattern.resolve(|_| None).unwrap())
    }

    fn arn_like(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::parse(
            pattern,
            Rules {
                wildcards: true,
                variables: false,
            },
        )
        .unwrap();
        Subject::resource(text).matched_as_arn(&pattern.resolve(|_| None).unwrap())
    }

    /// Proves: IAM-4
    #[test]
    fn wildcards_match_runs_and_single_characters() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b:c"),
            ("a*c", "abbc"),
            ("a*c*", "acc"),
            ("?", "ü"),
            ("a?c", "abc"),
            ("**", "x"),
        ] {
            assert!(like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("?", ""),
            ("a?c", "ac"),
            ("a*c", "ab"),
            ("A", "a"),
            ("a", "ab"),
        ] {
            assert!(!like(pattern, text), "{pattern} {text}");
        }
    }

    /// Proves: IAM-4, IAM-13
    #[test]
    fn arn_wildcards_stay_within_their_part() {
        let arn = "arn:aws:iam::123456789012:role/a:b/c";
        for pattern in [
            "arn:aws:iam::*:role/*",
            "arn:*:*:*:*:*",
            "arn:aws:iam::123456789012:role/a:b/c",
        ] {
            assert!(arn_like(pattern, arn), "{pattern}");
        }
        for pattern in [
            "*",
            "arn:*",
            "arn:aws:*:role/a:b/c",
            "arn:aws:iam:*",
            "arn:aws:iam::*:user/*",
        ] {
            assert!(!arn_like(pattern, arn), "{pattern}");
        }
    }

    /// Proves: IAM-9
    #[test]
    fn only_names_of_sagemaker_resources_fold_case() {
        let arn = "arn:aws:sagemaker:us-west-2:123456789012:endpoint/myendpoint";
        assert!(like(
            "arn:aws:sagemaker:us-west-2:123456789012:endpoint/myEndpoint",
            arn
        ));
        assert!(like("arn:aws:sagemaker:*:endpoint/MY*", arn));
        assert!(arn_like("arn:aws:sagemaker:*:*:endpoint/MyEndpoint", arn));
        assert!(!like(
            "arn:aws:SageMaker:us-west-2:123456789012:endpoint/myendpoint",
            arn
        ));
        assert!(like("arn:aws:s3:::b/Key", "arn:aws:s3:::b/Key"), "control");
        assert!(!like("arn:aws:s3:::b/Key", "arn:aws:s3:::b/key"));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "*a".repeat(200);
        assert!(!like(&format!("{pattern}b"), &"a".repeat(2_000)));
    }

    /// Proves: IAM-6
    #[test]
    fn variables_are_replaced_by_literal_text() {
        let rules = Rules {
            wildcards: true,
            variables: true,
        };
        let value = |key: &str| (key == "aws:username").then_some("a*");
        let matched = |pattern: &str, text: &str| {
            let tokens = Pattern::parse(pattern, rules).unwrap().resolve(value);
            tokens.map(|tokens| Subject::resource(text).matched_by(&tokens))
        };
        assert_eq!(matched("home/${aws:UserName}/*", "home/a*/x"), Some(true));
        assert_eq!(
            matched("home/${aws:username}", "home/abc"),
            Some(false),
            "the value's star is no wildcard"
        );
        assert_eq!(matched("${aws:none}", "x"), None);
        assert_eq!(matched("${aws:none, 'x'}", "x"), Some(true));
        assert_eq!(matched("${*}${?}${$}", "*?$"), Some(true));
        assert_eq!(matched("${*}", "x"), Some(false));
        for bad in ["${aws:username", "${}", "${plain}", "${aws:a, b}", "${${aws:a}}"] {
            assert_eq!(Pattern::parse(bad, rules), Err(BadVariable), "{bad}");
        }
        let old = Rules {
            variables: false,
            ..rules
        };
        let tokens = Pattern::parse("${aws:username}", old).unwrap().resolve(value).unwrap();
        assert!(Subject::resource("${aws:username}").matched_by(&tokens));
    }

    /// The definition, spelled out: slow, and plainly right.
    fn naive(tokens: &[Token], text: &[char]) -> bool {
        match (tokens.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((Token::Any, rest)), None) => naive(rest, text),
            (Some((Token::Any, rest)), Some((_, after))) => naive(rest, text) || naive(tokens, after),
            (Some((Token::One, rest)), Some((_, after))) => naive(rest, after),
            (Some((Token::Char(wanted), rest)), Some((given, after))) => wanted == given && naive(rest, after),
            _ => false,
        }
    }

    proptest::proptest! {
        /// Proves: IAM-4
        #[test]
        fn the_matcher_agrees_with_the_definition(pattern in "[ab*?]{0,9}", text in "[ab]{0,12}") {
            let tokens = Pattern::parse(&pattern, Rules { wildcards: true, variables: false }).unwrap();
            let tokens = tokens.resolve(|_| None).unwrap();
            let text: Vec<char> = text.chars().collect();
            proptest::prop_assert_eq!(matches(&tokens, &text, usize::MAX), naive(&tokens, &text));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,40}") {
            let _ = Pattern::parse(&text, Rules { wildcards: true, variables: true });
        }
    }
}
