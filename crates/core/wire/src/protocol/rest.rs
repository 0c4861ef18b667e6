//! restJson1: URI templates, headers and query strings.

use super::percent_decode;
use super::query::scalar;
use super::xml::plain;
use crate::Document;
use crate::catalog::service::{Kind, Location, Member, Operation, Service, ShapeId, Structure};
use crate::timestamp;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use indexmap::IndexMap;

/// The labels of a path that fits a template: `/a/{Name}/{Rest+}`. `None` when it does not fit.
pub fn labels<'a>(template: &'a str, path: &str) -> Option<Vec<(&'a str, String)>> {
    let template = template.split('?').next().unwrap_or_default();
    let mut wanted = template.trim_start_matches('/').split('/').peekable();
    let mut given = path.trim_start_matches('/').split('/');
    let mut found = Vec::new();
    while let Some(segment) = wanted.next() {
        let label = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match label {
            None if given.next()? == segment => {}
            None => return None,
            Some(label) => {
                let first = given.next()?;
                let (name, value) = match label.strip_suffix('+') {
                    // A greedy label takes all but what the rest of the template needs.
                    Some(name) => {
                        let rest: Vec<&str> = std::iter::once(first).chain(given.by_ref()).collect();
                        let keep = rest.len().checked_sub(wanted.clone().count())?;
                        let (mine, theirs) = rest.split_at_checked(keep)?;
                        if !theirs.iter().zip(wanted.by_ref()).all(|(have, want)| *have == want) {
                            return None;
                        }
                        (name, mine.join("/"))
                    }
                    None => (label, first.to_owned()),
                };
                let value = percent_decode(&value, false).filter(|value| !value.is_empty())?;
                found.push((name, value));
            }
        }
    }
    given.next().is_none().then_some(found)
}

/// Whether a path fits a template; copies nothing for most.
fn fits(template: &str, path: &str) -> bool {
    // Without escapes and greedy labels nothing is left that could not fit.
    may_fit(template, path) && (!(path.contains('%') || template.contains("+}")) || labels(template, path).is_some())
}

/// Whether the literal segments fit, up to a greedy label: what tells most templates apart before anything is copied, most of
/// them at their first byte. True wherever [`labels`] finds labels.
fn may_fit(template: &str, path: &str) -> bool {
    let mut wanted = template
        .trim_start_matches('/')
        .bytes()
        .take_while(|byte| *byte != b'?');
    let mut given = path.trim_start_matches('/').bytes().peekable();
    while let Some(byte) = wanted.next() {
        if byte != b'{' {
            if given.next() != Some(byte) {
                return false;
            }
            continue;
        }
        // A label is a whole segment that is not empty, a greedy one any number of them.
        if wanted.by_ref().take_while(|byte| *byte != b'}').last() == Some(b'+') {
            return true;
        }
        if given.next_if(|byte| *byte != b'/').is_none() {
            return false;
        }
        while given.next_if(|byte| *byte != b'/').is_some() {}
    }
    given.next().is_none()
}

/// Literal labels before placeholders: `/a/list` is not `/a/{Name}`.
fn placeholders(operation: &Operation) -> usize {
    operation.uri.bytes().filter(|byte| *byte == b'{').count()
}

/// The operation of a method and path. `None`: no operation has the path; `Some(None)`: some have, with other methods.
pub fn route<'a>(service: &'a Service, method: &str, path: &str) -> Option<Option<&'a Operation>> {
    let operations = service.operations().iter();
    let mut there = operations.filter(|operation| fits(operation.uri, path)).peekable();
    there.peek()?;
    Some(
        there
            .filter(|operation| operation.method == method)
            .min_by_key(|operation| placeholders(operation)),
    )
}

/// Reads the members that travel in the head.
///
/// # Errors
/// When a value has the wrong type.
pub fn read_head(
    service: &Service,
    operation: &Operation,
    structure: &Structure,
    head: &Parts,
    members: &mut IndexMap<String, Document>,
) -> Result<(), String> {
    let in_path = labels(operation.uri, head.uri.path()).unwrap_or_default();
    let in_query = pairs(head.uri.query().unwrap_or_default())?;
    // Most of the many headers that an operation knows are not there, which lengths alone tell.
    let given = |name: &str| {
        head.headers
            .keys()
            .any(|given| given.as_str().eq_ignore_ascii_case(name))
    };
    for member in &structure.members {
        let name = member.wire_name();
        let value = match member.location {
            Location::Uri => {
                let text = in_path
                    .iter()
                    .find(|(label, _)| *label == name)
                    .map(|(_, text)| text.clone());
                typed(service, member, text.into_iter().collect())?
            }
            Location::Query => typed(
                service,
                member,
                in_query
                    .iter()
                    .filter(|(key, _)| key == name)
                    .map(|(_, v)| v.clone())
                    .collect(),
            )?,
            Location::Header if !given(name) => None,
            Location::Header => typed(service, member, header_texts(service, member, &head.headers)?)?,
            Location::Headers => prefixed(name, &head.headers)?,
            Location::Body | Location::StatusCode => None,
        };
        if let Some(value) = value {
            members.insert(member.name.to_owned(), value);
        }
    }
    Ok(())
}

fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            percent_decode(key, true).zip(percent_decode(value, true))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "The query string is not percent-encoded UTF-8.".into())
}

