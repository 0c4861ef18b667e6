//! AWS's spelling to Rust's.

const KEYWORDS: &[&str] = &[
    "as", "async", "await", "box", "break", "const", "continue", "dyn", "else", "enum", "extern", "fn", "for", "gen",
    "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct",
    "trait", "type", "unsafe", "use", "where", "while", "yield",
];

/// `EnableSSMAccess` to `enable_ssm_access`, `S3Uri` to `s3_uri`, `type` to `r#type`.
pub fn field(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| letters.get(i)).copied().unwrap_or('_');
        let after = letters.get(at + 1).copied().unwrap_or('_');
        // `ARNs` is one word: a plural's `s` does not begin a new one.
        let plural = after == 's' && at + 2 == letters.len();
        let starts_word = letter.is_uppercase()
            && (before.is_lowercase()
                || before.is_ascii_digit()
                || (before.is_uppercase() && after.is_lowercase() && !plural));
        if starts_word && !out.is_empty() {
            out.push('_');
        }
        if letter.is_alphanumeric() {
            out.extend(letter.to_lowercase());
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    if KEYWORDS.contains(&out.as_str()) {
        format!("r#{out}")
    } else {
        out
    }
}

/// `statusType` to `StatusType`: a shape's name as a type.
pub fn type_name(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// `ml.m5.large` to `MlM5Large`, `SHA_256` to `Sha256`, `InService` unchanged: an enum's value as a variant.
pub fn variant(value: &str) -> String {
    let mut out = String::new();
    for word in value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let shouted = !word.chars().any(|c| c.is_ascii_lowercase());
        for (at, letter) in word.chars().enumerate() {
            match (at, shouted) {
                (0, _) => out.push(letter.to_ascii_uppercase()),
                (_, true) => out.push(letter.to_ascii_lowercase()),
                (_, false) => out.push(letter),
            }
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) || out.is_empty() || out == "Self" {
        format!("V{out}")
    } else {
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_names_become_rust_names() {
        for (aws, rust) in [
            ("EnableSSMAccess", "enable_ssm_access"),
            ("S3Uri", "s3_uri"),
            ("KMSKeyId", "kms_key_id"),
            ("ModelARNs", "model_arns"),
            ("Type", "r#type"),
            ("imageDigest", "image_digest"),
            ("MaxRuntimeInSeconds", "max_runtime_in_seconds"),
            ("Ipv6Addresses", "ipv6_addresses"),
        ] {
            assert_eq!(field(aws), rust);
        }
        for (aws, rust) in [
            ("ml.m5.large", "MlM5Large"),
            ("SHA_256", "Sha256"),
            ("InService", "InService"),
            ("1.2", "V12"),
        ] {
            assert_eq!(variant(aws), rust);
        }
        assert_eq!(type_name("statusType"), "StatusType");
    }
}
