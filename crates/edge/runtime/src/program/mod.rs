//! A program of the operator's inside a sealed network namespace: the stand-in for an EC2 instance (PL-5).
//!
//! Three processes: the one that was called, which waits and passes signals on; the first one of a PID namespace, which sets
//! the file systems up and has nothing else to do than to be that; and the program. Killing the first ends the second, and
//! the kernel ends everything in the namespace with it, so nothing is left over whoever is killed. Terminal, standard streams
//! and process group are the caller's own.

mod root;

use crate::sys;
use crate::sys::signals::{self, Arrived, Before};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal};
use rustix::thread::ThreadNameSpaceType;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

/// What is to run, and where.
#[derive(Debug)]
pub struct Program {
    /// The sealed network namespace.
    pub netns: OwnedFd,
    pub hostname: String,
    pub root: Root,
    /// What these files hold for the program.
    pub files: Vec<FileOf>,
    /// A directory of the engine that the program does not get to see: its sockets.
    pub hidden: PathBuf,
    /// The program's name or path, and its arguments.
    pub command: Vec<OsString>,
    /// Variables that differ from the caller's: `None` is one that is not there.
    pub environment: Vec<(OsString, Option<OsString>)>,
    /// At its end the program is killed: whoever holds the interface is gone.
    pub lifeline: OwnedFd,
}

/// The program's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The caller's own, with all of the caller's rights.
    Own,
    /// A folder. The program may write everywhere, to memory: the folder stays as it is. Its capabilities are cut.
    Folder(PathBuf),
}

/// A file of the program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOf {
    /// Absolute.
    pub path: PathBuf,
    pub text: Vec<u8>,
    /// In [`Root::Own`], where only files that exist can be replaced: whether the program must not start without it.
    pub needed: bool,
}

/// Why there is no exit code of the program's.
#[derive(Debug, thiserror::Error)]
pub enum ProgramFailure {
    /// As shells have it: 127 for a program that is not there, 126 for one that cannot be started.
    #[error("{text}")]
    Unstartable { code: u8, text: String },
    /// The machine's fault, or a root folder that does not do.
    #[error("{0}")]
    Host(String),
    /// The lifeline ended.
    #[error("the engine went away, and with it the program's network; the program was ended")]
    Lost,
    /// A system call that does not fail otherwise.
    #[error("the program cannot be watched")]
    System(#[from] io::Error),
}

/// Runs the program to its end and gives its exit code; 128 and the signal's number for one that a signal ended. SIGTERM,
/// SIGHUP, SIGINT and SIGQUIT that another process sends are passed on. The calling process must be root and have one thread.
///
/// # Errors
/// See [`ProgramFailure`]. Nothing of the program runs any more.
pub fn run(program: Program) -> Result<u8, ProgramFailure> {
    let before = signals::block(&WATCHED)?;
    let (alive, keep) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    sys::unshare(libc::CLONE_NEWPID)?;
    match signals::fork()? {
        None => {
            drop((keep, told));
            signals::exit(first(&program, before, &alive, tell))
        }
        Some(first) => {
            drop((alive, tell));
            let ended = watch(first, &program.lifeline, told);
            drop(keep);
            ended
        }
    }
}

/// Signals that both parents read from a descriptor.
const WATCHED: [i32; 5] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGCHLD];

/// Whether a signal is for the program, and reaches it by us alone: the keys of a terminal are told to it by the kernel.
fn passed_on(arrived: Arrived) -> Option<Signal> {
    let signal = Signal::from_named_raw(arrived.number)?;
    (arrived.sent && arrived.number != libc::SIGCHLD).then_some(signal)
}

