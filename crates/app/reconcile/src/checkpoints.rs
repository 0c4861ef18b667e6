//! Checkpoints: copied in before the start, synchronised out while the container runs and at its end (CC-35).

use crate::collect::{below, explode};
use crate::container::CHECKPOINTS;
use crate::job::Site;
use crate::stage::{StageError, prefix_objects};
use crate::volume;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::training_job::CheckpointConfig;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// What S3 holds of the containers' files of one scratch directory. Empty after a restart of the engine: everything is
/// uploaded once more, which changes nothing in S3.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// Content hash by name, by instance.
    stored: Vec<BTreeMap<String, u64>>,
}

/// What S3 holds of the checkpoints; files deleted by the containers while nobody looked stay there.
///
/// Several instances share one place in S3. What one of them writes goes there; what was copied in for all of them is
/// deleted there when the last one has deleted it, so that a cleaned directory of one is not the loss of all.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    synced: Synced,
    pub(crate) last: Option<Timestamp>,
}

impl Synced {
    /// Uploads what an instance has new or changed, and says which files it has.
    pub(crate) fn upload(
        &mut self,
        site: &Site<'_>,
        scratch: &str,
        base: &S3Uri,
    ) -> Result<BTreeSet<String>, StageError> {
        let stored = self.of(site.number);
        let mut present = BTreeSet::new();
        explode(site, &site.actor.owner_arn, scratch, &mut |entry| {
            let mut content = Hashing::new(File::open(&*entry.path)?, entry.bytes);
            io::copy(&mut content, &mut io::sink())?;
            let hash = content.hasher.finish();
            if stored.get(&entry.name) != Some(&hash) {
                site.deps
                    .transfer
                    .put(&site.actor, &below(base, &entry.name), &entry.path)?;
                stored.insert(entry.name.clone(), hash);
            }
            present.insert(entry.name.clone());
            Ok(())
        })?;
        Ok(present)
    }

    fn of(&mut self, instance: usize) -> &mut BTreeMap<String, u64> {
        if self.stored.len() <= instance {
            self.stored.resize_with(instance + 1, BTreeMap::new);
        }
        // There since the line above.
        #[expect(clippy::indexing_slicing, reason = "the list was made long enough")]
        &mut self.stored[instance]
    }
}

/// Fills the scratch directory with the objects below the S3 prefix: one archive, unpacked by the unprivileged
/// unpacker into the (already prepared) workload. What comes in belongs to the synchronised files: it goes back when the
/// container changes it, and is deleted when the container deletes it.
pub(crate) fn restore(site: &Site<'_>, config: &CheckpointConfig, memory: &mut Checkpoints) -> Result<(), StageError> {
    let (deps, actor, workload) = (site.deps, &site.actor, &site.placement.workload);
    let memory = memory.synced.of(site.number);
    let mut folder = config.uri.clone();
    if !folder.key.is_empty() && !folder.key.ends_with('/') {
        folder.key.push('/');
    }
    let objects = prefix_objects(deps, actor, &folder)?;
    if objects.is_empty() {
        return Ok(());
    }
    let (file, kept) = volume::archive(deps, actor, workload, "checkpoints-in.tar.gz")?;
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
        memory.insert(name.clone(), source.hasher.finish());
    }
    archive.into_inner()?.finish()?.sync_data()?;
    deps.archives
        .unpack_archive(OwnedFd::from(File::open(&*kept)?), workload, CHECKPOINTS, None)?;
    Ok(())
}

/// Uploads what is new or changed and mirrors deletions.
pub(crate) fn sync(sites: &[Site<'_>], config: &CheckpointConfig, memory: &mut Checkpoints) -> Result<(), StageError> {
    let mut gone = BTreeSet::new();
    let synced = &mut memory.synced;
    for site in sites {
        let present = synced.upload(site, CHECKPOINTS, &config.uri)?;
        let left = synced
            .of(site.number)
            .keys()
            .filter(|name| !present.contains(*name))
            .cloned();
        gone.extend(left.collect::<Vec<_>>().into_iter().map(|name| (site.number, name)));
    }
    for (number, name) in gone {
        synced.of(number).remove(&name);
        let held = synced.stored.iter().any(|stored| stored.contains_key(&name));
        if let Some(site) = sites.get(number).filter(|_| !held) {
            let deleted = site.deps.transfer.delete(&site.actor, &below(&config.uri, &name));
            if let Err(error) = deleted {
                // Not forgotten, so that the next call tries again.
                synced.of(number).insert(name, 0);
                return Err(error.into());
            }
        }
    }
    memory.last = sites.first().map(|site| site.deps.now());
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
