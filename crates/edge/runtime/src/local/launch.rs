//! Starting one container.

use super::spare::Idle;
use super::{LocalRuntime, lock, slots};
use crate::executor::{ExecutorError, LaunchSpec};
use crate::local::devices;
use crate::local::place::{absent_is_fine, host};
use crate::local::record::{LaunchOutcome, Record, read_exit};
use crate::shim::{Job, Reply};
use crate::sys::{self, channel};
use crate::tunnel;
use isolarium_dataplane::{SealedNetns, TunnelEnds};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

#[cfg(test)]
mod tests;

/// Puts the report's programs on the container's cgroup v2 directory, given with the group's id.
pub type Attach<'a> = dyn FnMut(BorrowedFd<'_>, u64) -> io::Result<()> + 'a;

impl LocalRuntime {
    /// As [`crate::Executor::launch`], in a namespace that is sealed already: without one nothing can be started.
    /// `attach` is called before any process is in the group; when it fails nothing is started (NET-73).
    ///
    /// Takes some ten milliseconds. The namespace lives on in the container's processes alone.
    ///
    /// # Errors
    /// `Seal` when `attach` failed, `Unstartable` when image or process spec cannot run, `Host` for the machine.
    pub fn launch(&self, spec: &LaunchSpec, netns: SealedNetns, attach: &mut Attach<'_>) -> Result<(), ExecutorError> {
        match (&spec.tunnel, netns.tunnel()) {
            (None, _) | (Some(_), Some(_)) => self.launch_in(spec, netns.as_fd(), netns.tunnel(), attach),
            (Some(_), None) => Err(ExecutorError::Seal("the namespace has no tunnel".into())),
        }
    }

