//! Content-addressed blobs: image layers and configurations under the name of their own SHA-256.
//!
//! An upload grows in a file of its own while its digest is computed along; committing it checks the digest, brings the
//! file to the disk and renames it, so a name never stands for other bytes than its own. Uploads do not survive a
//! restart; clients begin them anew.

use isolarium_model::{Sha256Digest, Timestamp};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Uploads open at once, so that abandoned ones cannot fill memory before they expire.
const UPLOADS: usize = 4096;

/// What can go wrong. All but `File` are the caller's to handle.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("there is no such upload")]
    NoUpload,
    #[error("the upload has {at} bytes, the next part must begin there")]
    Gap { at: u64 },
    #[error("the upload has the digest {actual}, not {wanted}")]
    Digest { wanted: Sha256Digest, actual: Sha256Digest },
    #[error("too many uploads are open")]
    TooMany,
    #[error("the disk holding the data directory is full; free space and retry")]
    DiskFull,
    #[error("blob file {path} failed; check the disk that holds the data directory")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Blobs below one folder.
pub struct BlobStore {
    blobs: PathBuf,
    uploads: PathBuf,
    open: Mutex<HashMap<String, Arc<Upload>>>,
}

/// An upload in progress.
pub struct Upload {
    /// Whoever may go on with it: the repository it was begun for.
    pub owner: String,
    path: PathBuf,
    state: Mutex<Growing>,
}

struct Growing {
    file: File,
    hash: Sha256,
    size: u64,
    touched: Timestamp,
}

