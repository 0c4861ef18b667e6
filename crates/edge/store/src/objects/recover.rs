//! What happens at start-up: settle what a crash left on the move.

use super::disk::Fate;
use super::rows::{BucketRow, VersionRow, file_is_part};
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{BucketName, ObjectKey, Version};
use std::collections::HashSet;

impl ObjectStore {
    pub(super) fn recover(&self) -> Result<(), ObjectError> {
        let known: Vec<BucketName> = self
            .database()
            .read(|db| BucketRow::all(db, None))?
            .into_iter()
            .map(|row| row.bucket.name)
            .collect();
        let present: HashSet<String> = self.disk().bucket_names()?.into_iter().collect();
        for bucket in &known {
            if !present.contains(bucket.as_str()) {
                self.disk().create_bucket(bucket)?;
            }
        }
        let known: HashSet<&str> = known.iter().map(BucketName::as_str).collect();
        for stray in present.iter().filter(|name| !known.contains(name.as_str())) {
            self.disk().remove_bucket(stray)?;
        }
        for name in self.disk().leavings()? {
            self.settle_by_index(&name)?;
        }
        Ok(())
    }

    /// Moves a file of `escape/new/` to where the index wants it; removes it if the index does not know it.
    pub(super) fn settle_by_index(&self, name: &str) -> Result<(), ObjectError> {
        let (owner, part) = self
            .database()
            .read(|db| Ok::<_, ObjectError>((VersionRow::owner_of(db, name)?, file_is_part(db, name)?)))?;
        match owner {
            Some((bucket, row)) => {
                let Version::Object(object) = &row.version else {
                    return Ok(());
                };
                if object.latest {
                    self.yield_key(&bucket, &object.key, name)?;
                    self.disk().settle(name, &Fate::Plain(&bucket, &object.key));
                } else {
                    self.disk().settle(name, &Fate::Kept);
                }
            }
            None if part => self.disk().settle(name, &Fate::Kept),
            None => self.disk().remove_leaving(name),
        }
        Ok(())
    }

    /// After a machine crash an older version may still lie at the key; it must not be renamed over.
    fn yield_key(&self, bucket: &BucketName, key: &ObjectKey, coming: &str) -> Result<(), ObjectError> {
        let Some(stamp) = self.disk().plain_stamp(bucket, key)? else {
            return Ok(());
        };
        let there = self.database().read(|db| {
            let row = BucketRow::get(db, bucket)?;
            VersionRow::with_stamp(db, row.id, key, stamp)
        })?;
        let Some(file) = there.and_then(|row| row.file).filter(|file| file != coming) else {
            return Ok(());
        };
        if !self.disk().is_kept(&file) {
            self.disk().recall(bucket, key, &file, stamp)?;
            self.disk().settle(&file, &Fate::Kept);
        }
        Ok(())
    }
}
