//! The execution roles' transfers as the loops of jobs and endpoints ask for them.

use crate::transfer::SubnetS3;
use isolarium_model::Arn;
use isolarium_model::logs::LogEvent;
use isolarium_model::metrics::Sample;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::volume::SealedVolumeKey;
use isolarium_reconcile::transfer::{
    Actor, Image, Layer, LogPiece, NewVolumeKey, ObjectEntry, Transfer, TransferError, Via,
};
use isolarium_runtime::Executor;
use isolarium_runtime::executor::{ExecutorError, VolumeKey};
use isolarium_services::platform::roles::{self, ExecutionRoles};
use isolarium_services::platform::{self, PlatformError};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// [`Transfer`] by [`ExecutionRoles`]; objects of workloads in a VPC travel through its subnets.
pub struct AsTransfer {
    pub roles: Arc<ExecutionRoles>,
    /// For workloads in a VPC.
    pub subnet: SubnetS3,
    /// Where the encrypted volumes are.
    pub executor: Arc<dyn Executor>,
}

impl AsTransfer {
    /// Where plain copies for this actor go, if not anywhere.
    fn copies(&self, of: &Actor) -> Result<Option<OwnedFd>, TransferError> {
        let Some(workload) = &of.copies else { return Ok(None) };
        let opened = self.executor.open_volume(workload);
        opened.map(Some).map_err(|error| match error {
            away @ (ExecutorError::Unreachable(_) | ExecutorError::Busy(_)) => TransferError::Away(away.to_string()),
            other => TransferError::Engine(other.into()),
        })
    }
}

fn place_of(to: &Path) -> Result<(&Path, &str), TransferError> {
    let place = to.parent().zip(to.file_name().and_then(|name| name.to_str()));
    place.ok_or_else(|| TransferError::Engine("the name of a staged object is no text".into()))
}

pub(crate) fn actor(of: &Actor) -> platform::Actor {
    platform::Actor {
        scope: of.scope.clone(),
        role_arn: of.role_arn.clone(),
        owner_arn: of.owner_arn.clone(),
    }
}

fn failed(error: PlatformError) -> TransferError {
    match error {
        PlatformError::Role(_) => TransferError::Role(error.to_string()),
        PlatformError::Denied(text) => TransferError::Denied(text),
        PlatformError::Unusable(text) => TransferError::Unusable(text),
        PlatformError::Engine(cause) => TransferError::Engine(cause),
    }
}

/// `NAME=value`; a name alone has the empty value.
fn environment(entry: &str) -> (String, String) {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    (name.to_owned(), value.to_owned())
}

