//! The OCI runtime: a program with runc's command line.

use crate::executor::ExecutorError;
use crate::local::OciChoice;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where runtimes are looked for: distributions differ, and the privileged process trusts no PATH.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Starts a container from a bundle and leaves it running. One value per dialect of the common command line.
pub trait OciRuntime {
    /// A command that runs the bundle detached, keeps its state in `state`, writes errors to `log` and the first
    /// process's pid to `pid_file`.
    fn run(&self, call: &RunCall<'_>) -> Command;
}

/// What a run needs.
#[derive(Debug)]
pub struct RunCall<'a> {
    pub bundle: &'a Path,
    pub state: &'a Path,
    pub log: &'a Path,
    pub pid_file: &'a Path,
    pub id: &'a str,
}

/// A runtime found on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciProgram {
    pub path: PathBuf,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dialect {
    /// Wants to be told that no systemd manages its groups.
    Crun,
    /// `runc` and everything that copies its command line: `youki`, `runsc`, `kata-runtime`.
    Runc,
}

impl OciProgram {
    /// Finds the chosen runtime.
    ///
    /// # Errors
    /// `Host` when it is not installed.
    pub fn find(choice: &OciChoice) -> Result<Self, ExecutorError> {
        match choice {
            OciChoice::Path(path) if path.is_file() => Ok(Self::at(path)),
            OciChoice::Path(path) => Err(ExecutorError::Host(format!(
                "the OCI runtime {} is not there",
                path.display()
            ))),
            OciChoice::Auto => ["crun", "runc"]
                .iter()
                .flat_map(|name| FOLDERS.iter().map(move |folder| Path::new(folder).join(name)))
                .find(|path| path.is_file())
                .map(|path| Self::at(&path))
                .ok_or_else(|| {
                    ExecutorError::Host("no OCI runtime is installed; install the package crun (or runc)".into())
                }),
        }
    }

    fn at(path: &Path) -> Self {
        let crun = path.file_name().is_some_and(|name| name == "crun");
        Self {
            path: path.into(),
            dialect: if crun { Dialect::Crun } else { Dialect::Runc },
        }
    }
}

impl OciRuntime for OciProgram {
    fn run(&self, call: &RunCall<'_>) -> Command {
        let mut command = Command::new(&self.path);
        command.env_clear().env("PATH", FOLDERS.join(":"));
        command.arg("--root").arg(call.state).arg("--log").arg(call.log);
        if self.dialect == Dialect::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
            .args(["run", "--detach", "--bundle"])
            .arg(call.bundle)
            .arg("--pid-file")
            .arg(call.pid_file)
            .arg(call.id);
        command
    }
}
