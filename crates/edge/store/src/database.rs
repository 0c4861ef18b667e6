//! One SQLite file with one writer thread and a pool of readers: the base of records, the S3 index and the log index.
//!
//! Writes are closures. The writer thread runs many callers' closures in one transaction, each in its own savepoint, and
//! commits them with one `fsync` (group commit); a caller gets its answer only after that commit, so an `Ok` survives a
//! crash of the process and of the machine. A closure that fails takes back its own changes and nobody else's.
//!
//! Every module brings its own list of migrations ([`Schema`]); [`Database::open`] applies what is missing.

use crate::state::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The tables of one module. `steps[n]` leads from version n to n + 1; steps are never edited once released.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Stable name of the module, such as `state` or `objects`. Tables carry it as their prefix.
    pub module: &'static str,
    /// SQL scripts in order.
    pub steps: &'static [&'static str],
}

/// Layout of the database file itself, kept in `user_version`. A newer one is refused.
const LAYOUT: i64 = 1;
/// Closures that share one commit at most, so that nobody waits for ever behind a busy queue.
const GROUP: usize = 512;
/// Connections for reads; callers beyond wait for one.
const READERS: usize = 8;
/// How long to wait for a lock that another process holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Statements kept prepared per connection.
const STATEMENTS: usize = 128;

/// An open database. Cheap to share behind an `Arc`; dropping the last one finishes the queued writes.
pub struct Database {
    path: PathBuf,
    queue: Option<Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    readers: Readers,
}

impl Database {
    /// Opens or creates the database at `path` and brings every module's tables up to date.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or was written by a newer version of the product.
    pub fn open(path: &Path, schemas: &[Schema]) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        migrate(&mut connection, schemas)?;
        let (queue, jobs) = channel();
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(connection, &jobs))
            .map_err(|source| StoreError::Database(source.into()))?;
        let readers = Readers {
            path: path.into(),
            state: Mutex::default(),
            freed: Condvar::new(),
        };
        Ok(Self {
            path: path.into(),
            queue: Some(queue),
            writer: Some(writer),
            readers,
        })
    }

    /// The file this database lives in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the writer thread, inside a transaction shared with other callers and a savepoint of its own.
    /// Returns after the commit. An `Err` of `work` takes back what it changed.
    ///
    /// Blocks the calling thread for about one `fsync`. `work` must not call [`Database::write`] (it would wait for
    /// itself) and must not end the transaction.
    ///
    /// # Errors
    /// What `work` returns, or the failure of the commit, converted from [`StoreError`].
    pub fn write<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, wait) = sync_channel(1);
        let job = Pending {
            work: Some(work),
            outcome: None,
            answer,
        };
        let sent = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.send(Box::new(job)).is_ok());
        if !sent {
            return Err(StoreError::Database("the database is closed".into()).into());
        }
        match wait.recv() {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::Database("the write was abandoned".into()).into()),
        }
    }

    /// Runs `look` on a read-only connection inside one snapshot; it never waits for writers.
    ///
    /// # Errors
    /// What `look` returns, or the failure to get a connection, converted from [`StoreError`].
    pub fn read<T, E>(&self, look: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        let mut lease = self.readers.lease()?;
        let transaction = lease.connection()?.transaction().map_err(StoreError::from)?;
        let outcome = look(&transaction);
        transaction.finish().map_err(StoreError::from)?;
        outcome
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Maps SQLite's failures to what the operator can act on.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Database(Box::new(error)),
        }
    }
}

fn migrate(connection: &mut Connection, schemas: &[Schema]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let layout: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if layout > LAYOUT {
        return Err(StoreError::TooNew {
            what: "the state database".into(),
            found: layout,
            known: LAYOUT,
        });
    }
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS modules (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;",
    )?;
    for schema in schemas {
        let known = i64::try_from(schema.steps.len()).unwrap_or(i64::MAX);
        let version: i64 = transaction
            .query_row("SELECT version FROM modules WHERE name = ?1", [schema.module], |row| {
                row.get(0)
            })
            .or_else(|error| {
                if error == rusqlite::Error::QueryReturnedNoRows {
                    Ok(0)
                } else {
                    Err(error)
                }
            })?;
        if version > known {
            return Err(StoreError::TooNew {
                what: schema.module.into(),
                found: version,
                known,
            });
        }
        for step in schema.steps.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
            transaction.execute_batch(step)?;
        }
        transaction.execute(
            "INSERT INTO modules (name, version) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET version = ?2",
            (schema.module, known),
        )?;
    }
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()?;
    Ok(())
}

