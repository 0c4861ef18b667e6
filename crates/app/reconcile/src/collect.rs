//! Artifacts out of a container's scratch directories and into S3 (CC-32, CC-33, CC-37).

use crate::container::MODEL;
use crate::deps::Deps;
use crate::job::Site;
use crate::stage::StageError;
use crate::transfer::TransferError;
use crate::volume::{self, KeptFile};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::training_job::{OutputCompression, TrainingJob};
use isolarium_model::{Arn, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, PackFormat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Longest part of the failure file that is read, bytes: 1,024 characters of at most four bytes (CC-33).
const FAILURE_BYTES: usize = 4096;

/// Uploads what the containers left in a scratch directory: of several instances as one artifact, in which the last one
/// wins where names clash (CC-32).
pub(crate) fn artifact(sites: &[Site<'_>], job: &TrainingJob, scratch: &str, name: &str) -> Result<(), StageError> {
    let Some(first) = sites.first() else { return Ok(()) };
    let deps = first.deps;
    match job.spec.output.compression {
        OutputCompression::Gzip => {
            let archive = format!("{name}.tar.gz");
            let path = match sites {
                [only] => packed(only, scratch, &archive, PackFormat::TarGz)?,
                _ => merged(sites, scratch, &archive)?,
            };
            match path {
                Some(path) => Ok(deps.transfer.put(&first.actor, &job.output_uri(&archive), &path)?),
                None => Ok(()),
            }
        }
        OutputCompression::None => {
            let folder = if scratch == MODEL { "model" } else { "data" };
            files(sites, scratch, &job.output_uri(folder))
        }
    }
}

/// Uploads the files of a scratch directory below `base`, each by its name; of several instances with a file of one name
/// the last one wins.
pub(crate) fn files(sites: &[Site<'_>], scratch: &str, base: &S3Uri) -> Result<(), StageError> {
    for site in sites {
        explode(site, &site.actor.owner_arn, scratch, &mut |entry| {
            site.deps
                .transfer
                .put(&site.actor, &base.join(&entry.name), &entry.path)
                .map_err(StageError::Transfer)
        })?;
    }
    Ok(())
}

/// A scratch directory as an archive; `None` when it is empty or the container never started.
fn packed(site: &Site<'_>, scratch: &str, name: &str, format: PackFormat) -> Result<Option<KeptFile>, StageError> {
    let workload = &site.placement.workload;
    let (file, path) = match volume::archive(site.deps, &site.actor, workload, name) {
        // Its volume was never made.
        Err(StageError::Executor(ExecutorError::Unknown)) => return Ok(None),
        made => made?,
    };
    match site.deps.archives.pack(workload, scratch, format, OwnedFd::from(file)) {
        Err(ExecutorError::Unknown) => Ok(None),
        Ok(packed) if packed.entries == 0 => Ok(None),
        Ok(_) => Ok(Some(path)),
        Err(error) => Err(error.into()),
    }
}

/// The same directory of several instances as one archive; `None` when all are empty.
fn merged(sites: &[Site<'_>], scratch: &str, name: &str) -> Result<Option<KeptFile>, StageError> {
    let mut archives = Vec::new();
    for site in sites {
        archives.extend(packed(site, scratch, &format!("{scratch}.tar"), PackFormat::Tar)?);
    }
    let Some(first) = sites.first().filter(|_| !archives.is_empty()) else {
        return Ok(None);
    };
    let (file, path) = volume::archive(first.deps, &first.actor, &first.placement.workload, name)?;
    merge(&archives, file)?;
    for archive in &archives {
        fs::remove_file(&**archive)?;
    }
    Ok(Some(path))
}

/// Writes the entries of several tar archives into one, gzipped: each name once, of the last archive that has it, and
/// nothing below a name that is no directory in the end.
fn merge<P: Deref<Target = Path>>(archives: &[P], into: File) -> io::Result<()> {
    let mut winners: BTreeMap<PathBuf, (usize, bool)> = BTreeMap::new();
    for (number, path) in archives.iter().enumerate() {
        for entry in tar::Archive::new(File::open(&**path)?).entries()? {
            let entry = entry?;
            winners.insert(plain(&entry.path()?), (number, entry.header().entry_type().is_dir()));
        }
    }
    let beside_a_file = |path: &Path| {
        let parents = path.ancestors().skip(1);
        parents
            .into_iter()
            .any(|parent| winners.get(parent).is_some_and(|(_, directory)| !directory))
    };
    let gzip = flate2::write::GzEncoder::new(BufWriter::new(into), flate2::Compression::fast());
    let mut merged = tar::Builder::new(gzip);
    for (number, path) in archives.iter().enumerate() {
        for entry in tar::Archive::new(File::open(&**path)?).entries()? {
            let mut entry = entry?;
            let name = plain(&entry.path()?);
            let wins = winners.get(&name).is_some_and(|(winner, _)| *winner == number);
            if !wins || beside_a_file(&name) {
                continue;
            }
            let mut header = entry.header().clone();
            match entry.link_name()?.map(std::borrow::Cow::into_owned) {
                Some(target) => merged.append_link(&mut header, &name, target)?,
                None => merged.append_data(&mut header, &name, &mut entry)?,
            }
        }
    }
    merged.into_inner()?.finish()?.flush()
}

/// A name as it is compared: without `.` and final slashes.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect()
}

/// One regular file of a packed scratch directory, copied to `path`.
pub(crate) struct Entry {
    /// Relative path with `/`.
    pub name: String,
    /// A copy in the work directory; gone after the visit.
    pub path: KeptFile,
    pub bytes: u64,
}

/// Visits every regular file of a scratch directory, through a tar archive made by the unprivileged packer: the
/// container's own files are never opened here.
pub(crate) fn explode(
    site: &Site<'_>,
    owner_arn: &Arn,
    scratch: &str,
    visit: &mut dyn FnMut(&Entry) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let (deps, workload) = (site.deps, &site.placement.workload);
    let Some(path) = packed(site, scratch, &format!("{scratch}.tar"), PackFormat::Tar)? else {
        return Ok(());
    };
    let mut archive = tar::Archive::new(File::open(&*path)?);
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
            tracing::warn!(%owner_arn, "a file whose name is not UTF-8 was left out");
            continue;
        };
        let (mut copy, copy_path) = volume::archive(deps, &site.actor, workload, &format!("{scratch}.entry"))?;
        let bytes = io::copy(&mut entry, &mut copy)?;
        drop(copy);
        visit(&Entry {
            name,
            path: copy_path,
            bytes,
        })?;
    }
    match fs::remove_file(&*path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The container's own words about its failure: empty when it left none (CC-33).
pub(crate) fn failure_text(deps: &Deps, owner_arn: &Arn, workload: &WorkloadId, scratch: &str) -> String {
    match deps.archives.read_file(workload, scratch, "failure", FAILURE_BYTES) {
        Ok(text) => String::from_utf8_lossy(&text.unwrap_or_default())
            .chars()
            .take(1024)
            .collect(),
        Err(error) => {
            tracing::warn!(%owner_arn, %error, "the failure file cannot be read");
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

#[cfg(test)]
mod tests;
