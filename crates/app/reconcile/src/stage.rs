//! Brings a workload's inputs into its work directory: images, channels, model data. Repeatable: what an interrupted
//! attempt left is replaced.

use crate::container::{self, MODEL, ModelMount};
use crate::deps::Deps;
use crate::job::Site;
use crate::pipes;
use crate::transfer::{Actor, Image, TransferError};
use crate::volume::OpenVolume;
use crate::workdir::{make_directory, relative_path};
use isolarium_batch::shuffle;
use isolarium_model::sagemaker::training_job::{Channel, Distribution, InputMode, S3DataType};
use isolarium_model::sagemaker::{ModelData, Placement, S3Uri};
use isolarium_model::{Timestamp, WorkloadId};
use isolarium_runtime::executor::ExecutorError;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

/// Largest manifest that is read, bytes.
const MAX_MANIFEST: usize = 64 << 20;

/// Why inputs are not in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("the work directory could not be written; check the disk that holds the data directory")]
    Disk(#[from] io::Error),
}

impl StageError {
    /// The node process was away, or the transfer was ended because of what the record says now: the step is repeated.
    pub(crate) fn away(self) -> Result<ExecutorError, Self> {
        match self {
            Self::Transfer(cut @ TransferError::Cut) => Ok(ExecutorError::Unreachable(cut.to_string())),
            Self::Executor(error @ (ExecutorError::Unreachable(_) | ExecutorError::Busy(_))) => Ok(error),
            Self::Transfer(TransferError::Away(text)) => Ok(ExecutorError::Unreachable(text)),
            other => Err(other),
        }
    }

    pub(crate) fn unusable(text: impl Into<String>) -> Self {
        Self::Transfer(TransferError::Unusable(text.into()))
    }
}

/// Unpacks the image's layers that are not known to be unpacked.
pub(crate) fn layers(deps: &Deps, image: &Image) -> Result<(), StageError> {
    for layer in &image.layers {
        let known = deps
            .unpacked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(layer);
        if !known {
            deps.archives
                .unpack_layer(deps.transfer.open_layer(layer)?, &layer.diff_id)?;
            deps.unpacked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(layer.clone());
        }
    }
    Ok(())
}

/// Shows the operator's certificates to a container with a way out, if there are any: a link, no bytes are copied.
pub(crate) fn ca_bundle(deps: &Deps, placement: &Placement) -> Result<(), StageError> {
    let Some(bundle) = container::shown_bundle(&deps.settings, placement) else {
        return Ok(());
    };
    let shown = deps.work.of(&placement.workload).join(container::CA_BUNDLE);
    match std::fs::hard_link(bundle, shown) {
        // An earlier attempt made it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => Ok(done?),
    }
}

/// Shows a channel's objects below `input/data/<channel>` (CC-23, CC-27): all of them, or this instance's share (CC-28). No
/// byte is copied or read, so this is FastFile's view as well (CC-24); or pipes are put there (CC-25).
pub(crate) fn channel(site: &Site<'_>, channel: &Channel, (number, of): (usize, usize)) -> Result<(), StageError> {
    if let InputMode::Pipe(input) = &channel.mode {
        return pipes::stage(site, channel, input);
    }
    let (deps, actor, workload) = (site.deps, &site.actor, &site.placement.workload);
    let below = format!("input/data/{}", channel.name);
    deps.work.make_empty(workload, &below)?;
    let mut objects = channel_objects(deps, actor, channel)?;
    if channel.distribution == Distribution::ShardedByS3Key {
        objects = share(objects, channel.shuffle_seed, number, of);
    }
    let to = Shown {
        workload,
        below: &below,
        copied: false,
    };
    link_all(deps, actor, &objects, &to, None)
}

