//! Texts of a policy that match other texts: wildcards and policy variables (IAM-4, IAM-6).
//!
//! A pattern is read once. Deciding allocates only where a pattern has variables.

/// Looks a lower-cased condition key up; `None` when the request does not have it.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<&'a [String]> + 'a;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Text that stands for itself; never empty, never beside another one.
    Text(Box<str>),
    /// `*`: any run of characters.
    Any,
    /// `?`: exactly one character.
    One,
    /// `${key}` or `${key, 'default'}`, key lower-cased.
    Variable { key: Box<str>, default: Option<Box<str>> },
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
pub(crate) struct Pattern {
    parts: Box<[Part]>,
    variables: bool,
}

/// Up to which case counts in a text that is matched.
pub(crate) const EXACT: usize = usize::MAX;

impl Pattern {
    pub(crate) fn parse(text: &str, rules: Rules) -> Result<Self, BadVariable> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut variables = false;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let after = rest.get(first.len_utf8()..).unwrap_or("");
            let part = match first {
                '$' if rules.variables && after.starts_with('{') => {
                    let (inside, after) = enclosed(after)?;
                    rest = after;
                    match variable(inside)? {
                        Found::Literal(one) => {
                            plain.push(one);
                            continue;
                        }
                        Found::Variable(part) => part,
                    }
                }
                '*' | '?' if rules.wildcards => {
                    rest = after;
                    if first == '*' { Part::Any } else { Part::One }
                }
                other => {
                    plain.push(other);
                    rest = after;
                    continue;
                }
            };
            variables |= matches!(part, Part::Variable { .. });
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            // Two stars beside each other are one.
            if part != Part::Any || parts.last() != Some(&Part::Any) {
                parts.push(part);
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self {
            parts: parts.into(),
            variables,
        })
    }

    /// Condition keys that its variables name.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable { key, .. } => Some(&**key),
            _ => None,
        })
    }

    /// Whether it matches the whole text. From `fold_from` on, ASCII case does not count (IAM-9).
    ///
    /// `None` when a variable has no value: such a pattern is like no text at all (IAM-6). Replaced text is literal: a tag's
    /// value cannot smuggle a wildcard in. Takes at most parts × characters steps.
    pub(crate) fn matches(&self, text: &str, fold_from: usize, lookup: &Lookup<'_>) -> Option<bool> {
        if !self.variables {
            return Some(run(&self.parts, text, fold_from, &[]));
        }
        let mut values = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            values.push(match part {
                Part::Variable { key, default } => match lookup(key) {
                    Some([one]) => one.as_str(),
                    None | Some([]) => default.as_deref()?,
                    // A key with several values cannot stand for a text, default or not.
                    Some(_) => return None,
                },
                _ => "",
            });
        }
        Some(run(&self.parts, text, fold_from, &values))
    }

    /// The text with its variables replaced, for patterns without wildcards; `None` as in [`Self::matches`].
    pub(crate) fn text(&self, lookup: &Lookup<'_>) -> Option<String> {
        let mut whole = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => whole.push_str(text),
                Part::Any => whole.push('*'),
                Part::One => whole.push('?'),
                Part::Variable { key, default } => match lookup(key) {
                    Some([one]) => whole.push_str(one),
                    None | Some([]) => whole.push_str(default.as_deref()?),
                    Some(_) => return None,
                },
            }
        }
        Some(whole)
    }
}

fn run(parts: &[Part], text: &str, fold_from: usize, values: &[&str]) -> bool {
    let (mut at_part, mut at) = (0, 0);
    // Behind the last `*`, and up to where it has eaten.
    let mut back: Option<(usize, usize)> = None;
    loop {
        let rest = text.get(at..).unwrap_or("");
        let step = match parts.get(at_part) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Part::Any) => {
                at_part += 1;
                if at_part == parts.len() {
                    return true;
                }
                back = Some((at_part, at));
                continue;
            }
            Some(Part::One) => rest.chars().next().map(char::len_utf8),
            Some(Part::Text(wanted)) => begins(rest, wanted, at, fold_from).then_some(wanted.len()),
            Some(Part::Variable { .. }) => {
                let wanted = values.get(at_part).copied().unwrap_or("");
                begins(rest, wanted, at, fold_from).then_some(wanted.len())
            }
        };
        if let Some(length) = step {
            at_part += 1;
            at += length;
            continue;
        }
        // The last `*` eats one character more.
        let Some((behind, eaten)) = back else { return false };
        let Some(more) = text.get(eaten..).and_then(|rest| rest.chars().next()) else {
            return false;
        };
        at = eaten + more.len_utf8();
        at_part = behind;
        back = Some((behind, at));
    }
}

