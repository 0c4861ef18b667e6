//! Tables of the index and how rows become values.

use super::ObjectError;
use super::disk::{FileName, Stamp};
use crate::{Schema, StoreError};
use isolarium_model::s3::{
    Bucket, BucketEncryption, BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, Encryption, Object, ObjectHeaders,
    ObjectKey, Part, PartSize, PublicAccessBlock, Tags, Upload, Version, Versioning,
};
use isolarium_model::{AccountId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The index of buckets, objects and uploads. Keys are blobs: S3 sorts by bytes.
pub const SCHEMA: Schema = Schema {
    module: "objects",
    steps: &[
        "
CREATE TABLE s3_buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    region TEXT NOT NULL,
    created INTEGER NOT NULL,
    versioning TEXT NOT NULL,
    policy TEXT,
    tags TEXT,
    public_access_block TEXT
);
CREATE INDEX s3_buckets_owner ON s3_buckets (owner, name);
CREATE TABLE s3_versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket INTEGER NOT NULL REFERENCES s3_buckets (id),
    key BLOB NOT NULL,
    version TEXT NOT NULL,
    latest INTEGER NOT NULL,
    marker INTEGER NOT NULL,
    file TEXT,
    stamp INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,
    owner TEXT NOT NULL,
    more TEXT NOT NULL,
    tags TEXT NOT NULL
);
CREATE INDEX s3_versions_history ON s3_versions (bucket, key, id);
CREATE UNIQUE INDEX s3_versions_latest ON s3_versions (bucket, key) WHERE latest = 1;
CREATE UNIQUE INDEX s3_versions_file ON s3_versions (file) WHERE file IS NOT NULL;
CREATE INDEX s3_versions_stamp ON s3_versions (stamp);
CREATE TABLE s3_uploads (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL REFERENCES s3_buckets (id),
    key BLOB NOT NULL,
    initiated INTEGER NOT NULL,
    owner TEXT NOT NULL,
    initiator TEXT NOT NULL,
    more TEXT NOT NULL,
    tags TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX s3_uploads_key ON s3_uploads (bucket, key, id);
CREATE TABLE s3_parts (
    upload TEXT NOT NULL REFERENCES s3_uploads (id),
    number INTEGER NOT NULL,
    file TEXT NOT NULL UNIQUE,
    stamp INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,
    checksums TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE INDEX s3_parts_stamp ON s3_parts (stamp);
CREATE VIEW s3_stamps AS SELECT max(stamp) AS stamp FROM s3_versions UNION ALL SELECT max(stamp) FROM s3_parts;
",
        "
ALTER TABLE s3_buckets ADD COLUMN encryption TEXT;
ALTER TABLE s3_parts ADD COLUMN salt TEXT;
",
    ],
};

/// Columns of a version, in the order of [`VersionRow::read`].
pub(super) const VERSION: &str =
    "id, key, version, latest, marker, file, stamp, size, etag, modified, owner, more, tags";

/// A bucket's row.
pub(super) struct BucketRow {
    pub(super) id: i64,
    pub(super) bucket: Bucket,
}

/// A version's row: an object, or a delete marker (no file).
pub(super) struct VersionRow {
    pub(super) id: i64,
    pub(super) file: Option<FileName>,
    pub(super) stamp: Stamp,
    pub(super) version: Version,
}

/// The part of an object's row that nothing searches for.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct More {
    #[serde(default)]
    pub(super) headers: ObjectHeaders,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) checksums: Vec<Checksum>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<PartSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<Encryption>,
}

/// The same for an upload.
#[derive(Serialize, Deserialize)]
pub(super) struct UploadMore {
    pub(super) headers: ObjectHeaders,
    pub(super) checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<Encryption>,
}

pub(super) struct PartRow {
    pub(super) file: FileName,
    pub(super) stamp: Stamp,
    pub(super) part: Part,
    /// The salt of its segment, if the upload is encrypted.
    pub(super) salt: Option<String>,
}