impl Transfer for AsTransfer {
    fn resolve_image(&self, of: &Actor, reference: &str) -> Result<Image, TransferError> {
        let image = self.roles.resolve_image(&actor(of), reference).map_err(failed)?;
        let layers = image.layers.into_iter().map(|layer| Layer {
            diff_id: layer.diff_id,
            blob: layer.blob,
        });
        let config = image.config.config.unwrap_or_default();
        Ok(Image {
            digest: image.digest,
            layers: layers.collect(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config
                .env
                .unwrap_or_default()
                .iter()
                .map(|entry| environment(entry))
                .collect(),
            workdir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            labels: config.labels.unwrap_or_default(),
        })
    }

    fn open_layer(&self, layer: &Layer) -> Result<OwnedFd, TransferError> {
        self.roles.open_layer(&layer.blob).map(OwnedFd::from).map_err(failed)
    }

    fn may_at_ec2(&self, of: &Actor, action: &'static str, resources: &[Arn]) -> Result<(), TransferError> {
        self.roles.act_at_ec2(&actor(of), action, resources).map_err(failed)
    }

    fn leave(&self, via: Via) {
        self.subnet.leave(via);
    }

    fn list(&self, of: &Actor, prefix: &S3Uri) -> Result<Vec<ObjectEntry>, TransferError> {
        if let Some(via) = of.via {
            return self.subnet.list(of, via, prefix);
        }
        let found = self.roles.list(&actor(of), prefix).map_err(failed)?;
        Ok(found
            .into_iter()
            .map(|(key, bytes)| ObjectEntry { key, bytes })
            .collect())
    }

    fn read(&self, of: &Actor, object: &S3Uri, max: usize) -> Result<Vec<u8>, TransferError> {
        if let Some(via) = of.via {
            return self.subnet.read(of, via, object, max);
        }
        let copies = self.copies(of)?;
        self.roles
            .read(&actor(of), object, max, copies.as_ref().map(AsFd::as_fd))
            .map_err(failed)
    }

    fn open(&self, of: &Actor, object: &S3Uri) -> Result<OwnedFd, TransferError> {
        if let Some(via) = of.via {
            let copies = self.copies(of)?;
            return self
                .subnet
                .open_object(of, via, object, copies.as_ref().map(AsFd::as_fd))
                .map(OwnedFd::from);
        }
        let copies = self.copies(of)?;
        self.roles
            .open(&actor(of), object, copies.as_ref().map(AsFd::as_fd))
            .map(|(file, _)| file.into())
            .map_err(failed)
    }

    fn link(&self, of: &Actor, object: &S3Uri, to: &Path) -> Result<bool, TransferError> {
        if let Some(via) = of.via {
            return match of.copies {
                None => self.subnet.fetch(of, via, object, to).map(|()| true),
                Some(_) => Ok(false),
            };
        }
        let (directory, name) = place_of(to)?;
        let linked = match of.copies {
            None => self.roles.link(&actor(of), object, directory, name).map(|()| true),
            Some(_) => self.roles.link_plain(&actor(of), object, directory, name),
        };
        linked.map_err(failed)
    }

    fn copy(&self, of: &Actor, object: &S3Uri, to: &Path) -> Result<(), TransferError> {
        if let Some(via) = of.via {
            return self.subnet.fetch(of, via, object, to);
        }
        let (directory, name) = place_of(to)?;
        self.roles.copy(&actor(of), object, directory, name).map_err(failed)
    }

    fn volume_key(&self, of: &Actor, key: &str) -> Result<NewVolumeKey, TransferError> {
        let made = self.roles.volume_key(&actor(of), key).map_err(failed)?;
        Ok(NewVolumeKey {
            key: VolumeKey::new(made.plain),
            sealed: SealedVolumeKey {
                key_arn: made.key_arn,
                sealed: made.sealed,
            },
        })
    }

    fn open_volume_key(&self, of: &Actor, sealed: &SealedVolumeKey) -> Result<VolumeKey, TransferError> {
        let opened = self.roles.open_volume_key(&actor(of), &sealed.key_arn, &sealed.sealed);
        opened.map(VolumeKey::new).map_err(failed)
    }

    fn put(&self, of: &Actor, object: &S3Uri, from: &Path) -> Result<(), TransferError> {
        if let Some(via) = of.via {
            return self.subnet.put(of, via, object, from);
        }
        self.roles
            .put(&actor(of), object, from, of.kms_key.as_deref())
            .map_err(failed)
    }

    fn delete(&self, of: &Actor, object: &S3Uri) -> Result<(), TransferError> {
        if let Some(via) = of.via {
            return self.subnet.delete(of, via, object);
        }
        self.roles.delete(&actor(of), object).map_err(failed)
    }

    fn append_log(&self, of: &Actor, group: &str, stream: &str, piece: &LogPiece<'_>) -> Result<u64, TransferError> {
        let events: Vec<LogEvent> = piece
            .lines
            .iter()
            .map(|line| LogEvent {
                timestamp: line.time,
                message: line.text.clone(),
            })
            .collect();
        let piece = roles::LogPiece {
            source: piece.source,
            from: piece.from,
            to: piece.next,
            events: &events,
        };
        self.roles.append_log(&actor(of), group, stream, &piece).map_err(failed)
    }

    fn put_metrics(&self, of: &Actor, namespace: &str, samples: Vec<Sample>) -> Result<(), TransferError> {
        self.roles.put_metrics(&actor(of), namespace, samples).map_err(failed)
    }

    fn log_sources(&self) -> Result<Vec<String>, TransferError> {
        self.roles.log_sources().map_err(failed)
    }

    fn forget_log(&self, source: &str) -> Result<(), TransferError> {
        self.roles.forget_log(source).map_err(failed)
    }
}