impl BlobStore {
    /// Opens the blobs under `root` (`blobs/sha256` and `uploads` below it), removing uploads of an earlier process.
    ///
    /// # Errors
    /// When the folders cannot be made or emptied.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let (blobs, uploads) = (root.join("blobs/sha256"), root.join("uploads"));
        fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
        match fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&uploads)(error)),
            _ => fs::create_dir_all(&uploads).map_err(failed(&uploads))?,
        }
        Ok(Self {
            blobs,
            uploads,
            open: Mutex::default(),
        })
    }

    fn path(&self, digest: &Sha256Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// A blob's file and size in bytes, if it is there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&self, digest: &Sha256Digest) -> Result<Option<(File, u64)>, BlobError> {
        let path = self.path(digest);
        match File::open(&path).and_then(|file| file.metadata().map(|meta| (file, meta.len()))) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Reads a small blob, refusing one above `max` bytes with `None` as if it were missing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read(&self, digest: &Sha256Digest, max: u64) -> Result<Option<Vec<u8>>, BlobError> {
        let Some((mut file, _)) = self.get(digest)?.filter(|(_, size)| *size <= max) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(failed(&self.path(digest)))?;
        Ok(Some(bytes))
    }

    /// Removes a blob; nothing happens when there is none. Readers that have it open keep it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, digest: &Sha256Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The digests of all blobs that were last written before `before`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn older_than(&self, before: Timestamp) -> Result<Vec<Sha256Digest>, BlobError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(failed(&self.blobs))? {
            let entry = entry.map_err(failed(&self.blobs))?;
            let written = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .map_err(failed(&entry.path()))?;
            let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let old = Timestamp(0).after(written) < before;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            found.extend(digest.filter(|_| old));
        }
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload under an id that nobody can guess; `id` must be safe as a file name (hexadecimal).
    ///
    /// # Errors
    /// `TooMany`, or when the disk fails.
    pub fn begin(&self, id: &str, owner: &str, now: Timestamp) -> Result<Arc<Upload>, BlobError> {
        let path = self.uploads.join(id);
        let mut open = self.lock();
        if open.len() >= UPLOADS {
            return Err(BlobError::TooMany);
        }
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(failed(&path))?;
        let state = Mutex::new(Growing {
            file,
            hash: Sha256::new(),
            size: 0,
            touched: now,
        });
        let upload = Arc::new(Upload {
            owner: owner.into(),
            path,
            state,
        });
        open.insert(id.into(), Arc::clone(&upload));
        Ok(upload)
    }

    /// An open upload of this owner.
    ///
    /// # Errors
    /// `NoUpload`.
    pub fn upload(&self, id: &str, owner: &str) -> Result<Arc<Upload>, BlobError> {
        let found = self.lock().get(id).cloned();
        found.filter(|upload| upload.owner == owner).ok_or(BlobError::NoUpload)
    }

    /// Ends an upload and gives it its name. A wrong digest ends it too. Returns its size in bytes.
    ///
    /// # Errors
    /// `NoUpload`, `Digest`, or when the disk fails.
    pub fn commit(&self, id: &str, owner: &str, wanted: &Sha256Digest) -> Result<u64, BlobError> {
        let upload = self.upload(id, owner)?;
        let state = upload.lock();
        self.lock().remove(id).ok_or(BlobError::NoUpload)?;
        let done = self.settle(&upload.path, &state, wanted);
        if done.is_err() {
            // The error is what matters; what is left of the file goes at the next start at the latest.
            let _ = fs::remove_file(&upload.path);
        }
        done.map(|()| state.size)
    }

    fn settle(&self, from: &Path, state: &Growing, wanted: &Sha256Digest) -> Result<(), BlobError> {
        let actual = digest_of(state.hash.clone());
        if actual != *wanted {
            return Err(BlobError::Digest {
                wanted: wanted.clone(),
                actual,
            });
        }
        let to = self.path(wanted);
        state.file.sync_all().map_err(failed(from))?;
        // Replacing an existing blob puts the same bytes in its place and makes it young again for garbage collection.
        fs::rename(from, &to).map_err(failed(&to))?;
        File::open(&self.blobs)
            .and_then(|folder| folder.sync_all())
            .map_err(failed(&self.blobs))
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// `NoUpload`.
    pub fn cancel(&self, id: &str, owner: &str) -> Result<(), BlobError> {
        let upload = self.upload(id, owner)?;
        self.lock().remove(id);
        let _ = fs::remove_file(&upload.path);
        Ok(())
    }

    /// Gives up the uploads that nobody has touched for `idle`; returns how many.
    pub fn expire(&self, now: Timestamp, idle: Duration) -> usize {
        let uploads: Vec<_> = self
            .lock()
            .iter()
            .map(|(id, upload)| (id.clone(), Arc::clone(upload)))
            .collect();
        let stale = uploads
            .iter()
            .filter(|(_, upload)| now.since(upload.lock().touched) > idle);
        stale
            .filter(|(id, upload)| self.cancel(id, &upload.owner).is_ok())
            .count()
    }

    /// Stores a blob that is at hand.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::commit`].
    pub fn put(&self, id: &str, bytes: &[u8], now: Timestamp) -> Result<Sha256Digest, BlobError> {
        let upload = self.begin(id, "", now)?;
        upload.append(None, bytes, now)?;
        let digest = digest_of(Sha256::new_with_prefix(bytes));
        self.commit(id, "", &digest)?;
        Ok(digest)
    }
}

impl Upload {
    fn lock(&self) -> MutexGuard<'_, Growing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes received so far.
    pub fn size(&self) -> u64 {
        self.lock().size
    }

    /// Adds bytes; with `at`, only if the upload has exactly that many yet. Returns the new size.
    ///
    /// # Errors
    /// `Gap`, or when the disk fails.
    pub fn append(&self, at: Option<u64>, bytes: &[u8], now: Timestamp) -> Result<u64, BlobError> {
        let mut state = self.lock();
        if at.is_some_and(|at| at != state.size) {
            return Err(BlobError::Gap { at: state.size });
        }
        state.file.write_all(bytes).map_err(failed(&self.path))?;
        state.hash.update(bytes);
        state.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        state.touched = now;
        Ok(state.size)
    }
}

/// The digest of bytes at hand.
pub fn digest(bytes: &[u8]) -> Sha256Digest {
    digest_of(Sha256::new_with_prefix(bytes))
}

fn digest_of(hash: Sha256) -> Sha256Digest {
    Sha256Digest::from_bytes(&hash.finalize().into())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> BlobError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::DiskFull,
        _ => BlobError::File {
            path: path.clone(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