/// Whether `rest`, which begins at byte `at` of its text, begins with `wanted`.
fn begins(rest: &str, wanted: &str, at: usize, fold_from: usize) -> bool {
    if fold_from == EXACT {
        return rest.as_bytes().starts_with(wanted.as_bytes());
    }
    rest.len() >= wanted.len()
        && rest
            .bytes()
            .zip(wanted.bytes())
            .enumerate()
            .all(|(nth, (given, wanted))| {
                given == wanted || (at + nth >= fold_from && given.eq_ignore_ascii_case(&wanted))
            })
}

enum Found {
    Literal(char),
    Variable(Part),
}

/// Takes `{…}` off; a `}` within quotes does not end it.
fn enclosed(text: &str) -> Result<(&str, &str), BadVariable> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '}' if !quoted => {
                let inside = text.get(1..at).ok_or(BadVariable)?;
                return Ok((inside, text.get(at + 1..).unwrap_or("")));
            }
            _ => {}
        }
    }
    Err(BadVariable)
}

fn variable(inside: &str) -> Result<Found, BadVariable> {
    if let "*" | "?" | "$" = inside {
        return inside.chars().next().map(Found::Literal).ok_or(BadVariable);
    }
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => {
            let quoted = default
                .trim()
                .strip_prefix('\'')
                .and_then(|text| text.strip_suffix('\''));
            (key, Some(quoted.ok_or(BadVariable)?))
        }
    };
    let key = key.trim();
    let well_formed = key.contains(':') && !key.contains(['$', '{', '*', '?', '\'']);
    if !well_formed {
        return Err(BadVariable);
    }
    Ok(Found::Variable(Part::Variable {
        key: key.to_lowercase().into(),
        default: default.map(Into::into),
    }))
}

/// Whether a text holds a variable, read as [`Pattern::parse`] reads it.
pub(crate) fn has_variable(text: &str) -> bool {
    let rules = Rules {
        wildcards: true,
        variables: true,
    };
    Pattern::parse(text, rules).map_or(true, |pattern| pattern.variables)
}

/// A resource that is asked about, with the place from which case does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'t> {
    pub(crate) text: &'t str,
    fold_from: usize,
}

impl<'t> Subject<'t> {
    /// The names of SageMaker's resources are compared without regard to case (IAM-9, D-8); all else counts case.
    pub(crate) fn resource(text: &'t str) -> Self {
        let mut fold_from = EXACT;
        let mut parts = text.splitn(6, ':');
        if parts.next() == Some("arn")
            && parts.nth(1) == Some("sagemaker")
            && let Some(name) = parts.nth(2)
        {
            fold_from = text.len() - name.len();
        }
        Self { text, fold_from }
    }

    /// As [`Pattern::matches`].
    pub(crate) fn matched_by(&self, pattern: &Pattern, lookup: &Lookup<'_>) -> Option<bool> {
        pattern.matches(self.text, self.fold_from, lookup)
    }
}

/// A pattern of `ArnLike`: six parts, each matched by itself, so that neither a wildcard nor a variable's value reaches
/// across a colon (IAM-4, IAM-13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArnPattern {
    /// Fewer than six match nothing.
    parts: Box<[Pattern]>,
}

impl ArnPattern {
    pub(crate) fn parse(text: &str, rules: Rules) -> Result<Self, BadVariable> {
        let mut parts = Vec::with_capacity(6);
        let mut rest = text;
        while parts.len() < 5 {
            let Some((part, after)) = split_part(rest, rules.variables)? else {
                break;
            };
            parts.push(Pattern::parse(part, rules)?);
            rest = after;
        }
        parts.push(Pattern::parse(rest, rules)?);
        Ok(Self { parts: parts.into() })
    }

    /// Condition keys that its variables name.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().flat_map(Pattern::keys)
    }

    /// As [`Pattern::matches`].
    pub(crate) fn matches(&self, text: &str, lookup: &Lookup<'_>) -> Option<bool> {
        let folds = Subject::resource(text).fold_from != EXACT;
        let mut given = text.splitn(6, ':');
        let mut all = self.parts.len() == 6;
        for (at, part) in self.parts.iter().enumerate() {
            let fold_from = if folds && at == 5 { 0 } else { EXACT };
            match given.next() {
                // Every part is asked, so that a missing value never depends on the order.
                Some(given) => all &= part.matches(given, fold_from, lookup)?,
                None => all = false,
            }
        }
        Some(all)
    }
}

/// The text up to the next colon outside of a variable, and what follows it; `None` when there is no such colon.
fn split_part(text: &str, variables: bool) -> Result<Option<(&str, &str)>, BadVariable> {
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.chars().next()
    {
        if variables && let Some(inner) = rest.strip_prefix('$').filter(|inner| inner.starts_with('{')) {
            let (_, after) = enclosed(inner)?;
            at = text.len() - after.len();
        } else if first == ':' {
            return Ok(text.get(..at).zip(text.get(at + 1..)));
        } else {
            at += first.len_utf8();
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
