//! `node`'s side of the archive process: starts it, maps its ids, takes its answer.

use super::LocalRuntime;
use super::place::{DISK_IDS, Place, RANGE, host};
use super::remove::remove_tree;
use super::volume;
use crate::archive::{Limits, Mapped, Message, Task};
use crate::executor::{ExecutorError, PackFormat, Packed};
use crate::shim::scratch;
use crate::sys::{self, channel, open_beneath};
use isolarium_model::{Sha256Digest, WorkloadId};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, mkdirat, openat, renameat_with, syncfs,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Bounds on a layer, a model or what a container leaves: far above real ones. What is free on the disk bounds it
/// further, see [`bounds`].
const MOST: Limits = Limits {
    bytes: 1 << 40,
    entries: 4_000_000,
};

/// What one archive may make of the disk behind `place`: nine tenths of what is free. A few compressed bytes, or a hole
/// in a file, stand for as many as their author likes; the records of everybody else are on the same disk.
fn bounds(place: &Place) -> Result<Limits, ExecutorError> {
    let disk = rustix::fs::statvfs(place.layers()).map_err(host("looking how full the disk is"))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok(Limits {
        bytes: MOST.bytes.min(free / 10 * 9),
        ..MOST
    })
}

/// Layers being unpacked are named so.
const UNFINISHED: &str = ".unfinished-";

