//! The OCI runtime: a program with runc's command line.

use crate::executor::ExecutorError;
use crate::local::{OciChoice, lock};
use crate::sys::proc_path;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

#[cfg(test)]
mod tests;

/// Where runtimes are looked for: distributions differ, and the privileged process trusts no PATH.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Starts a container from a bundle and leaves it running. One value per dialect of the common command line.
pub trait OciRuntime {
    /// A command that runs the bundle detached, keeps its state in `state`, writes errors to `log` and the first
    /// process's pid to `pid_file`. `program` is the runtime's own program as [`SealedProgram`] gave it.
    fn run(&self, call: &RunCall<'_>, program: Option<BorrowedFd<'_>>) -> Command;
    /// A command that lets the program of a container begin that was made `held`.
    fn start(&self, call: &RunCall<'_>, program: Option<BorrowedFd<'_>>) -> Command;
}

/// What a run needs.
#[derive(Debug)]
pub struct RunCall<'a> {
    pub bundle: &'a Path,
    pub state: &'a Path,
    pub log: &'a Path,
    pub pid_file: &'a Path,
    pub id: &'a str,
    /// The container is made, its program does not begin before [`OciRuntime::start`].
    pub held: bool,
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

    /// Where the runtime leaves the system call filter it compiled for container `id`, and the annotation by which it
    /// takes one that is compiled already, in base64.
    pub fn compiled_filter(&self, state: &Path, id: &str) -> Option<(PathBuf, &'static str)> {
        (self.dialect == Dialect::Crun).then(|| (state.join(id).join("seccomp.bpf"), "run.oci.seccomp_bpf_data"))
    }

    /// The version of the program that is on disk now.
    pub fn version(&self) -> Option<Identity> {
        fs::metadata(&self.path).ok().as_ref().map(identity)
    }

    fn command(&self, call: &RunCall<'_>, program: Option<BorrowedFd<'_>>) -> Command {
        let mut command = match program {
            Some(program) => Command::new(proc_path(program)),
            None => Command::new(&self.path),
        };
        command.arg0(&self.path);
        command.env_clear().env("PATH", FOLDERS.join(":"));
        command.arg("--root").arg(call.state).arg("--log").arg(call.log);
        if self.dialect == Dialect::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }

    fn at(path: &Path) -> Self {
        let crun = path.file_name().is_some_and(|name| name == "crun");
        Self {
            path: path.into(),
            dialect: if crun { Dialect::Crun } else { Dialect::Runc },
        }
    }
}

/// The runtime's program as a sealed copy in memory. `crun` runs from such a copy so that no container can change the
/// program that started it; handed one, it needs not make one and load itself a second time.
#[derive(Debug, Default)]
pub struct SealedProgram(Mutex<Option<(Identity, Arc<OwnedFd>)>>);

/// What tells one version of a file from the next: device, inode, length, and when content or attributes last changed.
pub type Identity = (u64, u64, u64, i64, i64);

fn identity(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec())
}

impl SealedProgram {
    /// A copy of the program as it is on disk now; `None` where the runtime has no use for one or none can be made, which
    /// only takes longer.
    pub fn current(&self, oci: &OciProgram) -> Option<Arc<OwnedFd>> {
        if oci.dialect != Dialect::Crun {
            return None;
        }
        let mut kept = lock(&self.0);
        let made = (|| {
            let mut file = fs::File::open(&oci.path)?;
            let found = identity(&file.metadata()?);
            if let Some((known, copy)) = kept.as_ref()
                && *known == found
            {
                return Ok(Arc::clone(copy));
            }
            let copy = Arc::new(sealed_copy(&mut file)?);
            if identity(&file.metadata()?) != found {
                return Err(io::Error::other("it changes while it is copied"));
            }
            *kept = Some((found, Arc::clone(&copy)));
            Ok(copy)
        })();
        made.map_err(|error: io::Error| {
            tracing::debug!(%error, program = %oci.path.display(), "no sealed copy of the runtime; it makes its own");
        })
        .ok()
    }
}

fn sealed_copy(file: &mut fs::File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create("crun", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag; every such file is executable there.
        Err(rustix::io::Errno::INVAL) => memfd_create("crun", flags)?,
        other => other?,
    };
    let mut memory = fs::File::from(memory);
    // A script of this name would be opened a second time by its interpreter, when the descriptor is gone.
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if magic != *b"\x7fELF" {
        return Err(io::Error::other("it is no ELF program"));
    }
    memory.write_all(&magic)?;
    io::copy(file, &mut memory)?;
    // The program must never run in a form that somebody could write to: opened for reading alone, and sealed.
    fcntl_add_seals(
        &memory,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(fs::File::open(proc_path(&memory))?.into())
}

impl OciRuntime for OciProgram {
    fn run(&self, call: &RunCall<'_>, program: Option<BorrowedFd<'_>>) -> Command {
        let mut command = self.command(call, program);
        if call.held {
            command.arg("create");
        } else {
            command.args(["run", "--detach"]);
        }
        command
            .arg("--bundle")
            .arg(call.bundle)
            .arg("--pid-file")
            .arg(call.pid_file)
            .arg(call.id);
        command
    }

    fn start(&self, call: &RunCall<'_>, program: Option<BorrowedFd<'_>>) -> Command {
        let mut command = self.command(call, program);
        command.arg("start").arg(call.id);
        command
    }
}
