//! Rows of CSV as RFC 4180 has them, without newlines inside of fields (CC-78). Fields keep their own spelling, quotes
//! included: what is not selected away comes out as it went in.

use crate::split::Unreadable;

/// The fields of one row.
///
/// # Errors
/// When a quote is not closed or stands in the middle of a field.
pub fn fields(row: &str) -> Result<Vec<&str>, Unreadable> {
    let row = row.strip_suffix('\r').unwrap_or(row);
    let (mut all, mut start, mut at) = (Vec::new(), 0, 0);
    let bytes = row.as_bytes();
    let bad = |what: &'static str| Unreadable::Format("CSV", what);
    loop {
        if bytes.get(at) == Some(&b'"') {
            at = closing(bytes, at + 1).ok_or_else(|| bad("a quote is not closed"))? + 1;
            if !matches!(bytes.get(at), None | Some(b',')) {
                return Err(bad("something follows a closing quote"));
            }
        } else {
            let rest = bytes.get(at..).unwrap_or_default();
            at += rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
            if bytes.get(start..at).unwrap_or_default().contains(&b'"') {
                return Err(bad("a quote stands in the middle of a field"));
            }
        }
        all.push(row.get(start..at).unwrap_or_default());
        if at >= bytes.len() {
            return Ok(all);
        }
        at += 1;
        start = at;
    }
}

/// The quote that closes a field; two in a row stand for one.
fn closing(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'"')?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-78
    #[test]
    fn fields_are_cut_at_commas_outside_of_quotes() {
        assert_eq!(fields("1,2,3").unwrap(), ["1", "2", "3"]);
        assert_eq!(fields("").unwrap(), [""]);
        assert_eq!(fields("a,").unwrap(), ["a", ""]);
        assert_eq!(fields(",,\r").unwrap(), ["", "", ""]);
        assert_eq!(
            fields("\"a,b\",\"say \"\"hi\"\"\",c").unwrap(),
            ["\"a,b\"", "\"say \"\"hi\"\"\"", "c"]
        );
        for bad in ["\"a", "\"a\"b,c", "a\"b", "\"\"\""] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn fields_joined_again_are_the_row(row in "[a,\" ]{0,12}") {
            if let Ok(all) = fields(&row) {
                proptest::prop_assert_eq!(all.join(","), row);
            }
        }
    }
}
