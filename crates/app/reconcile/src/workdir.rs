//! The service's own directory of one workload: `DIR/work/<workload>`, prepared by the executor.

use isolarium_model::WorkloadId;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// `DIR/work`. Only the service writes below it; a container sees parts of it read-only.
#[derive(Clone, Debug)]
pub struct WorkDir {
    root: PathBuf,
}

impl WorkDir {
    /// The directory that holds one directory per workload.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `DIR/work/<workload>`.
    pub fn of(&self, workload: &WorkloadId) -> PathBuf {
        self.root.join(workload.as_str())
    }

    /// Makes a directory below the workload's, with its parents; an existing one is fine.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make(&self, workload: &WorkloadId, below: &str) -> io::Result<PathBuf> {
        let path = self.of(workload).join(below);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Makes a directory afresh: what an earlier, interrupted attempt left in it is removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make_empty(&self, workload: &WorkloadId, below: &str) -> io::Result<PathBuf> {
        let path = self.of(workload).join(below);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&path)?,
        }
        Ok(path)
    }

    /// A new file for an archive, and its path; an older one of that name is replaced.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn archive(&self, workload: &WorkloadId, name: &str) -> io::Result<(File, PathBuf)> {
        let path = self.make(workload, "pack")?.join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok((file, path))
    }

    /// Names of the workloads that have a directory.
    ///
    /// # Errors
    /// When the directory cannot be read; a missing one is empty.
    pub fn workloads(&self) -> io::Result<Vec<WorkloadId>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.push(id);
            }
        }
        Ok(found)
    }
}

/// Where an object of a channel is to appear: every component of the key below the channel's directory.
///
/// # Errors
/// A key that cannot be a path: empty, `.` or `..` components, or a component longer than file systems allow. The
/// text names the key.
pub fn relative_path(key_below: &str) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    for part in key_below.split('/') {
        if part.is_empty() || part == "." || part == ".." || part.len() > 255 || part.contains('\0') {
            return Err(format!("the key \"{key_below}\" cannot be a file name"));
        }
        path.push(part);
    }
    Ok(path)
}

/// Makes the parent directory of `path`.
///
/// # Errors
/// When the file system refuses, for example because a file stands where a directory is needed.
pub fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_would_leave_the_channel_are_refused() {
        for bad in ["", "/x", "a//b", "a/../b", "..", ".", "a/", &"x".repeat(256)] {
            assert!(relative_path(bad).is_err(), "{bad}");
        }
        assert_eq!(relative_path("a/b c.csv").unwrap(), Path::new("a/b c.csv"));
    }
}
