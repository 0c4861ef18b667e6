//! Containers on this machine. Used by the privileged `node` process alone.

mod archives;
pub(crate) mod bundle;
pub(crate) mod cgroup;
pub mod devices;
mod doctor;
mod launch;
pub(crate) mod mounts;
pub(crate) mod oci;
pub(crate) mod place;
pub(crate) mod record;
mod remove;
pub(crate) mod seccomp;
pub(crate) mod slots;
mod spare;
pub(crate) mod user;
pub(crate) mod volume;

pub use doctor::{CheckOutcome, HostCheck, probe_host};
pub use place::{DISK_IDS, FIRST_WORKLOAD_ID, RANGE, make_folder};
pub use volume::leave_volumes;

use crate::executor::{ExecutorError, ExitStatus, LogChunk, Observed, WorkloadState};
use crate::log;
use crate::{sys, tunnel};
use cgroup::Cgroups;
use isolarium_model::{Timestamp, WorkloadId};
use oci::{Identity, OciProgram, SealedProgram};
use place::{Place, absent_is_fine, host, unfinished};
use record::{LaunchOutcome, Process, Record, read_exit, write_exit};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::process::{Signal, pidfd_send_signal};
use spare::Spare;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long killed processes and their shim may take to go.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Longest a shim may take to build and start a container.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(120);

/// Which OCI runtime starts containers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum OciChoice {
    /// `crun` where it is installed, else `runc`.
    #[default]
    Auto,
    /// The program at this path, called with runc's command line.
    Path(PathBuf),
}

/// The walls around a container's process. The product always uses [`Walls::default`], all of them; a test takes one
/// away to prove that it, and not chance, closed an attempt. Not part of [`crate::executor::LaunchSpec`]: no request
/// can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Walls {
    /// The system call allow-list.
    pub seccomp: bool,
    /// An unprivileged range of ids of its own.
    pub user_namespace: bool,
    /// Capabilities reduced to the few that touch only the container's own files and processes.
    pub capabilities: bool,
    /// Masked and read-only paths below `/proc`.
    pub masked_paths: bool,
    /// Shared memory, semaphores and message queues of its own.
    pub ipc_namespace: bool,
    /// Process ids of its own.
    pub pid_namespace: bool,
}

impl Default for Walls {
    fn default() -> Self {
        Self {
            seccomp: true,
            user_namespace: true,
            capabilities: true,
            masked_paths: true,
            ipc_namespace: true,
            pid_namespace: true,
        }
    }
}

/// How to run containers.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The engine's data directory, absolute.
    pub data_dir: PathBuf,
    /// Owner of staged inputs; appears as root inside containers.
    pub service_uid: u32,
    pub service_gid: u32,
    pub oci: OciChoice,
    /// Program that calls [`crate::shim_main`] for `shim` and [`crate::unpack_main`] for `unpack` as first argument.
    pub self_exe: PathBuf,
    /// Longest one layer, model or output archive may take to be read or written: whoever makes an archive also decides
    /// how long reading it takes.
    pub archive_timeout: Duration,
    /// Folders with CDI files, the later ones winning; they and what is in them must be root's.
    pub cdi_folders: Vec<PathBuf>,
    /// The only kind of devices of those files that containers may be given.
    pub accelerators: String,
    pub walls: Walls,
}

/// Runs containers on this machine. All state is on disk and in the kernel: dropping the value ends nothing, and a new
/// one finds everything again. Blocking; share it by `Arc`.
#[derive(Debug)]
pub struct LocalRuntime {
    config: LocalConfig,
    place: Place,
    oci: OciProgram,
    program: SealedProgram,
    /// The compiled system call filter, once a container was started with it, and the program that compiled it: the next
    /// version's may know more system calls, or compile them better.
    filter: Mutex<Option<(Identity, String)>>,
    /// [`LAUNCH_PATIENCE`].
    patience: Duration,
    spare: Spare,
    cgroups: Cgroups,
    watch: OwnedFd,
    /// Shims of this process, to be reaped when they end.
    children: Mutex<Vec<Child>>,
    busy: Busy,
}

/// Names on which one call at a time may work: workloads being launched, layers being unpacked.
#[derive(Debug, Default)]
struct Busy {
    names: Mutex<HashSet<String>>,
    freed: Condvar,
}

struct Turn<'a> {
    busy: &'a Busy,
    name: String,
}

