//! Archives in and out, by a process without any privilege: a user namespace that `node` mapped to ids nobody else
//! uses, an empty network namespace, the target directory as its root directory, a system call allow-list. What it
//! reads was written by strangers.
//!
//! Order: receive the task, unshare, let `node` write the id maps (which needs root outside), become root inside,
//! change root, drop capabilities, filter, only then read the first byte.

mod pack;
mod path;
mod unpack;
mod zstd;

use crate::executor::{PackFormat, Packed};
use crate::sys::{self, channel, filter};
use rustix::process::{chroot, fchdir};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// What to do with the two descriptors that come along: the archive and the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// An image layer, whose uncompressed bytes must have this SHA-256 (64 hexadecimal digits).
    Layer { diff_id: String, limits: Limits },
    /// The same bytes, looked at alone: whether they are the layer that is unpacked already.
    Check { diff_id: String, limits: Limits },
    /// A plain archive, such as a model.
    Archive { limits: Limits },
    /// The directory into the archive.
    Pack { format: PackFormat, limits: Limits },
}

/// Bounds on one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Uncompressed bytes, those of holes included.
    pub bytes: u64,
    pub entries: u64,
}

/// Messages from the process to `node`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// In new namespaces, waiting for the id maps.
    Unshared,
    /// `opaque`: directories that hide what lower layers have there; only `node` may set the attribute for that.
    Unpacked {
        opaque: Vec<Vec<u8>>,
    },
    Packed {
        packed: Packed,
    },
    /// The archive breaks a rule.
    Refused {
        reason: String,
    },
    /// The machine is to blame.
    Failed {
        reason: String,
    },
}

/// `node`'s only message after the task.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mapped;

/// Why an archive was not unpacked or packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for ArchiveError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Refused(reason.into()))
}

/// Entry point of the hidden subcommand `unpack`; standard input is the control socket.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads this process's output; `node` sees the socket close.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let (task, descriptors): (Task, Vec<OwnedFd>) = channel::receive(&control)?;
    let Ok([archive, directory]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let message = match confine(&control, &directory) {
        Ok(()) => perform(&task, archive, &directory),
        Err(error) => Message::Failed {
            reason: format!("giving up privileges: {error}"),
        },
    };
    channel::send(&control, &message, &[])
}

fn confine(control: &UnixStream, directory: &OwnedFd) -> io::Result<()> {
    sys::unshare(
        libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
    )?;
    channel::send(control, &Message::Unshared, &[])?;
    let (Mapped, _) = channel::receive(control)?;
    sys::become_namespace_root()?;
    fchdir(directory)?;
    chroot(".")?;
    // What giving files their owners and modes takes, inside this namespace.
    let keep = CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::FSETID;
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    set_no_new_privs(true)?;
    filter::confine()
}

fn perform(task: &Task, archive: OwnedFd, directory: &OwnedFd) -> Message {
    let done = match task {
        Task::Layer { diff_id, limits } => {
            unpack::layer(archive, directory, diff_id, *limits).map(|opaque| Message::Unpacked { opaque })
        }
        Task::Check { diff_id, limits } => {
            unpack::check(archive, diff_id, *limits).map(|()| Message::Unpacked { opaque: Vec::new() })
        }
        Task::Archive { limits } => {
            unpack::plain(archive, directory, *limits).map(|()| Message::Unpacked { opaque: Vec::new() })
        }
        Task::Pack { format, limits } => {
            pack::pack(directory, archive, *format, *limits).map(|packed| Message::Packed { packed })
        }
    };
    done.unwrap_or_else(|error| match error {
        ArchiveError::Refused(reason) => Message::Refused { reason },
        ArchiveError::Io(error) => match error.kind() {
            // What the decoders say about bytes that are not what they claim to be.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => Message::Refused {
                reason: error.to_string(),
            },
            _ => Message::Failed {
                reason: error.to_string(),
            },
        },
    })
}