fn header_texts(service: &Service, member: &Member, headers: &HeaderMap) -> Result<Vec<String>, String> {
    let is_list = matches!(service.shape(member.shape).kind, Kind::List(_));
    let mut texts = Vec::new();
    for value in headers.get_all(member.wire_name()) {
        let text = visible(value, member.wire_name())?;
        if is_list {
            texts.extend(text.split(',').map(|item| item.trim().to_owned()));
        } else {
            texts.push(text);
        }
    }
    Ok(texts)
}

fn visible(value: &HeaderValue, name: &str) -> Result<String, String> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| format!("Header {name} is not UTF-8."))
}

fn prefixed(prefix: &str, headers: &HeaderMap) -> Result<Option<Document>, String> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found = IndexMap::new();
    for (name, value) in headers {
        if let Some(rest) = name.as_str().strip_prefix(&prefix) {
            found.insert(rest.to_owned(), Document::String(visible(value, name.as_str())?));
        }
    }
    Ok((!found.is_empty()).then_some(Document::Map(found)))
}

fn typed(service: &Service, member: &Member, texts: Vec<String>) -> Result<Option<Document>, String> {
    let wrong = |text: &str| format!("Invalid value '{text}' for {}.", member.wire_name());
    let read = |id: ShapeId, text: &str| scalar(&service.shape(id).kind, text).ok_or_else(|| wrong(text));
    match (&service.shape(member.shape).kind, texts.as_slice()) {
        (_, []) => Ok(None),
        (Kind::List(list), texts) => texts
            .iter()
            .map(|text| read(list.member, text))
            .collect::<Result<_, _>>()
            .map(|items| Some(Document::List(items))),
        (_, [first, ..]) => read(member.shape, first).map(Some),
    }
}

/// Writes the members that travel in the head of an answer; gives the status if a member is it.
pub fn write_head(
    service: &Service,
    structure: &Structure,
    members: &IndexMap<String, Document>,
    headers: &mut HeaderMap,
) -> Option<u16> {
    let mut status = None;
    for member in &structure.members {
        let Some(value) = members.get(member.name) else {
            continue;
        };
        match (member.location, value) {
            (Location::StatusCode, Document::Integer(code)) => status = u16::try_from(*code).ok(),
            (Location::Header, Document::List(items)) => {
                let text: Vec<String> = items.iter().map(plain).collect();
                set(headers, member.wire_name(), &text.join(","));
            }
            (Location::Header, value) => set(headers, member.wire_name(), &header_text(service, member, value)),
            (Location::Headers, Document::Map(entries)) => {
                for (key, value) in entries {
                    set(headers, &format!("{}{key}", member.wire_name()), &plain(value));
                }
            }
            _ => {}
        }
    }
    status
}

fn header_text(service: &Service, member: &Member, value: &Document) -> String {
    match (&service.shape(member.shape).kind, value) {
        (Kind::Timestamp, Document::Integer(millis) | Document::Timestamp(millis)) => timestamp::to_http_date(*millis),
        _ => plain(value),
    }
}

/// What cannot be a header is left out: an answer that cannot be sent helps nobody.
fn set(headers: &mut HeaderMap, name: &str, text: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(text)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{fits, labels, may_fit};
    use crate::catalog;

    #[test]
    fn the_cheap_look_at_a_template_refuses_nothing_that_fits() {
        let (mut fitting, mut refused) = (0, 0);
        let templates: std::collections::BTreeSet<&str> = catalog::entries()
            .iter()
            .flat_map(|entry| entry.model().operations())
            .map(|operation| operation.uri)
            .chain(["/o/{Key+}", "/o/{Key+}/end", "/o/{A}/{Key+}?x", "/{A}/o"])
            .collect();
        let paths = templates
            .iter()
            .map(|template| template.replace("+}", "/more").replace(['{', '}'], ""));
        let paths: Vec<String> = paths
            .flat_map(|path| ["", "/", "/x", "//", "%20", "%ff", "/%2"].map(|end| format!("{path}{end}")))
            .collect();
        for template in &templates {
            for path in &paths {
                assert_eq!(
                    fits(template, path),
                    labels(template, path).is_some(),
                    "{template} {path}"
                );
                if labels(template, path).is_some() {
                    assert!(may_fit(template, path), "{template} {path}");
                    fitting += 1;
                } else if !may_fit(template, path) {
                    refused += 1;
                }
            }
        }
        assert!(
            fitting >= templates.len() && refused > fitting,
            "control: both happened"
        );
    }

    #[test]
    fn paths_fit_templates() {
        let fits =
            |template, path| labels(template, path).map(|found| found.into_iter().map(|(_, v)| v).collect::<Vec<_>>());
        assert_eq!(
            fits("/endpoints/{E}/invocations", "/endpoints/a%20b/invocations"),
            Some(vec!["a b".into()])
        );
        assert_eq!(fits("/endpoints/{E}/invocations", "/endpoints//invocations"), None);
        assert_eq!(fits("/endpoints/{E}/invocations", "/endpoints/a/invocations/x"), None);
        assert_eq!(fits("/endpoints/{E}/invocations", "/endpoints/a"), None);
        assert_eq!(fits("/o/{Key+}", "/o/a/b"), Some(vec!["a/b".into()]));
        assert_eq!(fits("/o/{Key+}/end", "/o/a/b/end"), Some(vec!["a/b".into()]));
        assert_eq!(fits("/o/{Key+}/end", "/o/end"), None);
        assert_eq!(fits("/o/{Key+}/end", "/o/a/b/other"), None);
        assert_eq!(fits("/o/{K}", "/o/%ff"), None);
    }
}
