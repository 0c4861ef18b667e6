//! What this machine can do: the lines of `isolarium doctor`.

use super::cgroup::Layout;
use super::oci::OciProgram;
use super::{LocalConfig, LocalRuntime, volume};
use crate::executor::{ExecutorError, LaunchSpec, Limits, ProcessSpec};
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// One line of `isolarium doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCheck {
    /// What was looked at, such as `user namespaces`.
    pub name: &'static str,
    pub outcome: CheckOutcome,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It works; the text is a detail such as a version.
    Good(String),
    /// Workloads run, with less than the full promise; the text says what is missing.
    Reduced(String),
    /// No workload could run; the text says what to do.
    Missing(String),
}

use CheckOutcome::{Good, Missing, Reduced};

/// Least free space that lets a workload make sense, bytes.
const LEAST_FREE: u64 = 1 << 30;

/// Checks everything a workload needs on this machine, the last line by building a whole container around a program
/// that does not exist. Needs root. Leaves nothing behind.
pub fn probe_host(config: &LocalConfig) -> Vec<HostCheck> {
    let mut checks = Vec::new();
    let mut note = |name, outcome| checks.push(HostCheck { name, outcome });
    note(
        "root",
        if rustix::process::geteuid().is_root() {
            Good("yes".into())
        } else {
            Missing("run as root: namespaces, mounts and control groups belong to it".into())
        },
    );
    note("OCI runtime", runtime(config));
    note("control groups", control_groups());
    note("overlay file system", file_system("overlay"));
    note("user namespaces", user_namespaces());
    note("system call filter", seccomp());
    note("disk", disk(&config.data_dir));
    note("encrypted volumes", volumes(config));
    note("a container", container(config));
    checks
}

fn runtime(config: &LocalConfig) -> CheckOutcome {
    let program = match OciProgram::find(&config.oci) {
        Ok(program) => program,
        Err(error) => return Missing(error.to_string()),
    };
    match Command::new(&program.path).arg("--version").env_clear().output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Good(format!(
                "{}: {}",
                program.path.display(),
                text.lines().next().unwrap_or_default()
            ))
        }
        Ok(output) => Missing(format!(
            "{} --version ends with {}",
            program.path.display(),
            output.status
        )),
        Err(error) => Missing(format!("{} cannot be run: {error}", program.path.display())),
    }
}

fn control_groups() -> CheckOutcome {
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(error) => return Missing(format!("the mounts cannot be read: {error}")),
    };
    let is_there = |controller: &str| {
        if layout.is_unified() {
            fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
                .is_ok_and(|all| all.split_whitespace().any(|one| one == controller))
        } else {
            layout.has_v1(controller)
        }
    };
    let missing: Vec<_> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|controller| !is_there(controller))
        .collect();
    if !missing.is_empty() {
        return Missing(format!(
            "no controller for {}; enable it in the kernel's command line",
            missing.join(", ")
        ));
    }
    let version = match (layout.is_unified(), layout.hide.is_empty()) {
        (true, _) => "v2",
        (false, true) => "v1",
        (false, false) => "v1 controllers beside v2 (hybrid)",
    };
    if layout.swap {
        Good(version.into())
    } else {
        Reduced(format!(
            "{version}; swap is not accounted, so a container may use it beyond its memory limit"
        ))
    }
}

fn file_system(name: &str) -> CheckOutcome {
    match fs::read_to_string("/proc/filesystems") {
        Ok(text) if text.split_whitespace().any(|word| word == name) => Good("in the kernel".into()),
        Ok(_) => Reduced(format!(
            "not loaded; the last line tells whether the kernel loads it when asked (modprobe {name})"
        )),
        Err(error) => Missing(format!("/proc/filesystems cannot be read: {error}")),
    }
}

fn user_namespaces() -> CheckOutcome {
    match fs::read_to_string("/proc/sys/user/max_user_namespaces")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
    {
        Some(0) => Missing("switched off; set sysctl user.max_user_namespaces to at least 1000".into()),
        Some(most) => Good(format!("{most} allowed")),
        None => Missing("not in this kernel".into()),
    }
}

fn seccomp() -> CheckOutcome {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Good("yes".into()),
        _ => Missing("seccomp filters are not in this kernel".into()),
    }
}

