//! Multipart uploads: parts are files of their own until they are joined.

use super::disk::{Disk, Fate};
use super::incoming::Staged;
use super::listing::{common_prefix, successor};
use super::rows::{self, BucketRow, PartRow, UploadMore, json, signed};
use super::seal::sealed_size;
use super::{ObjectError, ObjectStore, WriteCondition, combine, composite};
use isolarium_model::s3::{
    BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, Encryption, Object, ObjectHeaders, ObjectKey, Part,
    PartSize, Segment, Tags, Upload,
};
use isolarium_model::{AccountId, Timestamp};
use md5::{Digest as _, Md5};
use rusqlite::OptionalExtension;

/// A part as the completing client names it.
#[derive(Clone, Debug)]
pub struct PartRef {
    pub number: u16,
    /// Without quotes.
    pub etag: String,
    /// If given it must be the part's.
    pub checksum: Option<(ChecksumAlgorithm, String)>,
}

/// How an upload is completed.
#[derive(Clone, Debug)]
pub struct Completion {
    pub parts: Vec<PartRef>,
    pub condition: WriteCondition,
    /// Checksum of the whole that must come out, and its bytes.
    pub checksum: Option<(ChecksumAlgorithm, String)>,
    pub size: Option<u64>,
    /// Least bytes of every part but the last.
    pub least: u64,
    pub now: Timestamp,
}

/// A page of uploads.
#[derive(Clone, Debug, Default)]
pub struct UploadListing {
    pub uploads: Vec<Upload>,
    pub prefixes: Vec<String>,
    /// Key (or common prefix) and upload id of the last line, if there is more.
    pub next: Option<(String, Option<String>)>,
}

/// A page of parts.
#[derive(Clone, Debug)]
pub struct PartListing {
    pub upload: Upload,
    pub parts: Vec<Part>,
    /// There are parts with higher numbers.
    pub more: bool,
}

impl ObjectStore {
    /// Begins an upload and gives its id.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact of the upload")]
    pub fn begin_upload(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        headers: ObjectHeaders,
        tags: &Tags,
        owner: &AccountId,
        initiator: &str,
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
        encryption: Option<Encryption>,
        now: Timestamp,
    ) -> Result<String, ObjectError> {
        let id = Disk::fresh_name()?;
        let more = json(&UploadMore {
            headers,
            checksum,
            encryption,
        })?;
        let tags = json(tags)?;
        let (bucket, key, owner, initiator) = (bucket.clone(), key.clone(), owner.clone(), initiator.to_owned());
        self.database().write(move |db| {
            let bucket = BucketRow::get(db, &bucket)?;
            let sql = "INSERT INTO s3_uploads (id, bucket, key, initiated, owner, initiator, more, tags)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let key = key.as_str().as_bytes();
            db.execute(sql, (&id, bucket.id, key, now.0, owner.as_str(), initiator, more, tags))?;
            Ok(id)
        })
    }

