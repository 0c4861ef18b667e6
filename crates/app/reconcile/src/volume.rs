//! Encrypted storage volumes as the loops use them: made before anything of a workload is staged, and the only place for plain
//! copies of what its owner keeps encrypted.

use crate::deps::{Deps, log_not_started};
use crate::stage::StageError;
use crate::transfer::Actor;
use crate::workdir::{self, make_directory};
use isolarium_model::sagemaker::EncryptedVolume;
use isolarium_model::{Arn, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LaunchSpec, Mount, VolumeSpec};
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which directories were copied, on the volume.
const NOTED: &str = "copied.json";
/// Where archives are written.
const PACK: &str = "pack";

/// What stands before the words of key store and role.
pub(crate) const WHAT: &str = "The storage volume could not be encrypted: ";

/// What the caller reads where this host has no encrypted volumes.
const LACKING: &str = "This host could not make the encrypted storage volume that VolumeKmsKeyId asks for. The operator \
     finds the cause in the engine's log, and what is missing with `isolarium doctor`.";

/// What a caller reads of an error that is the host's; the operator finds it in the log.
///
/// # Errors
/// Any other error.
pub(crate) fn lacking(owner_arn: &Arn, error: StageError) -> Result<&'static str, StageError> {
    match error {
        StageError::Executor(ExecutorError::Host(cause)) => {
            log_not_started(owner_arn, &cause);
            Ok(LACKING)
        }
        other => Err(other),
    }
}

/// The service's directory on an open volume. It holds the volume: for the length of one task.
#[derive(Clone)]
pub(crate) struct OpenVolume(Arc<OwnedFd>);

/// A file in a work directory, or on a volume, which is held open with it.
pub(crate) struct KeptFile {
    path: PathBuf,
    _volume: Option<OpenVolume>,
}

impl Deref for KeptFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl OpenVolume {
    /// # Errors
    /// The executor's, also when the workload has no volume.
    pub(crate) fn of(deps: &Deps, workload: &WorkloadId) -> Result<Self, ExecutorError> {
        let opened = deps.executor.open_volume(workload)?;
        Ok(Self(Arc::new(opened)))
    }

    /// The volume is mounted in none of this process's namespaces: the descriptor is the way to it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// Removes what an interrupted attempt left.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    /// Makes a directory with its parents, which the container is to see in place of the work directory's.
    pub(crate) fn make(&self, below: &str) -> io::Result<PathBuf> {
        make_directory(&self.path(), Path::new(below))?;
        let mut noted = self.noted()?;
        if !noted.iter().any(|one| one == below) {
            noted.push(below.into());
            workdir::write_readable(&self.path().join(NOTED), &serde_json::to_vec(&noted)?)?;
        }
        Ok(self.path().join(below))
    }

    /// A new file for an archive; an older one of that name is replaced. Its path is one while the volume is held.
    pub(crate) fn archive(&self, name: &str) -> io::Result<(File, PathBuf)> {
        workdir::fresh(self.make_own(PACK)?.join(name))
    }

    /// Makes a directory that no container sees.
    pub(crate) fn make_own(&self, name: &str) -> io::Result<PathBuf> {
        make_directory(&self.path(), Path::new(name))?;
        Ok(self.path().join(name))
    }

    fn noted(&self) -> io::Result<Vec<String>> {
        match fs::read(self.path().join(NOTED)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// A new file for an archive of a workload: on its volume, where the actor's copies must be there. An older one of that name is
/// replaced.
///
/// # Errors
/// When the file system refuses or the volume is closed.
pub(crate) fn archive(
    deps: &Deps,
    actor: &Actor,
    workload: &WorkloadId,
    name: &str,
) -> Result<(File, KeptFile), StageError> {
    let Some(workload) = &actor.copies else {
        let (file, path) = deps.work.archive(workload, name)?;
        return Ok((file, KeptFile { path, _volume: None }));
    };
    let volume = OpenVolume::of(deps, workload)?;
    let (file, path) = volume.archive(name)?;
    let _volume = Some(volume);
    Ok((file, KeptFile { path, _volume }))
}

/// Gives a workload that is not launched its volume, empty of what an interrupted attempt staged.
///
/// # Errors
/// What stands in the way of key or volume.
pub(crate) fn make(
    deps: &Deps,
    actor: &Actor,
    workload: &WorkloadId,
    volume: &EncryptedVolume,
) -> Result<(), StageError> {
    let opened = match OpenVolume::of(deps, workload) {
        Ok(opened) => opened,
        // There is none, or it is closed and its key gone: one that is to be made anew.
        Err(ExecutorError::Unknown | ExecutorError::Host(_)) => {
            let spec = VolumeSpec {
                bytes: volume.bytes(),
                lasting: false,
            };
            let made = deps.transfer.volume_key(actor, &volume.kms_key)?;
            deps.executor.make_volume(workload, &spec, &made.key)?;
            OpenVolume::of(deps, workload)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(opened.clear()?)
}

/// Shows the container what was copied to its volume, where it looks for it.
///
/// # Errors
/// When the volume cannot be read.
pub(crate) fn mounts(deps: &Deps, spec: &mut LaunchSpec) -> Result<(), StageError> {
    spec.encrypted = true;
    let copied = OpenVolume::of(deps, &spec.workload)?.noted()?;
    spec.mounts = shown(std::mem::take(&mut spec.mounts), &copied);
    Ok(())
}

/// The mounts with those of copied directories instead of, or inside, those of the work directory.
fn shown(mounts: Vec<Mount>, copied: &[String]) -> Vec<Mount> {
    let is_copied = |below: &str| copied.iter().any(|one| one == below);
    let mut all: Vec<Mount> = mounts
        .into_iter()
        .map(|mount| match mount {
            Mount::Input { source, target } if is_copied(&source) => Mount::Copied { source, target },
            other => other,
        })
        .collect();
    for below in copied {
        let inside = |outer: &str| below.strip_prefix(outer).filter(|rest| rest.starts_with('/'));
        let covered = all.iter().any(|mount| match mount {
            Mount::Copied { source, .. } => source == below || inside(source).is_some(),
            _ => false,
        });
        let target = all.iter().find_map(|mount| match mount {
            Mount::Input { source, target } => Some(format!("{target}{}", inside(source)?)),
            _ => None,
        });
        if let Some(target) = target.filter(|_| !covered) {
            all.push(Mount::Copied {
                source: below.clone(),
                target,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(source: &str, target: &str) -> Mount {
        Mount::Input {
            source: source.into(),
            target: target.into(),
        }
    }

    fn copied(source: &str, target: &str) -> Mount {
        Mount::Copied {
            source: source.into(),
            target: target.into(),
        }
    }

    /// Proves: CC-36
    #[test]
    fn what_was_copied_is_shown_where_the_container_looks_for_it() {
        let mounts = || vec![input("input", "/opt/ml/input"), input("model", "/opt/ml/model")];
        assert_eq!(shown(mounts(), &[]), mounts());
        assert_eq!(
            shown(mounts(), &["input/data/a".into(), "model".into()]),
            vec![
                input("input", "/opt/ml/input"),
                copied("model", "/opt/ml/model"),
                copied("input/data/a", "/opt/ml/input/data/a"),
            ]
        );
        let inner = ["inputs/a".to_string(), "inputs/a/b".into()];
        assert_eq!(
            shown(vec![input("inputs/a", "/opt/ml/processing/a")], &inner),
            vec![copied("inputs/a", "/opt/ml/processing/a")]
        );
    }
}
