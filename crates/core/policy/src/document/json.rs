//! JSON with the place of every value, so that each fault in a policy can be shown where it is.
//!
//! Stricter than JSON asks for: a key may appear once in an object, and nesting ends at [`DEEPEST`].

use crate::explain::Position;
use std::collections::HashSet;

/// Levels of nesting; a policy needs six.
const DEEPEST: usize = 32;

/// A value with the place of its first character and the place behind its last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) end: Position,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) node: Node,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) detail: String,
}

/// Reads one value and nothing behind it.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader {
        rest: text,
        at: Position { line: 1, column: 1 },
    };
    reader.blanks();
    let node = reader.value(0)?;
    reader.blanks();
    if reader.rest.is_empty() {
        Ok(node)
    } else {
        Err(reader.fault("text follows the document"))
    }
}

struct Reader<'t> {
    rest: &'t str,
    at: Position,
}

impl Reader<'_> {
    fn fault(&self, detail: impl Into<String>) -> Fault {
        Fault {
            at: self.at,
            detail: detail.into(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let found = chars.next()?;
        self.rest = chars.as_str();
        if found == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(found)
    }

    fn blanks(&mut self) {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.next();
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.peek() == Some(wanted) {
            self.next();
            return Ok(());
        }
        Err(match self.peek() {
            Some(found) => self.fault(format!("{wanted:?} is expected, not {found:?}")),
            None => self.fault(format!("the text ends where {wanted:?} is expected")),
        })
    }

    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        if depth > DEEPEST {
            return Err(self.fault("the values are nested too deeply"));
        }
        let at = self.at;
        let value = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            Some(other) => return Err(self.fault(format!("a value cannot begin with {other:?}"))),
            None => return Err(self.fault("the text ends where a value is expected")),
        };
        Ok(Node {
            at,
            end: self.at,
            value,
        })
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        self.expect('{')?;
        let (mut members, mut seen) = (Vec::new(), HashSet::new());
        self.blanks();
        while self.peek() != Some('}') {
            if !members.is_empty() {
                self.expect(',')?;
                self.blanks();
            }
            let at = self.at;
            let key = self.text()?;
            if !seen.insert(key.clone()) {
                let detail = format!("{key} appears twice");
                return Err(Fault { at, detail });
            }
            self.blanks();
            self.expect(':')?;
            self.blanks();
            let node = self.value(depth + 1)?;
            members.push(Member { at, key, node });
            self.blanks();
        }
        self.next();
        Ok(Value::Object(members))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        self.expect('[')?;
        let mut found = Vec::new();
        self.blanks();
        while self.peek() != Some(']') {
            if !found.is_empty() {
                self.expect(',')?;
                self.blanks();
            }
            found.push(self.value(depth + 1)?);
            self.blanks();
        }
        self.next();
        Ok(Value::List(found))
    }

    fn word(&mut self) -> Result<Value, Fault> {
        for (word, value) in [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
        ] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                self.at.column += word.len();
                return Ok(value);
            }
        }
        Err(self.fault("an unknown word"))
    }

    fn digits(&mut self, into: &mut String) -> Result<(), Fault> {
        let before = into.len();
        while let Some(digit @ '0'..='9') = self.peek() {
            into.push(digit);
            self.next();
        }
        if into.len() > before {
            Ok(())
        } else {
            Err(self.fault("a digit is expected"))
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let mut text = String::new();
        let take = |reader: &mut Self, text: &mut String, wanted: &[char]| {
            reader.peek().filter(|found| wanted.contains(found)).inspect(|found| {
                text.push(*found);
                reader.next();
            })
        };
        take(self, &mut text, &['-']);
        if take(self, &mut text, &['0']).is_none() {
            self.digits(&mut text)?;
        }
        if take(self, &mut text, &['.']).is_some() {
            self.digits(&mut text)?;
        }
        if take(self, &mut text, &['e', 'E']).is_some() {
            take(self, &mut text, &['+', '-']);
            self.digits(&mut text)?;
        }
        Ok(Value::Number(text))
    }

    fn text(&mut self) -> Result<String, Fault> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            let at = self.at;
            let fault = |detail: &str| Fault {
                at,
                detail: detail.into(),
            };
            match self.next() {
                None => return Err(fault("the text ends within a string")),
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(control) if control < ' ' => return Err(fault("a control character within a string")),
                Some(other) => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Fault> {
        let at = self.at;
        let unknown = || Fault {
            at,
            detail: "an unknown escape within a string".into(),
        };
        Ok(match self.next().ok_or_else(unknown)? {
            same @ ('"' | '\\' | '/') => same,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut units = vec![self.unit().ok_or_else(unknown)?];
                // The first half of a pair needs its second half.
                if units.first().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
                    let rest = self.rest.strip_prefix("\\u").ok_or_else(unknown)?;
                    self.rest = rest;
                    self.at.column += 2;
                    units.push(self.unit().ok_or_else(unknown)?);
                }
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(one)), None) => one,
                    _ => return Err(unknown()),
                }
            }
            _ => return Err(unknown()),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.rest.get(..4)?;
        let unit = digits
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit())
            .then(|| u16::from_str_radix(digits, 16).ok())??;
        self.rest = self.rest.get(4..)?;
        self.at.column += 4;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same value by serde_json, for comparison.
    fn plain(node: &Node) -> serde_json::Value {
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(text) => serde_json::from_str(text).unwrap(),
            Value::Text(text) => text.clone().into(),
            Value::List(list) => list.iter().map(plain).collect(),
            Value::Object(members) => {
                serde_json::Value::Object(members.iter().map(|m| (m.key.clone(), plain(&m.node))).collect())
            }
        }
    }

    #[test]
    fn values_have_their_places() {
        let node = read("{\n  \"ä\": [1.5e3,\n   \"b\\n\\u00e4\\ud83d\\ude00\"]\n}").unwrap();
        let Value::Object(members) = &node.value else { panic!() };
        assert_eq!(members[0].at, Position { line: 2, column: 3 });
        let Value::List(list) = &members[0].node.value else {
            panic!()
        };
        assert_eq!(list[1].at, Position { line: 3, column: 4 });
        assert_eq!(list[1].value, Value::Text("b\nä😀".into()));
        assert_eq!(node.end, Position { line: 4, column: 2 });
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        for (text, line, column) in [
            ("", 1, 1),
            ("{", 1, 2),
            ("{\"a\":1,}", 1, 8),
            ("[1,]", 1, 4),
            ("[1 2]", 1, 4),
            ("{\"a\":1}\n {}", 2, 2),
            ("{\"a\":1,\"a\":2}", 1, 8),
            ("\"a", 1, 3),
            ("\"\\x\"", 1, 3),
            ("\"\\ud800\"", 1, 3),
            ("nul", 1, 1),
            ("01", 1, 2),
            ("1.", 1, 3),
            ("'a'", 1, 1),
        ] {
            let fault = read(text).expect_err(text);
            assert_eq!((fault.at.line, fault.at.column), (line, column), "{text}: {fault:?}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        /// What serde_json reads, this reads alike; what it refuses, this refuses.
        #[test]
        fn reads_what_json_is(text in "[\\[\\]{}\",:a\\\\u0-9.eE+ -]{0,24}|(\"[^\"\\\\]{0,8}\")|(\\[(1|true|null|\"x\")(,(2|\\{\\}))?\\])") {
            let ours = read(&text);
            match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(theirs) => match ours {
                    Ok(node) => proptest::prop_assert_eq!(plain(&node), theirs),
                    Err(fault) => proptest::prop_assert!(fault.detail.ends_with("appears twice"), "{:?}", fault),
                },
                // serde_json also refuses numbers that a double cannot hold.
                Err(error) if error.to_string().starts_with("number out of range") => {}
                Err(_) => proptest::prop_assert!(ours.is_err(), "{}", text),
            }
        }
    }
}
