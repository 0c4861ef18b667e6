//! Deletions.

use super::disk::{Disk, Fate, FileName};
use super::rows::{BucketRow, VersionRow};
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{BucketName, ObjectKey, Version, Versioning};
use isolarium_model::{AccountId, Timestamp};
use rusqlite::Connection;
use std::collections::HashSet;

/// One key, or one version of it, to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub key: ObjectKey,
    pub version: Option<String>,
    /// Only if the current object has this ETag (without quotes).
    pub etag: Option<String>,
}

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The version that was removed or the delete marker that was added; absent without versioning.
    pub version: Option<String>,
    /// A delete marker was added, or the removed version was one.
    pub marker: bool,
}

/// Changes for one key.
#[derive(Default)]
struct Plan {
    key: Option<ObjectKey>,
    remove: Vec<i64>,
    /// The removed version was the latest, so this one becomes it.
    next: Option<i64>,
    /// Version id of the delete marker to add.
    marker: Option<String>,
    /// Files that move, and whether they end removed, kept or at the key.
    moves: Vec<(FileName, i64, End)>,
}

#[derive(Clone, Copy)]
enum End {
    Removed,
    Kept,
    AtKey,
}

impl ObjectStore {
    /// Deletes keys or versions, as S3 does by the bucket's versioning: without it the object goes away; with it a
    /// delete marker is added, and naming a version removes that one for good. A key that is not there is no failure.
    ///
    /// # Errors
    /// `NoSuchBucket` or the host's failures for the whole call; each target has an outcome of its own.
    pub fn delete(
        &self,
        bucket: &BucketName,
        targets: &[Target],
        owner: &AccountId,
        now: Timestamp,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError> {
        let mut outcomes: Vec<Option<Result<Deleted, ObjectError>>> = targets.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..targets.len()).collect();
        // A key that is named twice needs the outcome of its first deletion: each round takes a key once.
        while !left.is_empty() {
            let mut seen = HashSet::new();
            let (round, later): (Vec<usize>, Vec<usize>) = left
                .into_iter()
                .partition(|at| targets.get(*at).is_some_and(|target| seen.insert(&target.key)));
            let chosen: Vec<&Target> = round.iter().filter_map(|at| targets.get(*at)).collect();
            for (at, outcome) in round
                .into_iter()
                .zip(self.delete_distinct(bucket, &chosen, owner, now)?)
            {
                if let Some(slot) = outcomes.get_mut(at) {
                    *slot = Some(outcome);
                }
            }
            left = later;
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn delete_distinct(
        &self,
        bucket: &BucketName,
        targets: &[&Target],
        owner: &AccountId,
        now: Timestamp,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError> {
        let _keys = self.lock_keys(bucket, targets.iter().map(|target| &target.key));
        let (row, planned) = self.database().read(|db| {
            let row = BucketRow::get(db, bucket)?;
            let planned: Result<Vec<_>, ObjectError> = targets.iter().map(|target| plan(db, &row, target)).collect();
            Ok::<_, ObjectError>((row, planned?))
        })?;
        let mut outcomes = Vec::new();
        let mut plans = Vec::new();
        for outcome in planned {
            outcomes.push(outcome.map(|(deleted, plan)| {
                plans.push(plan);
                deleted
            }));
        }
        let mut moves = Vec::new();
        for plan in &mut plans {
            let Some(key) = &plan.key else { continue };
            for (name, stamp, end) in plan.moves.drain(..) {
                self.disk().recall(bucket, key, &name, stamp)?;
                moves.push((key.clone(), name, end));
            }
        }
        if !moves.is_empty() {
            self.disk().sync_new()?;
        }
        let (id, versioning, name) = (row.id, row.bucket.versioning, bucket.clone());
        let owner = owner.clone();
        let committed = self.database().write(move |db| {
            let current = BucketRow::get(db, &name)?;
            if current.id != id || current.bucket.versioning != versioning {
                return Err(ObjectError::Busy);
            }
            plans.iter().try_for_each(|plan| apply(db, id, plan, &owner, now))
        });
        let mut emptied = Vec::new();
        for (key, name, end) in moves {
            match (&committed, end) {
                (Ok(()), End::Removed) => {
                    self.disk().settle(&name, &Fate::Gone);
                    emptied.push(key);
                }
                (Ok(()), End::Kept) => {
                    self.disk().settle(&name, &Fate::Kept);
                    emptied.push(key);
                }
                (Ok(()), End::AtKey) | (Err(_), _) => self.settle_by_index(&name)?,
            }
        }
        for key in emptied {
            self.disk().prune(bucket, &key);
        }
        committed?;
        Ok(outcomes)
    }
}

type Planned = Result<(Deleted, Plan), ObjectError>;

/// Decides what one deletion changes. The outer error is the host's, the inner one the target's.
fn plan(db: &Connection, bucket: &BucketRow, target: &Target) -> Result<Planned, ObjectError> {
    let mut plan = Plan {
        key: Some(target.key.clone()),
        ..Plan::default()
    };
    let latest = VersionRow::latest(db, bucket.id, &target.key)?;
    if let Some(wanted) = &target.etag {
        let matches = matches!(latest.as_ref().map(|row| &row.version),
            Some(Version::Object(object)) if wanted == "*" || object.etag == *wanted);
        if !matches {
            let missing = latest.as_ref().is_none_or(VersionRow::is_marker);
            return Ok(Err(if missing {
                ObjectError::NoSuchKey
            } else {
                ObjectError::PreconditionFailed
            }));
        }
    }
    let versioning = bucket.bucket.versioning;
    if let Some(version) = &target.version {
        let Some(row) = VersionRow::version(db, bucket.id, &target.key, version)? else {
            return Ok(Ok((
                Deleted {
                    version: Some(version.clone()),
                    marker: false,
                },
                Plan::default(),
            )));
        };
        let marker = row.is_marker();
        if row.is_latest()
            && let Some(next) = VersionRow::runner_up(db, bucket.id, &target.key)?
        {
            plan.next = Some(next.id);
            plan.moves.extend(next.file.map(|file| (file, next.stamp, End::AtKey)));
        }
        plan.remove.push(row.id);
        plan.moves.extend(row.file.map(|file| (file, row.stamp, End::Removed)));
        return Ok(Ok((
            Deleted {
                version: Some(version.clone()),
                marker,
            },
            plan,
        )));
    }
    match versioning {
        Versioning::Never => {
            if let Some(row) = latest {
                plan.remove.push(row.id);
                plan.moves.extend(row.file.map(|file| (file, row.stamp, End::Removed)));
            }
            Ok(Ok((Deleted::default(), plan)))
        }
        Versioning::Enabled | Versioning::Suspended => {
            let id = if versioning == Versioning::Enabled {
                Disk::fresh_name()?
            } else {
                "null".into()
            };
            if versioning == Versioning::Suspended
                && let Some(row) = VersionRow::version(db, bucket.id, &target.key, "null")?
            {
                plan.remove.push(row.id);
                plan.moves.extend(row.file.map(|file| (file, row.stamp, End::Removed)));
            }
            if let Some(row) = latest.filter(|row| !plan.remove.contains(&row.id)) {
                plan.moves.extend(row.file.map(|file| (file, row.stamp, End::Kept)));
            }
            plan.marker = Some(id.clone());
            Ok(Ok((
                Deleted {
                    version: Some(id),
                    marker: true,
                },
                plan,
            )))
        }
    }
}

fn apply(db: &Connection, bucket: i64, plan: &Plan, owner: &AccountId, now: Timestamp) -> Result<(), ObjectError> {
    let Some(key) = &plan.key else { return Ok(()) };
    for id in &plan.remove {
        db.prepare_cached("DELETE FROM s3_versions WHERE id = ?1")?
            .execute([id])?;
    }
    if let Some(next) = plan.next {
        db.prepare_cached("UPDATE s3_versions SET latest = 1 WHERE id = ?1")?
            .execute([next])?;
    }
    if let Some(version) = &plan.marker {
        let key = key.as_str().as_bytes();
        db.prepare_cached("UPDATE s3_versions SET latest = 0 WHERE bucket = ?1 AND key = ?2 AND latest = 1")?
            .execute((bucket, key))?;
        db.prepare_cached(
            "INSERT INTO s3_versions
             (bucket, key, version, latest, marker, file, stamp, size, etag, modified, owner, more, tags)
             VALUES (?1, ?2, ?3, 1, 1, NULL, 0, 0, '', ?4, ?5, '{}', '[]')",
        )?
        .execute((bucket, key, version.as_str(), now.0, owner.as_str()))?;
    }
    Ok(())
}