/// Why the transaction that carried a job was not committed; shared by all its jobs.
#[derive(Clone)]
enum Lost {
    Full,
    Locked,
    Other(Arc<rusqlite::Error>),
    Abandoned,
}

impl Lost {
    fn error(&self) -> StoreError {
        match self {
            Self::Full => StoreError::DiskFull,
            Self::Locked => StoreError::Locked,
            Self::Other(source) => StoreError::Database(Box::new(Arc::clone(source))),
            Self::Abandoned => {
                StoreError::Database("another write of the same commit failed and took the transaction with it".into())
            }
        }
    }
}

impl From<rusqlite::Error> for Lost {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Other(Arc::new(error)),
        }
    }
}

trait Job: Send {
    /// Runs the closure; true when its changes are to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers the caller; `lost` says why the transaction was not committed.
    fn finish(self: Box<Self>, lost: Option<&Lost>);
}

struct Pending<T, E, F> {
    work: Option<F>,
    outcome: Option<Result<T, E>>,
    answer: SyncSender<Result<T, E>>,
}

impl<T, E, F> Job for Pending<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnOnce(&Connection) -> Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A panic is the caller's bug. It must not take the writer, and with it everybody's writes, down.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|_| Err(StoreError::Database("the write panicked".into()).into()));
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn finish(self: Box<Self>, lost: Option<&Lost>) {
        let answer = match (self.outcome, lost) {
            // An error is the same whether or not the others' changes were kept.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, Some(lost)) => Err(lost.error().into()),
            (None, None) => Err(Lost::Abandoned.error().into()),
        };
        // A caller that went away does not need its answer.
        let _ = self.answer.send(answer);
    }
}

fn serve(mut connection: Connection, jobs: &Receiver<Box<dyn Job>>) {
    while let Ok(first) = jobs.recv() {
        let mut done = Vec::new();
        let committed = commit_group(&mut connection, first, jobs, &mut done);
        for job in done {
            job.finish(committed.as_ref().err());
        }
    }
}

/// One transaction: the first job and whatever else has queued up meanwhile.
fn commit_group(
    connection: &mut Connection,
    first: Box<dyn Job>,
    jobs: &Receiver<Box<dyn Job>>,
    done: &mut Vec<Box<dyn Job>>,
) -> Result<(), Lost> {
    let mut next = Some(first);
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    if let Err(error) = begun {
        done.extend(next);
        return Err(error.into());
    }
    while let Some(mut job) = next {
        let result = in_savepoint(connection, job.as_mut());
        done.push(job);
        if let Err(lost) = result {
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            return Err(lost);
        }
        next = if done.len() < GROUP { jobs.try_recv().ok() } else { None };
    }
    connection.execute_batch("COMMIT").map_err(|error| {
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        error.into()
    })
}

fn in_savepoint(connection: &Connection, job: &mut dyn Job) -> Result<(), Lost> {
    connection.execute_batch("SAVEPOINT job")?;
    let keep = job.run(connection);
    // On a full disk or an I/O error SQLite may have rolled the whole transaction back by itself.
    if connection.is_autocommit() {
        return Err(Lost::Abandoned);
    }
    connection.execute_batch(if keep {
        "RELEASE job"
    } else {
        "ROLLBACK TO job; RELEASE job"
    })?;
    Ok(())
}

/// Read connections, opened when first needed.
struct Readers {
    path: PathBuf,
    state: Mutex<Idle>,
    freed: Condvar,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    out: usize,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let mut idle = self.lock();
        while idle.connections.is_empty() && idle.out >= READERS {
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
        idle.out += 1;
        let pooled = idle.connections.pop();
        drop(idle);
        let mut lease = Lease {
            readers: self,
            connection: pooled,
        };
        if lease.connection.is_none() {
            lease.connection = Some(self.connect()?);
        }
        Ok(lease)
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }
}

/// A read connection on loan; goes back when dropped.
struct Lease<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Lease<'_> {
    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.connection
            .as_mut()
            .ok_or_else(|| StoreError::Database("no connection".into()))
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut idle = self.readers.lock();
        idle.out -= 1;
        // A panic of the reader may have left a transaction open; such a connection is thrown away.
        idle.connections
            .extend(self.connection.take().filter(Connection::is_autocommit));
        drop(idle);
        self.readers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
