//! The service's own directory of one workload: `DIR/work/<workload>`, prepared by the executor.

use isolarium_model::WorkloadId;
use isolarium_model::sagemaker::model::ResolvedImage;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Modes of what a container sees of the directory. Its user may be another than root, mounts can show other owners but
/// no other mode, and the service's umask takes everything from others. On the host only the service may enter the
/// directory of a workload.
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o444;

/// The image a workload was launched with, beside what its container sees.
const NOTED_IMAGE: &str = "image.json";

/// The accelerators it was launched with.
const NOTED_DEVICES: &str = "devices.json";

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
        let of = self.of(workload);
        make_directory(&of, Path::new(below))?;
        Ok(of.join(below))
    }

    /// Makes a directory afresh: what an earlier, interrupted attempt left in it is removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make_empty(&self, workload: &WorkloadId, below: &str) -> io::Result<PathBuf> {
        let path = self.of(workload).join(below);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.make(workload, below),
        }
    }

    /// A new file for an archive, and its path; an older one of that name is replaced. It is another file, for a packer
    /// that outlived its node may still write to the older one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn archive(&self, workload: &WorkloadId, name: &str) -> io::Result<(File, PathBuf)> {
        fresh(self.make(workload, "pack")?.join(name))
    }

    /// Keeps which image a workload is about to be launched with: a process that dies between launch and record leaves
    /// its successor to record it. The machine's own end ends the container too, so nothing waits for the disk.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn note_image(&self, workload: &WorkloadId, image: &ResolvedImage) -> io::Result<()> {
        let text = serde_json::to_vec(image)?;
        let (path, fresh) = (self.of(workload).join(NOTED_IMAGE), self.of(workload).join("image.new"));
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &path)
    }

    /// What [`Self::note_image`] kept; `None` when it was not called or the directory is gone.
    pub fn noted_image(&self, workload: &WorkloadId) -> Option<ResolvedImage> {
        let path = self.of(workload).join(NOTED_IMAGE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "a noted image cannot be read"))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a noted image cannot be read");
                None
            }
        }
    }

    /// Keeps which accelerators a workload is about to be launched with.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn note_devices(&self, workload: &WorkloadId, devices: &[String]) -> io::Result<()> {
        let text = serde_json::to_vec(devices)?;
        let (path, fresh) = (
            self.of(workload).join(NOTED_DEVICES),
            self.of(workload).join("devices.new"),
        );
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &path)
    }

    /// What [`Self::note_devices`] kept; none when it was not called.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn noted_devices(&self, workload: &WorkloadId) -> io::Result<Vec<String>> {
        match fs::read(self.of(workload).join(NOTED_DEVICES)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
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

/// A new file, which replaces what has its name.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn fresh(path: PathBuf) -> io::Result<(File, PathBuf)> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    Ok((file, path))
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

/// Makes the directory `below` the directory `top` and what is missing on the way, readable for every user of a
/// container.
///
/// # Errors
/// When the file system refuses; `NotADirectory` when a file stands where a directory is needed.
pub fn make_directory(top: &Path, below: &Path) -> io::Result<()> {
    let mut path = top.to_path_buf();
    for part in below {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(DIRECTORY))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !path.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a file that every user of a container may read; an older one is replaced.
///
/// # Errors
/// When the file system refuses.
pub fn write_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(FILE))
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

    /// Proves: CC-3
    #[test]
    fn what_a_container_sees_is_readable_for_its_user_whatever_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let (work, workload) = (WorkDir::new(folder.path()), "w-0123456789abcdef0".parse().unwrap());
        fs::create_dir(work.of(&workload)).unwrap();
        let made = work.make(&workload, "input/config").unwrap();
        // Twice: a repeated attempt replaces what is there, although it is read-only.
        for text in ["first", "second"] {
            write_readable(&made.join("a.json"), text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(made.join("a.json")).unwrap(), text);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made), 0o755);
        assert_eq!(mode(made.parent().unwrap()), 0o755);
        assert_eq!(mode(&made.join("a.json")), 0o444);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o700)).unwrap();
        work.make_empty(&workload, "input/config").unwrap();
        assert_eq!(mode(&made), 0o755, "made afresh");
        assert!(!made.join("a.json").exists());
        let clash = make_directory(folder.path(), Path::new("file/below")).and_then(|()| {
            fs::write(folder.path().join("file/below/x"), "")?;
            make_directory(folder.path(), Path::new("file/below/x/y"))
        });
        assert_eq!(clash.unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