/// The objects that a channel's prefix or manifest names; there is at least one.
pub(crate) fn channel_objects(deps: &Deps, actor: &Actor, channel: &Channel) -> Result<Vec<Placed>, StageError> {
    let mut objects = match channel.data_type {
        S3DataType::S3Prefix => in_folder(&channel.uri, prefix_objects(deps, actor, &channel.uri)?),
        S3DataType::ManifestFile => manifest_objects(deps, actor, &channel.uri)?,
    };
    if channel.mode == InputMode::FastFile {
        // CC-24: the address is a folder or an object, never the beginning of a name.
        let folder = &channel.uri.key;
        let names = |key: &str| match key.strip_prefix(folder.as_str()) {
            Some(rest) => folder.is_empty() || folder.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        objects.retain(|(object, _)| names(&object.key));
    }
    if objects.is_empty() {
        return Err(StageError::unusable(format!(
            "No S3 objects found under \"{}\"",
            channel.uri
        )));
    }
    Ok(objects)
}

/// CC-28: objects are dealt like cards, in the order of their keys or of the shuffle; with more instances than objects some
/// get none.
pub(crate) fn share(mut objects: Vec<Placed>, seed: Option<i64>, number: usize, of: usize) -> Vec<Placed> {
    objects.sort_by(|(a, _), (b, _)| (&a.bucket, &a.key).cmp(&(&b.bucket, &b.key)));
    if let Some(seed) = seed {
        let mut shuffled: Vec<Option<Placed>> = objects.into_iter().map(Some).collect();
        let order = shuffle::order(shuffled.len(), seed, 0);
        let dealt = order.into_iter().filter_map(|at| shuffled.get_mut(at)?.take());
        return dealt.skip(number).step_by(of.max(1)).collect();
    }
    objects.into_iter().skip(number).step_by(of.max(1)).collect()
}

/// Shows every object below a prefix at `below` in the work directory, as it is (CC-47, ModelDataSource), within `limit`
/// (CC-55).
pub(crate) fn objects(
    deps: &Deps,
    actor: &Actor,
    workload: &WorkloadId,
    uri: &S3Uri,
    below: &str,
    limit: Option<Duration>,
) -> Result<(), StageError> {
    let started = deps.now();
    deps.work.make_empty(workload, below)?;
    let objects = prefix_objects(deps, actor, uri)?;
    if objects.is_empty() {
        return Err(StageError::unusable(format!("No S3 objects found under \"{uri}\"")));
    }
    let to = Shown {
        workload,
        below,
        copied: false,
    };
    link_all(deps, actor, &objects, &to, limit.map(|limit| (started, limit)))
}

/// Brings a serving container's model data in, within `limit` (CC-47, CC-55).
pub(crate) fn model(
    deps: &Deps,
    actor: &Actor,
    placement: &Placement,
    data: Option<&ModelData>,
    limit: Option<Duration>,
) -> Result<ModelMount, StageError> {
    let workload = &placement.workload;
    ca_bundle(deps, placement)?;
    match data {
        None => Ok(ModelMount::Archive),
        Some(ModelData::Archive { uri }) => {
            let archive = deps.transfer.open(actor, uri)?;
            deps.archives.unpack_archive(archive, workload, MODEL, limit)?;
            Ok(ModelMount::Archive)
        }
        // Its models come one by one: see `many_models`.
        Some(ModelData::Many { .. }) => Ok(ModelMount::Many),
        Some(ModelData::Prefix { uri } | ModelData::Object { uri }) => {
            objects(deps, actor, workload, uri, MODEL, limit)?;
            Ok(ModelMount::Objects)
        }
    }
}

/// One object and the path it gets, relative to its directory.
pub(crate) type Placed = (S3Uri, String);

/// The tree mirrors the key parts after the prefix's last slash; "folder" keys are skipped (CC-23).
pub(crate) fn prefix_objects(deps: &Deps, actor: &Actor, uri: &S3Uri) -> Result<Vec<Placed>, StageError> {
    let base = uri.key.rfind('/').map_or(0, |at| at + 1);
    let listed = deps.transfer.list(actor, uri)?;
    let files = listed.into_iter().filter(|entry| !entry.key.ends_with('/'));
    let placed = files.filter_map(|entry| {
        let below = entry.key.get(base..)?.to_string();
        Some((
            S3Uri {
                bucket: uri.bucket.clone(),
                key: entry.key,
            },
            below,
        ))
    });
    Ok(placed.collect())
}

/// A prefix that names a folder without its final slash means what is in the folder: clients upload directories so,
/// and programs expect the files at the channel's root. Names of which the prefix is only the beginning stay whole (CC-23).
pub(crate) fn in_folder(prefix: &S3Uri, mut objects: Vec<Placed>) -> Vec<Placed> {
    for (object, below) in &mut objects {
        let rest = object.key.strip_prefix(&prefix.key).filter(|_| !prefix.key.is_empty());
        if let Some(inside) = rest.and_then(|rest| rest.strip_prefix('/')) {
            *below = inside.to_owned();
        }
    }
    objects
}

/// A manifest: `[{"prefix": "s3://..."}, "suffix", ...]` (CC-27).
pub(crate) fn manifest_objects(deps: &Deps, actor: &Actor, uri: &S3Uri) -> Result<Vec<Placed>, StageError> {
    let bad = |why: &str| StageError::unusable(format!("The manifest \"{uri}\" cannot be used: {why}"));
    let text = deps.transfer.read(actor, uri, MAX_MANIFEST)?;
    let entries: Vec<serde_json::Value> =
        serde_json::from_slice(&text).map_err(|error| bad(&format!("it is not a JSON array ({error})")))?;
    let mut entries = entries.into_iter();
    let first = entries.next().ok_or_else(|| bad("it is empty"))?;
    let prefix = first.get("prefix").and_then(serde_json::Value::as_str);
    let prefix = prefix.ok_or_else(|| bad("its first element must be an object with the member prefix"))?;
    let prefix: S3Uri = prefix.parse().map_err(|_| bad("its prefix is not an S3 URI"))?;
    let mut placed = Vec::new();
    for entry in entries {
        let suffix = entry
            .as_str()
            .ok_or_else(|| bad("the elements after the first must be strings"))?;
        let object = S3Uri {
            bucket: prefix.bucket.clone(),
            key: format!("{}{suffix}", prefix.key),
        };
        // What stands before the last slash of the prefix is not part of the tree, as with S3Prefix.
        let base = prefix.key.rfind('/').map_or(0, |at| at + 1);
        let below = object.key.get(base..).unwrap_or(suffix).to_string();
        placed.push((object, below));
    }
    Ok(placed)
}

/// Where objects are to be shown.
pub(crate) struct Shown<'a> {
    pub workload: &'a WorkloadId,
    /// A directory of the work directory, which is there.
    pub below: &'a str,
    /// They are copied to the workload's encrypted volume, whatever they are.
    pub copied: bool,
}

