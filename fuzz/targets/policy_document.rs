//! Any text as a policy document of every kind: reading ends, a fault lies within the text, and a document that one kind
//! refuses grants nothing.
#![no_main]

mod ask;

use isolarium_policy::{Document, DocumentKind};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|text: &str| {
    let lines = text.split('\n').count();
    for kind in [
        DocumentKind::Identity,
        DocumentKind::Resource,
        DocumentKind::Trust,
        DocumentKind::Endpoint,
    ] {
        if let Err(fault) = Document::parse(text, kind) {
            assert!(!fault.message.is_empty());
            assert!((1..=lines + 1).contains(&fault.line), "line {} of {lines}", fault.line);
            assert!(fault.column >= 1);
        }
    }
    let context = BTreeMap::from([("aws:username".to_owned(), vec!["fuzz".to_owned()])]);
    let allowed = ask::allowed(text, "s3:GetObject", "arn:aws:s3:::bucket/key", context);
    let readable = Document::parse(text, DocumentKind::Identity).is_ok();
    assert!(!allowed || readable, "an unreadable document granted something");
    // Only a text that says Allow, plainly or escaped, can allow.
    assert!(!allowed || text.contains("Allow") || text.contains("\\u"));
});
