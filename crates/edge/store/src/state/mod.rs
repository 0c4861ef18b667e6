//! Resource records with revisions. Reads are snapshots; writes are optimistic batches that name the revision they
//! read, so a batch is a value that can be retried, logged and tested.

pub mod memory;
mod recent;
pub mod sqlite;
pub(crate) mod token;

use isolarium_model::{Key, Record, Scope, Timestamp};
use std::sync::Arc;

pub use memory::MemoryState;
pub use recent::Recent;
pub use sqlite::SqliteState;

/// Grows with every commit of the whole store. A record carries the revision of its last change.
pub type Revision = u64;

/// A record as read, with the revision to name when it is written back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<R> {
    pub key: Key,
    pub revision: Revision,
    pub record: R,
}

/// What a write believes about the record it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none yet.
    Absent,
    /// It is still as it was read.
    At(Revision),
    /// Whatever is there.
    Any,
}

impl Expect {
    /// Whether the belief agrees with the revision found, if any.
    pub(crate) fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::At(revision) => found == Some(revision),
            Self::Any => true,
        }
    }
}

/// One change of a batch. Bodies are JSON.
#[derive(Clone, Debug)]
pub enum Change {
    Put {
        kind: &'static str,
        key: Key,
        expect: Expect,
        body: Vec<u8>,
        facets: isolarium_model::record::Facets,
        /// See [`Record::part_of`].
        part_of: Option<String>,
    },
    Delete {
        kind: &'static str,
        key: Key,
        expect: Expect,
    },
}

impl Change {
    /// Kind and key of the record it is about.
    pub(crate) fn place(&self) -> (&'static str, Key) {
        match self {
            Self::Put { kind, key, .. } | Self::Delete { kind, key, .. } => (kind, key.clone()),
        }
    }

    /// What it believes about that record.
    pub(crate) fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }
}

/// Changes that commit together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
}

impl Batch {
    /// Adds a record.
    ///
    /// # Errors
    /// When the record cannot be written as JSON.
    pub fn put<R: Record>(mut self, key: &Key, expect: Expect, record: &R) -> Result<Self, StoreError> {
        let body = serde_json::to_vec(record).map_err(StoreError::Encode)?;
        self.changes.push(Change::Put {
            kind: R::KIND,
            key: key.clone(),
            expect,
            body,
            facets: record.facets(),
            part_of: record.part_of(),
        });
        Ok(self)
    }

    /// Removes a record.
    pub fn delete<R: Record>(mut self, key: &Key, expect: Expect) -> Self {
        self.changes.push(Change::Delete {
            kind: R::KIND,
            key: key.clone(),
            expect,
        });
        self
    }
}

/// Sort column of a listing; ties are broken by name (SM-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Name,
    Created,
    Modified,
    Status,
}

/// A page of records of one kind in one scope. Filters use only columns, never bodies.
#[derive(Clone, Debug)]
pub struct Query {
    pub scope: Scope,
    pub sort_by: SortBy,
    pub descending: bool,
    /// Substring of the name, without regard to case.
    pub name_contains: Option<String>,
    /// Prefix of the key's name.
    pub name_prefix: Option<String>,
    /// Any of these statuses; empty means all.
    pub statuses: Vec<String>,
    /// Parts of any of these; empty means all records. Costs what is found, whatever else there is.
    pub part_of: Vec<String>,
    /// Exclusive bounds (SM-12).
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub modified_after: Option<Timestamp>,
    pub modified_before: Option<Timestamp>,
    /// Where the previous page ended: an opaque token that stays valid when records come and go.
    pub after: Option<String>,
    pub limit: usize,
}

impl Query {
    /// All records of a scope by name.
    pub fn all(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            sort_by: SortBy::Name,
            descending: false,
            name_contains: None,
            name_prefix: None,
            statuses: Vec::new(),
            part_of: Vec::new(),
            created_after: None,
            created_before: None,
            modified_after: None,
            modified_before: None,
            after: None,
            limit: usize::MAX,
        }
    }
}

/// One page of raw records: (key, revision, JSON body), and the token of the next page if there is more.
#[derive(Clone, Debug)]
pub struct RawPage {
    pub rows: Vec<(Key, Revision, Vec<u8>)>,
    pub next: Option<String>,
}

/// One page of records.
#[derive(Clone, Debug)]
pub struct Page<R> {
    pub rows: Vec<Stored<R>>,
    pub next: Option<String>,
}

