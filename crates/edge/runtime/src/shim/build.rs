//! From a job to a running first process.

use super::{Container, InGroup, Job, Passed, StartError, doing, now};
use crate::executor::Mount;
use crate::local::bundle::{BindMount, Bundle};
use crate::local::mounts::{self, BUNDLE, FILES, PLATFORM, ROOT, SOURCES, STATE};
use crate::local::oci::{OciRuntime, RunCall};
use crate::local::place::{DISK_IDS, FIRST_WORKLOAD_ID, Place, RANGE};
use crate::local::user::{self, User};
use crate::local::volume;
use crate::sys::{MountTraits, open_beneath, open_in_root};
use base64::Engine as _;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Longest the OCI runtime may take to start a process before the launch counts as failed.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);

/// Most open files a container may have, where the host allows as many.
const OPEN_FILES: u64 = 65_536;

/// The scratch directory of a workload that is a volume.
const VOLUME: &str = "volume";

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn first_id(job: &Job) -> u32 {
    FIRST_WORKLOAD_ID + job.slot * RANGE
}

/// Builds every file system and the bundle.
pub(super) fn stage(job: &Job, place: &Place, passed: &Passed) -> Result<(), StartError> {
    let first = first_id(job);
    let mut kept = vec![&job.spec.workload];
    kept.extend(job.spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume { volume, .. } => Some(volume),
        _ => None,
    }));
    mounts::make_stage(&job.cgroups.hide, &kept).map_err(doing("making the container's mount namespace"))?;
    if job.spec.encrypted {
        volume::open(place, &job.spec.workload, volume::SCRATCH).map_err(doing("opening the encrypted volume"))?;
    }
    mounts::make_area(job.spec.limits.overlay_bytes, first).map_err(doing("mounting the container's writable area"))?;
    let disk_ids = mounts::disk_ids_as(first).map_err(doing("making a user namespace"))?;
    let mut layers = Vec::new();
    for layer in &job.spec.layers {
        let open = rustix::fs::open(place.layer(layer), FOLDER | OFlags::NOFOLLOW, Mode::empty());
        layers.push(open.map_err(doing(format!("opening layer {layer}, which must be unpacked first")))?);
    }
    mounts::mount_root(&layers, disk_ids.as_fd()).map_err(doing(
        "mounting the container's root file system (overlayfs, id-mapped)",
    ))?;
    let root = rustix::fs::open(ROOT, FOLDER, Mode::empty()).map_err(doing("opening the root file system"))?;
    ensure_tmp(&root, first).map_err(doing("preparing /tmp"))?;
    let user = user::resolve(
        &job.spec.process.user,
        &user::image_file(&root, "etc/passwd"),
        &user::image_file(&root, "etc/group"),
    )
    .map_err(|bad| StartError::Unstartable(bad.to_string()))?;
    let mut binds = attach_mounts(job, place, disk_ids.as_fd())?;
    binds.extend(write_files(job).map_err(doing("writing /etc/hosts, /etc/hostname and /etc/resolv.conf"))?);
    write_bundle(job, &user, passed, &binds).map_err(doing("writing the bundle"))
}

