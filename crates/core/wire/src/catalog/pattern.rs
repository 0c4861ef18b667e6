//! AWS's patterns, written for Java, on Rust's engines.

use std::sync::OnceLock;

/// Steps after which a look-around search gives up; the value then counts as not matching.
const BACKTRACKS: usize = 200_000;
/// Bytes a compiled pattern may take: classes of all scripts repeated a thousand times are large.
const PROGRAM_BYTES: usize = 64 << 20;
/// Bytes of cache per pattern; patterns that outgrow it are matched more slowly, not refused.
const CACHE_BYTES: usize = 256 << 10;

/// A pattern that neither engine can compile.
#[derive(Debug, thiserror::Error)]
#[error("pattern {0:?} cannot be compiled")]
pub struct BadPattern(String);

/// The pattern of a string shape, compiled at its first use.
#[derive(Debug)]
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Engine>>,
}

#[derive(Debug)]
enum Engine {
    Linear(regex::Regex),
    LookAround(Box<fancy_regex::Regex>),
}

impl Pattern {
    pub(super) const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    /// The pattern as the model has it: what error messages show.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// Compiles now instead of at the first use.
    ///
    /// # Errors
    /// When no engine can compile it.
    pub fn compile(&self) -> Result<(), BadPattern> {
        self.engine().map(|_| ()).ok_or_else(|| BadPattern(self.text.into()))
    }

    /// Whether the whole of `value` matches. A pattern that cannot be compiled matches nothing: fail closed.
    pub fn matches(&self, value: &str) -> bool {
        match self.engine() {
            Some(Engine::Linear(regex)) => regex.is_match(value),
            Some(Engine::LookAround(regex)) => regex.is_match(value).unwrap_or(false),
            None => false,
        }
    }

    fn engine(&self) -> Option<&Engine> {
        self.compiled.get_or_init(|| compile(self.text)).as_ref()
    }
}

fn compile(text: &str) -> Option<Engine> {
    let whole = format!("^(?:{})$", translate(text));
    let linear = regex::RegexBuilder::new(&whole)
        .size_limit(PROGRAM_BYTES)
        .dfa_size_limit(CACHE_BYTES)
        .build();
    if let Ok(regex) = linear {
        return Some(Engine::Linear(regex));
    }
    let look_around = fancy_regex::RegexBuilder::new(&whole)
        .backtrack_limit(BACKTRACKS)
        .delegate_size_limit(PROGRAM_BYTES)
        .delegate_dfa_size_limit(CACHE_BYTES)
        .build();
    look_around.ok().map(|regex| Engine::LookAround(Box::new(regex)))
}

/// Spellings in the models that are not what their authors meant, or that need more than a token's view.
const SPELLINGS: &[(&str, &str)] = &[
    // Surrogate pairs and five-digit escapes: code points beyond the basic plane.
    (r"\uD800\uDC00-\uDBFF\uDFFF", r"\x{10000}-\x{10FFFF}"),
    (r"\u10000-\u10FFFF", r"\x{10000}-\x{10FFFF}"),
    // A repeated end anchor: the author meant the group before it, whose length the shape limits anyway.
    ("${1,128}", "$"),
    ("${1,256}", "$"),
    // An anchor in the middle, after which nothing could match.
    ("/^.", "/."),
];

/// Java's syntax to Rust's: ASCII classes for `\d`, `\w`, `\s`, POSIX names, Java's line ends, literal hyphens.
fn translate(java: &str) -> String {
    let mut source = java.to_owned();
    for (from, to) in SPELLINGS {
        source = source.replace(from, to);
    }
    let mut letters = source.chars().peekable();
    let mut out = String::with_capacity(source.len() + 16);
    let mut depth = 0_u32;
    // Whether the last item inside a class was a class itself, after which a hyphen is literal.
    let mut after_class = false;
    while let Some(letter) = letters.next() {
        let was_class = std::mem::take(&mut after_class);
        match letter {
            '\\' => match letters.next() {
                Some('p' | 'P') if letters.peek() == Some(&'{') => {
                    let name: String = letters.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push_str(&property(&name));
                    after_class = true;
                }
                Some(escape) => {
                    after_class = "dDwWsS".contains(escape);
                    match escaped(escape, depth > 0) {
                        Some(class) => out.push_str(class),
                        None => out.extend(['\\', escape]),
                    }
                }
                None => out.push_str(r"\\"),
            },
            '[' => {
                depth += 1;
                out.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A bracket or hyphen that opens a class is literal.
                if let Some(first) = letters.next_if(|c| *c == ']' || *c == '-') {
                    out.extend(['\\', first]);
                }
            }
            ']' if depth > 0 => {
                depth -= 1;
                out.push(']');
            }
            '-' if depth > 0 && (was_class || letters.peek() == Some(&']') || letters.peek() == Some(&'-')) => {
                out.push_str(r"\-");
            }
            '~' | '&' if depth > 0 && letters.peek() != Some(&'&') => out.extend(['\\', letter]),
            '.' if depth == 0 => out.push_str(r"[^\n\r\x{85}\x{2028}\x{2029}]"),
            other => out.push(other),
        }
    }
    out
}

