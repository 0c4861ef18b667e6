//! Network namespaces: make, keep, enter. A thread that entered one ends there; the caller's thread never moves.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::thread;

/// The kernel's magic number of the file system that namespaces' handles live on.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Runs `work` on a thread of its own inside the namespace behind `at` (a namespace descriptor or a pidfd).
///
/// # Errors
/// When the thread cannot be made or the namespace cannot be entered; `work` did not run then.
pub fn within<R: Send>(at: BorrowedFd<'_>, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    on_a_thread(move || {
        rustix::thread::move_into_thread_name_spaces(at, ThreadNameSpaceType::NETWORK)?;
        Ok(work())
    })
}

/// Runs `work` on a thread of its own inside a fresh namespace and hands it a descriptor of that namespace. The
/// namespace ends with the last descriptor, process or socket in it.
///
/// # Errors
/// When the thread or the namespace cannot be made; `work` did not run then.
pub fn within_fresh<R: Send>(work: impl FnOnce(OwnedFd) -> R + Send) -> io::Result<R> {
    on_a_thread(move || {
        unshare_network()?;
        let fd = open(Path::new("/proc/thread-self/ns/net"))?;
        Ok(work(fd))
    })
}

/// Opens a namespace by path.
///
/// # Errors
/// When it does not exist or is not a namespace.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&fd)?.f_type == NSFS_MAGIC {
        return Ok(fd);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} is not a network namespace", path.display()),
    ))
}

/// The namespace of a process. Prefer a pidfd where there is one: process ids are used again.
///
/// # Errors
/// When the process is gone.
pub fn of_process(pid: u32) -> io::Result<OwnedFd> {
    open(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// Makes a fresh namespace and keeps it findable at `path`, which must not exist or be an unused file.
///
/// # Errors
/// When it cannot be made or mounted; nothing is left then but possibly the empty file.
pub fn create_pinned(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o400))?;
    within_fresh(|fd| {
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(fd)
    })?
}

/// Keeps the namespace behind an open descriptor findable at `path`, as [`create_pinned`] does.
///
/// # Errors
/// When it cannot be mounted; nothing is left then but possibly the empty file.
pub fn pin(fd: RawFd, path: &Path) -> io::Result<()> {
    rustix::fs::openat(CWD, path, OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o400))?;
    rustix::mount::mount_bind(format!("/proc/self/fd/{fd}"), path)?;
    Ok(())
}

/// Undoes [`create_pinned`]; a path that is no mount or absent is a success.
///
/// # Errors
/// Those of the kernel.
pub fn unpin(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unmounts and removes the directory of pinned namespaces; absent or not mounted is a success.
///
/// # Errors
/// Those of the kernel; a directory with something in it stays.
pub fn unpin_dir(dir: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    // Once for each engine that had to make the namespace anew.
    loop {
        match rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[expect(unsafe_code, reason = "unshare is unsafe for flags that break what threads share")]
fn unshare_network() -> io::Result<()> {
    // SAFETY: NEWNET concerns this thread's view of the network alone; descriptors and memory stay shared as they were.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

fn on_a_thread<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}
