//! Writes: new objects, copies, tags.

use super::disk::{Disk, Fate};
use super::incoming::{Staged, Unclaimed};
use super::rows::{BucketRow, More, VersionRow, json, signed};
use super::seal::ObjectBytes;
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{
    BucketName, Checksum, Object, ObjectHeaders, ObjectKey, PartSize, Tags, Version, Versioning,
};
use isolarium_model::{AccountId, Timestamp};
use rusqlite::Connection;

/// What a conditional write requires of the key's current state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WriteCondition {
    #[default]
    None,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match` with this ETag, without quotes; `*` for any object.
    Matches(String),
}

impl WriteCondition {
    fn check(&self, latest: Option<&VersionRow>) -> Result<(), ObjectError> {
        let object = latest.and_then(|row| match &row.version {
            Version::Object(object) => Some(object),
            Version::DeleteMarker { .. } => None,
        });
        match (self, object) {
            (Self::None, _) | (Self::Absent, None) => Ok(()),
            (Self::Absent, Some(_)) => Err(ObjectError::PreconditionFailed),
            (Self::Matches(_), None) => Err(ObjectError::NoSuchKey),
            (Self::Matches(etag), Some(object)) if etag == "*" || *etag == object.etag => Ok(()),
            (Self::Matches(_), Some(_)) => Err(ObjectError::PreconditionFailed),
        }
    }
}

/// Everything about a new object but its bytes.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub headers: ObjectHeaders,
    pub tags: Tags,
    pub owner: AccountId,
    pub now: Timestamp,
    pub condition: WriteCondition,
}

/// An object to be stored.
pub struct Put {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub data: Staged,
    /// ETag without quotes, when it is not the MD5 of the bytes.
    pub etag: Option<String>,
    /// Checksums to keep, when they are not those of `data`.
    pub checksums: Option<Vec<Checksum>>,
    pub parts: Vec<PartSize>,
    pub attributes: Attributes,
}

/// The object that a copy is made of.
#[derive(Clone, Debug)]
pub struct CopySource {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub version: Option<String>,
}

/// A file of the index that a write is about to move.
struct Moved {
    row: VersionRow,
    /// True: removed with its entry. False: kept as an older version.
    destroyed: bool,
}

impl ObjectStore {
    /// Stores an object; durable when it returns.
    ///
    /// # Errors
    /// `NoSuchBucket`, `PreconditionFailed`, `NoSuchKey` (If-Match on nothing), or the host's failures.
    pub fn put(&self, put: Put) -> Result<Object, ObjectError> {
        let etag = match put.etag {
            Some(etag) => etag,
            None => put.data.etag()?,
        };
        let object = Object {
            key: put.key,
            version: "null".into(),
            latest: true,
            size: put.data.size,
            etag,
            modified: put.attributes.now,
            owner: put.attributes.owner,
            headers: put.attributes.headers,
            checksums: put.checksums.unwrap_or(put.data.checksums),
            parts: put.parts,
            tags: put.attributes.tags,
            encryption: put.data.encryption,
        };
        let stamp = put.data.stamp;
        self.insert(
            &put.bucket,
            object,
            put.data.name,
            stamp,
            put.attributes.condition,
            |_| Ok(()),
        )
    }

    /// Copies a whole object without copying its bytes: the copy is one more link of the same inode, until the file
    /// system takes no more links; then the bytes are copied once. An encrypted object is not copied so: its key is its own.
    ///
    /// `headers` and `tags` of `None` are taken from the source.
    ///
    /// # Errors
    /// As [`ObjectStore::put`] and [`ObjectStore::open_object`]; `Encrypted`.
    pub fn copy(
        &self,
        source: &CopySource,
        bucket: &BucketName,
        key: &ObjectKey,
        attributes: Attributes,
        keep: (bool, bool),
    ) -> Result<Object, ObjectError> {
        let mut reading = self.open_object(&source.bucket, &source.key, source.version.as_deref())?;
        let ObjectBytes::Plain(file) = &mut reading.bytes else {
            return Err(ObjectError::Encrypted);
        };
        let (name, stamp) = match self.disk().link(file)? {
            Some(name) => (Unclaimed::new(&self.inner.disk, name), reading.stamp),
            None => {
                let mut incoming = self.receive(&[], attributes.now, None)?;
                incoming.append_file(file, reading.object.size)?;
                let staged = incoming.finish()?;
                (staged.name, staged.stamp)
            }
        };
        let (keep_headers, keep_tags) = keep;
        let object = Object {
            key: key.clone(),
            version: "null".into(),
            latest: true,
            modified: attributes.now,
            owner: attributes.owner,
            headers: if keep_headers {
                reading.object.headers
            } else {
                attributes.headers
            },
            tags: if keep_tags {
                reading.object.tags
            } else {
                attributes.tags
            },
            // One stored object is not made of parts, whatever its source was.
            parts: Vec::new(),
            ..reading.object
        };
        self.insert(bucket, object, name, stamp, attributes.condition, |_| Ok(()))
    }

    /// The common end of every write that makes an object: condition, demotion of what it replaces, commit, settling.
    /// `also` runs in the same transaction.
    pub(super) fn insert(
        &self,
        bucket: &BucketName,
        mut object: Object,
        file: Unclaimed,
        stamp: i64,
        condition: WriteCondition,
        also: impl FnOnce(&Connection) -> Result<(), ObjectError> + Send + 'static,
    ) -> Result<Object, ObjectError> {
        let _key = self.lock_key(bucket, &object.key);
        let (row, latest, null) = self.database().read(|db| {
            let row = BucketRow::get(db, bucket)?;
            let latest = VersionRow::latest(db, row.id, &object.key)?;
            let null = match (&latest, row.bucket.versioning) {
                (_, Versioning::Enabled) | (None, _) => None,
                (Some(latest), _) if latest.version_id() == "null" => None,
                (Some(_), _) => VersionRow::version(db, row.id, &object.key, "null")?,
            };
            Ok::<_, ObjectError>((row, latest, null))
        })?;
        condition.check(latest.as_ref())?;
        let versioning = row.bucket.versioning;
        if versioning == Versioning::Enabled {
            object.version = Disk::fresh_name()?;
        }
        let mut moved: Vec<Moved> = null.into_iter().map(|row| Moved { row, destroyed: true }).collect();
        if let Some(row) = latest {
            let destroyed = versioning != Versioning::Enabled && row.version_id() == "null";
            moved.push(Moved { row, destroyed });
        }
        for Moved { row, destroyed } in &moved {
            let Some(name) = &row.file else { continue };
            // A file that goes away and lies at its key needs no move: the new one is renamed over it.
            if !destroyed || self.disk().is_kept(name) {
                self.disk().recall(bucket, &object.key, name, row.stamp)?;
            }
        }
        self.disk().sync_new()?;
        let stored = self.commit(&row, &object, file.name(), stamp, &moved, also);
        for Moved { row, destroyed } in moved {
            let Some(name) = &row.file else { continue };
            let fate = match (&stored, destroyed) {
                (Ok(()), true) => Fate::Gone,
                (Ok(()), false) => Fate::Kept,
                (Err(_), _) if row.is_latest() => Fate::Plain(bucket, &object.key),
                (Err(_), _) => Fate::Kept,
            };
            self.disk().settle(name, &fate);
        }
        stored?;
        self.disk().settle(&file.claimed(), &Fate::Plain(bucket, &object.key));
        Ok(object)
    }

    fn commit(
        &self,
        bucket: &BucketRow,
        object: &Object,
        file: &str,
        stamp: i64,
        moved: &[Moved],
        also: impl FnOnce(&Connection) -> Result<(), ObjectError> + Send + 'static,
    ) -> Result<(), ObjectError> {
        let more = More {
            headers: object.headers.clone(),
            checksums: object.checksums.clone(),
            parts: object.parts.clone(),
            encryption: object.encryption.clone(),
        };
        let (more, tags) = (json(&more)?, json(&object.tags)?);
        let gone: Vec<i64> = moved.iter().filter(|m| m.destroyed).map(|m| m.row.id).collect();
        let (object, file, id) = (object.clone(), file.to_owned(), bucket.id);
        let (name, versioning) = (bucket.bucket.name.clone(), bucket.bucket.versioning);
        self.database().write(move |db| {
            // The key is locked, the bucket is not: it may have been removed or switched since it was read.
            let now = BucketRow::get(db, &name)?;
            if now.id != id {
                return Err(ObjectError::NoSuchBucket);
            }
            if now.bucket.versioning != versioning {
                return Err(ObjectError::Busy);
            }
            also(db)?;
            let key = object.key.as_str().as_bytes();
            for id in gone {
                db.prepare_cached("DELETE FROM s3_versions WHERE id = ?1")?
                    .execute([id])?;
            }
            db.prepare_cached("UPDATE s3_versions SET latest = 0 WHERE bucket = ?1 AND key = ?2 AND latest = 1")?
                .execute((id, key))?;
            db.prepare_cached(
                "INSERT INTO s3_versions
                 (bucket, key, version, latest, marker, file, stamp, size, etag, modified, owner, more, tags)
                 VALUES (?1, ?2, ?3, 1, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute((
                id,
                key,
                object.version.as_str(),
                file.as_str(),
                stamp,
                signed(object.size),
                object.etag.as_str(),
                object.modified.0,
                object.owner.as_str(),
                more,
                tags,
            ))?;
            Ok(())
        })
    }

    /// Replaces an object's tags; an empty list removes them. Gives the version they belong to.
    ///
    /// # Errors
    /// As [`ObjectStore::head`].
    pub fn set_tags(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        version: Option<&str>,
        tags: &Tags,
    ) -> Result<String, ObjectError> {
        let (bucket, key, version) = (bucket.clone(), key.clone(), version.map(str::to_owned));
        let tags = json(tags)?;
        self.database().write(move |db| {
            let row = super::read::find(db, &bucket, &key, version.as_deref())?;
            db.execute("UPDATE s3_versions SET tags = ?1 WHERE id = ?2", (tags, row.id))?;
            Ok(row.version_id().to_owned())
        })
    }
}
