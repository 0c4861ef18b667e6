//! The file system that keeps maps alive without a process.

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

pub(super) fn ensure(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if is_mounted(dir)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("bpf", dir, "bpf", flags, c"mode=0700")?)
}

pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match is_mounted(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(false) => {}
        Ok(true) => rustix::mount::unmount(dir, UnmountFlags::DETACH)?,
        Err(error) => return Err(error),
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_mounted(dir: &Path) -> io::Result<bool> {
    match rustix::fs::statfs(dir) {
        Ok(found) => Ok(found.f_type == BPF_FS_MAGIC),
        Err(Errno::NOENT) => Err(io::ErrorKind::NotFound.into()),
        Err(errno) => Err(errno.into()),
    }
}