    pub(super) fn launch_in(
        &self,
        spec: &LaunchSpec,
        netns: BorrowedFd<'_>,
        ends: Option<&TunnelEnds>,
        attach: &mut Attach<'_>,
    ) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(spec.workload.as_str());
        self.reap();
        let lock_path = self.place.lock(&spec.workload);
        let options = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .clone();
        let lock = options
            .open(&lock_path)
            .map_err(host(format!("cannot open {}", lock_path.display())))?;
        while !sys::try_lock(lock.as_fd()).map_err(host("locking the workload"))? {
            self.launch_settled(&spec.workload)
                .map_err(host("waiting for an earlier launch"))?;
            if self
                .shim_lives(&spec.workload)
                .map_err(host("looking at the workload's lock"))?
            {
                return Ok(());
            }
        }
        if self.has_run(spec)? {
            return Ok(());
        }
        self.make_work(&spec.workload)?;
        let outcome = self.start(spec, lock.into(), (netns, ends), attach);
        if let Err(error) = &outcome {
            self.undo(spec, error);
        }
        outcome
    }

    /// Whether the workload ran before; what a killed shim left is ended first.
    fn has_run(&self, spec: &LaunchSpec) -> Result<bool, ExecutorError> {
        let reading = || host(format!("reading the state of {}", spec.workload));
        if read_exit(&self.place, &spec.workload).map_err(reading())?.is_some() {
            return Ok(true);
        }
        let record = Record::read(&self.place, &spec.workload).map_err(reading())?;
        let started = matches!(
            record,
            Some(Record {
                outcome: LaunchOutcome::Started { .. },
                ..
            })
        );
        if !started {
            // What is noted of a launch is its own outcome: a failed one's would be taken for this one's.
            absent_is_fine(fs::remove_file(self.place.record(&spec.workload))).map_err(reading())?;
        }
        self.settle(&spec.workload)
            .map_err(host(format!("ending what is left of {}", spec.workload)))?;
        Ok(started)
    }

    fn start(
        &self,
        spec: &LaunchSpec,
        lock_file: OwnedFd,
        (netns, ends): (BorrowedFd<'_>, Option<&TunnelEnds>),
        attach: &mut Attach<'_>,
    ) -> Result<(), ExecutorError> {
        let (group, cgroup_id) = self
            .cgroups
            .make(&spec.workload)
            .map_err(host("making the workload's control group"))?;
        attach(group.as_fd(), cgroup_id)
            .map_err(|error| ExecutorError::Seal(format!("the report's programs could not be attached: {error}")))?;
        let slot = slots::take(&self.place.slots(), &spec.workload)
            .map_err(host("no range of ids is free for another container on this machine"))?;
        let version = self.oci.version();
        let kind = &self.config.accelerators;
        let of_kind = |name: &String| {
            name.strip_prefix(kind.as_str())
                .is_some_and(|rest| rest.starts_with('='))
        };
        if let Some(other) = spec.devices.iter().find(|name| !of_kind(name)) {
            // Other kinds may bind what they like, or run programs as root: whoever asks is not believed about that.
            return Err(ExecutorError::Refused(format!(
                "{other} is not a device of the kind {kind}"
            )));
        }
        let given = match spec.devices.is_empty() {
            true => Ok(Vec::new()),
            // Read anew: a driver may have been changed since.
            false => devices::read(&self.config.cdi_folders).edits(&spec.devices),
        };
        let job = Job {
            devices: given.map_err(|error| ExecutorError::Host(error.to_string()))?,
            spec: spec.clone(),
            data_dir: self.config.data_dir.clone(),
            service_uid: self.config.service_uid,
            service_gid: self.config.service_gid,
            walls: self.config.walls,
            oci: self.oci.clone(),
            cgroups: self.cgroups.layout.clone(),
            cgroup_id,
            slot,
            filter: lock(&self.filter)
                .as_ref()
                .filter(|(compiled_by, _)| Some(compiled_by) == version.as_ref())
                .map(|(_, filter)| filter.clone()),
        };
        let program = self.program.current(&self.oci);
        let mut descriptors = vec![lock_file.as_fd(), netns, group.as_fd()];
        let keys = match ends.filter(|_| spec.tunnel.is_some()) {
            None => None,
            Some(_) => Some(tunnel::open_keys(&self.place).map_err(host("opening the folder of public keys"))?),
        };
        if let (Some(ends), Some(keys)) = (ends, &keys) {
            descriptors.extend([ends.plain.as_fd(), ends.wire.as_fd(), keys.as_fd()]);
        }
        descriptors.extend(program.as_deref().map(AsFd::as_fd));
        let (control, shim) = self
            .give(&job, &descriptors)
            .map_err(host(format!("starting {}", self.config.self_exe.display())))?;
        drop(lock_file);
        let answer = control
            .set_read_timeout(Some(self.patience))
            .and_then(|()| channel::receive(&control));
        match answer {
            Ok((Reply::Started { filter }, _)) => {
                if let Some(known) = version.zip(filter) {
                    *lock(&self.filter) = Some(known);
                }
                self.spare.refill(&self.config.self_exe);
                Ok(())
            }
            Ok((Reply::Unstartable { reason }, _)) => Err(ExecutorError::Unstartable(reason)),
            Ok((Reply::Host { reason }, _)) => Err(ExecutorError::Host(reason)),
            Err(error) => {
                // One that was only stopped would start the container when nobody expects it any more.
                self.end_shim(shim);
                Err(ExecutorError::Host(format!(
                    "the container's shim did not answer: {error}"
                )))
            }
        }
    }

    /// Gives the job to the shim that waits, or to a new one; returns the socket on which it answers, and its pid.
    fn give(&self, job: &Job, descriptors: &[BorrowedFd<'_>]) -> io::Result<(UnixStream, u32)> {
        let give = |mut idle: Idle| {
            let given = idle
                .control
                .set_write_timeout(Some(self.patience))
                .and_then(|()| channel::send(&idle.control, job, descriptors));
            if given.is_err() {
                // What it got of the job includes the lock.
                let _gone_already = idle.child.kill();
            }
            let shim = idle.child.id();
            lock(&self.children).push(idle.child);
            given.map(|()| (idle.control, shim))
        };
        // Somebody may have killed the one that waited: a job that could not be given started nothing.
        if let Some(given) = self.spare.take().and_then(|idle| give(idle).ok()) {
            return Ok(given);
        }
        give(Idle::start(&self.config.self_exe)?)
    }

    /// Kills a shim of this process that has not been reaped.
    fn end_shim(&self, pid: u32) {
        if let Some(shim) = lock(&self.children).iter_mut().find(|shim| shim.id() == pid) {
            let _gone_already = shim.kill();
        }
    }

    /// Leaves nothing of a failed launch but a record of why.
    fn undo(&self, spec: &LaunchSpec, error: &ExecutorError) {
        let outcome = LaunchOutcome::NotStarted {
            reason: error.to_string(),
        };
        let record = Record {
            workload: spec.workload.clone(),
            owner_arn: spec.owner_arn.clone(),
            outcome,
        };
        // A shim that still ends would make the next try believe that the container runs.
        let undone = self
            .wait_for_shim(&spec.workload)
            .and_then(|()| record.write(&self.place))
            .and_then(|()| self.settle(&spec.workload));
        if let Err(error) = undone {
            tracing::warn!(workload = %spec.workload, %error, "cleaning up after a failed launch; remove tries again");
        }
    }
}