fn disk(data_dir: &Path) -> CheckOutcome {
    match rustix::fs::statvfs(data_dir) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!(
                "{:.1} GiB free at {}",
                free as f64 / f64::from(1 << 30),
                data_dir.display()
            );
            if free < LEAST_FREE {
                Missing(format!("{text}; workloads need at least 1 GiB"))
            } else {
                Good(text)
            }
        }
        Err(error) => Missing(format!("{}: {error}", data_dir.display())),
    }
}

/// What jobs with a VolumeKmsKeyId take; all others run without.
fn volumes(config: &LocalConfig) -> CheckOutcome {
    let folder = config.data_dir.join(format!(".doctor-volume-{}", std::process::id()));
    let tried = fs::create_dir(&folder)
        .map_err(|error| error.to_string())
        .and_then(|()| volume::probe(&folder).map_err(|error| error.to_string()));
    let cleaned = super::place::absent_is_fine(fs::remove_dir_all(&folder));
    match (tried, cleaned) {
        (Ok(()), Ok(())) => Good("mkfs.ext4, loop devices, encryption by the kernel".into()),
        (Ok(()), Err(error)) => Reduced(format!("{} could not be removed: {error}", folder.display())),
        (Err(error), _) => Reduced(format!("jobs with a VolumeKmsKeyId fail: {error}")),
    }
}

/// Everything up to the moment in which the program would run.
fn container(config: &LocalConfig) -> CheckOutcome {
    let folder = config.data_dir.join(format!(".doctor-{}", std::process::id()));
    let built = build(&LocalConfig {
        data_dir: folder.clone(),
        ..config.clone()
    });
    let cleaned = super::place::absent_is_fine(fs::remove_dir_all(&folder));
    match (built, cleaned) {
        (Ok(()), Ok(())) => Good("can be built: layers, id-mapped mounts, limits, system call filter".into()),
        (Ok(()), Err(error)) => Reduced(format!("{} could not be removed: {error}", folder.display())),
        (Err(error), _) => Missing(error.to_string()),
    }
}

fn build(config: &LocalConfig) -> Result<(), ExecutorError> {
    let broken = |error: &dyn std::fmt::Display| ExecutorError::Host(format!("the test container: {error}"));
    fs::create_dir_all(&config.data_dir).map_err(|error| broken(&error))?;
    let runtime = LocalRuntime::open(config.clone())?;
    // An empty archive is a valid layer.
    let bytes = [0_u8; 1024];
    let diff_id: Sha256Digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
        .parse()
        .map_err(|error| broken(&error))?;
    let path = config.data_dir.join("empty.tar");
    let netns = (|| -> io::Result<(OwnedFd, OwnedFd)> {
        fs::write(&path, bytes)?;
        // No process will run in it: the program does not exist.
        Ok((
            fs::File::open(&path)?.into(),
            fs::File::open("/proc/self/ns/net")?.into(),
        ))
    })();
    let (blob, netns) = netns.map_err(|error| broken(&error))?;
    runtime.unpack_layer(blob, &diff_id)?;
    let workload: WorkloadId = format!("w-{:017x}", std::process::id())
        .parse()
        .map_err(|error| broken(&error))?;
    let spec = LaunchSpec {
        workload: workload.clone(),
        owner_arn: "doctor".into(),
        hostname: "doctor".into(),
        network: WorkloadNetwork {
            workload: workload.clone(),
            reach: Reach::Nothing,
        },
        layers: vec![diff_id],
        process: ProcessSpec {
            argv: vec!["/isolarium-doctor".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
        },
        hosts: Vec::new(),
        resolvers: Vec::new(),
        search: None,
        mounts: Vec::new(),
        held: false,
        beside: None,
        tunnel: None,
        encrypted: false,
        devices: Vec::new(),
        limits: Limits {
            cpu_millis: 100,
            memory_bytes: 64 << 20,
            pids: 32,
            shm_bytes: 1 << 20,
            overlay_bytes: 1 << 20,
        },
    };
    let outcome = runtime.launch_in(&spec, netns.as_fd(), None, &mut |_, _| Ok(()));
    let removed = runtime.remove(&workload);
    match outcome {
        // The only thing missing is the program: all walls stood.
        Err(ExecutorError::Unstartable(_)) => removed,
        Err(error) => Err(error),
        Ok(()) => Err(broken(&"a program that does not exist was started")),
    }
}
