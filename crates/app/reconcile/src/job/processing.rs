//! Processing jobs: their inputs as one tree, their container, their outputs and their exit message.

use super::{End, Job, Site};
use crate::checkpoints::Synced;
use crate::collect;
use crate::container::{self, OUTPUT, UnknownInstanceType};
use crate::stage::{self, Shown, StageError};
use crate::transfer::{Image, TransferError};
use crate::workdir;
use isolarium_model::sagemaker::processing_job::{MAX_EXIT_MESSAGE, PROCESSING, ProcessingInput, UploadMode};
use isolarium_model::sagemaker::training_job::{
    Distribution, JobEvent, JobRun, S3DataType, SecondaryStatus, host_name,
};
use isolarium_model::sagemaker::{EncryptedVolume, FailureReason, IllegalTransition, JobNetwork, ProcessingJob};
use isolarium_model::{Arn, Timestamp};
use isolarium_runtime::executor::{ExecutorError, LaunchSpec, Mount};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// The directory of the work directory that holds all inputs, each at its local path.
const INPUTS: &str = "processing";
/// The directory of the files that describe the job.
const CONFIG: &str = "config";
/// The scratch directory behind [`PROCESSING`] itself.
const AREA: &str = "processing";
/// The file of the output directory that holds the exit message (CC-44).
const MESSAGE: &str = "message";

/// What the upkeep of a processing job remembers.
#[derive(Default)]
pub(crate) struct Kept {
    /// What S3 holds of the outputs that are uploaded while the containers run, by number.
    synced: BTreeMap<usize, Synced>,
    /// When they were synchronised last.
    last: Option<Timestamp>,
    /// What the containers said in the end.
    words: Words,
}

/// The message files of all containers together (CC-44).
#[derive(Debug, Default, PartialEq, Eq)]
enum Words {
    #[default]
    None,
    Message(String),
    /// The message of this instance is no UTF-8.
    Unreadable(String),
}

impl Job for ProcessingJob {
    type Kept = Kept;
    const LOG_GROUP: &'static str = "/aws/sagemaker/ProcessingJobs";

    fn arn(&self) -> &Arn {
        &self.arn
    }

    fn role_arn(&self) -> &Arn {
        &self.spec.role_arn
    }

    fn kms_key(&self) -> Option<&String> {
        self.spec.kms_key.as_ref()
    }

    fn volume(&self) -> Option<&EncryptedVolume> {
        self.spec.volume.as_ref()
    }

    fn modified(&self) -> Timestamp {
        self.modified
    }

    fn network(&self) -> &JobNetwork {
        &self.spec.network
    }

    fn image(&self) -> &str {
        &self.spec.container.image
    }

    fn instance_type(&self, _instance: usize) -> &str {
        &self.spec.instance_type
    }

    fn run(&self) -> &JobRun {
        &self.run
    }

    fn run_mut(&mut self) -> &mut JobRun {
        &mut self.run
    }

    fn host(&self, instance: usize) -> String {
        host_name(instance)
    }

    fn log_stream(&self, instance: usize) -> String {
        Self::log_stream(self, instance)
    }

    fn deadline(&self) -> Timestamp {
        let start = self.started.unwrap_or(self.created);
        start.after(Duration::from_secs(self.spec.max_runtime))
    }

    fn phase(&self) -> SecondaryStatus {
        self.phase
    }

    fn apply(&mut self, event: JobEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        Self::apply(self, event, now)
    }

    fn fail(&mut self, reason: FailureReason, now: Timestamp) -> Result<(), IllegalTransition> {
        Self::fail(self, reason, now)
    }

    fn keep_words(&mut self, kept: &Kept) {
        if let Words::Message(message) = &kept.words {
            self.exit_message = Some(message.clone());
        }
    }

    /// CC-41, CC-43. Inputs that lie in others come after them.
    fn stage(&self, site: &Site<'_>, _kept: &mut Kept) -> Result<(), StageError> {
        let (work, workload) = (&site.deps.work, &site.placement.workload);
        let config = work.make(workload, CONFIG)?;
        for (name, value) in [
            ("processingjobconfig.json", job_config(self)),
            ("resourceconfig.json", resource_config(site)),
        ] {
            workdir::write_readable(&config.join(name), value.to_string().as_bytes())?;
        }
        work.make_empty(workload, INPUTS)?;
        let mut inputs: Vec<&ProcessingInput> = self.spec.inputs.iter().collect();
        inputs.sort_by(|a, b| a.local_path.cmp(&b.local_path));
        for input in &inputs {
            let holds =
                |a: &ProcessingInput, b: &ProcessingInput| a.name != b.name && a.local_path.holds(&b.local_path);
            let nested = inputs.iter().any(|other| holds(other, input) || holds(input, other));
            bring(site, input, nested)?;
        }
        Ok(())
    }