impl LocalRuntime {
    /// See [`crate::Archives::unpack_layer`]. A layer appears whole or not at all, also across a power failure. One that
    /// is there already is only for who has its bytes: an image can name any digest, another account's included.
    ///
    /// # Errors
    /// `Refused` when the archive breaks a rule or its digest is another, `Host` for the machine.
    pub fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(diff_id.as_str());
        let finished = self.place.layer(diff_id);
        let unpacking = || format!("cannot unpack layer {diff_id}; is the disk full?");
        if finished.is_dir() {
            let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let finished = rustix::fs::open(&finished, folder, Mode::empty()).map_err(host(unpacking()))?;
            let task = Task::Check {
                diff_id: diff_id.hex().into(),
                limits: MOST,
            };
            return match self.archive(&task, blob.as_fd(), finished.as_fd(), None)? {
                Message::Unpacked { .. } => Ok(()),
                other => Err(unexpected(other)),
            };
        }
        let unfinished = self.place.layers().join(format!("{UNFINISHED}{}", diff_id.hex()));
        remove_tree(&unfinished).map_err(host(unpacking()))?;
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layers = rustix::fs::open(self.place.layers(), folder, Mode::empty()).map_err(host(unpacking()))?;
        let name = format!("{UNFINISHED}{}", diff_id.hex());
        mkdirat(&layers, &name, Mode::from(0o755)).map_err(host(unpacking()))?;
        chownat(
            &layers,
            &name,
            Some(Uid::from_raw(DISK_IDS)),
            Some(Gid::from_raw(DISK_IDS)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(host(unpacking()))?;
        let target = openat(&layers, &name, folder, Mode::empty()).map_err(host(unpacking()))?;
        let task = Task::Layer {
            diff_id: diff_id.hex().into(),
            limits: bounds(&self.place)?,
        };
        let unpacked = self
            .archive(&task, blob.as_fd(), target.as_fd(), None)
            .and_then(|message| match message {
                Message::Unpacked { opaque } => {
                    make_opaque(&target, &opaque).map_err(host(unpacking()))?;
                    syncfs(&target).map_err(host(unpacking()))?;
                    renameat_with(
                        &layers,
                        &name,
                        &layers,
                        diff_id.hex(),
                        rustix::fs::RenameFlags::NOREPLACE,
                    )
                    .map_err(host(unpacking()))?;
                    rustix::fs::fsync(&layers).map_err(host(unpacking()))
                }
                other => Err(unexpected(other)),
            });
        if unpacked.is_err() {
            // What stays is removed by the next try or the next start.
            let _left = remove_tree(&unfinished);
        }
        unpacked
    }

    /// See [`crate::Archives::unpack_archive`]. The directory is made if need be; on an error it may hold a part.
    ///
    /// # Errors
    /// `Unknown` when the workload is not prepared, `Refused` when the archive breaks a rule or takes longer than `limit`.
    pub fn unpack_archive(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        let target = self.scratch(workload, scratch, true)?.ok_or(ExecutorError::Unknown)?;
        match self.archive(
            &Task::Archive {
                limits: bounds(&self.place)?,
            },
            archive.as_fd(),
            target.as_fd(),
            limit,
        )? {
            Message::Unpacked { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// See [`crate::Archives::unpack_model`]. `scratch` and `folder` are plain names.
    ///
    /// # Errors
    /// As [`Self::unpack_archive`].
    pub fn unpack_model(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        self.remove_model(workload, scratch, folder)?;
        let top = self.scratch(workload, scratch, true)?.ok_or(ExecutorError::Unknown)?;
        let making = || format!("making a folder for a model of {workload}");
        let outer = make_owned(&top, folder).map_err(host(making()))?;
        let target = make_owned(&outer, MODEL_IN_FOLDER).map_err(host(making()))?;
        let task = Task::Archive {
            limits: bounds(&self.place)?,
        };
        let unpacked = match self.archive(&task, archive.as_fd(), target.as_fd(), limit) {
            Ok(Message::Unpacked { .. }) => return Ok(()),
            Ok(other) => Err(unexpected(other)),
            Err(error) => Err(error),
        };
        // What stays is removed with the next try or with the workload.
        let _left = self.remove_model(workload, scratch, folder);
        unpacked
    }

    /// See [`crate::Archives::remove_model`].
    ///
    /// # Errors
    /// `Host` when the disk refuses.
    pub fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError> {
        let path = self.place.scratches(workload).join(scratch).join(folder);
        remove_tree(&path).map_err(host(format!("removing a model of {workload}")))
    }

    /// See [`crate::Archives::pack`]. A scratch directory that was never made packs as an empty one.
    ///
    /// # Errors
    /// `Unknown` when the workload is not prepared, `Refused` when the directory is beyond the limits.
    pub fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError> {
        let source = self.scratch(workload, scratch, true)?.ok_or(ExecutorError::Unknown)?;
        self.flush(workload, &source)?;
        match self.archive(
            &Task::Pack {
                format,
                limits: bounds(&self.place)?,
            },
            out.as_fd(),
            source.as_fd(),
            None,
        )? {
            Message::Packed { packed } => Ok(packed),
            other => Err(unexpected(other)),
        }
    }

    /// See [`crate::Archives::read_file`]. Links are not followed; anything but a regular file counts as absent.
    ///
    /// # Errors
    /// `Host` when the disk cannot be read.
    pub fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        let reading = || format!("reading {path:?} of {workload}");
        let Some(folder) = self.scratch(workload, scratch, false)? else {
            return Ok(None);
        };
        // By path alone first: opening a device or a pipe of the container's making could do things.
        let found = match open_beneath(&folder, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(found) => found,
            Err(
                rustix::io::Errno::NOENT
                | rustix::io::Errno::LOOP
                | rustix::io::Errno::NOTDIR
                | rustix::io::Errno::XDEV,
            ) => return Ok(None),
            Err(error) => return Err(host(reading())(error)),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&found).map_err(host(reading()))?.st_mode) != FileType::RegularFile
        {
            return Ok(None);
        }
        let file = fs::File::open(sys::proc_path(&found)).map_err(host(reading()))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(max).unwrap_or(u64::MAX))
            .read_to_end(&mut bytes)
            .map_err(host(reading()))?;
        Ok(Some(bytes))
    }

    /// What a container left on its encrypted volume, on the disk. Where the disk that holds the volume was full, a write that nobody
    /// waited for is lost without a word to its writer: the archive would hold a hole in its place.
    fn flush(&self, workload: &WorkloadId, source: &OwnedFd) -> Result<(), ExecutorError> {
        if !self.place.image(workload).exists() {
            return Ok(());
        }
        rustix::fs::openat(
            source,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(rustix::fs::syncfs)
        .map_err(io::Error::from)
        .map_err(host(format!(
            "writing the encrypted volume of {workload} to the disk; is that full?"
        )))
    }

    fn scratch(&self, workload: &WorkloadId, name: &str, make: bool) -> Result<Option<OwnedFd>, ExecutorError> {
        let opened = if make {
            scratch(&self.place, workload, name)
        } else {
            rustix::fs::open(
                self.place.scratches(workload),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .and_then(|parent| open_beneath(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()))
            .map_err(io::Error::from)
        };
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.lacks_key(workload) => Ok(None),
            Err(error) if self.lacks_key(workload) => Err(volume::closed(workload, &error)),
            Err(error) => Err(host(format!("opening scratch directory {name:?} of {workload}"))(error)),
        }
    }

    /// Whether the workload's files are on a volume that nobody can open any more. They are not gone for that.
    fn lacks_key(&self, workload: &WorkloadId) -> bool {
        matches!(self.open_volume(workload), Err(ExecutorError::Host(_)))
    }

    /// Runs one task in a process of its own, which is ended when it takes longer than `limit` or the configured time.
    fn archive(
        &self,
        task: &Task,
        archive: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        limit: Option<Duration>,
    ) -> Result<Message, ExecutorError> {
        let limit = limit.map_or(self.config.archive_timeout, |limit| {
            limit.min(self.config.archive_timeout)
        });
        let (ours, theirs) = UnixStream::pair().map_err(host("making a socket"))?;
        let child = Command::new(&self.config.self_exe)
            .arg("unpack")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(host(format!("starting {}", self.config.self_exe.display())))?;
        let mut process = ArchiveProcess(child);
        let talk = || -> io::Result<Message> {
            channel::send(&ours, task, &[archive, directory])?;
            match channel::receive(&ours)?.0 {
                Message::Unshared => {}
                other => return Ok(other),
            }
            // Not reaped before `process` is dropped: the number is the child's.
            let pid = process.id();
            let map = format!("0 {DISK_IDS} {RANGE}");
            fs::write(format!("/proc/{pid}/uid_map"), &map)?;
            fs::write(format!("/proc/{pid}/gid_map"), &map)?;
            channel::send(&ours, &Mapped, &[])?;
            Ok(channel::receive(&ours)?.0)
        };
        let (answer, late) = within(limit, process.id(), talk).map_err(host("limiting an archive process"))?;
        process.end();
        match answer {
            Err(_) if late => {
                let seconds = limit.as_secs_f64();
                Err(ExecutorError::Refused(format!("it took longer than {seconds} seconds")))
            }
            Ok(Message::Refused { reason }) => Err(ExecutorError::Refused(reason)),
            Ok(Message::Failed { reason }) => Err(ExecutorError::Host(format!(
                "the archive process failed: {reason}; is the disk full?"
            ))),
            Ok(message) => Ok(message),
            Err(error) => Err(ExecutorError::Host(format!(
                "the archive process did not answer: {error}"
            ))),
        }
    }
}

/// Where the files of a model lie within its folder: the container is told `/opt/ml/models/<folder>/model`.
const MODEL_IN_FOLDER: &str = "model";

/// A fresh directory whose owner is what containers see as root. Nobody but this process writes to its parent.
fn make_owned(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from(0o700))?;
    let made = open_beneath(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    rustix::fs::fchown(&made, Some(Uid::from_raw(DISK_IDS)), Some(Gid::from_raw(DISK_IDS)))?;
    rustix::fs::fchmod(&made, Mode::from(0o755))?;
    Ok(made)
}

/// Killed and reaped whatever happens.
struct ArchiveProcess(Child);

/// Talks to the process `pid`, which is killed after `limit` so that the talk ends however it is stuck; says whether
/// that happened. The process must not be waited for by anybody else meanwhile.
fn within<T>(limit: Duration, pid: u32, talk: impl FnOnce() -> T) -> io::Result<(T, bool)> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    thread::scope(|scope| {
        let (over, wait) = mpsc::channel::<()>();
        let guard = thread::Builder::new()
            .name("archive-limit".into())
            .spawn_scoped(scope, move || {
                let late = wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
                if late {
                    let _ended_just_now = pidfd_send_signal(&process, Signal::KILL);
                }
                late
            })?;
        let answer = talk();
        drop(over);
        Ok((answer, guard.join().unwrap_or(false)))
    })
}

impl ArchiveProcess {
    fn id(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for ArchiveProcess {
    fn drop(&mut self) {
        self.end();
    }
}

fn unexpected(message: Message) -> ExecutorError {
    ExecutorError::Host(format!("the archive process answered out of turn: {message:?}"))
}

/// Overlayfs's mark for "nothing from below", which only the host's root may set.
fn make_opaque(layer: &OwnedFd, directories: &[Vec<u8>]) -> io::Result<()> {
    for path in directories {
        let directory = if path.is_empty() {
            layer.try_clone()?
        } else {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            open_beneath(layer, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?
        };
        rustix::fs::fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    }
    Ok(())
}

/// Removes what a crash left half-unpacked.
pub(super) fn sweep(place: &Place) -> io::Result<()> {
    for entry in fs::read_dir(place.layers())? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(UNFINISHED))
        {
            // A helper that outlived the last node may still be writing there: the next start finds what it left.
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::warn!(%error, folder = %entry.path().display(), "a half-unpacked layer stays until the next start");
            }
        }
    }
    Ok(())
}