    /// An upload in progress.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub fn upload(&self, bucket: &BucketName, id: &str) -> Result<Upload, ObjectError> {
        self.database()
            .read(|db| rows::upload(db, bucket, id))
            .map(|(_, upload)| upload)
    }

    /// Adds or replaces a part; durable when it returns.
    ///
    /// # Errors
    /// `NoSuchUpload`; `Encrypted` when the part was not received with the data key of the upload, which has one.
    pub fn put_part(
        &self,
        bucket: &BucketName,
        id: &str,
        number: u16,
        data: Staged,
        now: Timestamp,
    ) -> Result<Part, ObjectError> {
        let upload = self.upload(bucket, id)?;
        // What is plain never becomes part of an encrypted object.
        let sealed_for = |encryption: &Option<Encryption>| encryption.as_ref().map(|own| own.data_key.clone());
        if sealed_for(&data.encryption) != sealed_for(&upload.encryption) {
            return Err(ObjectError::Encrypted);
        }
        let _key = self.lock_key(bucket, &upload.key);
        let before = number.saturating_sub(1);
        let old = self.database().read(|db| rows::parts(db, id, before, 1))?;
        let old = old.into_iter().next().filter(|row| row.part.number == number);
        if let Some(old) = &old {
            self.disk().recall(bucket, &upload.key, &old.file, old.stamp)?;
        }
        self.disk().sync_new()?;
        let part = Part {
            number,
            size: data.size,
            etag: data.etag()?,
            modified: now,
            checksums: data.checksums.clone(),
        };
        let segment = data.encryption.as_ref().and_then(|own| own.segments.first());
        let salt = segment.map(|segment| segment.salt.clone());
        let (row, sums) = (part.clone(), json(&part.checksums)?);
        let (upload_id, file, stamp) = (id.to_owned(), data.name.name().to_owned(), data.stamp);
        let bucket_name = bucket.clone();
        let stored: Result<(), ObjectError> = self.database().write(move |db| {
            rows::upload(db, &bucket_name, &upload_id)?;
            let sql =
                "INSERT OR REPLACE INTO s3_parts (upload, number, file, stamp, size, etag, modified, checksums, salt)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            db.execute(
                sql,
                (
                    upload_id,
                    row.number,
                    file,
                    stamp,
                    signed(row.size),
                    row.etag,
                    row.modified.0,
                    sums,
                    salt,
                ),
            )?;
            Ok(())
        });
        if let Some(old) = old {
            self.settle_by_index(&old.file)?;
        }
        stored?;
        self.disk().settle(&data.name.claimed(), &Fate::Kept);
        Ok(part)
    }

    /// Joins parts into the object and ends the upload.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `PartTooSmall`, `ChecksumMismatch`, `PreconditionFailed`.
    pub fn complete(&self, bucket: &BucketName, id: &str, how: Completion) -> Result<Object, ObjectError> {
        let (upload, stored) = self.database().read(|db| {
            let (_, upload) = rows::upload(db, bucket, id)?;
            Ok::<_, ObjectError>((upload, rows::parts(db, id, 0, usize::MAX)?))
        })?;
        let chosen = choose(&how, &stored)?;
        let size: u64 = chosen.iter().map(|row| row.part.size).sum();
        if how.size.is_some_and(|wanted| wanted != size) {
            return Err(ObjectError::ChecksumMismatch);
        }
        let checksum = whole_checksum(upload.checksum, &chosen);
        if let Some((algorithm, wanted)) = &how.checksum {
            let matches = checksum
                .as_ref()
                .is_some_and(|sum| sum.algorithm == *algorithm && sum.value == *wanted);
            if !matches {
                return Err(ObjectError::ChecksumMismatch);
            }
        }
        let encryption = joined_encryption(upload.encryption, &chosen)?;
        // The parts' files are joined as they are: what is sealed stays so.
        let mut incoming = self.receive(&[], how.now, None)?;
        for row in &chosen {
            let file = self.disk().find(bucket, &upload.key, &row.file, row.stamp)?;
            let mut file = file.ok_or(ObjectError::InvalidPart {
                number: row.part.number,
            })?;
            let length = match encryption {
                None => row.part.size,
                Some(_) => sealed_size(row.part.size),
            };
            incoming.append_file(&mut file, length)?;
        }
        let joined = incoming.finish()?;
        let object = Object {
            key: upload.key.clone(),
            version: "null".into(),
            latest: true,
            size,
            etag: multipart_etag(&chosen),
            modified: how.now,
            owner: upload.owner,
            headers: upload.headers,
            checksums: checksum.into_iter().collect(),
            parts: chosen.iter().map(|row| part_size(row, upload.checksum)).collect(),
            tags: upload.tags,
            encryption,
        };
        // The parts' files go away with the commit; on the move, so that a crash after it leaves none behind.
        let files: Vec<String> = stored.into_iter().map(|row| row.file).collect();
        for file in &files {
            self.disk().recall_kept(file)?;
        }
        let (upload_id, bucket_name, expected) = (id.to_owned(), bucket.clone(), files.clone());
        let inserted = self.insert(bucket, object, joined.name, joined.stamp, how.condition, move |db| {
            // Another completion or an abort may have been faster, or a part was replaced while they were joined.
            rows::upload(db, &bucket_name, &upload_id)?;
            let now = rows::parts(db, &upload_id, 0, usize::MAX)?;
            if !now.iter().map(|row| &row.file).eq(expected.iter()) {
                return Err(ObjectError::Busy);
            }
            db.execute("DELETE FROM s3_parts WHERE upload = ?1", [&upload_id])?;
            db.execute("DELETE FROM s3_uploads WHERE id = ?1", [&upload_id])?;
            Ok(())
        });
        for file in &files {
            self.settle_by_index(file)?;
        }
        inserted
    }

    /// Ends an upload and removes its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub fn abort(&self, bucket: &BucketName, id: &str) -> Result<(), ObjectError> {
        let upload = self.upload(bucket, id)?;
        let _key = self.lock_key(bucket, &upload.key);
        let stored = self.database().read(|db| rows::parts(db, id, 0, usize::MAX))?;
        for row in &stored {
            self.disk().recall_kept(&row.file)?;
        }
        self.disk().sync_new()?;
        let (upload_id, bucket_name) = (id.to_owned(), bucket.clone());
        let ended: Result<(), ObjectError> = self.database().write(move |db| {
            rows::upload(db, &bucket_name, &upload_id)?;
            db.execute("DELETE FROM s3_parts WHERE upload = ?1", [&upload_id])?;
            db.execute("DELETE FROM s3_uploads WHERE id = ?1", [&upload_id])?;
            Ok(())
        });
        for row in &stored {
            self.settle_by_index(&row.file)?;
        }
        ended
    }

    /// Parts with numbers above `after`.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub fn list_parts(
        &self,
        bucket: &BucketName,
        id: &str,
        after: u16,
        limit: usize,
    ) -> Result<PartListing, ObjectError> {
        self.database().read(|db| {
            let (_, upload) = rows::upload(db, bucket, id)?;
            let mut parts: Vec<Part> = rows::parts(db, id, after, limit.saturating_add(1))?
                .into_iter()
                .map(|row| row.part)
                .collect();
            let more = parts.len() > limit;
            parts.truncate(limit);
            Ok(PartListing { upload, parts, more })
        })
    }

    /// Uploads in progress under a prefix, by key and id. `after` is the key, and the upload id within it, where the
    /// page before ended; without an id that key is passed over.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_uploads(
        &self,
        bucket: &BucketName,
        prefix: &str,
        after: Option<(&str, Option<&str>)>,
        limit: usize,
    ) -> Result<UploadListing, ObjectError> {
        self.list_uploads_by(bucket, prefix, None, after, limit)
    }

    /// The same with a delimiter.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_uploads_by(
        &self,
        bucket: &BucketName,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<(&str, Option<&str>)>,
        limit: usize,
    ) -> Result<UploadListing, ObjectError> {
        self.database().read(|db| {
            let row = BucketRow::get(db, bucket)?;
            let (key, id) = after.map_or(("", None), |(key, id)| (key, id));
            // Ids are lower-case hexadecimal: `~` sorts after every one of them.
            let id = if after.is_none() { "" } else { id.unwrap_or("~") };
            let sql = "SELECT key, initiated, owner, initiator, more, tags, id FROM s3_uploads
                       WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) AND (key > ?4 OR (key = ?4 AND id > ?5))
                       ORDER BY key, id";
            let mut statement = db.prepare_cached(sql)?;
            let from = prefix.as_bytes().max(key.as_bytes());
            let mut found = statement.query((row.id, from, successor(prefix.as_bytes()), key.as_bytes(), id))?;
            let mut page = UploadListing::default();
            let mut last = None;
            while let Some(line) = found.next()? {
                let upload = rows::read_upload(line, bucket, line.get(6)?)?;
                let common = common_prefix(upload.key.as_str(), prefix, delimiter);
                if common.is_some() && (common.as_ref() == page.prefixes.last() || common.as_deref() == Some(key)) {
                    continue;
                }
                if page.uploads.len() + page.prefixes.len() == limit {
                    page.next = last;
                    return Ok(page);
                }
                match common {
                    Some(common) => {
                        last = Some((common.clone(), None));
                        page.prefixes.push(common);
                    }
                    None => {
                        last = Some((upload.key.as_str().to_owned(), Some(upload.id.clone())));
                        page.uploads.push(upload);
                    }
                }
            }
            Ok(page)
        })
    }

    /// Whether any upload of the bucket has this id: tells a wrong key from a wrong id.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has_upload(&self, id: &str) -> Result<bool, ObjectError> {
        self.database().read(|db| {
            let found: Option<i64> = db
                .query_row("SELECT 1 FROM s3_uploads WHERE id = ?1", [id], |row| row.get(0))
                .optional()?;
            Ok(found.is_some())
        })
    }
}

