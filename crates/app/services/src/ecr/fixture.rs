//! Everything an operation sees, for tests: stores in a temporary directory, a clock that the test moves, callers.

use super::{Registry, TokenKey};
use crate::context::{Caller, Source};
use crate::iam::credentials::MasterKey;
use crate::{Ctx, Dispatch};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Principal, Scope, Timestamp};
use isolarium_store::state::MemoryState;
use isolarium_store::{BlobStore, Database, DiskLogs, logs, metrics};
use isolarium_wire::{ApiError, Document};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub(crate) struct Fixture {
    pub registry: Registry,
    pub store: MemoryState,
    pub clock: TestClock,
    logs: DiskLogs,
    pub metrics: isolarium_store::Metrics,
    ids: Counter,
    pub(crate) master: MasterKey,
    dispatch: Dispatch,
    pub platform: crate::platform::fake::FakePlatform,
    pub(crate) trail: isolarium_store::AuditTrail,
    _dir: tempfile::TempDir,
}

pub(crate) struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct Counter(AtomicU64);

impl IdSource for Counter {
    fn hex(&self, digits: usize) -> String {
        format!("{:0digits$x}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The time at which every fixture begins.
pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) fn scope(account: &str) -> Scope {
    Scope {
        account: account.parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

/// The root of an account.
pub(crate) fn root(account: &str) -> Caller {
    Caller {
        principal: Principal::Root {
            account: account.parse().unwrap(),
        },
        scope: scope(account),
        source: Source::Public {
            address: [127, 0, 0, 1].into(),
            secure: false,
        },
        session: None,
        request_id: "r".into(),
        user_agent: "test".into(),
        inquiry: Default::default(),
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database =
            Arc::new(Database::open(&dir.path().join("state.db"), &[logs::disk::SCHEMA, metrics::SCHEMA]).unwrap());
        Self {
            registry: Registry {
                blobs: BlobStore::open(&dir.path().join("registry")).unwrap(),
                key: TokenKey::derive(&[7; 32]),
                endpoint: "http://127.0.0.1:4599".into(),
            },
            store: MemoryState::new(),
            clock: TestClock(AtomicI64::new(START)),
            metrics: isolarium_store::Metrics::new(database.clone()),
            logs: DiskLogs::open(database, &dir.path().join("logs")).unwrap(),
            ids: Counter(AtomicU64::new(1)),
            master: MasterKey::new([7; 32]),
            dispatch: Dispatch::default(),
            platform: crate::platform::fake::FakePlatform::default(),
            trail: crate::audit::fixture::trail(dir.path()),
            _dir: dir,
        }
    }

    pub(crate) fn ctx<'a>(&'a self, caller: &'a Caller) -> Ctx<'a> {
        Ctx {
            caller,
            clock: &self.clock,
            ids: &self.ids,
            store: &self.store,
            logs: &self.logs,
            metrics: &self.metrics,
            registry: &self.registry,
            master: &self.master,
            platform: &self.platform,
            trail: &self.trail,
        }
    }

    /// Calls an operation as the root of the default account.
    pub(crate) fn call<I, O>(&self, service: &str, operation: &str, input: I) -> Result<O, ApiError>
    where
        I: Into<Document>,
        O: TryFrom<Document>,
        O::Error: std::fmt::Debug,
    {
        let caller = root("123456789012");
        let answer = self
            .dispatch
            .call(service, operation, input.into(), &self.ctx(&caller))
            .expect("a served operation");
        answer.map(|document| O::try_from(document).unwrap())
    }
}

/// The code and message of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> (String, String) {
    let error = outcome.unwrap_err();
    (error.code, error.message)
}
