//! Patterns that find a metric's values in log lines (CC-38).

/// Steps a look-around pattern may take per line before the line counts as not matching: protects the engine from
/// patterns that are slower than linear (CC-38).
const BACKTRACK_LIMIT: usize = 20_000;

/// Size a compiled pattern may have, bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// A metric's pattern, ready to search lines.
#[derive(Debug)]
pub struct MetricPattern(Pattern);

#[derive(Debug)]
enum Pattern {
    Linear(regex::Regex),
    Bounded(Box<fancy_regex::Regex>),
}

impl MetricPattern {
    /// `None` when it cannot be used: it is no regular expression, or becomes too large.
    pub fn compile(text: &str) -> Option<Self> {
        match regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES).build() {
            Ok(linear) => Some(Self(Pattern::Linear(linear))),
            Err(_) => fancy_regex::RegexBuilder::new(text)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(PATTERN_BYTES)
                .build()
                .ok()
                .map(|bounded| Self(Pattern::Bounded(Box::new(bounded)))),
        }
    }

    /// The finite number in the first group of a line's first match, if there is one.
    pub fn value(&self, line: &str) -> Option<f64> {
        let text = match &self.0 {
            Pattern::Linear(pattern) => pattern.captures(line)?.get(1)?.as_str(),
            Pattern::Bounded(pattern) => pattern.captures(line).ok()??.get(1)?.as_str(),
        };
        text.trim().parse::<f64>().ok().filter(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-38
    #[test]
    fn what_cannot_be_compiled_is_no_pattern() {
        assert!(MetricPattern::compile("(").is_none());
        assert!(
            MetricPattern::compile(&"(x{1000}){1000}".repeat(2)).is_none(),
            "too large"
        );
        assert!(MetricPattern::compile("Loss = (.*?);").is_some(), "control");
        assert!(
            MetricPattern::compile("(?<=acc=)([0-9.]+)").is_some(),
            "control: look-around"
        );
    }
}