/// The stored parts that the client named, in its order, checked.
fn choose<'r>(how: &Completion, stored: &'r [PartRow]) -> Result<Vec<&'r PartRow>, ObjectError> {
    let mut chosen: Vec<&PartRow> = Vec::new();
    for wanted in &how.parts {
        if chosen.last().is_some_and(|last| last.part.number >= wanted.number) {
            return Err(ObjectError::InvalidPartOrder);
        }
        let invalid = ObjectError::InvalidPart { number: wanted.number };
        let at = stored.binary_search_by_key(&wanted.number, |row| row.part.number);
        let Some(row) = at.ok().and_then(|at| stored.get(at)) else {
            return Err(invalid);
        };
        let same_checksum = wanted.checksum.as_ref().is_none_or(|(algorithm, value)| {
            row.part
                .checksums
                .iter()
                .any(|sum| sum.algorithm == *algorithm && sum.value == *value)
        });
        if row.part.etag != wanted.etag || !same_checksum {
            return Err(invalid);
        }
        chosen.push(row);
    }
    let small = chosen
        .split_last()
        .and_then(|(_, others)| others.iter().find(|row| row.part.size < how.least));
    match small {
        Some(row) => Err(ObjectError::PartTooSmall {
            number: row.part.number,
            size: row.part.size,
        }),
        None if chosen.is_empty() => Err(ObjectError::InvalidPart { number: 0 }),
        None => Ok(chosen),
    }
}

