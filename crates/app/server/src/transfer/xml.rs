//! S3's answers: small XML documents, read into a tree.

use quick_xml::events::Event;

/// Deepest nesting that is followed: S3's answers have four levels.
const DEPTH: usize = 16;

/// One element with its text and its children.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// The children of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of a name.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.children
            .iter()
            .find(|child| child.name == name)
            .map(|child| child.text.as_str())
    }
}

/// The document's root; `None` when the bytes are no such document.
pub(super) fn read(bytes: &[u8]) -> Option<Element> {
    let mut reader = quick_xml::Reader::from_reader(bytes);
    let mut open: Vec<Element> = vec![Element::default()];
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if open.len() > DEPTH {
                    return None;
                }
                open.push(named(start.local_name().as_ref()));
            }
            Event::Empty(start) => open.last_mut()?.children.push(named(start.local_name().as_ref())),
            Event::Text(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
            Event::CData(text) => open.last_mut()?.text.push_str(std::str::from_utf8(&text).ok()?),
            Event::GeneralRef(reference) => {
                let text = match reference.resolve_char_ref().ok()? {
                    Some(character) => character.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&reference.decode().ok()?)?.into(),
                };
                open.last_mut()?.text.push_str(&text);
            }
            Event::End(_) => {
                let done = open.pop()?;
                open.last_mut()?.children.push(done);
            }
            Event::Eof => break,
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    let mut root = open.pop().filter(|_| open.is_empty())?;
    root.children.pop().filter(|_| root.children.is_empty())
}

fn named(name: &[u8]) -> Element {
    Element {
        name: String::from_utf8_lossy(name).into_owned(),
        ..Element::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_texts_and_references_are_read_and_broken_documents_are_not() {
        let root = read(b"<?xml version=\"1.0\"?>\n<A xmlns=\"x\"><B>a &amp; b&#x21;</B><C/><B><![CDATA[<]]></B></A>")
            .unwrap();
        assert_eq!(root.name, "A");
        assert_eq!(
            root.all("B").map(|one| one.text.as_str()).collect::<Vec<_>>(),
            ["a & b!", "<"]
        );
        assert_eq!(root.text_of("C"), Some(""));
        assert_eq!(root.text_of("D"), None);
        for broken in ["", "<A>", "<A></B>", "text", "<A/><B/>", &"<A>".repeat(40)] {
            assert_eq!(read(broken.as_bytes()), None, "{broken}");
        }
    }
}
