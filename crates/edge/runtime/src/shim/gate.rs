//! A held container waits here: its program begins when somebody writes to a pipe beside its record. The pipe has a name,
//! so that a restarted node finds it.

use super::{Container, Job, build};
use crate::local::place::{Place, absent_is_fine};
use crate::tunnel::Running;
use isolarium_model::WorkloadId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

/// Makes the pipe and opens it, before there is a container that could be asked to begin.
pub(super) fn make(place: &Place, workload: &WorkloadId) -> io::Result<OwnedFd> {
    let path = place.gate(workload);
    absent_is_fine(fs::remove_file(&path))?;
    mknodat(CWD, &path, FileType::Fifo, Mode::from(0o600), 0)?;
    // For both directions: a writer that closes its end is not the end of the pipe.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(&path, flags, Mode::empty())?)
}

/// Waits until the program may begin, and begins it; or until the container was killed.
pub(super) fn pass(
    gate: &OwnedFd,
    tunnel: Option<&Running>,
    job: &Job,
    place: &Place,
    container: &Container,
    program: Option<&OwnedFd>,
) -> io::Result<()> {
    let init = pidfd_open(container.init, PidfdFlags::empty())?;
    let opened = loop {
        let mut polled = vec![PollFd::new(gate, PollFlags::IN), PollFd::new(&init, PollFlags::IN)];
        let ended = tunnel.map(Running::ended);
        polled.extend(ended.as_ref().map(|ended| PollFd::new(ended, PollFlags::IN)));
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let mut happened = polled.iter().map(|one| !one.revents().is_empty());
        let (open, over) = (happened.next() == Some(true), happened.any(|happened| happened));
        // Whoever watches the container sees both ends.
        if open || over {
            break open;
        }
    };
    if opened && build::begin(job, program).is_err() {
        // A program that cannot begin would keep the others waiting for ever.
        let _gone_already = kill_process(container.init, Signal::KILL);
    }
    absent_is_fine(fs::remove_file(place.gate(&job.spec.workload)))
}