/// How the parts lie encrypted one behind the other.
fn joined_encryption(upload: Option<Encryption>, parts: &[&PartRow]) -> Result<Option<Encryption>, ObjectError> {
    let Some(encryption) = upload else { return Ok(None) };
    let segments = parts.iter().map(|row| {
        let salt = row.salt.clone().ok_or(ObjectError::Encrypted)?;
        let size = row.part.size;
        Ok(Segment { salt, size })
    });
    let segments = segments.collect::<Result<_, ObjectError>>()?;
    Ok(Some(Encryption { segments, ..encryption }))
}

fn checksum_of(part: &Part, algorithm: ChecksumAlgorithm) -> Option<&Checksum> {
    part.checksums.iter().find(|sum| sum.algorithm == algorithm)
}

fn part_size(row: &PartRow, checksum: Option<(ChecksumAlgorithm, ChecksumKind)>) -> PartSize {
    let checksum = checksum
        .and_then(|(algorithm, _)| checksum_of(&row.part, algorithm))
        .cloned();
    PartSize {
        number: row.part.number,
        size: row.part.size,
        checksum,
    }
}

fn whole_checksum(wanted: Option<(ChecksumAlgorithm, ChecksumKind)>, parts: &[&PartRow]) -> Option<Checksum> {
    let (algorithm, kind) = wanted?;
    let sums: Option<Vec<(&str, u64)>> = parts
        .iter()
        .map(|row| checksum_of(&row.part, algorithm).map(|sum| (sum.value.as_str(), row.part.size)))
        .collect();
    let sums = sums?;
    match kind {
        ChecksumKind::FullObject => combine(algorithm, &sums),
        ChecksumKind::Composite => composite(algorithm, &sums.iter().map(|(text, _)| *text).collect::<Vec<_>>()),
    }
}

/// MD5 over the parts' MD5s, then `-` and their number.
fn multipart_etag(parts: &[&PartRow]) -> String {
    let mut md5 = Md5::new();
    for row in parts {
        md5.update(hex::decode(&row.part.etag).unwrap_or_default());
    }
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}