pub(super) fn versioning_text(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Never => "",
        Versioning::Enabled => "Enabled",
        Versioning::Suspended => "Suspended",
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, ObjectError> {
    serde_json::to_string(value).map_err(|error| StoreError::Encode(error).into())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ObjectError> {
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ObjectError {
    StoreError::Database(error.into()).into()
}

fn key_of(bytes: Vec<u8>) -> Result<ObjectKey, ObjectError> {
    String::from_utf8(bytes)
        .map_err(unreadable)?
        .try_into()
        .map_err(unreadable)
}

fn account(text: String) -> Result<AccountId, ObjectError> {
    text.try_into().map_err(unreadable)
}

fn size(value: i64) -> Result<u64, ObjectError> {
    u64::try_from(value).map_err(unreadable)
}

impl BucketRow {
    const COLUMNS: &str = "id, name, owner, region, created, versioning, policy, tags, public_access_block, encryption";

    fn read(row: &Row<'_>) -> Result<Self, ObjectError> {
        let tags: Option<String> = row.get(7)?;
        let block: Option<String> = row.get(8)?;
        let encryption: Option<String> = row.get(9)?;
        let versioning: String = row.get(5)?;
        Ok(Self {
            id: row.get(0)?,
            bucket: Bucket {
                name: row.get::<_, String>(1)?.try_into().map_err(unreadable)?,
                owner: account(row.get(2)?)?,
                region: row.get::<_, String>(3)?.try_into().map_err(unreadable)?,
                created: Timestamp(row.get(4)?),
                versioning: match versioning.as_str() {
                    "Enabled" => Versioning::Enabled,
                    "Suspended" => Versioning::Suspended,
                    _ => Versioning::Never,
                },
                policy: row.get(6)?,
                tags: tags.map(|text| parse::<Tags>(&text)).transpose()?,
                public_access_block: block.map(|text| parse::<PublicAccessBlock>(&text)).transpose()?,
                encryption: encryption.map(|text| parse::<BucketEncryption>(&text)).transpose()?,
            },
        })
    }

    pub(super) fn get(db: &Connection, name: &BucketName) -> Result<Self, ObjectError> {
        Self::look(db, name)?.ok_or(ObjectError::NoSuchBucket)
    }

    pub(super) fn look(db: &Connection, name: &BucketName) -> Result<Option<Self>, ObjectError> {
        let sql = format!("SELECT {} FROM s3_buckets WHERE name = ?1", Self::COLUMNS);
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([name.as_str()])?;
        rows.next()?.map(Self::read).transpose()
    }

    pub(super) fn all(db: &Connection, owner: Option<&AccountId>) -> Result<Vec<Self>, ObjectError> {
        let sql = format!(
            "SELECT {} FROM s3_buckets WHERE ?1 IS NULL OR owner = ?1 ORDER BY name",
            Self::COLUMNS
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([owner.map(AccountId::as_str)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Self::read(row)?);
        }
        Ok(found)
    }
}

impl VersionRow {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, ObjectError> {
        let key = key_of(row.get(1)?)?;
        let version: String = row.get(2)?;
        let latest: bool = row.get(3)?;
        let modified = Timestamp(row.get(9)?);
        let owner = account(row.get(10)?)?;
        let marker: bool = row.get(4)?;
        let value = if marker {
            Version::DeleteMarker {
                key,
                version,
                latest,
                modified,
                owner,
            }
        } else {
            let more: More = parse(&row.get::<_, String>(11)?)?;
            Version::Object(Box::new(Object {
                key,
                version,
                latest,
                size: size(row.get(7)?)?,
                etag: row.get(8)?,
                modified,
                owner,
                headers: more.headers,
                checksums: more.checksums,
                parts: more.parts,
                tags: parse(&row.get::<_, String>(12)?)?,
                encryption: more.encryption,
            }))
        };
        Ok(Self {
            id: row.get(0)?,
            file: row.get(5)?,
            stamp: row.get(6)?,
            version: value,
        })
    }

    fn one(db: &Connection, condition: &str, parameters: impl rusqlite::Params) -> Result<Option<Self>, ObjectError> {
        let sql = format!("SELECT {VERSION} FROM s3_versions WHERE {condition}");
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(parameters)?;
        rows.next()?.map(Self::read).transpose()
    }

    pub(super) fn latest(db: &Connection, bucket: i64, key: &ObjectKey) -> Result<Option<Self>, ObjectError> {
        Self::one(
            db,
            "bucket = ?1 AND key = ?2 AND latest = 1",
            (bucket, key.as_str().as_bytes()),
        )
    }

    pub(super) fn version(
        db: &Connection,
        bucket: i64,
        key: &ObjectKey,
        version: &str,
    ) -> Result<Option<Self>, ObjectError> {
        let condition = "bucket = ?1 AND key = ?2 AND version = ?3";
        Self::one(db, condition, (bucket, key.as_str().as_bytes(), version))
    }

    /// The newest version besides the latest.
    pub(super) fn runner_up(db: &Connection, bucket: i64, key: &ObjectKey) -> Result<Option<Self>, ObjectError> {
        let condition = "bucket = ?1 AND key = ?2 AND latest = 0 ORDER BY id DESC LIMIT 1";
        Self::one(db, condition, (bucket, key.as_str().as_bytes()))
    }

    /// The version of a key whose file carries a stamp.
    pub(super) fn with_stamp(
        db: &Connection,
        bucket: i64,
        key: &ObjectKey,
        stamp: Stamp,
    ) -> Result<Option<Self>, ObjectError> {
        let condition = "bucket = ?1 AND key = ?2 AND stamp = ?3 AND file IS NOT NULL LIMIT 1";
        Self::one(db, condition, (bucket, key.as_str().as_bytes(), stamp))
    }

    /// The version that owns a file, with its bucket's name.
    pub(super) fn owner_of(db: &Connection, file: &str) -> Result<Option<(BucketName, Self)>, ObjectError> {
        let Some(row) = Self::one(db, "file = ?1", [file])? else {
            return Ok(None);
        };
        let sql = "SELECT b.name FROM s3_versions v JOIN s3_buckets b ON b.id = v.bucket WHERE v.file = ?1";
        let name: String = db.query_row(sql, [file], |found| found.get(0))?;
        Ok(Some((name.try_into().map_err(unreadable)?, row)))
    }

    pub(super) fn is_marker(&self) -> bool {
        matches!(self.version, Version::DeleteMarker { .. })
    }

    pub(super) fn version_id(&self) -> &str {
        match &self.version {
            Version::Object(object) => &object.version,
            Version::DeleteMarker { version, .. } => version,
        }
    }

    pub(super) fn is_latest(&self) -> bool {
        match &self.version {
            Version::Object(object) => object.latest,
            Version::DeleteMarker { latest, .. } => *latest,
        }
    }
}

pub(super) fn upload(db: &Connection, bucket: &BucketName, id: &str) -> Result<(i64, Upload), ObjectError> {
    let sql = "SELECT u.key, u.initiated, u.owner, u.initiator, u.more, u.tags, u.bucket FROM s3_uploads u
               JOIN s3_buckets b ON b.id = u.bucket WHERE u.id = ?1 AND b.name = ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query((id, bucket.as_str()))?;
    let row = rows.next()?.ok_or(ObjectError::NoSuchUpload)?;
    Ok((row.get(6)?, read_upload(row, bucket, id.into())?))
}

/// Reads key, initiated, owner, initiator, more and tags from the first six columns.
pub(super) fn read_upload(row: &Row<'_>, bucket: &BucketName, id: String) -> Result<Upload, ObjectError> {
    let more: UploadMore = parse(&row.get::<_, String>(4)?)?;
    Ok(Upload {
        id,
        bucket: bucket.clone(),
        key: key_of(row.get(0)?)?,
        initiated: Timestamp(row.get(1)?),
        owner: account(row.get(2)?)?,
        initiator: row.get(3)?,
        headers: more.headers,
        checksum: more.checksum,
        tags: parse(&row.get::<_, String>(5)?)?,
        encryption: more.encryption,
    })
}

/// Parts of an upload with a number above `after`, ascending.
pub(super) fn parts(db: &Connection, upload: &str, after: u16, limit: usize) -> Result<Vec<PartRow>, ObjectError> {
    let sql = "SELECT number, file, stamp, size, etag, modified, checksums, salt FROM s3_parts
               WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query((upload, after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(PartRow {
            file: row.get(1)?,
            stamp: row.get(2)?,
            salt: row.get(7)?,
            part: Part {
                number: row.get(0)?,
                size: size(row.get(3)?)?,
                etag: row.get(4)?,
                modified: Timestamp(row.get(5)?),
                checksums: parse(&row.get::<_, String>(6)?)?,
            },
        });
    }
    Ok(found)
}

pub(super) fn file_is_part(db: &Connection, file: &str) -> Result<bool, ObjectError> {
    let found: Option<i64> = db
        .query_row("SELECT number FROM s3_parts WHERE file = ?1", [file], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
