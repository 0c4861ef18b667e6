//! The few system calls that have no safe wrapper. Everything unsafe of this crate is here.

pub mod channel;
pub mod crypt;
pub mod filter;
pub mod signals;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Leaves the namespaces in `flags` for new ones. The process must have one thread.
#[expect(
    unsafe_code,
    reason = "rustix's safe wrapper refuses the flags that a thread must not share"
)]
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags alone. Callers are the shim and the archive process, which never make a thread.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Takes the lock on an open file for its open file description: it lasts until the last descriptor of it, inherited
/// and passed ones included, is closed. `false` when somebody else has it.
pub fn try_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    match lock_call(file, libc::F_OFD_SETLK) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another open file description holds the lock. Does not take it, so it cannot disturb anyone who wants it.
pub fn is_locked(file: BorrowedFd<'_>) -> io::Result<bool> {
    lock_call(file, libc::F_OFD_GETLK).map(|found| i32::from(found) != libc::F_UNLCK)
}

#[expect(unsafe_code, reason = "rustix has no open-file-description locks")]
fn lock_call(file: BorrowedFd<'_>, command: libc::c_int) -> io::Result<libc::c_short> {
    // SAFETY: all-zero is a valid flock: whole file, no pid, as these commands demand.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK.try_into().map_err(io::Error::other)?;
    // SAFETY: the descriptor is open and the struct outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) })?;
    Ok(lock.l_type)
}

/// Attributes of a mount that is not attached yet.
#[derive(Clone, Copy, Debug)]
pub struct MountTraits<'a> {
    pub read_only: bool,
    /// User namespace whose map translates owners: its inside ids are those on disk, its outside ids those shown.
    pub idmap: Option<BorrowedFd<'a>>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Applies `traits`, and nosuid and nodev always, to a detached mount.
#[expect(unsafe_code, reason = "mount_setattr has no wrapper")]
pub fn set_mount_traits(mount: BorrowedFd<'_>, traits: MountTraits<'_>) -> io::Result<()> {
    let mut attr = MountAttr {
        attr_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if traits.read_only {
        attr.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    if let Some(userns) = traits.idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    }
    let empty = c"";
    // SAFETY: pointers are valid for the call; the kernel copies the struct of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A user namespace with one map for uids and one for gids (`inside outside count`). No process stays in it.
///
/// The process must have one thread: a child is cloned that does nothing but wait.
#[expect(unsafe_code, reason = "clone has no safe wrapper")]
pub fn user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    /// Ends with its maker, whenever that is killed. `maker` points to its pid.
    extern "C" fn wait(maker: *mut libc::c_void) -> libc::c_int {
        // SAFETY: plain system calls; the maker keeps the number in place until this process is gone.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // The maker may have been killed before the line above.
            while libc::getppid() == *maker.cast::<libc::pid_t>() {
                libc::pause();
            }
            libc::_exit(0)
        }
    }
    // The namespace is there when clone returns: nothing has to wait until the child gets a turn. It shares the memory,
    // so that no page of it is copied, and has a stack of its own.
    let mut stack = vec![0_u128; 1024];
    let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::SIGCHLD;
    let mut maker = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: single-threaded callers. Stack and number outlive the child, which is waited for below; the child calls
    // async-signal-safe functions alone, writes nothing but its stack and the thread's error number, and never returns.
    let cloned = unsafe {
        libc::clone(
            wait,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            (&raw mut maker).cast(),
        )
    };
    let pid = check(cloned).map_err(|error| {
        io::Error::other(format!(
            "the kernel refused a user namespace ({error}); is user.max_user_namespaces 0?"
        ))
    })?;
    let made = (|| {
        std::fs::write(format!("/proc/{pid}/uid_map"), uid_map)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), gid_map)?;
        Ok(OwnedFd::from(std::fs::File::open(format!("/proc/{pid}/ns/user"))?))
    })();
    // SAFETY: the child is ours and not yet waited for, so the number cannot be another's.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        // Its stack must not be freed before it is gone: an interrupted wait is repeated.
        while libc::waitpid(pid, std::ptr::null_mut(), 0) == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    made
}

/// Becomes uid 0 and gid 0 of the process's user namespace, with no other groups.
#[expect(unsafe_code, reason = "process-wide set*id calls have no safe wrapper")]
pub fn become_namespace_root() -> io::Result<()> {
    // SAFETY: plain numbers; a null list of length 0 clears the groups.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(0, 0, 0))?;
        check(libc::setresuid(0, 0, 0))?;
    }
    Ok(())
}

/// Becomes this user and group for good, with no other groups and no capability.
#[expect(unsafe_code, reason = "process-wide set*id calls have no safe wrapper")]
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: plain numbers; a null list of length 0 clears the groups.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(id, id, id))?;
        check(libc::setresuid(id, id, id))?;
    }
    Ok(())
}

/// Keeps this process's memory from other processes of its user, from core files and, where the host allows it, from swap
/// space.
#[expect(unsafe_code, reason = "no wrappers")]
pub fn keep_memory_private() {
    let endless = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: plain numbers, and a struct that outlives its call. Locking needs the limit lifted first, or later
    // allocations would fail.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const endless) == 0 {
            libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT);
        }
    }
}

/// Gives memory that was freed back to the kernel.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn trim_memory() {
    // SAFETY: touches only the allocator's own free lists.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Opens a path below `dir` without following any symbolic link and without leaving `dir`.
pub fn open_beneath(dir: impl AsFd, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path.as_ref(), flags, mode, resolve)
}

/// Opens a path as a process whose root directory is `root` would: symbolic links cannot lead out of it.
pub fn open_in_root(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        path.as_ref(),
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

fn openat2(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    loop {
        // EAGAIN: something was renamed meanwhile and the kernel could not be sure; asking again is the documented way.
        match rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Path of an open descriptor for calls that want a path. Valid while the descriptor is open.
pub fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// `name` as the C string a rustix mount call wants when there is no data.
pub const NO_DATA: Option<&CStr> = None;
