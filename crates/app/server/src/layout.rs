//! The data directory: its folders, its version, its lock, its owner's credentials.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long a lock may still be held by a process that was killed or is on its way out: a supervisor starts the next one
/// at once.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Version of the layout, in `DIR/VERSION`. A newer one is refused.
const VERSION: u32 = 1;

/// Folders of the serving half below DIR with their modes; `layers`, `work` and the rest of `run` are the node's.
const FOLDERS: &[(&str, u32)] = &[
    ("ca", 0o700),
    ("buckets", 0o700),
    ("escape", 0o700),
    ("registry/blobs/sha256", 0o700),
    ("logs", 0o700),
    ("audit", 0o700),
    ("run", 0o755),
];

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("cannot use {path}; check its owner, its mode and the disk")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is in use by another isolarium process; stop it first")]
    Locked(PathBuf),
    #[error(
        "{path} was written by version {found} of the layout and this program knows {VERSION}; use a newer isolarium"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{0} does not hold a version number; is it an Isolarium data directory?")]
    NotOurs(PathBuf),
}

/// An opened data directory. The lock lasts as long as the value.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Makes what is missing and locks the directory for this process.
    ///
    /// # Errors
    /// When another process has it, when a newer version wrote it, or when the file system refuses.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError::File { path, source }
        };
        make_folder(root, 0o755).map_err(failed(root))?;
        let lock_path = root.join("run/serve.lock");
        for (folder, mode) in FOLDERS {
            let path = root.join(folder);
            make_folder(&path, *mode).map_err(failed(&path))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        if !take(&lock).map_err(failed(&lock_path))? {
            return Err(LayoutError::Locked(root.into()));
        }
        let version_path = root.join("VERSION");
        match fs::read_to_string(&version_path) {
            Ok(text) => {
                let found: u32 = text
                    .trim()
                    .parse()
                    .map_err(|_| LayoutError::NotOurs(version_path.clone()))?;
                if found > VERSION {
                    return Err(LayoutError::Newer {
                        path: version_path,
                        found,
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&version_path, format!("{VERSION}\n").as_bytes(), 0o644).map_err(failed(&version_path))?;
            }
            Err(source) => return Err(failed(&version_path)(source)),
        }
        let pid_path = root.join("run/serve.pid");
        write_whole(&pid_path, format!("{}\n", std::process::id()).as_bytes(), 0o644).map_err(failed(&pid_path))?;
        Ok(Self {
            root: root.into(),
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // A stale pid file would point at a stranger; a failure to remove it harms nobody.
        let _ = fs::remove_file(self.at("run/serve.pid"));
    }
}

/// Locks a file for this process; `false` when another one has it and keeps it for longer than a moment.
///
/// # Errors
/// What the file system answers.
pub fn take(lock: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Temporary file, fsync, rename, fsync of the folder: a reader sees the old file or the new one, also after a crash. The
/// writer holds the directory's lock: the temporary file's name is always the same, so that what a crash leaves is
/// replaced by the next writer.
///
/// # Errors
/// What the file system answers.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".new");
    let temporary = folder.join(temporary_name);
    let written = (|| {
        // Made anew, never opened: the service may write to `DIR` and `DIR/run`, and what it left under this name could
        // be a link to a file of root's.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&temporary)?;
        // `mode` is subject to the umask and ignored for a file that exists.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The profile of the default account in `DIR/credentials`; other accounts' are named by their id.
pub const DEFAULT_PROFILE: &str = "default";

/// One profile of an AWS shared-credentials file, such as `DIR/credentials` is.
pub fn profile_text(profile: &str, access_key_id: &str, secret_access_key: &str) -> String {
    format!("[{profile}]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n")
}

/// Key id and secret of a profile in a shared-credentials file. Values that no engine makes count as absent:
/// `isolarium env` prints them for a shell to evaluate.
pub fn read_credentials(text: &str, profile: &str) -> Option<(String, String)> {
    let mut in_profile = false;
    let (mut id, mut secret) = (None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            in_profile = section.trim_end_matches(']') == profile;
        } else if in_profile && let Some((name, value)) = line.split_once('=') {
            match name.trim() {
                "aws_access_key_id" => id = Some(value.trim().to_owned()),
                "aws_secret_access_key" => secret = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }
    let plain =
        |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+=_-".contains(&b));
    Some((id.filter(plain)?, secret.filter(plain)?))
}

/// Where a server of the data directory answers, or answered until it was killed.
pub fn left_address(data_dir: &Path) -> Option<std::net::SocketAddr> {
    let text = fs::read_to_string(data_dir.join("run/url")).ok()?;
    text.trim().strip_prefix("http://")?.parse().ok()
}

/// Where the server of a data directory answers: what a running one wrote down, else what it is configured to do.
pub fn server_url(data_dir: &Path, listen: std::net::SocketAddr) -> String {
    format!("http://{}", left_address(data_dir).unwrap_or(listen))
}
