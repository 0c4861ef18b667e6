//! Checkpoints: copied in before the start, synchronised out while the container runs and at its end (CC-35).

use crate::collect::{below, explode};
use crate::container::CHECKPOINTS;
use crate::deps::Deps;
use crate::stage::{StageError, prefix_objects};
use crate::transfer::Actor;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::TrainingJob;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// What was uploaded so far. Empty after a restart of the engine: everything is uploaded once more, which changes
/// nothing in S3; files deleted by the container in between stay there.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Content hash by name.
    uploaded: BTreeMap<String, u64>,
    pub(crate) last: Option<Timestamp>,
}

/// Fills the scratch directory with the objects below the S3 prefix: one archive, unpacked by the unprivileged
/// unpacker into the (already prepared) workload.
pub(crate) fn restore(deps: &Deps, actor: &Actor, job: &TrainingJob) -> Result<(), StageError> {
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
    for (object, name) in &objects {
        crate::workdir::relative_path(name)
            .map_err(|why| StageError::Transfer(crate::transfer::TransferError::Unusable(why)))?;
        let mut source = File::from(deps.transfer.open(actor, object)?);
        let mut header = tar::Header::new_gnu();
        header.set_size(source.metadata()?.len());
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, name, &mut source)?;
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
        let hash = hash(&entry.path, entry.bytes)?;
        if memory.uploaded.get(&entry.name) != Some(&hash) {
            deps.transfer
                .put(actor, &below(&config.uri, &entry.name), &entry.path)?;
            memory.uploaded.insert(entry.name.clone(), hash);
        }
        present.insert(entry.name.clone(), hash);
        Ok(())
    })?;
    let gone: Vec<String> = memory
        .uploaded
        .keys()
        .filter(|name| !present.contains_key(*name))
        .cloned()
        .collect();
    for name in gone {
        deps.transfer.delete(actor, &below(&config.uri, &name))?;
        memory.uploaded.remove(&name);
    }
    memory.last = Some(deps.now());
    Ok(())
}

fn hash(path: &std::path::Path, bytes: u64) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(bytes);
    let mut file = File::open(path)?;
    let mut piece = vec![0u8; 64 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => hasher.write(piece.get(..n).unwrap_or_default()),
        }
    }
}
