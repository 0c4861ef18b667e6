//! Training jobs: their files, their container, their checkpoints and artifacts.

use super::{End, Job, Site, Trouble, staged};
use crate::checkpoints::{self, Checkpoints};
use crate::collect;
use crate::container::{self, CHECKPOINTS, MODEL, OUTPUT, OUTPUT_DATA, UnknownInstanceType};
use crate::metrics::MetricScanner;
use crate::pipes::{Pipes, Starved};
use crate::stage::{self, StageError};
use crate::transfer::Image;
use crate::workdir;
use isolarium_model::sagemaker::training_job::{
    Channel, InputMode, JobEvent, JobRun, MetricDefinition, SecondaryStatus, StopCause, TrainingJob, host_name,
};
use isolarium_model::sagemaker::{EncryptedVolume, FailureKind, FailureReason, IllegalTransition, JobNetwork};
use isolarium_model::{Arn, Timestamp};
use isolarium_runtime::executor::{LaunchSpec, Mount};
use serde_json::{Value, json};
use std::time::Duration;

/// What is remembered of a training job between steps.
#[derive(Default)]
pub(crate) struct Kept {
    checkpoints: Checkpoints,
    pipes: Pipes,
    /// Why the containers cannot go on.
    starved: Option<(FailureKind, String)>,
}

impl Job for TrainingJob {
    type Kept = Kept;
    const LOG_GROUP: &'static str = "/aws/sagemaker/TrainingJobs";

    fn arn(&self) -> &Arn {
        &self.arn
    }

    fn role_arn(&self) -> &Arn {
        &self.spec.role_arn
    }

