//! Notebook instances: one container with a volume that outlives it (SM-46).
//!
//! A step brings the instance's container to the host, lets the lifecycle scripts end and the server answer, and looks after
//! its output. What failed or is to stop is removed before anything else: the home volume is one container's at a time. The
//! volume lies in the directory of a workload that is never launched and is removed with the record.

use crate::container::{self, METADATA, Notebook, PROGRESS, SCRIPTS, START};
use crate::deps::{AttachError, Deps, NOT_STARTED, Next, StepError, log_not_started};
use crate::driver;
use crate::logs::{self, Drained, LogCursor, Sink};
use crate::network::place::Wanted;
use crate::ping;
use crate::scheduler::NO_CAPACITY;
use crate::scheduler::queue::Answer;
use crate::settings::NotebookProgram;
use crate::stage::{self, StageError};
use crate::transfer::{Actor, LogPiece};
use crate::workdir;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isolarium_model::sagemaker::{
    Attachment, FailureReason, NotebookEvent, NotebookInstance, NotebookLifecycleConfig, NotebookStatus, Placement,
};
use isolarium_model::{Key, Timestamp, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LogLine, WorkloadState};
use isolarium_store::{Batch, Expect, StoreError};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The log group of notebook instances (CC-90).
const LOG_GROUP: &str = "/aws/sagemaker/NotebookInstances";
/// Most of a script's output that is kept, bytes from its beginning.
const SCRIPT_OUTPUT: usize = 256 << 10;
/// How long the last lines of an ended container are waited for.
const LAST_LINES: Duration = Duration::from_secs(10);
/// Time between two looks at a container that is to end.
const END_POLL: Duration = Duration::from_millis(100);

/// A lifecycle script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    OnCreate,
    OnStart,
}

impl Hook {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 2] = [Self::OnCreate, Self::OnStart];

    /// The script's file.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::OnCreate => "on-create",
            Self::OnStart => "on-start",
        }
    }

    /// The last part of its log stream (CC-90).
    fn stream(self) -> &'static str {
        match self {
            Self::OnCreate => "LifecycleConfigOnCreate",
            Self::OnStart => "LifecycleConfigOnStart",
        }
    }
}

/// What the loop remembers between steps; all of it can be found again.
#[derive(Default)]
pub(crate) struct NotebookMemory {
    logs: LogCursor,
    /// Of which container.
    of: Option<WorkloadId>,
    last_ping: Option<Timestamp>,
    /// Scripts that have ended well, and when that was seen.
    ended: Vec<(Hook, Timestamp)>,
    terminated: Option<Timestamp>,
    ended_seen: Option<Timestamp>,
}

impl NotebookMemory {
    /// What is remembered of another container counts no more.
    fn about(&mut self, workload: &WorkloadId) -> &mut Self {
        if self.of.as_ref() != Some(workload) {
            *self = Self {
                of: Some(workload.clone()),
                ..Self::default()
            };
        }
        self
    }
}

/// Why the instance does not come up.
enum Trouble {
    /// It will not, whatever is repeated: the reason, for its owner.
    Broken(String),
    /// The step is repeated.
    Retry(StepError),
}

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        Self::Retry(error)
    }
}

/// Takes one instance as far as it goes now.
pub(crate) fn step(deps: &Deps, key: &Key, memory: &mut NotebookMemory) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<NotebookInstance>(key)? else {
        return Ok(Next::Done);
    };
    let work = Work { deps, key };
    let notebook = stored.record;
    if let Some(leaving) = &notebook.run.leaving {
        return work.leave(&notebook, leaving, memory);
    }
    match notebook.status {
        NotebookStatus::Pending | NotebookStatus::InService => match work.run(&notebook, memory) {
            Ok(next) => Ok(next),
            Err(Trouble::Retry(error)) => Err(error),
            Err(Trouble::Broken(why)) => work.fail(&why),
        },
        NotebookStatus::Stopping => work.stop(&notebook, memory),
        NotebookStatus::Updating => {
            work.apply(NotebookEvent::UpdateFinished)?;
            Ok(Next::Done)
        }
        NotebookStatus::Deleting => work.delete(&notebook),
        NotebookStatus::Stopped | NotebookStatus::Failed => Ok(Next::Done),
    }
}

struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
}

