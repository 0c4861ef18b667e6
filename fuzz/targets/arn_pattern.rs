//! Resource patterns against resource names: the engine's matcher agrees with the definition, spelled out.
#![no_main]

mod ask;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::collections::BTreeMap;

/// `*` is any run, `?` any one character: the table of all prefixes.
fn naive(pattern: &[char], text: &[char]) -> bool {
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for wanted in pattern {
        let mut next = vec![false; text.len() + 1];
        next[0] = row[0] && *wanted == '*';
        for (at, given) in text.iter().enumerate() {
            next[at + 1] = match wanted {
                '*' => next[at] || row[at + 1],
                '?' => row[at],
                same => row[at] && same == given,
            };
        }
        row = next;
    }
    row[text.len()]
}

fuzz_target!(|input: (&str, &str)| {
    let (pattern, name) = input;
    // Variables are another target's; names of SageMaker's resources fold case (IAM-9), S3's do not.
    if pattern.contains("${") || pattern.len() + name.len() > 2_000 {
        return;
    }
    let (pattern, name) = (format!("arn:aws:s3:::{pattern}"), format!("arn:aws:s3:::{name}"));
    let text =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": pattern}]});
    let allowed = ask::allowed(&text.to_string(), "s3:GetObject", &name, BTreeMap::new());
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    assert_eq!(allowed, naive(&pattern, &name));
});