/// What can go wrong. `Conflict` and `BadToken` are the caller's to handle; the rest is the host's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{kind} {name} is not at the expected revision")]
    Conflict { kind: String, name: String },
    /// Given by stores that guard a decision, never by the ones that keep records.
    #[error("what a decision was about has changed since")]
    Stale,
    #[error("the paging token is not one of this store's")]
    BadToken,
    /// Of metrics: a read is larger than its caller allows.
    #[error("there is more to read than the request may")]
    TooMany,
    #[error("a record could not be written as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("record {kind} {name} cannot be read")]
    Decode {
        kind: String,
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the state database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the disk holding the data directory is full; free space and retry")]
    DiskFull,
    #[error("another process holds the state database; stop it and retry")]
    Locked,
    #[error("{what} has version {found}, this program knows {known}; start a newer program")]
    TooNew { what: String, found: i64, known: i64 },
}

/// Told of every commit: (kind, key) pairs that changed. Must return fast and never block.
pub type Listener = Box<dyn Fn(&[(&'static str, Key)]) + Send + Sync>;

/// Durable records. An `Ok` from `commit` survives a crash of the process and of the machine.
pub trait StateStore: Send + Sync {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError>;
    /// A page of one kind in one scope.
    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError>;
    /// Every record of a kind in all scopes, or those with any of these statuses: for reconcilers. With statuses it costs
    /// what is found, whatever else there is.
    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError>;
    /// How many records there are of each kind and status, in all scopes: for the operator.
    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError>;
    /// Applies all changes or none; durable when it returns.
    fn commit(&self, batch: Batch) -> Result<Revision, StoreError>;
    /// Registers a listener for commits.
    fn subscribe(&self, listener: Listener);
    /// The records of this store that were read lately.
    fn recent(&self) -> &Recent;
}

fn typed<R: Record>(key: Key, revision: Revision, body: &[u8]) -> Result<Stored<R>, StoreError> {
    match serde_json::from_slice(body) {
        Ok(record) => Ok(Stored { key, revision, record }),
        Err(source) => Err(StoreError::Decode {
            kind: R::KIND.into(),
            name: key.name.to_string(),
            source,
        }),
    }
}

impl dyn StateStore + '_ {
    /// Reads one record as it is now, after every commit that has returned.
    pub fn get<R: Record>(&self, key: &Key) -> Result<Option<Stored<R>>, StoreError> {
        Ok(self.shared(key)?.map(Arc::unwrap_or_clone))
    }

    /// As [`get`](Self::get), for readers that need no copy of their own.
    pub fn shared<R: Record>(&self, key: &Key) -> Result<Option<Arc<Stored<R>>>, StoreError> {
        let begun = match self.recent().find(key) {
            Ok(record) => return Ok(Some(record)),
            Err(begun) => begun,
        };
        let Some((revision, body)) = self.get_raw(R::KIND, key)? else {
            return Ok(None);
        };
        let record = Arc::new(typed(key.clone(), revision, &body)?);
        self.recent().keep(begun, &record, body.len());
        Ok(Some(record))
    }

    /// Reads a page of records.
    pub fn query<R: Record>(&self, query: &Query) -> Result<Page<R>, StoreError> {
        let page = self.query_raw(R::KIND, query)?;
        let rows = page
            .rows
            .into_iter()
            .map(|(key, revision, body)| typed(key, revision, &body))
            .collect::<Result<_, _>>()?;
        Ok(Page { rows, next: page.next })
    }

    /// Reads every record of a kind that is a part of one of these, by name. None of them have no parts.
    pub fn parts<R: Record>(&self, scope: &Scope, of: &[String]) -> Result<Vec<Stored<R>>, StoreError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let query = Query {
            part_of: of.to_vec(),
            ..Query::all(scope)
        };
        Ok(self.query(&query)?.rows)
    }

    /// Reads every record of a kind, in all accounts and regions.
    pub fn all<R: Record>(&self) -> Result<Vec<Stored<R>>, StoreError> {
        self.all_with::<R>(&[])
    }

    /// Reads every record of a kind that has one of these statuses, in all accounts and regions. Without a status it is
    /// [`Self::all`].
    pub fn all_with<R: Record>(&self, statuses: &[&str]) -> Result<Vec<Stored<R>>, StoreError> {
        self.all_raw(R::KIND, statuses)?
            .into_iter()
            .map(|(key, revision, body)| typed(key, revision, &body))
            .collect()
    }
}

#[cfg(test)]
mod tests;
