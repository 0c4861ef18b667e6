//! What can go wrong with objects. All but the last three are the caller's to handle.

use crate::StoreError;
use isolarium_model::AccountId;

/// The failure of a call on the object store.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the bucket exists already")]
    BucketExists { owner: AccountId },
    #[error("the bucket still holds objects or versions")]
    BucketNotEmpty,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the key's newest version is a delete marker")]
    IsDeleted { version: String },
    #[error("the version is a delete marker")]
    IsDeleteMarker { version: String },
    #[error("the version does not exist")]
    NoSuchVersion,
    #[error("the multipart upload does not exist")]
    NoSuchUpload,
    #[error("a part was never uploaded or has another ETag")]
    InvalidPart { number: u16 },
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    #[error("a part other than the last has fewer bytes than the minimum")]
    PartTooSmall { number: u16, size: u64 },
    #[error("the checksum of the whole object does not match")]
    ChecksumMismatch,
    #[error("the object is not in the state that the request requires")]
    PreconditionFailed,
    #[error("the staging path leaves its directory")]
    BadStagingPath,
    #[error("the object is encrypted, and its data key was not given")]
    Encrypted,
    #[error("the object changed too often while it was read")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the disk holding the data directory is full; free space and retry")]
    DiskFull,
    #[error("{what} failed")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl ObjectError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::from_errno(what, errno)
    }

    pub(super) fn from_errno(what: &'static str, errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => Self::DiskFull,
            other => Self::Io {
                what,
                source: other.into(),
            },
        }
    }
}

impl From<rusqlite::Error> for ObjectError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