/// CC-3: `/tmp` exists and anyone may write to it. It is part of the overlay, so its size is limited.
fn ensure_tmp(root: &OwnedFd, first: u32) -> io::Result<()> {
    match mkdirat(root, "tmp", Mode::from(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // A link to somewhere else in the image is the image maker's wish; one that leads nowhere stays.
    let Ok(tmp) = open_in_root(root, "tmp", OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(());
    };
    if rustix::fs::fstat(&tmp)?.st_mode & 0o7777 != 0o1777 {
        fchown(&tmp, Some(Uid::from_raw(first)), Some(Gid::from_raw(first)))?;
        fchmod(&tmp, Mode::from(0o1777))?;
    }
    Ok(())
}

/// Attaches the sources of inputs and scratch directories; returns the binds, outermost first.
fn attach_mounts(
    job: &Job,
    place: &Place,
    disk_ids: std::os::fd::BorrowedFd<'_>,
) -> Result<Vec<BindMount>, StartError> {
    let workload = &job.spec.workload;
    // CC-2: /opt/ml is the platform's, whatever the image has there.
    let mut binds = vec![BindMount {
        source: PLATFORM.into(),
        target: "/opt/ml".into(),
        read_only: false,
    }];
    let work = rustix::fs::open(place.work(workload), FOLDER, Mode::empty())
        .map_err(doing("opening the workload's directory"))?;
    let mut service = None;
    for (number, mount) in job.spec.mounts.iter().enumerate() {
        let point = format!("{SOURCES}/{number}");
        let (source, target, traits) = match mount {
            Mount::Input { source, target } => {
                // The service can write here: no link of its making may be followed.
                let opened = open_beneath(&work, source, OFlags::PATH, Mode::empty())
                    .map_err(doing(format!("opening input {source:?}")))?;
                if service.is_none() {
                    let made = mounts::service_as(job.service_uid, job.service_gid, first_id(job));
                    service = Some(made.map_err(doing("making a user namespace"))?);
                }
                (
                    opened,
                    target,
                    MountTraits {
                        read_only: true,
                        idmap: service.as_ref().map(AsFd::as_fd),
                    },
                )
            }
            Mount::Copied { source, target } => {
                let kept =
                    volume::open(place, workload, volume::SERVICE).map_err(doing("opening the encrypted volume"))?;
                let opened = open_beneath(&kept, source, OFlags::PATH, Mode::empty())
                    .map_err(doing(format!("opening the copied input {source:?}")))?;
                if service.is_none() {
                    let made = mounts::service_as(job.service_uid, job.service_gid, first_id(job));
                    service = Some(made.map_err(doing("making a user namespace"))?);
                }
                (
                    opened,
                    target,
                    MountTraits {
                        read_only: true,
                        idmap: service.as_ref().map(AsFd::as_fd),
                    },
                )
            }
            Mount::Scratch {
                name,
                target,
                read_only,
            } => {
                let opened =
                    scratch(place, workload, name).map_err(doing(format!("making scratch directory {name:?}")))?;
                (
                    opened,
                    target,
                    MountTraits {
                        read_only: *read_only,
                        idmap: Some(disk_ids),
                    },
                )
            }
            Mount::Volume { volume, target } => {
                let opened = scratch(place, volume, VOLUME).map_err(doing(format!(
                    "opening the volume {volume}, which must be prepared first"
                )))?;
                (
                    opened,
                    target,
                    MountTraits {
                        read_only: false,
                        idmap: Some(disk_ids),
                    },
                )
            }
        };
        make_point(&source, &point).map_err(doing("making a mount point"))?;
        crate::local::mounts::attach(source.as_fd(), Path::new(&point), traits).map_err(doing(format!(
            "mounting {target} (id-mapped; does the data directory's file system allow that?)"
        )))?;
        binds.push(BindMount {
            source: point,
            target: target.clone(),
            read_only: traits.read_only,
        });
    }
    // Stable: of two mounts at one path the later one wins.
    binds.sort_by_key(|bind| bind.target.matches('/').count());
    Ok(binds)
}

fn make_point(source: &OwnedFd, point: &str) -> io::Result<()> {
    if FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::Directory {
        fs::create_dir(point)
    } else {
        fs::File::create(point).map(drop)
    }
}

/// Opens a workload's scratch directory, making it first if need be: owned by what containers see as root, mode 0777.
pub(crate) fn scratch(place: &Place, workload: &isolarium_model::WorkloadId, name: &str) -> io::Result<OwnedFd> {
    let parent = rustix::fs::open(
        place.scratches(workload),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let made = match mkdirat(&parent, name, Mode::from(0o700)) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let opened = open_beneath(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    if made || rustix::fs::fstat(&opened)?.st_uid == 0 {
        fchown(&opened, Some(Uid::from_raw(DISK_IDS)), Some(Gid::from_raw(DISK_IDS)))?;
        fchmod(&opened, Mode::from(0o777))?;
    }
    Ok(opened)
}

/// Name resolution files, read-only in the container (CC-15, CC-20, CC-86).
fn write_files(job: &Job) -> io::Result<Vec<BindMount>> {
    use std::fmt::Write;
    let spec = &job.spec;
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for (address, names) in &spec.hosts {
        let _infallible = writeln!(hosts, "{address} {}", names.join(" "));
    }
    if !spec.hosts.iter().any(|(_, names)| names.contains(&spec.hostname)) {
        let _infallible = writeln!(hosts, "127.0.0.1 {}", spec.hostname);
    }
    // Isolated: the question goes to the container's own loopback, is refused at once, and the report sees it.
    let mut resolver = String::new();
    if let Some(domain) = &spec.search {
        let _infallible = writeln!(resolver, "search {domain}");
    }
    for address in &spec.resolvers {
        let _infallible = writeln!(resolver, "nameserver {address}");
    }
    if spec.resolvers.is_empty() {
        resolver.push_str("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    }
    let files = [
        ("hosts", hosts),
        ("hostname", format!("{}\n", spec.hostname)),
        ("resolv.conf", resolver),
    ];
    let mut binds = Vec::new();
    for (name, text) in files {
        let source = format!("{FILES}/{name}");
        fs::write(&source, text)?;
        fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        binds.push(BindMount {
            source,
            target: format!("/etc/{name}"),
            read_only: true,
        });
    }
    Ok(binds)
}

fn write_bundle(job: &Job, user: &User, passed: &Passed, binds: &[BindMount]) -> io::Result<()> {
    // By the shim's descriptor: the namespace has no name in any file system.
    let netns = format!("/proc/{}/fd/{}", std::process::id(), passed.netns.as_raw_fd());
    let limit = getrlimit(Resource::Nofile);
    let annotation = job
        .oci
        .compiled_filter(Path::new(STATE), job.spec.workload.as_str())
        .zip(job.filter.as_deref())
        .filter(|_| job.walls.seccomp)
        .map(|((_, name), filter)| (name, filter));
    let bundle = Bundle {
        spec: &job.spec,
        user,
        walls: job.walls,
        cgroups: &job.cgroups,
        root: ROOT,
        netns: &netns,
        first_id: first_id(job),
        binds,
        open_files: limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES)),
        annotation,
    };
    let mut document = bundle.document();
    for edits in &job.devices {
        let given = edits.apply(&mut document, &crate::local::devices::look);
        given.map_err(io::Error::other)?;
    }
    fs::write(Path::new(BUNDLE).join("config.json"), serde_json::to_vec(&document)?)
}

/// Runs the OCI runtime on the bundle and finds the first process, now the shim's child.
pub(super) fn spawn(job: &Job, passed: &Passed) -> Result<Container, StartError> {
    let (out_read, out_write) = pipe(job).map_err(doing("making a pipe"))?;
    let (err_read, err_write) = pipe(job).map_err(doing("making a pipe"))?;
    let (log, pid_file) = (bundle_file("log"), bundle_file("pid"));
    let call = call(job, &log, &pid_file);
    let mut command = job.oci.run(&call, passed.program.as_ref().map(AsFd::as_fd));
    command
        .current_dir(BUNDLE)
        .stdin(Stdio::null())
        .stdout(out_write)
        .stderr(err_write);
    let in_group = InGroup::enter(&job.cgroups, &passed.group).map_err(doing("entering the control group"))?;
    let mut runtime = command
        .spawn()
        .map_err(doing(format!("starting {}", job.oci.path.display())))?;
    drop(in_group);
    // The write ends live on in the container alone: the end of its output is the end of its processes.
    drop(command);
    let ended = wait_at_most(&runtime, RUNTIME_PATIENCE).map_err(doing("waiting for the OCI runtime"))?;
    if !ended {
        let _gone = runtime.kill();
    }
    let status = runtime.wait().map_err(doing("waiting for the OCI runtime"))?;
    if !ended {
        let source = io::Error::from(io::ErrorKind::TimedOut);
        return Err(StartError::Host {
            doing: format!("starting the container with {}", job.oci.path.display()),
            source,
        });
    }
    if !status.success() {
        return Err(runtime_error(&log));
    }
    let text = fs::read_to_string(&pid_file).map_err(doing("reading the container's pid"))?;
    let init = text
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| StartError::Host {
            doing: format!("the OCI runtime wrote {text:?} as a pid"),
            source: io::ErrorKind::InvalidData.into(),
        })?;
    Ok(Container {
        init,
        output: [out_read, err_read],
    })
}

fn bundle_file(name: &str) -> PathBuf {
    PathBuf::from(BUNDLE).join(name)
}

fn call<'a>(job: &'a Job, log: &'a Path, pid_file: &'a Path) -> RunCall<'a> {
    RunCall {
        bundle: Path::new(BUNDLE),
        state: Path::new(STATE),
        log,
        pid_file,
        id: job.spec.workload.as_str(),
        held: job.spec.held,
    }
}

/// Lets the program of a held container begin.
pub(super) fn begin(job: &Job, program: Option<&OwnedFd>) -> io::Result<()> {
    let (log, pid_file) = (bundle_file("log"), bundle_file("pid"));
    let call = call(job, &log, &pid_file);
    let mut command = job.oci.start(&call, program.map(AsFd::as_fd));
    command
        .current_dir(BUNDLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut runtime = command.spawn()?;
    let ended = wait_at_most(&runtime, RUNTIME_PATIENCE)?;
    if !ended {
        let _gone = runtime.kill();
    }
    let status = runtime.wait()?;
    if ended && status.success() {
        Ok(())
    } else {
        Err(io::Error::other("the OCI runtime did not start the program"))
    }
}

/// The filter that the runtime compiled for this container, in base64, when the job brought none. Compiling takes as long
/// as building all file systems, and the list is the same for every container.
pub(super) fn compiled_filter(job: &Job) -> Option<String> {
    if job.filter.is_some() || !job.walls.seccomp {
        return None;
    }
    let (path, _) = job.oci.compiled_filter(Path::new(STATE), job.spec.workload.as_str())?;
    let program = fs::read(path).ok()?;
    // Whole instructions; the kernel checks the rest when it takes the filter, and refuses the container otherwise.
    let whole = !program.is_empty() && program.len().is_multiple_of(size_of::<libc::sock_filter>());
    whole.then(|| base64::engine::general_purpose::STANDARD.encode(program))
}

/// A pipe whose write end the container's user may open again by `/dev/stdout`.
fn pipe(job: &Job) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let owner = if job.walls.user_namespace { first_id(job) } else { 0 };
    fchown(&write, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    fchmod(&write, Mode::from(0o622))?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

fn wait_at_most(child: &std::process::Child, patience: Duration) -> io::Result<bool> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = now().after(patience);
    loop {
        let left = rustix::event::Timespec::try_from(deadline.since(now())).map_err(io::Error::other)?;
        let mut polled = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&left)) {
            Ok(0) if deadline.since(now()).is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The runtime's last words. Those about the program are the image maker's to mend, all others the operator's.
fn runtime_error(log: &Path) -> StartError {
    let text = fs::read_to_string(log).unwrap_or_default();
    // A host path would tell the container's owner nothing.
    let text = text.trim().replace(ROOT, "").chars().take(900).collect::<String>();
    let about_program = [
        "executable",
        "exec",
        "no such file",
        "not found",
        "permission denied",
        "chdir",
        "cwd",
    ];
    let lower = text.to_lowercase();
    if !text.is_empty() && about_program.iter().any(|words| lower.contains(words)) {
        StartError::Unstartable(text)
    } else {
        StartError::Host {
            doing: "the OCI runtime did not start the container".into(),
            source: io::Error::other(text),
        }
    }
}