impl Work<'_> {
    fn actor(&self, notebook: &NotebookInstance) -> Actor {
        Deps::actor(self.key, &notebook.spec.role_arn, &notebook.arn)
    }

    /// Moves the record along its lifecycle, unless it has gone another way meanwhile.
    fn apply(&self, event: NotebookEvent) -> Result<(), StepError> {
        self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            if notebook.status.on(event).is_err() {
                return Ok(None);
            }
            notebook.apply(event, self.deps.now())?;
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// Notes why it does not run. Its container is removed by the next step.
    fn fail(&self, why: &str) -> Result<Next, StepError> {
        self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            if notebook.status.on(NotebookEvent::Broke).is_err() {
                return Ok(None);
            }
            notebook.apply(NotebookEvent::Broke, self.deps.now())?;
            notebook.failure_reason = Some(FailureReason::endpoint(why, None));
            Ok(Some(batch))
        })?;
        Ok(Next::At(self.deps.now()))
    }

    /// Brings the container to the host and looks after it.
    fn run(&self, notebook: &NotebookInstance, memory: &mut NotebookMemory) -> Result<Next, Trouble> {
        let Some((notebook, volume, placement)) = self.fit(notebook)? else {
            return Ok(Next::At(self.deps.now()));
        };
        let memory = memory.about(&placement.workload);
        if let Some(wait) = self.room(&notebook, &placement)? {
            return Ok(Next::At(wait));
        }
        match self.deps.state_of(&placement.workload)? {
            None if notebook.run.launched.is_some() => Err(Trouble::Broken(
                "The notebook instance was lost with its machine. Start it again; its volume is kept.".into(),
            )),
            None => {
                self.launch(&notebook, &volume, &placement)?;
                Ok(Next::At(self.deps.now()))
            }
            Some(WorkloadState::Running { started }) => {
                if notebook.run.launched.is_none() {
                    // An earlier process launched it and died before it could say so.
                    self.note_launch(&placement.workload)?;
                }
                self.running(&notebook, &placement, memory, started)
            }
            Some(WorkloadState::Exited(status)) => {
                self.scripts(&notebook, &placement, memory, None)?;
                Err(Trouble::Broken(if status.out_of_memory {
                    format!(
                        "The notebook server used more memory than {} has.",
                        notebook.spec.instance_type
                    )
                } else {
                    format!("The notebook server ended with exit code {}.", status.code)
                }))
            }
            Some(WorkloadState::NotStarted { reason }) => {
                log_not_started(&notebook.arn, &reason);
                Err(Trouble::Broken(NOT_STARTED.into()))
            }
        }
    }

    /// Gives the instance its volume, a workload and a network. Nothing of it is on the host before this is committed.
    fn fit(&self, notebook: &NotebookInstance) -> Result<Option<(NotebookInstance, WorkloadId, Placement)>, StepError> {
        let placed = |notebook: NotebookInstance| {
            let (volume, placement) = (notebook.run.volume.clone()?, notebook.run.placement.clone()?);
            Some((notebook, volume, placement))
        };
        if notebook.run.volume.is_some() && notebook.run.placement.is_some() {
            return Ok(placed(notebook.clone()));
        }
        let stored = self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            if notebook.status != NotebookStatus::Pending || notebook.run.leaving.is_some() {
                return Ok(None);
            }
            if notebook.run.volume.is_none() {
                notebook.run.volume = Some(self.deps.fresh_workload()?);
            }
            let mut batch = batch;
            if notebook.run.placement.is_none() {
                let network = &notebook.spec.network;
                let (placement, more) = self.deps.place(network, self.key, &notebook.arn, batch)?;
                notebook.run.placement = Some(placement);
                batch = more;
            }
            Ok(Some(batch))
        })?;
        Ok(stored.and_then(|stored| placed(stored.record)))
    }

    /// Asks for room; until when there may be none.
    fn room(&self, notebook: &NotebookInstance, placement: &Placement) -> Result<Option<Timestamp>, Trouble> {
        let wanted = [(vec![placement.workload.clone()], &notebook.spec.instance_type)];
        let Ok(request) = self
            .deps
            .request::<NotebookInstance>(self.key, notebook.run.since, wanted)
        else {
            // The launch says that an instance type is known no more.
            return Ok(None);
        };
        let limit = notebook.run.since.after(self.deps.settings.endpoint_patience);
        match self.deps.scheduler.ask(request) {
            Answer::Granted => Ok(None),
            Answer::Waits if self.deps.now() < limit => Ok(Some(limit)),
            Answer::Waits | Answer::Never => Err(Trouble::Broken(NO_CAPACITY.into())),
        }
    }

    fn program(&self) -> Result<&NotebookProgram, Trouble> {
        let set = self.deps.settings.notebooks.as_ref();
        set.ok_or_else(|| {
            Trouble::Broken(
                "This engine runs no notebook instances any more: its operator took notebooks.image away.".into(),
            )
        })
    }

    fn launch(&self, notebook: &NotebookInstance, volume: &WorkloadId, placement: &Placement) -> Result<(), Trouble> {
        let Some(placement) = self.attach(notebook, placement)? else {
            return Ok(());
        };
        let (deps, workload) = (self.deps, &placement.workload);
        let program = self.program()?;
        let host = |error| host_trouble(notebook, error);
        deps.executor.prepare(volume).map_err(host)?;
        deps.executor.prepare(workload).map_err(host)?;
        if deps.is_launched(workload).map_err(host)? {
            return Ok(self.note_launch(workload)?);
        }
        let actor = self.actor(notebook);
        let pull = |error| staged(notebook, error, "The notebook image could not be pulled: ");
        let image = deps.transfer.resolve_image(&actor, &program.image);
        let image = image.map_err(|error| pull(error.into()))?;
        stage::layers(deps, &image).map_err(pull)?;
        let scripted = self.stage(notebook, &placement)?;
        let spec = Notebook {
            placement: &placement,
            volume,
            region: self.key.scope.region.as_str(),
            instance_type: &notebook.spec.instance_type,
            command: &program.command,
            root: notebook.spec.root_access,
            scripted,
        };
        let spec = container::notebook(deps, &notebook.arn, &spec, &image)
            .map_err(|error| Trouble::Broken(error.to_string()))?;
        deps.launch(&self.key.scope, &placement, &spec).map_err(host)?;
        Ok(self.note_launch(workload)?)
    }

    /// Writes what the container sees of its instance; says whether there are scripts to run.
    fn stage(&self, notebook: &NotebookInstance, placement: &Placement) -> Result<bool, Trouble> {
        let (deps, workload) = (self.deps, &placement.workload);
        let disk = |error: StageError| staged(notebook, error, "");
        let scripts = self.wanted_scripts(notebook)?;
        let written = (|| {
            stage::ca_bundle(deps, placement)?;
            let metadata = deps.work.make_empty(workload, METADATA)?;
            let text = serde_json::json!({ "ResourceArn": notebook.arn, "ResourceName": notebook.name });
            workdir::write_readable(&metadata.join("resource-metadata.json"), text.to_string().as_bytes())?;
            if scripts.is_empty() {
                return Ok(());
            }
            let folder = deps.work.make_empty(workload, SCRIPTS)?;
            let start: (&str, &[u8]) = (START, include_bytes!("notebook/start.sh"));
            let all = scripts.iter().map(|(hook, script)| (hook.file(), script.as_slice()));
            for (name, bytes) in all.chain([start]) {
                let path = folder.join(name);
                workdir::write_readable(&path, bytes)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555))?;
            }
            Ok(())
        })();
        written.map_err(|error: StageError| disk(error))?;
        Ok(!scripts.is_empty())
    }

    /// The scripts of this start, as they are now.
    fn wanted_scripts(&self, notebook: &NotebookInstance) -> Result<Vec<(Hook, Vec<u8>)>, Trouble> {
        let Some(name) = &notebook.spec.lifecycle_config else {
            return Ok(Vec::new());
        };
        let arn = NotebookLifecycleConfig::arn(&self.key.scope, name);
        let key = NotebookLifecycleConfig::key(&self.key.scope, name);
        let found = self.deps.store.get::<NotebookLifecycleConfig>(&key);
        let found = found.map_err(StepError::from)?.ok_or_else(|| {
            Trouble::Broken(format!(
                "The Notebook Instance Lifecycle Config '{arn}' does not exist any more."
            ))
        })?;
        let config = found.record;
        let mut scripts = Vec::new();
        for (hook, content) in [
            (Hook::OnCreate, config.on_create.filter(|_| !notebook.run.created)),
            (Hook::OnStart, config.on_start),
        ] {
            let Some(content) = content else { continue };
            let joined: String = content.split_ascii_whitespace().collect();
            let script = STANDARD.decode(joined).map_err(|_| {
                Trouble::Broken(format!(
                    "A script of the Notebook Instance Lifecycle Config '{arn}' is no base64."
                ))
            })?;
            scripts.push((hook, script));
        }
        Ok(scripts)
    }

    /// The placement with its place in the VPC, if it is to have one. `None`: the instance goes on no more.
    fn attach(&self, notebook: &NotebookInstance, placement: &Placement) -> Result<Option<Placement>, Trouble> {
        let Some(attachment) = notebook.spec.network.vpc() else {
            return Ok(Some(placement.clone()));
        };
        let wanted = Wanted {
            peers: None,
            attachment,
            isolated: false,
            workload: &placement.workload,
            owner: self.key,
            owner_arn: &notebook.arn,
            instance: &notebook.name,
        };
        let actor = self.actor(notebook);
        let placed = self.deps.attach(&actor, &wanted, placement, &mut |plan| {
            let stored = self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
                let own = notebook.run.placement.as_mut();
                let own = own.filter(|own| own.workload == placement.workload);
                let Some(own) = own.filter(|own| matches!(own.attachment, Attachment::Unattached { .. })) else {
                    return Ok(None);
                };
                let Some((place, batch)) = plan(batch)? else {
                    return Ok(None);
                };
                own.attachment = Attachment::Vpc(place);
                Ok(Some(batch))
            })?;
            let own = stored.and_then(|stored| stored.record.run.placement);
            Ok(own.filter(|own| own.workload == placement.workload && own.vpc().is_some()))
        });
        placed.map_err(|error| match error {
            AttachError::Step(error) => Trouble::Retry(error),
            AttachError::Refused(text) => Trouble::Broken(text),
            AttachError::Host(error) => {
                log_not_started(&notebook.arn, &driver::chain(&error));
                Trouble::Broken(NOT_STARTED.into())
            }
        })
    }

    fn note_launch(&self, workload: &WorkloadId) -> Result<(), StepError> {
        self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            let run = &mut notebook.run;
            let own = run.placement.as_ref().is_some_and(|own| own.workload == *workload);
            if !own || run.launched.is_some() {
                return Ok(None);
            }
            run.launched = Some(self.deps.now());
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// A container that runs: its scripts first, then its server.
    fn running(
        &self,
        notebook: &NotebookInstance,
        placement: &Placement,
        memory: &mut NotebookMemory,
        started: Timestamp,
    ) -> Result<Next, Trouble> {
        let (settings, now) = (&self.deps.settings, self.deps.now());
        let mut again = self.read_output(notebook, placement, memory)?;
        if notebook.status == NotebookStatus::InService {
            return Ok(Next::At(again));
        }
        let Some(since) = self.scripts(notebook, placement, memory, Some(started))? else {
            return Ok(Next::At(again.min(now.after(settings.startup_ping_interval))));
        };
        let due = memory.last_ping.map(|last| last.after(settings.startup_ping_interval));
        if due.is_none_or(|due| now >= due) {
            let port = self.program()?.port;
            if ping::answers(&*self.deps.dial, &placement.workload, port, settings.ping_timeout) {
                self.ready()?;
                return Ok(Next::At(self.deps.now()));
            }
            memory.last_ping = Some(self.deps.now());
        }
        let deadline = since.after(settings.startup_deadline);
        if self.deps.now() >= deadline {
            return Err(Trouble::Broken(
                "The notebook server did not answer in time. Please check CloudWatch logs for this notebook instance."
                    .into(),
            ));
        }
        again = again.min(self.deps.now().after(settings.startup_ping_interval));
        Ok(Next::At(again.min(deadline)))
    }

    /// It answers: also its first start is done.
    fn ready(&self) -> Result<(), StepError> {
        self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            if notebook.status.on(NotebookEvent::Ready).is_err() {
                return Ok(None);
            }
            notebook.apply(NotebookEvent::Ready, self.deps.now())?;
            notebook.run.created = true;
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// Looks how far the scripts are: since when the server may run, or `None` while one of them does. Without `started` the
    /// container has ended, and only one that failed is looked for.
    fn scripts(
        &self,
        notebook: &NotebookInstance,
        placement: &Placement,
        memory: &mut NotebookMemory,
        started: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, Trouble> {
        let (deps, workload) = (self.deps, &placement.workload);
        let mut since = started.unwrap_or_else(|| deps.now());
        for hook in Hook::ALL {
            // What this start runs was settled when it began.
            if !deps.work.of(workload).join(SCRIPTS).join(hook.file()).exists() {
                continue;
            }
            if let Some((_, at)) = memory.ended.iter().find(|(ended, _)| *ended == hook) {
                since = *at;
                continue;
            }
            let Some(code) = self.exit_code(workload, hook)? else {
                let limit = since.after(deps.settings.lifecycle_limit);
                if started.is_some() && deps.now() >= limit {
                    self.say(notebook, workload, hook);
                    let minutes = deps.settings.lifecycle_limit.as_secs().div_ceil(60);
                    return Err(Trouble::Broken(self.blame(
                        notebook,
                        &format!("took longer than {minutes} minutes in its {} script", hook.stream()),
                    )));
                }
                return Ok(None);
            };
            self.say(notebook, workload, hook);
            if code != 0 {
                return Err(Trouble::Broken(self.blame(
                    notebook,
                    &format!("failed: its {} script ended with exit code {code}", hook.stream()),
                )));
            }
            if hook == Hook::OnCreate {
                deps.update::<NotebookInstance>(self.key, |notebook, batch| {
                    let changed = !std::mem::replace(&mut notebook.run.created, true);
                    Ok(changed.then_some(batch))
                })?;
            }
            since = deps.now();
            memory.ended.push((hook, since));
        }
        Ok(Some(since))
    }

    fn blame(&self, notebook: &NotebookInstance, what: &str) -> String {
        let config = notebook.spec.lifecycle_config.as_deref().unwrap_or_default();
        format!(
            "Notebook Instance Lifecycle Config '{}' for Notebook Instance '{}' {what}. Please check your CloudWatch logs \
             for more details.",
            NotebookLifecycleConfig::arn(&self.key.scope, config),
            notebook.arn
        )
    }

    /// How a script ended, if it has.
    fn exit_code(&self, workload: &WorkloadId, hook: Hook) -> Result<Option<i32>, StepError> {
        let file = format!("{}.done", hook.file());
        let bytes = match self.deps.archives.read_file(workload, PROGRESS, &file, 16) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(ExecutorError::Unknown) => Vec::new(),
            Err(error) => return Err(StepError::Executor(error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        // Without its newline it is not written yet. What is no number is a script's own doing, and no success.
        let line = text.strip_suffix('\n');
        Ok(line.map(|line| line.trim().parse().unwrap_or(i32::MAX)))
    }

    /// Writes what a script said to its stream, once.
    fn say(&self, notebook: &NotebookInstance, workload: &WorkloadId, hook: Hook) {
        let file = format!("{}.log", hook.file());
        let bytes = match self.deps.archives.read_file(workload, PROGRESS, &file, SCRIPT_OUTPUT) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(notebook = %notebook.arn, %error, "a lifecycle script's output cannot be read");
                return;
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let time = self.deps.now();
        let lines: Vec<LogLine> = text
            .lines()
            .map(|line| LogLine {
                time,
                text: line.to_owned(),
            })
            .collect();
        let (actor, source) = (self.actor(notebook), logs::hook_source(workload, hook));
        let stream = format!("{}/{}", notebook.name, hook.stream());
        let append = |from: u64, lines: &[LogLine]| {
            let piece = LogPiece {
                source: &source,
                from,
                next: from.saturating_add(u64::try_from(lines.len()).unwrap_or(0)),
                lines,
            };
            self.deps.transfer.append_log(&actor, LOG_GROUP, &stream, &piece)
        };
        // After a restart of the engine the stream has them already.
        let said = append(0, &[]).and_then(|have| if have == 0 { append(0, &lines) } else { Ok(have) });
        if let Err(error) = said {
            tracing::warn!(notebook = %notebook.arn, %error, "log lines cannot be written");
        }
    }

    /// Reads what the container wrote; says when to look again.
    fn read_output(
        &self,
        notebook: &NotebookInstance,
        placement: &Placement,
        memory: &mut NotebookMemory,
    ) -> Result<Timestamp, StepError> {
        let now = self.deps.now();
        if memory.logs.is_fresh(self.deps) {
            return Ok(now.after(self.deps.settings.log_interval));
        }
        Ok(match self.pump(notebook, placement, memory)? {
            Drained::More => now,
            Drained::Idle | Drained::Complete => now.after(Duration::from_secs(1)),
        })
    }

    fn pump(
        &self,
        notebook: &NotebookInstance,
        placement: &Placement,
        memory: &mut NotebookMemory,
    ) -> Result<Drained, StepError> {
        let (actor, stream) = (self.actor(notebook), format!("{}/jupyter.log", notebook.name));
        let sink = Sink {
            job: None,
            actor: &actor,
            group: LOG_GROUP,
            stream: &stream,
        };
        logs::pump(self.deps, &sink, &placement.workload, &mut memory.logs, None)
    }

    /// Ends a container: SIGTERM, grace, SIGKILL, last lines, gone. `None` once it is.
    fn end(
        &self,
        notebook: &NotebookInstance,
        placement: &Placement,
        memory: &mut NotebookMemory,
        grace: Duration,
    ) -> Result<Option<Timestamp>, StepError> {
        let (deps, workload, now) = (self.deps, &placement.workload, self.deps.now());
        let memory = memory.about(workload);
        if let Some(WorkloadState::Running { .. }) = deps.state_of(workload)? {
            let first = memory.terminated.is_none();
            let since = *memory.terminated.get_or_insert(now);
            let kill = now.since(since) >= grace;
            if first || kill {
                match deps.executor.terminate(workload, kill) {
                    Ok(()) | Err(ExecutorError::Unknown) => {}
                    Err(error) => return Err(StepError::Executor(error)),
                }
            }
            self.read_output(notebook, placement, memory)?;
            return Ok(Some(now.after(END_POLL)));
        }
        let seen = *memory.ended_seen.get_or_insert(now);
        if self.pump(notebook, placement, memory)? != Drained::Complete && now.since(seen) < LAST_LINES {
            return Ok(Some(now.after(END_POLL)));
        }
        deps.remove(placement, &self.actor(notebook))?;
        Ok(None)
    }

    fn stop(&self, notebook: &NotebookInstance, memory: &mut NotebookMemory) -> Result<Next, StepError> {
        if let Some(placement) = &notebook.run.placement {
            let grace = self.deps.settings.hosting_grace;
            if let Some(again) = self.end(notebook, placement, memory, grace)? {
                return Ok(Next::At(again));
            }
        }
        self.apply(NotebookEvent::StopFinished)?;
        Ok(Next::Done)
    }

    /// Removes a container that failed.
    fn leave(
        &self,
        notebook: &NotebookInstance,
        leaving: &Placement,
        memory: &mut NotebookMemory,
    ) -> Result<Next, StepError> {
        if let Some(again) = self.end(notebook, leaving, memory, Duration::ZERO)? {
            return Ok(Next::At(again));
        }
        self.deps.update::<NotebookInstance>(self.key, |notebook, batch| {
            let own = notebook.run.leaving.as_ref() == Some(leaving);
            notebook.run.leaving.take_if(|_| own);
            Ok(own.then_some(batch))
        })?;
        Ok(Next::At(self.deps.now()))
    }

    /// The volume, then the record.
    fn delete(&self, notebook: &NotebookInstance) -> Result<Next, StepError> {
        if let Some(placement) = &notebook.run.placement {
            self.deps.remove(placement, &self.actor(notebook))?;
        }
        if let Some(volume) = &notebook.run.volume {
            self.deps.remove_container(volume)?;
        }
        let Some(stored) = self.deps.store.get::<NotebookInstance>(self.key)? else {
            return Ok(Next::Done);
        };
        let batch = Batch::default().delete::<NotebookInstance>(self.key, Expect::At(stored.revision));
        match self.deps.store.commit(batch) {
            Ok(_) => Ok(Next::Done),
            // Tags were changed meanwhile.
            Err(StoreError::Conflict { .. }) => Ok(Next::At(self.deps.now())),
            Err(error) => Err(error.into()),
        }
    }
}

fn host_trouble(notebook: &NotebookInstance, error: ExecutorError) -> Trouble {
    match error {
        ExecutorError::Unreachable(_) | ExecutorError::Busy(_) => Trouble::Retry(StepError::Executor(error)),
        ExecutorError::Unstartable(why) => Trouble::Broken(format!("The notebook server could not be started: {why}")),
        ExecutorError::Refused(why) => Trouble::Broken(why),
        ExecutorError::Seal(_) | ExecutorError::Unknown | ExecutorError::Host(_) => {
            log_not_started(&notebook.arn, &error);
            Trouble::Broken(NOT_STARTED.into())
        }
    }
}

fn staged(notebook: &NotebookInstance, error: StageError, what: &str) -> Trouble {
    use crate::collect::FailureText;
    let error = match error.away() {
        Ok(away) => return Trouble::Retry(StepError::Executor(away)),
        Err(error) => error,
    };
    match FailureText::from(error) {
        FailureText::Client(text) => Trouble::Broken(format!("{what}{text}")),
        FailureText::Engine(cause) => {
            tracing::error!(notebook = %notebook.arn, cause = driver::chain(&*cause), "a notebook could not be staged");
            Trouble::Broken(NOT_STARTED.into())
        }
    }
}