    fn kms_key(&self) -> Option<&String> {
        self.spec.output.kms_key.as_ref()
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

    fn instance_type(&self, instance: usize) -> &str {
        self.spec.cluster_of(instance).1
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
        let ends = run_end(self);
        wait_end(self).map_or(ends, |waits| waits.min(ends))
    }

    fn limit(&self) -> StopCause {
        match wait_end(self) {
            Some(waits) if waits < run_end(self) => StopCause::MaxWait,
            Some(_) | None => StopCause::MaxRuntime,
        }
    }

    fn patience(&self) -> Option<(Duration, StopCause)> {
        let pending = self.spec.max_pending.map(|most| (most, StopCause::MaxPending));
        let waits = self.spec.max_wait.map(|most| (most, StopCause::MaxWait));
        let first = pending.into_iter().chain(waits).min_by_key(|(most, _)| *most)?;
        Some((Duration::from_secs(first.0), first.1))
    }

    fn metrics(&self) -> &[MetricDefinition] {
        &self.spec.metrics
    }

    fn phase(&self) -> SecondaryStatus {
        self.secondary
    }

    fn apply(&mut self, event: JobEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        Self::apply(self, event, now)
    }

    fn fail(&mut self, reason: FailureReason, now: Timestamp) -> Result<(), IllegalTransition> {
        Self::fail(self, reason, now)
    }

    fn may_restart(&self) -> bool {
        Self::may_restart(self)
    }

    fn restart(&mut self, run: JobRun, why: &str, now: Timestamp) -> Result<(), IllegalTransition> {
        Self::restart(self, run, why, now)
    }

    fn pool(&self) -> Option<(Timestamp, Timestamp)> {
        let pool = self.warm_pool.as_ref()?;
        Some((pool.since?, pool.until()?))
    }

    fn fits_pool_of(&self, other: &Self) -> bool {
        Self::fits_pool_of(self, other)
    }

    fn leave_room(&mut self, healthy: bool, now: Timestamp) {
        if let Some(pool) = &mut self.warm_pool {
            pool.job_ended(healthy, now);
        }
    }

    fn end_pool(&mut self, reused_by: Option<String>, now: Timestamp) {
        if let Some(pool) = &mut self.warm_pool {
            pool.end(reused_by, now);
            self.modified = now;
        }
    }

    fn keep_metrics(&mut self, scanner: &MetricScanner) {
        // An attempt that was lost may have told others.
        let told = scanner.last().iter();
        self.final_metrics
            .extend(told.map(|(name, value)| (name.clone(), value.clone())));
    }

    fn stage(&self, site: &Site<'_>, kept: &mut Kept) -> Result<(), StageError> {
        let workload = &site.placement.workload;
        let config = site.deps.work.make(workload, "input/config")?;
        for (name, bytes) in config_files(self, site) {
            workdir::write_readable(&config.join(name), &bytes)?;
        }
        if !self.spec.channels.is_empty() {
            site.deps.work.make(workload, "input/data")?;
        }
        for channel in &self.spec.channels {
            if let Some(share) = self.spec.share(channel, site.number) {
                stage::channel(site, channel, share)?;
            }
        }
        match &self.spec.checkpoints {
            Some(config) => checkpoints::restore(site, config, &mut kept.checkpoints),
            None => Ok(()),
        }
    }

    /// CC-13..16, CC-20.
    fn container(&self, site: &Site<'_>, image: &Image) -> Result<LaunchSpec, UnknownInstanceType> {
        let (entrypoint, arguments) = (self.spec.entrypoint.as_deref(), self.spec.arguments.as_deref());
        let platform = vec![
            ("TRAINING_JOB_NAME".to_string(), self.name.clone()),
            ("TRAINING_JOB_ARN".to_string(), self.arn.to_string()),
            ("AWS_REGION".to_string(), site.key.scope.region.to_string()),
        ];
        let mut mounts = container::job_mounts();
        if let Some(checkpoints) = &self.spec.checkpoints {
            mounts.push(Mount::Scratch {
                name: CHECKPOINTS.into(),
                target: checkpoints.local_path.clone(),
                read_only: false,
            });
        }
        let program = container::Program {
            argv: container::training_command(image, entrypoint, arguments),
            environment: &self.spec.container.environment,
            platform,
            mounts,
        };
        let instance_type = self.spec.cluster_of(site.number).1;
        container::job(site, &self.arn, instance_type, image, program)
    }

    fn feed(&self, sites: &[Site<'_>], running: bool, kept: &mut Kept) -> Option<(FailureKind, String)> {
        const WHAT: &str = "Data download failed:";
        if kept.starved.is_none() {
            let fault = kept.pipes.serve(sites, &self.spec, running)?;
            kept.starved = Some(match fault {
                Starved::Cut(text) => (FailureKind::Internal, format!("{WHAT}{text}")),
                Starved::Stage(error) => match staged(&self.arn, error, WHAT) {
                    Trouble::Final(kind, text) => (kind, text),
                    Trouble::Retry(error) => (FailureKind::Internal, format!("{WHAT}{error}")),
                },
            });
        }
        kept.starved.clone()
    }

    fn leave(&self, kept: &mut Kept) {
        kept.pipes = Pipes::default();
    }

    fn tend(&self, sites: &[Site<'_>], kept: &mut Kept) -> Option<Timestamp> {
        let config = self.spec.checkpoints.as_ref()?;
        let deps = sites.first()?.deps;
        let kept = &mut kept.checkpoints;
        let due = |kept: &Checkpoints| {
            let last = kept.last.unwrap_or(self.created);
            last.after(deps.settings.checkpoint_interval)
        };
        let planned = due(kept);
        // One that cannot be saved now is saved later; the job goes on.
        if deps.now() >= planned
            && let Err(error) = checkpoints::sync(sites, config, kept)
        {
            tracing::warn!(job = %self.arn, %error, "checkpoints could not be synchronised");
            kept.last = Some(deps.now());
        }
        Some(planned)
    }

    fn tends_objects(&self) -> bool {
        self.spec.checkpoints.is_some()
    }

    /// The model, unless a container failed, and the other output. Empty directories give no object (SM-31, CC-32, CC-33).
    fn collect(&self, sites: &[Site<'_>], kept: &mut Kept, end: End) -> Result<(), StageError> {
        if let Some(config) = &self.spec.checkpoints {
            checkpoints::sync(sites, config, &mut kept.checkpoints)?;
        }
        if end != End::Failed {
            collect::artifact(sites, self, MODEL, "model")?;
        }
        collect::artifact(sites, self, OUTPUT_DATA, "output")
    }

    fn failure_text(&self, site: &Site<'_>) -> String {
        collect::failure_text(site.deps, &self.arn, &site.placement.workload, OUTPUT)
    }
}

/// When MaxRuntimeInSeconds is over.
fn run_end(job: &TrainingJob) -> Timestamp {
    let start = job.training_start.unwrap_or(job.created);
    start.after(Duration::from_secs(job.spec.max_runtime))
}

/// When MaxWaitTimeInSeconds of managed spot training is over.
fn wait_end(job: &TrainingJob) -> Option<Timestamp> {
    let most = job.spec.max_wait.map(Duration::from_secs)?;
    Some(job.created.after(most))
}

/// The files of `/opt/ml/input/config` (CC-16..19).
fn config_files(job: &TrainingJob, site: &Site<'_>) -> Vec<(&'static str, Vec<u8>)> {
    // As text: algo-10 comes before algo-2.
    let named = |members: std::ops::Range<usize>| {
        let mut hosts: Vec<String> = members.map(host_name).collect();
        hosts.sort();
        hosts
    };
    let hosts = named(0..site.of);
    let (own_group, own_type) = job.spec.cluster_of(site.number);
    let groups = job.spec.clusters().into_iter().map(|(name, instance_type, members)| {
        json!({"instance_group_name": name, "instance_type": instance_type, "hosts": named(members)})
    });
    let groups: Vec<Value> = groups.collect();
    let resources = json!({
        "current_host": host_name(site.number),
        "current_instance_type": own_type,
        "current_group_name": own_group,
        "hosts": hosts,
        "instance_groups": groups,
        "network_interface_name": container::interface_name(site.placement),
    });
    let channels: serde_json::Map<String, Value> = job
        .spec
        .channels
        .iter()
        .filter(|channel| job.spec.share(channel, site.number).is_some())
        .map(|channel| (channel.name.clone(), channel_config(channel)))
        .collect();
    vec![
        (
            "hyperparameters.json",
            json!(job.spec.hyperparameters).to_string().into_bytes(),
        ),
        ("inputdataconfig.json", Value::Object(channels).to_string().into_bytes()),
        ("resourceconfig.json", resources.to_string().into_bytes()),
    ]
}

fn channel_config(channel: &Channel) -> Value {
    let framed = matches!(&channel.mode, InputMode::Pipe(input) if input.record_io);
    let mut config = json!({
        "TrainingInputMode": channel.mode.as_str(),
        "S3DistributionType": channel.distribution.as_str(),
        "RecordWrapperType": if framed { "RecordIO" } else { "None" },
    });
    if let (Some(kind), Some(members)) = (&channel.content_type, config.as_object_mut()) {
        members.insert("ContentType".into(), json!(kind));
    }
    config
}
