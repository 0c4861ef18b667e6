//! What is written down about a container, so that a restarted node finds it again.

use crate::executor::ExitStatus;
use crate::local::place::{Place, write_whole};
use isolarium_model::{Timestamp, WorkloadId};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// `run/shims/<workload>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub workload: WorkloadId,
    pub owner_arn: String,
    pub outcome: LaunchOutcome,
}

/// How the launch went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum LaunchOutcome {
    Started {
        init: Process,
        started: Timestamp,
        cgroup_id: u64,
    },
    NotStarted {
        reason: String,
    },
}

/// A process of this boot, safe against reuse of its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Start time in clock ticks after boot.
    start: u64,
    boot_id: String,
}

impl Process {
    /// Identifies a process that exists now.
    pub fn identify(pid: i32) -> io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned();
        Ok(Self {
            pid,
            start: start_ticks(pid)?,
            boot_id,
        })
    }

    /// A handle on the process; `None` when it is gone, even if its number lives on.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The handle is held, so the number cannot change hands between the look and the use.
        Ok((Self::identify(self.pid).ok().as_ref() == Some(self)).then_some(handle))
    }
}

/// Field 22 of `/proc/<pid>/stat`; the command name before it may hold anything, so count from its closing bracket.
fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let text = String::from_utf8_lossy(&stat);
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

impl Record {
    pub fn write(&self, place: &Place) -> io::Result<()> {
        write_whole(&place.record(&self.workload), &serde_json::to_vec(self)?, false)
    }

    pub fn read(place: &Place, workload: &WorkloadId) -> io::Result<Option<Self>> {
        read_json(&place.record(workload))
    }
}

/// Writes the exit file so that it survives a power failure.
pub fn write_exit(place: &Place, workload: &WorkloadId, exit: &ExitStatus) -> io::Result<()> {
    write_whole(&place.exit(workload), &serde_json::to_vec(exit)?, true)
}

pub fn read_exit(place: &Place, workload: &WorkloadId) -> io::Result<Option<ExitStatus>> {
    read_json(&place.exit(workload))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-72
    #[test]
    fn a_process_is_recognised_and_a_reused_number_is_not() {
        let own = Process::identify(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.open().unwrap().is_some());
        let other = Process {
            start: own.start + 1,
            ..own.clone()
        };
        assert!(other.open().unwrap().is_none());
        let earlier_boot = Process {
            boot_id: "another".into(),
            ..own
        };
        assert!(earlier_boot.open().unwrap().is_none());
    }
}
