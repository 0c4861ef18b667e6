//! While the container runs: its output to the log, its end to the exit file.

use super::{Container, now};
use crate::executor::ExitStatus;
use crate::local::cgroup::{self, Layout};
use crate::local::place::Place;
use crate::local::record::write_exit;
use crate::local::slots;
use crate::log::Writer;
use crate::log::lines::Lines;
use crate::tunnel::Running;
use isolarium_model::{Timestamp, WorkloadId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Timestamps, futimens};
use rustix::process::{PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// An unfinished line is shown after this much silence; a line that is still being written is not cut.
const PARTIAL_LINE_PATIENCE: Duration = Duration::from_secs(5);

/// Wake-ups for new output are at least this far apart.
const WAKE_SPACING: Duration = Duration::from_millis(20);

/// How often a log that cannot grow (disk full, reader far behind) is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a full disk may keep the rest of an ended container's output waiting before it counts as lost.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes read at once: a pipe holds as many.
const READ_SIZE: usize = 64 << 10;

/// What the shim keeps about its container.
pub(super) struct Watched {
    pub workload: WorkloadId,
    pub place: Place,
    pub cgroups: Layout,
    pub group: OwnedFd,
    pub lock: OwnedFd,
    pub slot: u32,
    pub started: Timestamp,
    /// What encrypts the container's traffic with its peers.
    pub tunnel: Option<Running>,
}

/// What a container's log says when that ends before the container does.
const NOT_ENCRYPTED: &[u8] = b"The encryption of the traffic between the instances ended; the container is stopped.\n";

struct Stream {
    pipe: Option<OwnedFd>,
    lines: Lines,
}

/// Log state of one container.
struct Capture {
    writer: Writer,
    /// Records not yet on disk.
    records: Vec<u8>,
    /// When something was last read.
    heard: Timestamp,
    /// When the reader was last woken, and whether it has to be again.
    woken: Timestamp,
    wake: bool,
    /// The log did not take the last record; read nothing before it does.
    stuck: bool,
}

pub(super) fn watch(mut watched: Watched, container: Container) -> io::Result<()> {
    let init = pidfd_open(container.init, PidfdFlags::empty())?;
    let mut streams = container.output.map(|pipe| Stream {
        pipe: Some(pipe),
        lines: Lines::default(),
    });
    let mut capture = Capture {
        writer: Writer::open(&watched.place.log(&watched.workload))?,
        records: Vec::new(),
        heard: now(),
        woken: Timestamp(0),
        wake: false,
        stuck: false,
    };
    let mut ended: Option<(WaitStatus, Timestamp)> = None;
    let mut buffer = vec![0_u8; READ_SIZE];
    loop {
        let open = streams.iter().any(|stream| stream.pipe.is_some());
        if let Some((_, at)) = ended {
            let waited = now().since(at);
            // Every process of the container is dead: a pipe that stays open is held by nobody who could write.
            let done = capture.records.is_empty() && (!open || waited > Duration::from_secs(2));
            if done || waited > LAST_WORDS_PATIENCE {
                break;
            }
        }
        let cut = wait(&init, &streams, &capture, watched.tunnel.as_ref(), ended.is_some())?;
        if cut && ended.is_none() {
            // Its peers hear nothing more of it, and would wait for ever.
            watched.tunnel = None;
            let _gone_already = kill_process(container.init, Signal::KILL);
            if let Some(stream) = streams.last_mut() {
                stream.lines.flush(now(), &mut capture.records);
                stream.lines.push(NOT_ENCRYPTED, now(), &mut capture.records);
            }
        }
        capture.stuck = capture.flush() || (ended.is_none() && capture.writer.must_wait());
        if !capture.stuck {
            for stream in &mut streams {
                capture.read(stream, &mut buffer)?;
            }
            if now().since(capture.heard) >= PARTIAL_LINE_PATIENCE || streams.iter().all(|stream| stream.pipe.is_none())
            {
                for stream in &mut streams {
                    stream.lines.flush(now(), &mut capture.records);
                }
            }
            capture.stuck = capture.flush();
        }
        capture.wake_reader(&watched);
        if ended.is_none()
            && let Some((_, status)) = waitpid(Some(container.init), WaitOptions::NOHANG)?
        {
            ended = Some((status, now()));
        }
    }
    if let Some((status, at)) = ended {
        // Whoever kills a container wants it gone, and its traffic too.
        let by_itself = status.terminating_signal() != Some(Signal::KILL.as_raw());
        if let Some(tunnel) = watched.tunnel.as_ref().filter(|_| by_itself) {
            tunnel.drain();
        }
        finish(&watched, status, at)?;
    }
    Ok(())
}

/// Waits for the next thing to do; `true` when the tunnel is gone.
fn wait(
    init: &OwnedFd,
    streams: &[Stream; 2],
    capture: &Capture,
    tunnel: Option<&Running>,
    ended: bool,
) -> io::Result<bool> {
    let mut polled = Vec::with_capacity(4);
    let cut = tunnel.filter(|_| !ended).map(Running::ended);
    polled.extend(cut.as_ref().map(|cut| PollFd::new(cut, PollFlags::IN)));
    if !ended {
        polled.push(PollFd::new(init, PollFlags::IN));
    }
    if !capture.stuck {
        polled.extend(
            streams
                .iter()
                .filter_map(|stream| Some(PollFd::new(stream.pipe.as_ref()?, PollFlags::IN))),
        );
    }
    let timeout = if capture.stuck || ended {
        Some(RETRY)
    } else if capture.wake {
        Some(WAKE_SPACING)
    } else if streams.iter().any(|stream| stream.lines.is_waiting()) {
        Some(PARTIAL_LINE_PATIENCE)
    } else {
        None
    };
    let timeout = timeout
        .map(rustix::event::Timespec::try_from)
        .transpose()
        .map_err(io::Error::other)?;
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(cut.is_some() && polled.first().is_some_and(|first| !first.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Capture {
    /// Reads what is there, once.
    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> io::Result<()> {
        let Some(pipe) = &stream.pipe else { return Ok(()) };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => stream.pipe = None,
            Ok(count) => {
                self.heard = now();
                stream
                    .lines
                    .push(buffer.get(..count).unwrap_or_default(), self.heard, &mut self.records);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes what waits; `true` when the log did not take all of it.
    fn flush(&mut self) -> bool {
        if self.records.is_empty() {
            return false;
        }
        self.wake = true;
        let refused = self.writer.append(&mut self.records).is_err();
        if self.records.is_empty() {
            // Keep an idle shim small.
            self.records.shrink_to(4096);
        }
        refused
    }

    /// Touches the lock file, which the reader's watch sees: at once after silence, then not too often.
    fn wake_reader(&mut self, watched: &Watched) {
        if self.wake && now().since(self.woken) >= WAKE_SPACING {
            touch(watched);
            (self.wake, self.woken) = (false, now());
        }
    }
}

fn touch(watched: &Watched) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    // A missed wake-up is made good by the reader's time limit.
    let _unseen = futimens(
        &watched.lock,
        &Timestamps {
            last_access: now,
            last_modification: now,
        },
    );
}

/// Order matters: the exit file is durable before anything it tells about is gone.
fn finish(watched: &Watched, status: WaitStatus, ended: Timestamp) -> io::Result<()> {
    let signal = status.terminating_signal();
    let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or(0));
    let kills = cgroup::out_of_memory_kills(&watched.cgroups, watched.group.as_fd(), &watched.workload);
    let exit = ExitStatus {
        code,
        signal,
        out_of_memory: kills > 0 && code != 0,
        lost: false,
        started: watched.started,
        ended,
    };
    let deadline = now().after(LAST_WORDS_PATIENCE);
    while let Err(error) = write_exit(&watched.place, &watched.workload, &exit) {
        // A full disk may become free again; without the file the container counts as killed.
        if deadline.since(now()).is_zero() {
            return Err(error);
        }
        std::thread::sleep(RETRY);
    }
    cgroup::remove_v1(&watched.cgroups, &watched.workload)?;
    cgroup::remove_v2(watched.group.as_fd(), &watched.workload)?;
    slots::release(&watched.place.slots(), watched.slot)?;
    touch(watched);
    Ok(())
}
