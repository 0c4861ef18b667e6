//! Checkpoints: copied in before the start, synchronised out while the container runs and at its end (CC-35).

use crate::collect::{below, explode};
use crate::container::CHECKPOINTS;
use crate::deps::Deps;
use crate::stage::{StageError, prefix_objects};
use crate::transfer::Actor;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::TrainingJob;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// What S3 holds of the container's files. Empty after a restart of the engine: everything is uploaded once more, which
/// changes nothing in S3; files deleted by the container in between stay there.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Content hash by name.
    stored: BTreeMap<String, u64>,
    pub(crate) last: Option<Timestamp>,
}

/// Fills the scratch directory with the objects below the S3 prefix: one archive, unpacked by the unprivileged
/// unpacker into the (already prepared) workload. What comes in belongs to the synchronised files: it goes back when the
/// container changes it, and is deleted when the container deletes it.
pub(crate) fn restore(
    deps: &Deps,
    actor: &Actor,
    job: &TrainingJob,
    memory: &mut Checkpoints,
) -> Result<(), StageError> {
    let Some(config) = &job.spec.checkpoints else {
        return Ok(());
    };
    let mut folder = config.uri.clone();
    if !folder.key.is_empty() && !folder.key.ends_with('/') {
        folder.key.push('/');
    }
    let objects = prefix_objects(deps, actor, &folder)?;
    if objects.is_empty() {
        return Ok(());
    }
    let workload = &job.run.placement.workload;
    let (file, path) = deps.work.archive(workload, "checkpoints-in.tar.gz")?;
    let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::none());
    let mut archive = tar::Builder::new(gzip);
    let mut made = BTreeSet::new();
    for (object, name) in &objects {
        let path = crate::workdir::relative_path(name)
            .map_err(|why| StageError::Transfer(crate::transfer::TransferError::Unusable(why)))?;
        // The container's user, whoever it is, goes on with what it finds: it replaces files and removes old steps.
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            if made.insert(folder.to_path_buf()) {
                let mut header = tar::Header::new_gnu();
                header.set_size(0);
                header.set_mode(0o777);
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, folder, io::empty())?;
            }
        }
        let source = File::from(deps.transfer.open(actor, object)?);
        let bytes = source.metadata()?.len();
        let mut source = Hashing::new(source, bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o666);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, name, &mut source)?;
        memory.stored.insert(name.clone(), source.hasher.finish());
    }
    archive.into_inner()?.finish()?.sync_data()?;
    deps.archives
        .unpack_archive(OwnedFd::from(File::open(path)?), workload, CHECKPOINTS, None)?;
    Ok(())
}

/// Uploads what is new or changed and mirrors deletions.
pub(crate) fn sync(deps: &Deps, actor: &Actor, job: &TrainingJob, memory: &mut Checkpoints) -> Result<(), StageError> {
    let Some(config) = &job.spec.checkpoints else {
        return Ok(());
    };
    let mut present = BTreeMap::new();
    explode(deps, job, CHECKPOINTS, &mut |entry| {
        let mut content = Hashing::new(File::open(&entry.path)?, entry.bytes);
        io::copy(&mut content, &mut io::sink())?;
        let hash = content.hasher.finish();
        if memory.stored.get(&entry.name) != Some(&hash) {
            deps.transfer
                .put(actor, &below(&config.uri, &entry.name), &entry.path)?;
            memory.stored.insert(entry.name.clone(), hash);
        }
        present.insert(entry.name.clone(), hash);
        Ok(())
    })?;
    let gone: Vec<String> = memory
        .stored
        .keys()
        .filter(|name| !present.contains_key(*name))
        .cloned()
        .collect();
    for name in gone {
        deps.transfer.delete(actor, &below(&config.uri, &name))?;
        memory.stored.remove(&name);
    }
    memory.last = Some(deps.now());
    Ok(())
}

/// Hashes what is read through it, with its length.
struct Hashing<R> {
    inner: R,
    hasher: DefaultHasher,
}

impl<R> Hashing<R> {
    fn new(inner: R, bytes: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(bytes);
        Self { inner, hasher }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.write(buffer.get(..got).unwrap_or_default());
        Ok(got)
    }
}
