//! Query strings and percent-encoding.

/// Undoes percent-encoding (and, in forms, `+` for a space). `None` when the result is not UTF-8.
pub(super) fn decode(text: &str, form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'+' if form => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                high << 4 | low
            }
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

/// Names of the query parameters that belong to the signature.
fn is_signature(name: &str) -> bool {
    matches!(
        name,
        "X-Amz-Algorithm"
            | "X-Amz-Credential"
            | "X-Amz-Date"
            | "X-Amz-Expires"
            | "X-Amz-SignedHeaders"
            | "X-Amz-Signature"
            | "X-Amz-Security-Token"
            | "X-Amz-Content-Sha256"
            | "AWSAccessKeyId"
            | "Signature"
            | "Expires"
            | "x-amz-security-token"
    )
}

/// The query without the parameters of a signature.
pub(super) fn without_signature(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !is_signature(pair.split('=').next().unwrap_or_default()))
        .collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_percent_signs_and_refuses_what_is_not_text() {
        assert_eq!(decode("a%2Fb+c", true).as_deref(), Some("a/b c"));
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
        assert_eq!(decode("%C3%A9", false).as_deref(), Some("é"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn a_signature_leaves_the_query_and_the_rest_stays() {
        assert_eq!(
            without_signature("versionId=1&X-Amz-Signature=a&uploads"),
            "versionId=1&uploads"
        );
        assert_eq!(without_signature("AWSAccessKeyId=a&Signature=b&Expires=1"), "");
    }
}