    fn container(&self, site: &Site<'_>, image: &Image) -> Result<LaunchSpec, UnknownInstanceType> {
        let program = container::Program {
            argv: container::processing_command(image, self.spec.entrypoint.as_deref(), self.spec.arguments.as_deref()),
            environment: &self.spec.container.environment,
            platform: vec![("AWS_REGION".to_string(), site.key.scope.region.to_string())],
            mounts: mounts(self),
        };
        container::job(site, &self.arn, &self.spec.instance_type, image, program)
    }

    fn tend(&self, sites: &[Site<'_>], kept: &mut Kept) -> Option<Timestamp> {
        self.spec.continuous().next()?;
        let deps = sites.first()?.deps;
        let last = kept.last.or(self.started).unwrap_or(self.created);
        let planned = last.after(deps.settings.checkpoint_interval);
        if deps.now() >= planned {
            // What cannot be stored now is stored later; the job goes on.
            if let Err(error) = upload(self, sites, kept, Some(UploadMode::Continuous)) {
                tracing::warn!(job = %self.arn, %error, "outputs could not be uploaded while the job runs");
            }
            kept.last = Some(deps.now());
        }
        Some(planned)
    }

    fn tends_objects(&self) -> bool {
        self.spec.continuous().next().is_some()
    }

    /// CC-42, CC-44: the outputs, of failed containers too.
    fn collect(&self, sites: &[Site<'_>], kept: &mut Kept, _end: End) -> Result<(), StageError> {
        // First, so that outputs that cannot be stored do not silence it.
        kept.words = words(sites)?;
        upload(self, sites, kept, None)
    }

    fn objection(&self, kept: &Kept) -> Option<String> {
        match &kept.words {
            Words::Unreadable(host) => Some(format!(
                "The exit message in /opt/ml/output/{MESSAGE} of {host} is not encoded in UTF-8."
            )),
            Words::None | Words::Message(_) => None,
        }
    }

    /// Their words are the exit message.
    fn failure_text(&self, _site: &Site<'_>) -> String {
        String::new()
    }
}

/// Shows an input's objects at its local path: all of them, or this instance's share (CC-28, CC-41).
fn bring(site: &Site<'_>, input: &ProcessingInput, nested: bool) -> Result<(), StageError> {
    let (deps, actor) = (site.deps, &site.actor);
    let below = format!("{INPUTS}/{}", input.local_path.below());
    deps.work
        .make(&site.placement.workload, &below)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => unusable(format!(
                "An object of another input has the path {} of the input \"{}\"",
                input.local_path.absolute(),
                input.name
            )),
            _ => StageError::Disk(error),
        })?;
    let mut objects = match input.data_type {
        S3DataType::S3Prefix => stage::in_folder(&input.uri, stage::prefix_objects(deps, actor, &input.uri)?),
        S3DataType::ManifestFile => stage::manifest_objects(deps, actor, &input.uri)?,
    };
    if objects.is_empty() {
        return Err(unusable(format!("No S3 objects found under \"{}\"", input.uri)));
    }
    if input.distribution == Distribution::ShardedByS3Key {
        objects = stage::share(objects, None, site.number, site.of);
    }
    let to = Shown {
        workload: &site.placement.workload,
        below: &below,
        // What lies in another's directory must be where that is.
        copied: nested && actor.copies.is_some(),
    };
    stage::link_all(deps, actor, &objects, &to, None)
}

fn unusable(text: String) -> StageError {
    StageError::Transfer(TransferError::Unusable(text))
}

/// The scratch directory of an output, by its number in the request.
fn scratch(number: usize) -> String {
    format!("processing-{number}")
}

