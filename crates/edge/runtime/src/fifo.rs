//! Named pipes that a container reads. The service makes them in a workload's directory, waits until the container opens
//! one, and writes. Whoever waits or writes can be stopped from another thread.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the kernel holds of a pipe that nobody reads at the moment, bytes: the most that it allows everybody.
const ROOM: usize = 1 << 20;

/// The service writes, every user of the container may read.
const MODE: u32 = 0o644;

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Every reader has closed its end.
    #[error("the pipe was closed by its reader")]
    Closed,
    /// [`Stop::make`] was called.
    #[error("the pipe is not wanted any more")]
    Stopped,
    #[error("the pipe could not be used")]
    Failed(#[from] io::Error),
}

/// Makes a named pipe; one that is there stays.
///
/// # Errors
/// When the file system refuses, and when something else has the name.
pub fn make(path: &Path) -> io::Result<()> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(MODE), 0) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::lstat(path)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::Fifo {
                return Err(Errno::EXIST.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    // Whatever the umask took away.
    let handle = handle(path)?;
    Ok(rustix::fs::chmod(through_proc(&handle).as_str(), Mode::from(MODE))?)
}

fn handle(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A name of the open file itself, also when it has no other any more.
fn through_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[derive(Debug, Default)]
struct State {
    made: bool,
    /// The pipe whose reader is waited for.
    awaited: Option<OwnedFd>,
    /// Lets a wait for a reader end.
    reader: Option<OwnedFd>,
}

/// Ends what a [`Feed`] waits for, from any thread.
#[derive(Debug)]
pub struct Stop {
    state: Arc<Mutex<State>>,
    wake: UnixStream,
}

impl Stop {
    /// From now on every call of the feed ends with [`Halt::Stopped`], those under way too. Repeatable.
    ///
    /// # Errors
    /// When this process has no descriptor left: a wait for a reader that is under way goes on, later ones do not.
    pub fn make(&self) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.made = true;
        // Whoever waits for room in a pipe or for time sees the end of this connection.
        match self.wake.shutdown(Shutdown::Both) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
            _ => {}
        }
        // Whoever waits for a reader gets one, which stays until it was met.
        if let Some(pipe) = &state.awaited {
            let path = through_proc(pipe);
            let reader = rustix::fs::open(
                path.as_str(),
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            state.reader = Some(reader);
        }
        Ok(())
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one pipe after the other.
#[derive(Debug)]
pub struct Feed {
    state: Arc<Mutex<State>>,
    wake: UnixStream,
}

/// A feed and what ends it.
///
/// # Errors
/// When this process has no descriptor left.
pub fn feed() -> io::Result<(Feed, Stop)> {
    let (wake, other) = UnixStream::pair()?;
    let state = Arc::new(Mutex::new(State::default()));
    let feed = Feed {
        state: Arc::clone(&state),
        wake,
    };
    Ok((feed, Stop { state, wake: other }))
}

impl Feed {
    /// Waits until somebody opens the pipe for reading.
    ///
    /// # Errors
    /// `Stopped`, `Failed`.
    pub fn open(&self, path: &Path) -> Result<End<'_>, Halt> {
        let pipe = handle(path).map_err(io::Error::from)?;
        {
            let mut state = locked(&self.state);
            if state.made {
                return Err(Halt::Stopped);
            }
            state.awaited = Some(pipe.try_clone()?);
        }
        let opened = File::options().write(true).open(through_proc(&pipe));
        {
            let mut state = locked(&self.state);
            state.awaited = None;
            state.reader = None;
            if state.made {
                return Err(Halt::Stopped);
            }
        }
        let file = opened?;
        rustix::fs::fcntl_setfl(&file, OFlags::NONBLOCK).map_err(io::Error::from)?;
        // The kernel may have no room for another large one: then it is a small one.
        let _as_it_is = rustix::pipe::fcntl_setpipe_size(&file, ROOM);
        Ok(End { feed: self, file })
    }

    /// Waits for so long; `None` for ever.
    ///
    /// # Errors
    /// `Stopped`, `Failed`.
    pub fn wait(&self, time: Option<Duration>) -> Result<(), Halt> {
        let time = time.map(rustix::event::Timespec::try_from).transpose();
        let time = time.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut polled = [PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut polled, time.as_ref()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Halt::Stopped),
            // As if it had been over.
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn stopped(&self) -> bool {
        locked(&self.state).made
    }
}

/// The writing end of a pipe that has a reader. Dropping it is the end of the reader's file.
#[derive(Debug)]
pub struct End<'a> {
    feed: &'a Feed,
    file: File,
}

impl End<'_> {
    /// Writes all of it, however long the reader takes.
    ///
    /// # Errors
    /// [`Halt`].
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.feed.stopped() {
                return Err(Halt::Stopped);
            }
            match self.file.write(rest) {
                Ok(wrote) => rest = rest.get(wrote..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.room()?,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::BrokenPipe => return Err(Halt::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// Waits for room, for the reader's end, or for the feed's.
    fn room(&self) -> Result<(), Halt> {
        let (file, wake) = (self.file.as_fd(), self.feed.wake.as_fd());
        let mut polled = [PollFd::new(&file, PollFlags::OUT), PollFd::new(&wake, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::thread;

    fn pipe(folder: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
        let path = folder.path().join(name);
        make(&path).unwrap();
        path
    }

    /// Proves: CC-25
    #[test]
    fn a_pipe_is_made_once_and_every_user_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder, "train_0");
        make(&path).unwrap();
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_fifo());
        assert_eq!(found.permissions().mode() & 0o777, 0o644);
        let other = folder.path().join("file");
        std::fs::write(&other, "").unwrap();
        assert!(make(&other).is_err());
    }

    /// Proves: CC-25
    #[test]
    fn bytes_go_to_the_reader_and_its_file_ends_with_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder, "train_0");
        let (feed, _stop) = feed().unwrap();
        let reader = thread::spawn({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        });
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut end = feed.open(&path).unwrap();
        end.write_all(&sent).unwrap();
        drop(end);
        assert!(reader.join().unwrap() == sent);
    }

    /// Proves: CC-25
    #[test]
    fn a_reader_that_closes_early_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder, "train_0");
        let (feed, _stop) = feed().unwrap();
        let reader = thread::spawn({
            let path = path.clone();
            move || File::open(path).unwrap().read_exact(&mut [0; 10]).unwrap()
        });
        let mut end = feed.open(&path).unwrap();
        let halted = loop {
            match end.write_all(&[7; 1 << 16]) {
                Ok(()) => {}
                Err(halted) => break halted,
            }
        };
        assert!(matches!(halted, Halt::Closed), "{halted:?}");
        reader.join().unwrap();
    }

    #[test]
    fn every_wait_can_be_ended_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder, "train_0");
        // For a reader that never comes, also when the name is gone meanwhile.
        let (waiting, stop) = feed().unwrap();
        let waiter = thread::spawn({
            let path = path.clone();
            move || waiting.open(&path).map(drop)
        });
        while locked(&stop.state).awaited.is_none() {
            thread::yield_now();
        }
        std::fs::remove_file(&path).unwrap();
        stop.make().unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(Halt::Stopped)));
        stop.make().unwrap();

        // For room in a pipe whose reader reads nothing.
        let path = pipe(&folder, "train_1");
        let (writing, stop) = feed().unwrap();
        let writer = thread::spawn({
            let path = path.clone();
            move || {
                let mut end = writing.open(&path).unwrap();
                let halted = end.write_all(&vec![0; 4 * ROOM]);
                drop(end);
                (halted, writing.open(&path).map(drop), writing.wait(None))
            }
        });
        // Its first byte shows that the writer has the pipe: before that a stop would end the wait for a reader.
        let mut idle = File::open(&path).unwrap();
        idle.read_exact(&mut [0]).unwrap();
        stop.make().unwrap();
        let (halted, again, waited) = writer.join().unwrap();
        assert!(matches!(halted, Err(Halt::Stopped)), "{halted:?}");
        assert!(matches!(again, Err(Halt::Stopped)), "{again:?}");
        assert!(matches!(waited, Err(Halt::Stopped)), "{waited:?}");
        drop(idle);
    }
}
