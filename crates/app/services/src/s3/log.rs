//! The access log: one record per request, naming the principal that was authorised (NI-12).

use crate::{Caller, Source};
use isolarium_model::Timestamp;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A request to S3, answered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AccessRecord {
    /// Milliseconds since the epoch.
    pub time: i64,
    pub request_id: String,
    /// ARN of the principal (session ARN for roles, IAM-63); absent for anonymous callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Address of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// VPC endpoint the request came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_endpoint: Option<String>,
    /// AWS's operation name; absent when the request named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True for the platform's own transfers, which do not travel by HTTP.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub platform: bool,
}

impl AccessRecord {
    pub(super) fn begin(caller: &Caller, now: Timestamp) -> Self {
        let (source, vpc_endpoint) = match &caller.source {
            Source::Public { address, .. } => (address.to_string(), None),
            Source::Endpoint(endpoint) => (endpoint.address.to_string(), Some(endpoint.endpoint_id.clone())),
        };
        Self {
            time: now.0,
            request_id: caller.request_id.clone(),
            principal: caller.principal.arn().map(|arn| arn.to_string()),
            source: Some(source),
            vpc_endpoint,
            ..Self::default()
        }
    }
}

/// Where access records go. Called once per request, after the answer's head is known.
pub trait AccessLog: Send + Sync {
    /// Keeps a record. A failure is the log's own to report.
    fn record(&self, record: &AccessRecord);
}

/// JSON lines in one file, appended.
pub struct FileAccessLog {
    file: Mutex<File>,
}

impl FileAccessLog {
    /// Opens or creates the file, readable by its owner alone.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }
}

impl AccessLog for FileAccessLog {
    fn record(&self, record: &AccessRecord) {
        let Ok(mut line) = serde_json::to_vec(record) else {
            return;
        };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&line) {
            tracing::error!(%error, "the S3 access log cannot be written; check the disk holding the data directory");
        }
    }
}

/// What a request turned out to be about, noted while it is handled.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Noted>>);

#[derive(Clone, Default)]
pub(super) struct Noted {
    pub(super) operation: Option<String>,
    pub(super) bucket: Option<String>,
    pub(super) key: Option<String>,
}

impl Trace {
    pub(super) fn note(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn noted(&self) -> Noted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
