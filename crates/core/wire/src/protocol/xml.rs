//! Answers of awsQuery and ec2Query.

use crate::Document;
use crate::catalog::service::{Kind, Service, ShapeId, Structure};
use crate::timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;

/// Writes the members of a structure as elements.
pub fn write(
    service: &Service,
    structure: &Structure,
    members: &IndexMap<String, Document>,
    ec2: bool,
    out: &mut String,
) {
    for member in &structure.members {
        if let Some(value) = members.get(member.name) {
            write_value(service, member.shape, member.wire_name(), value, ec2, out);
        }
    }
}

fn write_value(service: &Service, id: ShapeId, name: &str, value: &Document, ec2: bool, out: &mut String) {
    match (&service.shape(id).kind, value) {
        (Kind::List(list), Document::List(items)) if list.flattened => {
            for item in items {
                write_value(service, list.member, list.member_name.unwrap_or(name), item, ec2, out);
            }
        }
        (Kind::Structure(structure), Document::Map(members)) => {
            within(name, out, |out| write(service, structure, members, ec2, out));
        }
        (Kind::List(list), Document::List(items)) => within(name, out, |out| {
            for item in items {
                let item_name = list.member_name.unwrap_or(if ec2 { "item" } else { "member" });
                write_value(service, list.member, item_name, item, ec2, out);
            }
        }),
        (Kind::Map(map), Document::Map(entries)) => {
            let mut all = String::new();
            for (key, value) in entries {
                within(if map.flattened { name } else { "entry" }, &mut all, |out| {
                    element(map.key_name.unwrap_or("key"), key, out);
                    write_value(service, map.value, map.value_name.unwrap_or("value"), value, ec2, out);
                });
            }
            if map.flattened {
                out.push_str(&all)
            } else {
                within(name, out, |out| out.push_str(&all))
            }
        }
        (Kind::Timestamp, Document::Integer(millis) | Document::Timestamp(millis)) => {
            element(name, &timestamp::to_iso8601(*millis, ec2), out);
        }
        (_, value) => element(name, &plain(value), out),
    }
}

/// A scalar's text; what is no scalar where the model has one is left empty.
pub fn plain(value: &Document) -> String {
    match value {
        Document::Bool(value) => value.to_string(),
        Document::Integer(value) => value.to_string(),
        Document::Float(value) if value.is_finite() => value.to_string(),
        Document::Float(value) => super::non_finite(*value).to_owned(),
        Document::String(text) => text.clone(),
        Document::Blob(bytes) => STANDARD.encode(bytes),
        Document::Timestamp(millis) => timestamp::to_iso8601(*millis, false),
        Document::List(_) | Document::Map(_) => String::new(),
    }
}

/// `<name>` around what `content` writes.
pub fn within(name: &str, out: &mut String, content: impl FnOnce(&mut String)) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    content(out);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// `<name>text</name>`, escaped.
pub fn element(name: &str, text: &str, out: &mut String) {
    within(name, out, |out| escape(text, out));
}

/// Text that every XML parser gives back unchanged; what XML 1.0 cannot hold becomes U+FFFD.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Parsers turn a bare one into a line feed.
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' => out.push(letter),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}
