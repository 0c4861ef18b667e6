//! Shims that have no job yet. A process of this size takes longer to load than a namespace takes to seal, so after a
//! launch the next one's shim is started ahead.

use super::lock;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A shim that waits for its job. It holds nothing of the machine and ends by itself when `control` is closed.
#[derive(Debug)]
pub struct Idle {
    pub child: Child,
    pub control: UnixStream,
}

impl Idle {
    /// Starts `program` as a shim, by exec alone: the calling process has threads.
    pub fn start(program: &Path) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg("shim")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, control })
    }

    /// Ends a shim that got no job.
    pub fn end(mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// At most one waiting shim; none before the first launch, so that an engine without containers pays nothing.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Option<Idle>>);

impl Spare {
    /// The waiting shim, for one job.
    pub fn take(&self) -> Option<Idle> {
        lock(&self.0).take()
    }

    /// The pid of the waiting shim.
    #[cfg(test)]
    pub fn pid(&self) -> Option<u32> {
        lock(&self.0).as_ref().map(|idle| idle.child.id())
    }

    /// Starts the next one unless one waits. Without it the next launch only takes longer.
    pub fn refill(&self, program: &Path) {
        let mut spare = lock(&self.0);
        if spare.is_none() {
            match Idle::start(program) {
                Ok(idle) => *spare = Some(idle),
                Err(error) => tracing::warn!(%error, "no shim could be started ahead of the next launch"),
            }
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(idle) = self.take() {
            idle.end();
        }
    }
}
