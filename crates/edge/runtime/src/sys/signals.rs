//! Signals as something to wait for: blocked, and read from a descriptor. And the two calls by which a process becomes two.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub number: i32,
    /// Another process sent it; else the kernel did, as for the keys of a terminal.
    pub sent: bool,
}

fn set_of(numbers: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; the numbers are constants of libc.
    #[expect(unsafe_code, reason = "no wrapper")]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for number in numbers {
            libc::sigaddset(&raw mut set, *number);
        }
        set
    }
}

/// The signals that a process had blocked before.
#[derive(Clone, Copy)]
pub struct Before(libc::sigset_t);

/// Blocks the signals for this process and its children. The process must have one thread.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn block(numbers: &[i32]) -> io::Result<Before> {
    let set = set_of(numbers);
    let mut before = set_of(&[]);
    // SAFETY: both sets outlive the call.
    super::check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before) })?;
    Ok(Before(before))
}

/// Lets what is started by this have the signals as they were before.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn restore_in(command: &mut std::process::Command, before: Before) {
    use std::os::unix::process::CommandExt;
    // SAFETY: one plain system call between fork and exec, on a set that the closure owns.
    unsafe {
        command.pre_exec(move || {
            super::check(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const before.0,
                std::ptr::null_mut(),
            ))
            .map(drop)
        });
    }
}

/// A descriptor from which blocked signals of whichever process reads it are read, without waiting.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn descriptor(numbers: &[i32]) -> io::Result<OwnedFd> {
    let set = set_of(numbers);
    // SAFETY: the set outlives the call, and the descriptor that it gives is nobody else's.
    unsafe {
        let fd = super::check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next signal of a [`descriptor`]; `None`: none is waiting.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn next(from: &OwnedFd) -> io::Result<Option<Arrived>> {
    let mut told = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::read(from.as_raw_fd(), told.as_mut_ptr().cast(), size) };
    if usize::try_from(read).is_ok_and(|read| read == size) {
        // SAFETY: the kernel filled all of it; every pattern of bits is one.
        let told = unsafe { told.assume_init() };
        return Ok(Some(Arrived {
            number: i32::try_from(told.ssi_signo).map_err(io::Error::other)?,
            // Zero or less: a process. Greater: the kernel.
            sent: told.ssi_code <= 0,
        }));
    }
    match io::Error::last_os_error() {
        error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        error => Err(error),
    }
}

/// Becomes two processes. `None` in the new one, else its number. The process must have one thread.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn fork() -> io::Result<Option<rustix::process::Pid>> {
    // SAFETY: one thread, so that no lock is held by one that is missing in the copy.
    let pid = super::check(unsafe { libc::fork() })?;
    Ok(rustix::process::Pid::from_raw(pid))
}

/// Ends this process at once, without what its parent registered for its own end.
#[expect(unsafe_code, reason = "no wrapper")]
pub fn exit(code: u8) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code.into()) }
}
