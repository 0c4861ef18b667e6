//! Names in archives.

use super::{ArchiveError, refuse};

/// Longest path in an archive, bytes.
const LONGEST: usize = 4096;

/// A path below the target: components without `.`, `..` and empty ones. No components: the target itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner(Vec<Vec<u8>>);

impl Inner {
    /// Parses an entry's name. A leading `./` and a trailing slash mean nothing.
    ///
    /// # Errors
    /// Absolute paths, `..`, NUL bytes, names over 255 and paths over 4,096 bytes.
    pub fn parse(name: &[u8]) -> Result<Self, ArchiveError> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.len() > LONGEST {
            return refuse(format!("a path is {} bytes long", name.len()));
        }
        if name.first() == Some(&b'/') {
            return refuse(format!("the path {:?} is absolute", shown()));
        }
        let mut components = Vec::new();
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return refuse(format!("the path {:?} leaves the archive", shown())),
                part if part.len() > 255 || part.contains(&0) => {
                    return refuse(format!("the path {:?} holds no file name", shown()));
                }
                part => components.push(part.to_vec()),
            }
        }
        Ok(Self(components))
    }

    /// Parent and last name; `None` for the target itself.
    pub fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0.split_last().map(|(name, parent)| (parent, name.as_slice()))
    }

    /// The components with slashes between.
    pub fn joined(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}

/// Whether a symbolic link at depth `depth` (directories above it within the tree) with this text stays in the tree,
/// taking no account of other links.
pub fn link_stays(depth: usize, text: &[u8]) -> bool {
    if text.first() == Some(&b'/') {
        return false;
    }
    let mut level = depth;
    for part in text.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match level.checked_sub(1) {
                Some(above) => level = above,
                None => return false,
            },
            _ => level += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_or_refused() {
        let joined = |name: &str| Inner::parse(name.as_bytes()).map(|path| path.joined());
        assert_eq!(joined("./usr//lib/").unwrap(), b"usr/lib");
        assert_eq!(joined("./").unwrap(), b"");
        assert_eq!(joined("..a/b..").unwrap(), b"..a/b..");
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"] {
            assert!(matches!(joined(bad), Err(ArchiveError::Refused(_))), "{bad:?}");
        }
        assert!(joined(&"x".repeat(256)).is_err());
        assert!(joined(&"x/".repeat(2049)).is_err());
    }

    /// Proves: CC-37
    #[test]
    fn a_link_that_leaves_its_tree_is_told_from_one_that_stays() {
        assert!(link_stays(0, b"model.bin") && link_stays(2, b"../../x") && link_stays(0, b"a/../b"));
        assert!(!link_stays(0, b"..") && !link_stays(1, b"../../etc/passwd") && !link_stays(3, b"/opt/ml/model"));
        assert!(!link_stays(0, b"a/../../b"));
    }
}
