//! Listings: pages by key, without reading more rows than they show.

use super::rows::{BucketRow, VERSION, VersionRow};
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{BucketName, Object, Version};
use rusqlite::Connection;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListingQuery {
    pub prefix: String,
    /// Keys that share what precedes its next occurrence after the prefix are shown as one common prefix.
    pub delimiter: Option<String>,
    /// List what sorts after this key or common prefix.
    pub after: Option<String>,
    /// Objects and common prefixes together.
    pub limit: usize,
}

/// A page of current objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub objects: Vec<Object>,
    pub prefixes: Vec<String>,
    /// The last key or common prefix of this page, if there is more: `after` of the next one.
    pub next: Option<String>,
}

/// A page of versions and delete markers, newest first within a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionListing {
    pub versions: Vec<Version>,
    pub prefixes: Vec<String>,
    /// Key and version id of the last line, if there is more.
    pub next: Option<(String, Option<String>)>,
}

/// The first byte string after all that begin with `text`; `None` if there is none.
pub(super) fn successor(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = text.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

/// The common prefix that a key falls under.
pub(super) fn common_prefix(key: &str, prefix: &str, delimiter: Option<&str>) -> Option<String> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(format!("{prefix}{}", rest.get(..at + delimiter.len())?))
}

/// Where a listing goes on: keys at or after `from`, below `end`.
struct Bounds {
    from: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Bounds {
    fn new(prefix: &str, delimiter: Option<&str>, after: Option<&str>) -> Self {
        let mut from = prefix.as_bytes().to_vec();
        if let Some(after) = after {
            // A page that ended with a common prefix goes on after everything under it.
            let under = common_prefix(after, prefix, delimiter).filter(|common| common == after);
            let next = match under {
                Some(common) => successor(common.as_bytes()),
                None => Some([after.as_bytes(), &[0]].concat()),
            };
            if let Some(next) = next {
                from = from.max(next);
            }
        }
        Self {
            from,
            end: successor(prefix.as_bytes()),
        }
    }
}

impl ObjectStore {
    /// Lists current objects in the order of their keys' bytes.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list(&self, bucket: &BucketName, query: &ListingQuery) -> Result<Listing, ObjectError> {
        self.database().read(|db| {
            let bucket = BucketRow::get(db, bucket)?;
            list(db, bucket.id, query)
        })
    }

    /// Lists all versions and delete markers: by key, newest first. `version` is where the page before ended within
    /// the key `query.after`; without it that key is passed over.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_versions(
        &self,
        bucket: &BucketName,
        query: &ListingQuery,
        version: Option<&str>,
    ) -> Result<VersionListing, ObjectError> {
        self.database().read(|db| {
            let bucket = BucketRow::get(db, bucket)?;
            list_versions(db, bucket.id, query, version)
        })
    }
}

fn list(db: &Connection, bucket: i64, query: &ListingQuery) -> Result<Listing, ObjectError> {
    let mut page = Listing::default();
    let delimiter = query.delimiter.as_deref();
    let Bounds { mut from, end } = Bounds::new(&query.prefix, delimiter, query.after.as_deref());
    if query.limit == 0 {
        return Ok(page);
    }
    let sql = format!(
        "SELECT {VERSION} FROM s3_versions INDEXED BY s3_versions_latest
         WHERE bucket = ?1 AND latest = 1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut last = None;
    'skip: loop {
        let mut rows = statement.query((bucket, &from, &end))?;
        while let Some(row) = rows.next()? {
            if row.get(4)? {
                continue;
            }
            let Version::Object(object) = VersionRow::read(row)?.version else {
                continue;
            };
            if page.objects.len() + page.prefixes.len() == query.limit {
                page.next = last;
                return Ok(page);
            }
            if let Some(common) = common_prefix(object.key.as_str(), &query.prefix, delimiter) {
                let Some(next) = successor(common.as_bytes()) else {
                    return Ok(page);
                };
                from = next;
                last = Some(common.clone());
                page.prefixes.push(common);
                continue 'skip;
            }
            last = Some(object.key.as_str().to_owned());
            page.objects.push(*object);
        }
        return Ok(page);
    }
}

fn list_versions(
    db: &Connection,
    bucket: i64,
    query: &ListingQuery,
    version: Option<&str>,
) -> Result<VersionListing, ObjectError> {
    let mut page = VersionListing::default();
    let delimiter = query.delimiter.as_deref();
    let Bounds { mut from, end } = Bounds::new(&query.prefix, delimiter, query.after.as_deref());
    // Within the marker's key: only what is older than the marker's version.
    let mut before = i64::MAX;
    if let (Some(after), Some(version)) = (query.after.as_deref(), version) {
        let sql = "SELECT id FROM s3_versions WHERE bucket = ?1 AND key = ?2 AND version = ?3";
        let mut rows_sql = db.prepare_cached(sql)?;
        let mut rows = rows_sql.query((bucket, after.as_bytes(), version))?;
        if let Some(row) = rows.next()? {
            before = row.get(0)?;
            from = after.as_bytes().to_vec();
        }
    }
    let marker = query.after.clone().unwrap_or_default();
    if query.limit == 0 {
        return Ok(page);
    }
    let sql = format!(
        "SELECT {VERSION} FROM s3_versions INDEXED BY s3_versions_history
         WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) AND (key <> ?4 OR id < ?5)
         ORDER BY key, id DESC"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut last = None;
    'skip: loop {
        let mut rows = statement.query((bucket, &from, &end, marker.as_bytes(), before))?;
        while let Some(row) = rows.next()? {
            let row = VersionRow::read(row)?;
            let key = match &row.version {
                Version::Object(object) => object.key.as_str().to_owned(),
                Version::DeleteMarker { key, .. } => key.as_str().to_owned(),
            };
            if page.versions.len() + page.prefixes.len() == query.limit {
                page.next = last;
                return Ok(page);
            }
            if let Some(common) = common_prefix(&key, &query.prefix, delimiter) {
                let Some(next) = successor(common.as_bytes()) else {
                    return Ok(page);
                };
                from = next;
                last = Some((common.clone(), None));
                page.prefixes.push(common);
                continue 'skip;
            }
            last = Some((key, Some(row.version_id().to_owned())));
            page.versions.push(row.version);
        }
        return Ok(page);
    }
}
