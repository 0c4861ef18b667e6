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
    /// One class, repeated so often that counting is better left to us: `[\p{L}]{0,1024}` alone takes a second to compile.
    Counted {
        class: regex::Regex,
        least: usize,
        most: usize,
    },
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
            Some(Engine::Counted { class, least, most }) => {
                (*least..=*most).contains(&value.chars().count()) && class.is_match(value)
            }
            Some(Engine::LookAround(regex)) => regex.is_match(value).unwrap_or(false),
            None => false,
        }
    }

    fn engine(&self) -> Option<&Engine> {
        self.compiled.get_or_init(|| compile(self.text)).as_ref()
    }
}

fn compile(text: &str) -> Option<Engine> {
    if let Some((class, least, most)) = counted(text)
        && let Ok(class) = linear(&format!("^{}*$", translate(class)))
    {
        return Some(Engine::Counted { class, least, most });
    }
    let whole = format!("^(?:{})$", translate(text));
    if let Ok(regex) = linear(&whole) {
        return Some(Engine::Linear(regex));
    }
    let look_around = fancy_regex::RegexBuilder::new(&whole)
        .backtrack_limit(BACKTRACKS)
        .delegate_size_limit(PROGRAM_BYTES)
        .delegate_dfa_size_limit(CACHE_BYTES)
        .build();
    look_around.ok().map(|regex| Engine::LookAround(Box::new(regex)))
}

fn linear(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(PROGRAM_BYTES)
        .dfa_size_limit(CACHE_BYTES)
        .build()
}

/// A pattern that is one class with a large upper bound: the class and its bounds.
fn counted(text: &str) -> Option<(&str, usize, usize)> {
    let text = text.strip_prefix('^').unwrap_or(text);
    let text = text.strip_suffix('$').unwrap_or(text).strip_suffix('}')?;
    let (class, bounds) = text.rsplit_once('{')?;
    let (least, most) = bounds.split_once(',')?;
    let (least, most) = (least.parse().ok()?, most.parse().ok()?);
    let inside = class.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // Only a class without brackets inside is surely one class.
    let one = class == "." || inside.is_some_and(|inside| !inside.contains(['[', ']']));
    (one && most > 64).then_some((class, least, most))
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
    fn long_repetitions_of_a_class_are_counted() {
        const CLASS: &str = r"[\p{L}\p{M}]{1,1024}";
        assert_eq!(counted(CLASS), Some((r"[\p{L}\p{M}]", 1, 1024)));
        for other in [
            r"[a-z]{1,3}",
            r"[a-z]-[a-z]{1,99}",
            r"[\]a]{1,99}",
            "ab{1,99}",
            "a|[b]{1,99}",
        ] {
            assert_eq!(counted(other), None, "{other}");
        }
        assert!(matches(CLASS, &"é".repeat(1024)));
        assert!(!matches(CLASS, &"é".repeat(1025)));
        assert!(!matches(CLASS, ""));
        assert!(!matches(CLASS, "é1"));
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