impl Busy {
    fn turn(&self, name: &str) -> Turn<'_> {
        let mut names = lock(&self.names);
        while !names.insert(name.to_owned()) {
            names = self.freed.wait(names).unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            busy: self,
            name: name.into(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.busy.names).remove(&self.name);
        self.busy.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl LocalRuntime {
    /// Opens the data directory's containers: makes the folders, chooses the OCI runtime, cleans up after launches and
    /// unpackings that a crash cut off (NET-72). Containers that run are left alone.
    ///
    /// # Errors
    /// `Host` with what the operator should do.
    pub fn open(config: LocalConfig) -> Result<Self, ExecutorError> {
        let place = Place::new(&config.data_dir);
        for (folder, mode) in [
            (place.layers(), 0o700),
            (place.works(), 0o755),
            (place.shims(), 0o700),
            (place.slots(), 0o700),
            (place.tunnels(), 0o711),
            (place.volumes(), 0o700),
        ] {
            make_folder(&folder, mode).map_err(host(format!("cannot make {}; run as root", folder.display())))?;
        }
        // Whatever the umask: the processes that encrypt find names in it without a privilege.
        let looked_up = fs::set_permissions(place.tunnels(), fs::Permissions::from_mode(0o711));
        looked_up.map_err(host("the folder of public keys cannot be opened to its readers"))?;
        let oci = OciProgram::find(&config.oci)?;
        let cgroups = Cgroups::open().map_err(host(
            "control groups cannot be used; run as root, with cgroup v2 in the kernel",
        ))?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch =
            inotify::init(flags).map_err(host("inotify cannot be used; raise fs.inotify.max_user_instances"))?;
        let events = inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::DELETE;
        inotify::add_watch(&watch, place.shims(), events).map_err(host("inotify cannot watch the data directory"))?;
        let runtime = Self {
            config,
            place,
            oci,
            program: SealedProgram::default(),
            filter: Mutex::default(),
            patience: LAUNCH_PATIENCE,
            spare: Spare::default(),
            cgroups,
            watch,
            children: Mutex::default(),
            busy: Busy::default(),
        };
        runtime.sweep().map_err(host("cleaning up after an earlier run"))?;
        Ok(runtime)
    }

    /// What a crash in the middle of something left: groups and ranges of workloads whose shim is gone, half-unpacked
    /// layers.
    fn sweep(&self) -> io::Result<()> {
        for workload in self.cgroups.workloads()? {
            // Another data directory's workloads have the same parent group: judge only those this one knows.
            let is_ours = self.place.lock(&workload).exists();
            if is_ours && !self.shim_lives(&workload)? {
                self.settle(&workload)?;
            }
        }
        slots::release_where(&self.place.slots(), |workload| {
            matches!(self.shim_lives(workload), Ok(false))
        })?;
        archives::sweep(&self.place)
    }

    fn shim_lives(&self, workload: &WorkloadId) -> io::Result<bool> {
        // For reading: closing a file that was open for writing is a change that `changed` reports, and whoever looks
        // because of a change would cause the next one.
        match fs::File::open(self.place.lock(workload)) {
            Ok(file) => sys::is_locked(file.as_fd()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends what a killed shim left: no process of the container may run without one. Notes the end as a kill.
    fn settle(&self, workload: &WorkloadId) -> io::Result<()> {
        self.cgroups.kill(workload, END_PATIENCE)?;
        if let Some(Record {
            outcome: LaunchOutcome::Started { started, .. },
            ..
        }) = Record::read(&self.place, workload)?
            && read_exit(&self.place, workload)?.is_none()
        {
            let exit = ExitStatus {
                code: 137,
                signal: Some(libc::SIGKILL),
                out_of_memory: false,
                lost: true,
                started,
                ended: now(),
            };
            write_exit(&self.place, workload, &exit)?;
        }
        self.cgroups.remove(workload)?;
        slots::release_where(&self.place.slots(), |owner| owner == workload)
    }

    fn wait_for_shim(&self, workload: &WorkloadId) -> io::Result<()> {
        let deadline = Instant::now() + END_PATIENCE;
        while self.shim_lives(workload)? {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reap();
        Ok(())
    }

    fn reap(&self) {
        lock(&self.children).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// See [`crate::Executor::observe`].
    ///
    /// # Errors
    /// `Host` when the data directory cannot be read.
    pub fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        self.reap();
        let mut all = Vec::new();
        for entry in fs::read_dir(self.place.shims()).map_err(host("reading the list of containers"))? {
            let name = entry.map_err(host("reading the list of containers"))?.file_name();
            let Some(workload) = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()) else {
                continue;
            };
            match self.observe_one(&workload) {
                Ok(observed) => all.push(observed),
                // Removed meanwhile.
                Err(ExecutorError::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// See [`crate::Executor::observe_one`].
    ///
    /// # Errors
    /// `Unknown` when it was never launched or is being launched; `Host` when the data directory cannot be read.
    pub fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        let reading = || host(format!("reading the state of {workload}"));
        // The shim's life first: what it wrote before it ended is there when it is read below.
        let lives = self.shim_lives(workload).map_err(reading())?;
        let record = Record::read(&self.place, workload)
            .map_err(reading())?
            .ok_or(ExecutorError::Unknown)?;
        let state = match record.outcome {
            LaunchOutcome::NotStarted { reason } => WorkloadState::NotStarted { reason },
            LaunchOutcome::Started { started, .. } => match read_exit(&self.place, workload).map_err(reading())? {
                Some(exit) => WorkloadState::Exited(exit),
                None if lives => WorkloadState::Running { started },
                None => {
                    let _turn = self.busy.turn(workload.as_str());
                    self.settle(workload)
                        .map_err(host(format!("ending what is left of {workload}")))?;
                    let exit = read_exit(&self.place, workload)
                        .map_err(reading())?
                        .ok_or(ExecutorError::Unknown)?;
                    WorkloadState::Exited(exit)
                }
            },
        };
        Ok(Observed {
            workload: record.workload,
            owner_arn: record.owner_arn,
            state,
        })
    }

    fn init(&self, workload: &WorkloadId) -> Result<Option<(Process, OwnedFd)>, ExecutorError> {
        let record = Record::read(&self.place, workload)
            .map_err(host("reading the container's record"))?
            .ok_or(ExecutorError::Unknown)?;
        let LaunchOutcome::Started { init, .. } = record.outcome else {
            return Ok(None);
        };
        let handle = init.open().map_err(host("opening the container's first process"))?;
        Ok(handle.map(|handle| (init, handle)))
    }

    /// See [`crate::Executor::terminate`]. SIGTERM goes to the first process alone (CC-4, CC-34); as in every pid
    /// namespace, one that installed no handler ignores it.
    ///
    /// # Errors
    /// `Unknown` for a workload without a record.
    pub fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError> {
        let Some((_, handle)) = self.init(workload)? else {
            return Ok(());
        };
        match pidfd_send_signal(&handle, if kill { Signal::KILL } else { Signal::TERM }) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(host(format!("sending a signal to {workload}"))(error)),
        }
    }

    /// See [`crate::Executor::release`].
    ///
    /// # Errors
    /// `Unknown` for a workload without a record, `Host` when its gate cannot be used.
    pub fn release(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let failed = || host(format!("letting {workload} begin"));
        if Record::read(&self.place, workload).map_err(failed())?.is_none() {
            return Err(ExecutorError::Unknown);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let gate = match rustix::fs::open(self.place.gate(workload), flags, Mode::empty()) {
            Ok(gate) => gate,
            // It has begun, or its shim is gone and with it the container.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed()(io::Error::from(error))),
        };
        match rustix::io::write(&gate, b"!") {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(failed()(io::Error::from(error))),
        }
    }

    /// See [`crate::Executor::remove`].
    ///
    /// # Errors
    /// `Host` when something does not go away; repeat it.
    pub fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(workload.as_str());
        self.cgroups
            .kill(workload, END_PATIENCE)
            .map_err(host(format!("ending the processes of {workload}")))?;
        self.wait_for_shim(workload)
            .map_err(host(format!("waiting for the shim of {workload} to end")))?;
        let removing = || host(format!("removing {workload}"));
        self.cgroups.remove(workload).map_err(removing())?;
        slots::release_where(&self.place.slots(), |owner| owner == workload).map_err(removing())?;
        volume::close(&self.place, workload).map_err(removing())?;
        volume::remove(&self.place, workload).map_err(removing())?;
        remove::remove_tree(&self.place.work(workload)).map_err(removing())?;
        tunnel::forget(&self.place, workload).map_err(removing())?;
        let (record, exit) = (self.place.record(workload), self.place.exit(workload));
        // Last the record: while it is there, `observe` shows the workload and the removal is tried again.
        for path in [
            unfinished(&record),
            unfinished(&exit),
            exit,
            self.place.gate(workload),
            self.place.lock(workload),
            record,
        ] {
            absent_is_fine(fs::remove_file(path)).map_err(removing())?;
        }
        Ok(())
    }

    /// See [`crate::Executor::changed`]. Meant for one waiting caller.
    ///
    /// # Errors
    /// `Host` when the watch fails.
    pub fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        let timeout = rustix::event::Timespec::try_from(timeout).map_err(host("the time to wait"))?;
        let mut polled = [rustix::event::PollFd::new(&self.watch, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(host("waiting for containers")(error)),
        }
        // The events say nothing that looking again does not say better.
        let mut events = [0_u8; 4096];
        while matches!(rustix::io::read(&self.watch, &mut events), Ok(1..)) {}
        self.reap();
        Ok(())
    }

    /// See [`crate::Executor::read_log`]. Asking from an offset says that the lines before it are kept: the oldest may
    /// then be dropped.
    ///
    /// # Errors
    /// `Unknown` when the workload has no log.
    pub fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        let folder = self.place.log(workload);
        let reading = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ExecutorError::Unknown,
            _ => host(format!("reading the log of {workload}"))(error),
        };
        // Asked before the log is read: an end seen here means that every line is in what follows.
        let ended = match self.observe_one(workload) {
            Ok(observed) => !matches!(observed.state, WorkloadState::Running { .. }),
            Err(ExecutorError::Unknown) => false,
            Err(error) => return Err(error),
        };
        let mut chunk = log::read(&folder, offset, max_bytes.max(1)).map_err(reading)?;
        if offset > 0 {
            log::mark_read(&folder, offset).map_err(reading)?;
        }
        chunk.complete = ended && chunk.lines.is_empty();
        Ok(chunk)
    }

    /// See [`crate::Executor::prepare`]. The directory is root's and sticky, the service may make entries in it but
    /// not touch `log` and `scratch`.
    ///
    /// # Errors
    /// `Host` when the disk refuses.
    pub fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(workload.as_str());
        self.launch_settled(workload)
            .map_err(host(format!("waiting for an earlier launch of {workload}")))?;
        self.make_work(workload)
    }

    /// Waits while a shim that another process started (a node that was killed meanwhile) is still building the
    /// container: it ends or notes what it started. Inputs must not change under it.
    fn launch_settled(&self, workload: &WorkloadId) -> io::Result<()> {
        let deadline = Instant::now() + LAUNCH_PATIENCE;
        while self.shim_lives(workload)? && Record::read(&self.place, workload)?.is_none() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn make_work(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let work = self.place.work(workload);
        let prepared = (|| {
            make_folder(&work, 0o700)?;
            make_folder(&self.place.log(workload), 0o700)?;
            make_folder(&self.place.own_scratches(workload), 0o700)?;
            // Open to the service only now that the names it must not take are taken.
            chown(&work, Some(0), Some(self.config.service_gid))?;
            fs::set_permissions(&work, fs::Permissions::from_mode(0o1770))
        })();
        prepared.map_err(host(format!("cannot make {}; is the disk full?", work.display())))
    }

    /// Pid of a running container's first process in the host's pid namespace: for joining its network namespace
    /// (CC-88). Checked against reuse of the number.
    ///
    /// # Errors
    /// `Unknown` when it does not run.
    pub fn init_pid(&self, workload: &WorkloadId) -> Result<u32, ExecutorError> {
        let (init, _handle) = self.init(workload)?.ok_or(ExecutorError::Unknown)?;
        u32::try_from(init.pid).map_err(|_| ExecutorError::Unknown)
    }

    /// Every id that `attach` got for a workload that still has a group or a record.
    ///
    /// # Errors
    /// `Host` when control groups or records cannot be read.
    pub fn cgroup_ids(&self) -> Result<HashSet<u64>, ExecutorError> {
        let reading = || host("reading the list of containers");
        let mut found: HashSet<u64> = self.cgroups.ids().map_err(reading())?.into_iter().collect();
        for entry in fs::read_dir(self.place.shims()).map_err(reading())? {
            let name = entry.map_err(reading())?.file_name();
            let workload = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let record = workload.map_or(Ok(None), |workload| Record::read(&self.place, &workload));
            if let Some(LaunchOutcome::Started { cgroup_id, .. }) = record.map_err(reading())?.map(|it| it.outcome) {
                found.insert(cgroup_id);
            }
        }
        Ok(found)
    }

    /// The id `attach` got: the key of the workload's entries in the report's map. Known until `remove`.
    ///
    /// # Errors
    /// `Unknown` when it never started.
    pub fn cgroup_id(&self, workload: &WorkloadId) -> Result<u64, ExecutorError> {
        match Record::read(&self.place, workload).map_err(host("reading the container's record"))? {
            Some(Record {
                outcome: LaunchOutcome::Started { cgroup_id, .. },
                ..
            }) => Ok(cgroup_id),
            _ => Err(ExecutorError::Unknown),
        }
    }
}