/// Shows objects below a directory of the work directory, within `limit` from its start. Where copies may lie on the workload's
/// volume alone and one object must be copied, all of them are, to the directory of that name there.
pub(crate) fn link_all(
    deps: &Deps,
    actor: &Actor,
    objects: &[Placed],
    to: &Shown<'_>,
    limit: Option<(Timestamp, Duration)>,
) -> Result<(), StageError> {
    if !to.copied {
        let view = deps.work.of(to.workload).join(to.below);
        let link = |object: &S3Uri, path: &Path| deps.transfer.link(actor, object, path);
        if show(deps, objects, &view, limit, &link)? {
            return Ok(());
        }
        deps.work.make_empty(to.workload, to.below)?;
    }
    let volume = OpenVolume::of(deps, to.workload)?;
    let directory = volume.make(to.below)?;
    let copy = |object: &S3Uri, path: &Path| deps.transfer.copy(actor, object, path).map(|()| true);
    show(deps, objects, &directory, limit, &copy).map(drop)
}

/// How one object gets to a path; `false`: not in this way.
type Bring<'a> = dyn Fn(&S3Uri, &Path) -> Result<bool, TransferError> + 'a;

fn show(
    deps: &Deps,
    objects: &[Placed],
    directory: &Path,
    limit: Option<(Timestamp, Duration)>,
    bring: &Bring<'_>,
) -> Result<bool, StageError> {
    let mut made = BTreeSet::new();
    for (object, below) in objects {
        if let Some((started, limit)) = limit
            && deps.now().since(started) >= limit
        {
            let seconds = limit.as_secs();
            return Err(StageError::unusable(format!("it took longer than {seconds} seconds")));
        }
        let below = relative_path(below).map_err(StageError::unusable)?;
        let to = directory.join(&below);
        let parent = below.parent().map(Path::to_path_buf).unwrap_or_default();
        if !made.contains(&parent) {
            make_directory(directory, &parent).map_err(|error| clash(object, error))?;
            made.insert(parent);
        }
        if to.symlink_metadata().is_ok() {
            return Err(clash(object, io::ErrorKind::AlreadyExists.into()));
        }
        if !bring(object, &to)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// S3 allows `a` beside `a/b`; a file system does not.
fn clash(object: &S3Uri, error: io::Error) -> StageError {
    match error.kind() {
        io::ErrorKind::NotADirectory => StageError::unusable(format!(
            "The object \"{object}\" needs a directory where another object of the input is a file"
        )),
        io::ErrorKind::AlreadyExists => StageError::unusable(format!(
            "The object \"{object}\" has the path of another object of the input"
        )),
        _ => StageError::Disk(error),
    }
}
