//! Artifacts out of a container's scratch directories and into S3 (CC-32, CC-33, CC-37).

use crate::container::{MODEL, OUTPUT, OUTPUT_DATA};
use crate::deps::Deps;
use crate::stage::StageError;
use crate::transfer::{Actor, TransferError};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::training_job::{OutputCompression, TrainingJob};
use isolarium_runtime::executor::{ExecutorError, PackFormat};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Longest part of the failure file that is read, bytes: 1,024 characters of at most four bytes (CC-33).
const FAILURE_BYTES: usize = 4096;

/// Uploads the model (if `with_model`) and the other output. Empty directories give no object (SM-31).
pub(crate) fn artifacts(deps: &Deps, actor: &Actor, job: &TrainingJob, with_model: bool) -> Result<(), StageError> {
    if with_model {
        one(deps, actor, job, MODEL, "model")?;
    }
    one(deps, actor, job, OUTPUT_DATA, "output")
}

fn one(deps: &Deps, actor: &Actor, job: &TrainingJob, scratch: &str, name: &str) -> Result<(), StageError> {
    let workload = &job.run.placement.workload;
    match job.spec.output.compression {
        OutputCompression::Gzip => {
            let archive = format!("{name}.tar.gz");
            let (file, path) = deps.work.archive(workload, &archive)?;
            let packed = match deps
                .archives
                .pack(workload, scratch, PackFormat::TarGz, OwnedFd::from(file))
            {
                // The container never started: there is no directory to pack.
                Err(ExecutorError::Unknown) => return Ok(()),
                other => other?,
            };
            if packed.entries > 0 {
                deps.transfer.put(actor, &job.output_uri(&archive), &path)?;
            }
            Ok(())
        }
        OutputCompression::None => {
            let folder = if scratch == MODEL { "model" } else { "data" };
            let base = job.output_uri(folder);
            explode(deps, job, scratch, &mut |entry| {
                deps.transfer
                    .put(actor, &base.join(&entry.name), &entry.path)
                    .map_err(StageError::Transfer)
            })
        }
    }
}

/// One regular file of a packed scratch directory, copied to `path`.
pub(crate) struct Entry {
    /// Relative path with `/`.
    pub name: String,
    /// A copy in the work directory; gone after the visit.
    pub path: PathBuf,
    pub bytes: u64,
}

/// Visits every regular file of a scratch directory, through a tar archive made by the unprivileged packer: the
/// container's own files are never opened here.
pub(crate) fn explode(
    deps: &Deps,
    job: &TrainingJob,
    scratch: &str,
    visit: &mut dyn FnMut(&Entry) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let workload = &job.run.placement.workload;
    let (file, path) = deps.work.archive(workload, &format!("{scratch}.tar"))?;
    match deps
        .archives
        .pack(workload, scratch, PackFormat::Tar, OwnedFd::from(file))
    {
        Err(ExecutorError::Unknown) => return Ok(()),
        other => other?,
    };
    let mut archive = tar::Archive::new(File::open(&path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(name) = entry
            .path()?
            .to_str()
            .map(|name| name.trim_start_matches("./").to_string())
        else {
            tracing::warn!(job = %job.arn, "a file whose name is not UTF-8 was left out");
            continue;
        };
        let (mut copy, copy_path) = deps.work.archive(workload, &format!("{scratch}.entry"))?;
        let bytes = io::copy(&mut entry, &mut copy)?;
        drop(copy);
        visit(&Entry {
            name,
            path: copy_path,
            bytes,
        })?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The container's own words about its failure: empty when it left none (CC-33).
pub(crate) fn failure_text(deps: &Deps, job: &TrainingJob) -> String {
    match deps
        .archives
        .read_file(&job.run.placement.workload, OUTPUT, "failure", FAILURE_BYTES)
    {
        Ok(text) => String::from_utf8_lossy(&text.unwrap_or_default())
            .chars()
            .take(1024)
            .collect(),
        Err(error) => {
            tracing::warn!(job = %job.arn, %error, "the failure file cannot be read");
            String::new()
        }
    }
}

/// An address below a checkpoint prefix.
pub(crate) fn below(prefix: &S3Uri, name: &str) -> S3Uri {
    prefix.join(name)
}

impl From<StageError> for FailureText {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Transfer(
                refused @ (TransferError::Denied(_)
                | TransferError::Unusable(_)
                | TransferError::Role(_)
                | TransferError::NoPath(_)),
            ) => Self::Client(refused.to_string()),
            StageError::Executor(ExecutorError::Refused(why)) => Self::Client(why),
            StageError::Executor(ExecutorError::Unstartable(why)) => Self::Client(why),
            other => Self::Engine(Box::new(other)),
        }
    }
}

/// How a transfer's failure is told: to the caller, or to the log and as the engine's fault.
pub(crate) enum FailureText {
    Client(String),
    Engine(Box<dyn std::error::Error + Send + Sync>),
}