fn escaped(letter: char, in_class: bool) -> Option<&'static str> {
    Some(match (letter, in_class) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('D', _) => "[^0-9]",
        ('w', true) => "a-zA-Z0-9_",
        ('w', false) => "[a-zA-Z0-9_]",
        ('W', _) => "[^a-zA-Z0-9_]",
        ('s', true) => r"\t\n\x0B\f\r ",
        ('s', false) => r"[\t\n\x0B\f\r ]",
        ('S', _) => r"[^\t\n\x0B\f\r ]",
        ('Z', false) => r"\z",
        // Escapes of letters that mean themselves to Java and nothing to Rust.
        ('_', _) => "_",
        ('<', _) => "<",
        ('>', _) => ">",
        _ => return None,
    })
}

/// Java's POSIX names are ASCII; the rest are Unicode categories and keep their names.
fn property(name: &str) -> String {
    let ascii = match name {
        "ASCII" => "[:ascii:]",
        "Alnum" => "[:alnum:]",
        "Alpha" => "[:alpha:]",
        "Digit" => "[:digit:]",
        "Graph" => "[:graph:]",
        "Lower" => "[:lower:]",
        "Print" => "[:print:]",
        "Punct" => "[:punct:]",
        "Space" => "[:space:]",
        "Upper" => "[:upper:]",
        "XDigit" => "[:xdigit:]",
        unicode => return format!(r"\p{{{unicode}}}"),
    };
    // A POSIX class stands inside brackets; nested brackets are a union.
    format!("[{ascii}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &'static str, value: &str) -> bool {
        let pattern = Pattern::new(pattern);
        pattern.compile().expect("the pattern compiles");
        pattern.matches(value)
    }

    #[test]
    fn java_classes_are_ascii() {
        assert!(matches(r"\d\w\s", "1a "));
        assert!(!matches(r"\d", "٣"));
        assert!(!matches(r"[\w]", "é"));
        assert!(!matches(".", "\r"));
    }

    #[test]
    fn java_spellings_are_understood() {
        assert!(matches(r"[\w-_]*", "a-_"));
        assert!(matches(r"\A\S[\p{Print}]*\z", "a b~"));
        assert!(!matches(r"\p{ASCII}*", "é"));
        assert!(matches(r"[\p{Alnum}\-]+", "a-9"));
        assert!(matches(
            r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*",
            "a😀"
        ));
        assert!(!matches(r"[\u0020-\uD7FF]*", "😀"));
        assert!(matches(r"([\p{L}_.:\/=+\-@]*)${1,128}", "a/b"));
        assert!(matches(r"[a-z0-9-.]+", "a-."));
        assert!(matches("[-a-z]+", "a-"));
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches("[a-z]+", "abc"));
        assert!(!matches("[a-z]+", "abc1"));
        assert!(!matches("a|b", "ab"), "alternatives are grouped");
        assert!(!matches("[a-z]+", "abc\n"));
    }

    #[test]
    fn look_around_works() {
        assert!(matches("(?!s3:|https:)[a-z:/]+", "file:/x"));
        assert!(!matches("(?!s3:|https:)[a-z:/]+", "https:/x"));
        assert!(matches(r"[a-z-]+(?<!-)", "a-b"));
        assert!(!matches(r"[a-z-]+(?<!-)", "a-"));
    }
}
