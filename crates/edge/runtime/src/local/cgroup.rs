//! Control groups, in the layouts that exist: v2 alone, v1 alone, and hybrid (v1 controllers beside an empty v2).
//!
//! Every workload has `isolarium/<workload>` in the v2 hierarchy, whichever the layout: the isolation report's programs
//! hang there and `cgroup.kill` ends everything in it. Limits are in the same place (v2) or at the same path in each v1
//! controller.

use isolarium_model::WorkloadId;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Parent of all workloads' groups, in every hierarchy.
pub const PARENT: &str = "isolarium";

/// The machine's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Mount points of the v1 controllers; empty on a v2 machine.
    pub v1: Vec<PathBuf>,
    /// Mount points of v2 that have to be hidden from the OCI runtime: `crun` refuses the hybrid layout.
    pub hide: Vec<PathBuf>,
    /// The kernel accounts swap, so that a memory limit can cover it.
    pub swap: bool,
}

impl Layout {
    /// Looks at the mounts of this process.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn from_mountinfo(text: &str) -> Self {
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            if !point.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match right.split(' ').next() {
                Some("cgroup") => v1.push(point),
                Some("cgroup2") => v2.push(point),
                _ => {}
            }
        }
        let hide = if v1.is_empty() { Vec::new() } else { v2 };
        let swap = v1.is_empty()
            || v1
                .iter()
                .any(|point| point.join("memory.memsw.limit_in_bytes").exists());
        Self { v1, hide, swap }
    }

    /// Whether v2 holds the controllers.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Whether a v1 controller is mounted, by the last part of its mount point.
    pub fn has_v1(&self, controller: &str) -> bool {
        self.v1.iter().any(|point| {
            point
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.split(',').any(|one| one == controller))
        })
    }
}

/// The options that the v2 hierarchy has. They are one set for all its mounts: a new mount without them takes them from the
/// host's own, which systemd gave `nsdelegate` and `memory_recursiveprot`.
fn v2_options(mountinfo: &str) -> Vec<&str> {
    let mounts = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let mut v2 = mounts.filter_map(|(_, right)| right.strip_prefix("cgroup2 "));
    let options = v2.next().and_then(|right| right.split(' ').nth(1)).unwrap_or_default();
    let all = options.split(',');
    all.filter(|option| !matches!(*option, "" | "rw" | "ro")).collect()
}

/// The machine's control groups as `node` holds them.
#[derive(Debug)]
pub struct Cgroups {
    pub layout: Layout,
    /// `isolarium` in the v2 hierarchy, by a mount that is attached nowhere: works in every layout.
    parent: OwnedFd,
}

impl Cgroups {
    /// Finds the layout and makes the parent group.
    pub fn open() -> io::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let layout = Layout::from_mountinfo(&mounts);
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for option in v2_options(&mounts) {
            fsconfig_set_flag(context.as_fd(), option)?;
        }
        fsconfig_create(context.as_fd())?;
        let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        match mkdirat(&root, PARENT, Mode::from(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let parent = openat(&root, PARENT, folder, Mode::empty())?;
        if layout.is_unified() {
            for group in [&root, &parent] {
                for controller in ["+cpu", "+memory", "+pids"] {
                    // What is missing shows when the runtime sets the limit; the root may be managed by others.
                    let _refused = write_at(group, "cgroup.subtree_control", controller);
                }
            }
        }
        Ok(Self { layout, parent })
    }

    /// Makes the workload's v2 group, empty, and returns it with its id (what `bpf_get_current_cgroup_id` gives).
    pub fn make(&self, workload: &WorkloadId) -> io::Result<(OwnedFd, u64)> {
        match mkdirat(&self.parent, workload.as_str(), Mode::from(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let group = self
            .group(workload)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        // On cgroup2 the inode number is the group's id.
        let id = rustix::fs::fstat(&group)?.st_ino;
        Ok((group, id))
    }

    fn group(&self, workload: &WorkloadId) -> io::Result<Option<OwnedFd>> {
        let folder = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match openat(&self.parent, workload.as_str(), folder, Mode::empty()) {
            Ok(group) => Ok(Some(group)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Names of all workloads that have a group.
    pub fn workloads(&self) -> io::Result<Vec<WorkloadId>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.parent)? {
            found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse().ok()));
        }
        Ok(found)
    }

    /// Ids of all workloads' groups, as [`Self::make`] gave them.
    pub fn ids(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for workload in self.workloads()? {
            if let Some(group) = self.group(&workload)? {
                found.push(rustix::fs::fstat(&group)?.st_ino);
            }
        }
        Ok(found)
    }

    /// Kills every process of the workload and waits until none is left, at most `patience`.
    pub fn kill(&self, workload: &WorkloadId, patience: Duration) -> io::Result<()> {
        let Some(group) = self.group(workload)? else {
            return Ok(());
        };
        let deadline = Instant::now() + patience;
        loop {
            let left = match read_at(&group, "cgroup.procs") {
                Ok(left) => left,
                // The shim removed the empty group meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(()),
                Err(error) => return Err(error),
            };
            if left.trim().is_empty() {
                return Ok(());
            }
            if write_at(&group, "cgroup.kill", "1").is_err() {
                // Kernels before 5.14: one by one, until nobody is left.
                for pid in left
                    .lines()
                    .filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?))
                {
                    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the workload's groups in every hierarchy; fine when they are gone.
    pub fn remove(&self, workload: &WorkloadId) -> io::Result<()> {
        remove_v1(&self.layout, workload)?;
        retry_busy(|| unlinkat(&self.parent, workload.as_str(), AtFlags::REMOVEDIR))
    }
}

/// Removes a workload's groups in the v1 controllers.
pub fn remove_v1(layout: &Layout, workload: &WorkloadId) -> io::Result<()> {
    for point in &layout.v1 {
        let path = point.join(PARENT).join(workload.as_str());
        retry_busy(|| rustix::fs::rmdir(&path))?;
    }
    Ok(())
}

/// Removes a workload's v2 group, held open as `group`.
pub fn remove_v2(group: impl AsFd, workload: &WorkloadId) -> io::Result<()> {
    let parent = openat(
        group,
        "..",
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    retry_busy(|| unlinkat(&parent, workload.as_str(), AtFlags::REMOVEDIR))
}

/// A group is busy for a moment after its last process ended.
pub fn retry_busy(mut remove: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match remove() {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many processes of the workload the kernel killed for going over the memory limit. `v2` is its v2 group.
pub fn out_of_memory_kills(layout: &Layout, v2: impl AsFd, workload: &WorkloadId) -> u64 {
    let text = if layout.is_unified() {
        read_at(v2, "memory.events").ok()
    } else {
        let memory = layout.v1.iter().find(|point| point.ends_with("memory"));
        memory.and_then(|point| {
            std::fs::read_to_string(point.join(PARENT).join(workload.as_str()).join("memory.oom_control")).ok()
        })
    };
    text.as_deref().map_or(0, oom_kill_count)
}

fn oom_kill_count(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Moves the calling process into the group.
pub fn enter(group: impl AsFd) -> io::Result<()> {
    write_at(group, "cgroup.procs", "0")
}

/// Moves the calling process to the group's parent, which is outside every workload.
pub fn leave(group: impl AsFd) -> io::Result<()> {
    write_at(group, "../cgroup.procs", "0")
}

fn write_at(group: impl AsFd, name: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let file = openat(group, name.as_ref(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(file).write_all(text.as_bytes())
}

fn read_at(group: impl AsFd, name: &str) -> io::Result<String> {
    let file = openat(group, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::read_to_string(std::fs::File::from(file))
}

#[cfg(test)]
mod tests;
