//! Mounts of one container, all in the shim's own mount namespace: they die with it.

use crate::local::place::{DISK_IDS, RANGE};
use crate::local::volume::leave_volumes;
use crate::sys::{self, MountTraits, NO_DATA};
use isolarium_model::WorkloadId;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount, open_tree,
};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// Where the shim builds: a tmpfs over a directory that every system has. The container never sees this name except
/// as text in its own mount table.
pub const STAGE: &str = "/mnt";
/// The container's root file system.
pub const ROOT: &str = "/mnt/root";
/// The size-limited area behind everything the container may write outside its scratch directories.
const AREA: &str = "/mnt/area";
/// What appears as `/opt/ml` where the spec mounts nothing (CC-2).
pub const PLATFORM: &str = "/mnt/area/ml";
pub const BUNDLE: &str = "/mnt/bundle";
pub const STATE: &str = "/mnt/state";
/// `hosts`, `hostname` and `resolv.conf`.
pub const FILES: &str = "/mnt/etc";
/// Attached sources of binds, by number.
pub const SOURCES: &str = "/mnt/src";
const LAYERS: &str = "/mnt/l";

/// Puts the calling process into a mount namespace of its own with an empty stage, and of encrypted volumes with these
/// workloads' alone.
pub fn make_stage(hide: &[std::path::PathBuf], volumes: &[&WorkloadId]) -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    leave_volumes(volumes)?;
    // Covered, not unmounted: what the runtime makes there goes to this tmpfs and away with it.
    for point in hide {
        mount("none", point, "tmpfs", MountFlags::empty(), NO_DATA)?;
    }
    mount(
        "none",
        STAGE,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=755,size=64m"),
    )?;
    for folder in [ROOT, AREA, BUNDLE, STATE, FILES, SOURCES, LAYERS] {
        fs::create_dir(folder)?;
    }
    Ok(())
}

/// Mounts the writable area: `bytes` are enforced by the kernel as the size of a tmpfs (ENOSPC inside), and what is in
/// it counts towards the container's memory limit too.
pub fn make_area(bytes: u64, owner: u32) -> io::Result<()> {
    let data = CString::new(format!("mode=755,size={bytes}"))?;
    mount(
        "none",
        AREA,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(data.as_c_str()),
    )?;
    for folder in ["up", "work", "ml"] {
        let path = Path::new(AREA).join(folder);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        chown(&path, Some(owner), Some(owner))?;
    }
    Ok(())
}

/// A user namespace that shows ids on disk ([`DISK_IDS`]) as the workload's.
pub fn disk_ids_as(first_id: u32) -> io::Result<OwnedFd> {
    let map = format!("{DISK_IDS} {first_id} {RANGE}");
    sys::user_namespace(&map, &map)
}

/// A user namespace that shows the service user as the workload's root.
pub fn service_as(uid: u32, gid: u32, first_id: u32) -> io::Result<OwnedFd> {
    sys::user_namespace(&format!("{uid} {first_id} 1"), &format!("{gid} {first_id} 1"))
}

/// Attaches a copy of the directory or file `source` at `target`, with traits.
pub fn attach(source: BorrowedFd<'_>, target: &Path, traits: MountTraits<'_>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", flags)?;
    sys::set_mount_traits(tree.as_fd(), traits)?;
    move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Stacks the layers (lowest first), shown with the workload's ids, under the writable area.
pub fn mount_root(layers: &[OwnedFd], idmap: BorrowedFd<'_>) -> io::Result<()> {
    let mut lower = String::from("lowerdir=");
    for (number, layer) in layers.iter().enumerate().rev() {
        let point = format!("{LAYERS}/{number}");
        fs::create_dir(&point)?;
        attach(
            layer.as_fd(),
            Path::new(&point),
            MountTraits {
                read_only: true,
                idmap: Some(idmap),
            },
        )?;
        if !lower.ends_with('=') {
            lower.push(':');
        }
        lower.push_str(&point);
    }
    // volatile: the area is a tmpfs, there is nothing to flush.
    let data = CString::new(format!("{lower},upperdir={AREA}/up,workdir={AREA}/work,volatile"))?;
    mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(data.as_c_str()),
    )?;
    Ok(())
}
