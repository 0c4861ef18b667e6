//! Buckets and their configuration.

use super::rows::{BucketRow, json, versioning_text};
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{Bucket, BucketEncryption, BucketName, PublicAccessBlock, Tags, Versioning};
use isolarium_model::{AccountId, Region, Timestamp};
use rusqlite::ToSql;

/// A bucket to be made.
#[derive(Clone, Debug)]
pub struct NewBucket {
    pub name: BucketName,
    pub owner: AccountId,
    pub region: Region,
    pub now: Timestamp,
}

impl ObjectStore {
    /// Makes a bucket. Names are unique across all accounts and regions.
    ///
    /// # Errors
    /// `BucketExists` with its owner.
    pub fn create_bucket(&self, new: NewBucket) -> Result<(), ObjectError> {
        let _one = self.lock_buckets();
        if let Some(existing) = self.database().read(|db| BucketRow::look(db, &new.name))? {
            return Err(ObjectError::BucketExists {
                owner: existing.bucket.owner,
            });
        }
        // A directory without an entry is swept; an entry without a directory would only keep files from their keys.
        self.disk().create_bucket(&new.name)?;
        self.database().write(move |db| {
            let sql = "INSERT INTO s3_buckets (name, owner, region, created, versioning, public_access_block) \
                       VALUES (?1, ?2, ?3, ?4, '', ?5)";
            db.execute(
                sql,
                (
                    new.name.as_str(),
                    new.owner.as_str(),
                    new.region.as_str(),
                    new.now.0,
                    json(&PublicAccessBlock::ALL)?,
                ),
            )?;
            Ok(())
        })
    }

    /// Removes an empty bucket and the unfinished uploads in it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    pub fn delete_bucket(&self, name: &BucketName) -> Result<(), ObjectError> {
        let _one = self.lock_buckets();
        for upload in self.list_uploads(name, "", None, usize::MAX)?.uploads {
            match self.abort(name, &upload.id) {
                Ok(()) | Err(ObjectError::NoSuchUpload) => {}
                Err(error) => return Err(error),
            }
        }
        let bucket = name.clone();
        self.database().write(move |db| {
            let row = BucketRow::get(db, &bucket)?;
            let used: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM s3_versions WHERE bucket = ?1)
                     OR EXISTS (SELECT 1 FROM s3_uploads WHERE bucket = ?1)",
                [row.id],
                |found| found.get(0),
            )?;
            if used {
                return Err(ObjectError::BucketNotEmpty);
            }
            db.execute("DELETE FROM s3_buckets WHERE id = ?1", [row.id])?;
            Ok(())
        })?;
        self.disk().remove_bucket(name.as_str())
    }

    /// A bucket with its configuration.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn bucket(&self, name: &BucketName) -> Result<Bucket, ObjectError> {
        self.database()
            .read(|db| BucketRow::get(db, name))
            .map(|row| row.bucket)
    }

    /// The buckets of an account by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn buckets(&self, owner: &AccountId) -> Result<Vec<Bucket>, ObjectError> {
        let rows = self.database().read(|db| BucketRow::all(db, Some(owner)))?;
        Ok(rows.into_iter().map(|row| row.bucket).collect())
    }

    fn set(&self, name: &BucketName, column: &'static str, value: Option<String>) -> Result<(), ObjectError> {
        let name = name.clone();
        self.database().write(move |db| {
            let sql = format!("UPDATE s3_buckets SET {column} = ?1 WHERE name = ?2");
            let parameters: [&dyn ToSql; 2] = [&value, &name.as_str()];
            if db.execute(&sql, parameters)? == 0 {
                Err(ObjectError::NoSuchBucket)
            } else {
                Ok(())
            }
        })
    }

    /// Sets or removes the bucket policy; the text is the caller's to check.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_policy(&self, name: &BucketName, policy: Option<String>) -> Result<(), ObjectError> {
        self.set(name, "policy", policy)
    }

    /// Sets or removes the bucket's tags.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_bucket_tags(&self, name: &BucketName, tags: Option<&Tags>) -> Result<(), ObjectError> {
        self.set(name, "tags", tags.map(json).transpose()?)
    }

    /// Sets or removes the bucket's public access block.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_public_access_block(
        &self,
        name: &BucketName,
        block: Option<PublicAccessBlock>,
    ) -> Result<(), ObjectError> {
        self.set(name, "public_access_block", block.as_ref().map(json).transpose()?)
    }

    /// Sets or removes the bucket's default encryption. Objects that are there stay as they are.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_encryption(&self, name: &BucketName, encryption: Option<&BucketEncryption>) -> Result<(), ObjectError> {
        self.set(name, "encryption", encryption.map(json).transpose()?)
    }

    /// Switches versioning on or suspends it. `Never` is not a way back: it counts as `Suspended`.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn set_versioning(&self, name: &BucketName, versioning: Versioning) -> Result<(), ObjectError> {
        let text = match versioning {
            Versioning::Never => versioning_text(Versioning::Suspended),
            other => versioning_text(other),
        };
        self.set(name, "versioning", Some(text.into()))
    }
}