/// The called process until the first one of the namespace is gone.
fn watch(first: Pid, lifeline: &OwnedFd, told: OwnedFd) -> Result<u8, ProgramFailure> {
    let handle = pidfd_open(first, PidfdFlags::empty()).map_err(io::Error::from)?;
    let signals = signals::descriptor(&WATCHED)?;
    let mut lost = false;
    loop {
        let mut polled = [
            PollFd::new(&handle, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(lifeline, PollFlags::IN | PollFlags::RDHUP),
        ];
        // One that was lost is not looked at again.
        let watched = polled.get_mut(..if lost { 2 } else { 3 }).unwrap_or_default();
        match poll(watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let happened = polled.each_ref().map(|one| !one.revents().is_empty());
        let [gone, signalled, over] = happened;
        if signalled {
            while let Some(arrived) = signals::next(&signals)? {
                if let Some(signal) = passed_on(arrived) {
                    // It may be gone already, which is seen next.
                    let _gone = pidfd_send_signal(&handle, signal);
                }
            }
        }
        if gone {
            break;
        }
        if over && !lost {
            lost = true;
            let _gone = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
    let status = loop {
        match rustix::process::waitpid(Some(first), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended.map_err(io::Error::from)?,
        }
    };
    let mut text = String::new();
    File::from(told).read_to_string(&mut text)?;
    let code = status.map_or(u8::MAX, |(_, status)| code_of(status));
    match (lost, text.is_empty(), code) {
        (true, _, _) => Err(ProgramFailure::Lost),
        (false, true, code) => Ok(code),
        (false, false, NOT_FOUND | NOT_STARTED) => Err(ProgramFailure::Unstartable { code, text }),
        (false, false, _) => Err(ProgramFailure::Host(text)),
    }
}

/// Exit codes of shells.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;
/// What the first process ends with when nothing could be set up; it says why.
const NOT_SET_UP: u8 = 125;

/// The first process of the namespace. What goes wrong before the program runs is written to `tell`.
fn first(program: &Program, before: Before, alive: &OwnedFd, tell: OwnedFd) -> u8 {
    let told = |code: u8, text: &str| {
        // Who would read it is gone, and this process with it.
        let _gone = File::from(tell).write_all(text.as_bytes());
        code
    };
    if let Err(error) = leave_with_parent(alive) {
        return told(
            NOT_SET_UP,
            &format!("the program cannot be tied to its caller: {error}"),
        );
    }
    if let Err(trouble) = set_up(program) {
        return told(NOT_SET_UP, &format!("{}: {}", trouble.doing, trouble.source));
    }
    let Some((name, arguments)) = program.command.split_first() else {
        return told(NOT_STARTED, "there is no command");
    };
    let mut command = Command::new(name);
    command.args(arguments);
    for (variable, value) in &program.environment {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    signals::restore_in(&mut command, before);
    match command.spawn() {
        Ok(child) => {
            // Its end is the sign that the program runs.
            drop(told);
            mind(&child).unwrap_or(NOT_SET_UP)
        }
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_STARTED,
            };
            told(code, &format!("{}: {error}", name.to_string_lossy()))
        }
    }
}

/// From now on this process is killed when its parent ends, which has not ended yet.
fn leave_with_parent(alive: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut polled = [PollFd::new(alive, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default()))?;
    let [polled] = polled;
    match polled.revents().contains(PollFlags::HUP) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

/// Buries whoever ends in the namespace until the program has.
fn mind(child: &std::process::Child) -> io::Result<u8> {
    let signals = signals::descriptor(&WATCHED)?;
    let own = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let own = own.ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        loop {
            match rustix::process::waitpid(None, WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == own => return Ok(code_of(status)),
                // One whose parent ended before it.
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut polled = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(arrived) = signals::next(&signals)? {
            if let Some(signal) = passed_on(arrived) {
                let _gone = rustix::process::kill_process(own, signal);
            }
        }
    }
}

/// As shells have it.
fn code_of(status: WaitStatus) -> u8 {
    let by_signal = || status.terminating_signal().map(|number| 128_i32.saturating_add(number));
    let code = status.exit_status().or_else(by_signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// A step that failed.
struct Trouble {
    doing: String,
    source: io::Error,
}

fn doing<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Trouble {
    let doing = doing.into();
    move |error| Trouble {
        doing,
        source: error.into(),
    }
}

fn set_up(program: &Program) -> Result<(), Trouble> {
    rustix::thread::move_into_thread_name_spaces(program.netns.as_fd(), ThreadNameSpaceType::NETWORK)
        .map_err(doing("entering the network namespace"))?;
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC)
        .map_err(doing("making namespaces; isolarium vpc exec must run as root"))?;
    rustix::system::sethostname(program.hostname.as_bytes()).map_err(doing("setting the host's name"))?;
    match &program.root {
        Root::Own => root::own(program),
        Root::Folder(folder) => root::folder(program, folder),
    }
}
