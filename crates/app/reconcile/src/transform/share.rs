//! Which objects an instance transforms, and where their outputs go (CC-67, CC-73).

use super::{Trouble, Work};
use crate::deps::{Deps, StepError};
use crate::stage::{self, StageError};
use isolarium_model::WorkloadId;
use isolarium_model::sagemaker::training_job::S3DataType;
use isolarium_model::sagemaker::transform_job::TransformInstance;
use isolarium_model::sagemaker::{FailureKind, S3Uri, TransformJob};
use isolarium_runtime::executor::ExecutorError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

/// One object of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    pub from: S3Uri,
    pub to: S3Uri,
}

/// In the work directory: the share of an instance. It stays as it was when the job began, whatever is added to the input
/// meanwhile, so that the number of finished objects says which ones are left.
const NOTED: &str = "objects.json";

impl Work<'_> {
    /// Deals the objects out, one after the other, and notes the share of every instance before the first one is launched
    /// (CC-67). The listing travels as the first instance's data does.
    pub(super) fn deal(&self, job: &TransformJob) -> Result<(), Trouble> {
        let instances = &job.run.instances;
        let noted = |one: &TransformInstance| self.deps.work.of(&one.placement.workload).join(NOTED).is_file();
        if instances.iter().all(noted) {
            return Ok(());
        }
        let Some(first) = instances.first() else {
            return Ok(());
        };
        let Some(attached) = self.attach(job, first)? else {
            return Err(Trouble::Retry(StepError::Executor(ExecutorError::Unknown)));
        };
        let actor = self.actor(job, &attached);
        let input = &job.spec.input;
        let listed = match input.data_type {
            S3DataType::S3Prefix => stage::prefix_objects(self.deps, &actor, &input.uri),
            S3DataType::ManifestFile => stage::manifest_objects(self.deps, &actor, &input.uri),
        };
        let listed = listed.map_err(|error| self.staged(job, error, "Data download failed:"))?;
        if listed.is_empty() {
            return Err(Trouble::Final(
                FailureKind::Client,
                format!("No S3 objects found under \"{}\"", input.uri),
            ));
        }
        let mut shares = vec![Vec::new(); instances.len().max(1)];
        let count = shares.len();
        for (at, (from, below)) in listed.into_iter().enumerate() {
            let to = job.spec.output.uri.join(&format!("{below}.out"));
            if let Some(share) = shares.get_mut(at % count) {
                share.push(Object { from, to });
            }
        }
        for (instance, share) in instances.iter().zip(shares) {
            let workload = &instance.placement.workload;
            let prepared = self.deps.executor.prepare(workload).map_err(StageError::from);
            let noted = prepared.and_then(|()| note(self.deps, workload, &share));
            noted.map_err(|error| self.staged(job, error, "Data download failed:"))?;
        }
        Ok(())
    }

    /// The share that was noted when the instance was launched.
    pub(super) fn noted(&self, workload: &WorkloadId) -> Option<Vec<Object>> {
        let text = fs::read(self.deps.work.of(workload).join(NOTED)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn note(deps: &Deps, workload: &WorkloadId, share: &[Object]) -> Result<(), StageError> {
    let text = serde_json::to_vec(share).map_err(io::Error::from)?;
    let (path, fresh) = (
        deps.work.of(workload).join(NOTED),
        deps.work.of(workload).join("objects.new"),
    );
    fs::write(&fresh, text)?;
    Ok(fs::rename(&fresh, &path)?)
}