/// CC-2: everything below /opt/ml is the platform's; parents come first.
fn mounts(job: &ProcessingJob) -> Vec<Mount> {
    let scratch_at = |name: &str, target: String| Mount::Scratch {
        name: name.into(),
        target,
        read_only: false,
    };
    let mut mounts = vec![
        scratch_at("ml", "/opt/ml".into()),
        Mount::Input {
            source: CONFIG.into(),
            target: format!("/opt/ml/{CONFIG}"),
        },
        scratch_at(OUTPUT, "/opt/ml/output".into()),
        scratch_at(AREA, PROCESSING.into()),
    ];
    let inputs = &job.spec.inputs;
    // Those that lie in another are in its directory.
    let outer = inputs.iter().filter(|input| {
        let holds = |other: &&ProcessingInput| other.name != input.name && other.local_path.holds(&input.local_path);
        !inputs.iter().any(|other| holds(&other))
    });
    mounts.extend(outer.map(|input| Mount::Input {
        source: format!("{INPUTS}/{}", input.local_path.below()),
        target: input.local_path.absolute(),
    }));
    let outputs = job.spec.outputs.iter().enumerate();
    mounts.extend(outputs.map(|(number, output)| scratch_at(&scratch(number), output.local_path.absolute())));
    mounts
}

/// Uploads outputs: those of a mode, or all.
fn upload(
    job: &ProcessingJob,
    sites: &[Site<'_>],
    kept: &mut Kept,
    only: Option<UploadMode>,
) -> Result<(), StageError> {
    let wanted = |mode: UploadMode| only.is_none_or(|only| only == mode);
    for (number, output) in job.spec.outputs.iter().enumerate() {
        match output.mode {
            _ if !wanted(output.mode) => {}
            UploadMode::EndOfJob => collect::files(sites, &scratch(number), &output.uri)?,
            UploadMode::Continuous => {
                let synced = kept.synced.entry(number).or_default();
                for site in sites {
                    synced.upload(site, &scratch(number), &output.uri)?;
                }
            }
        }
    }
    Ok(())
}

/// What the containers say: their messages one after the other, cut (CC-44).
fn words(sites: &[Site<'_>]) -> Result<Words, StageError> {
    let mut all = String::new();
    for site in sites {
        let (archives, workload) = (&site.deps.archives, &site.placement.workload);
        let read = match archives.read_file(workload, OUTPUT, MESSAGE, MAX_EXIT_MESSAGE) {
            // It never started.
            Err(ExecutorError::Unknown) => None,
            read => read?,
        };
        match text(&read.unwrap_or_default()) {
            Some(text) => all.push_str(text),
            None => return Ok(Words::Unreadable(host_name(site.number))),
        }
    }
    if all.is_empty() {
        return Ok(Words::None);
    }
    all.truncate(all.floor_char_boundary(MAX_EXIT_MESSAGE));
    Ok(Words::Message(all))
}

/// The beginning of a file as text. A character that the limit has cut is left out.
fn text(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(cut) if cut.error_len().is_none() && bytes.len() >= MAX_EXIT_MESSAGE => {
            std::str::from_utf8(bytes.get(..cut.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// `resourceconfig.json` (CC-43).
fn resource_config(site: &Site<'_>) -> Value {
    let mut hosts: Vec<String> = (0..site.of).map(host_name).collect();
    // As text: algo-10 comes before algo-2.
    hosts.sort();
    json!({"current_host": host_name(site.number), "hosts": hosts})
}

/// `processingjobconfig.json` (CC-43): the request, with null for what it leaves out.
fn job_config(job: &ProcessingJob) -> Value {
    let member = |name: &str| job.echo.get(name).cloned().unwrap_or(Value::Null);
    let mut inputs = member("ProcessingInputs");
    for input in inputs.as_array_mut().into_iter().flatten() {
        if let Some(source) = input.get_mut("S3Input") {
            complete(source, "S3DataDistributionType", "FullyReplicated".into());
            complete(source, "S3InputMode", "File".into());
            complete(source, "S3CompressionType", "None".into());
        }
    }
    let mut program = member("AppSpecification");
    complete(&mut program, "ContainerEntrypoint", Value::Null);
    complete(&mut program, "ContainerArguments", Value::Null);
    let mut outputs = member("ProcessingOutputConfig");
    complete(&mut outputs, "KmsKeyId", Value::Null);
    let mut resources = member("ProcessingResources");
    if let Some(cluster) = resources.get_mut("ClusterConfig") {
        complete(cluster, "VolumeKmsKeyId", Value::Null);
    }
    json!({
        "ProcessingJobArn": job.arn.to_string(),
        "ProcessingJobName": job.name,
        "AppSpecification": program,
        "Environment": member("Environment"),
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": outputs,
        "ProcessingResources": resources,
        "RoleArn": job.spec.role_arn.to_string(),
        "StoppingCondition": {"MaxRuntimeInSeconds": job.spec.max_runtime},
    })
}

/// Adds a member that is not there.
fn complete(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests;
