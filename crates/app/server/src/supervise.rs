//! The privileged parent: it is the `node`, and it keeps one unprivileged `serve` child alive (design: two processes of
//! one binary). When the parent dies the child sees its lifeline end and exits; containers live on under their shims.

use anyhow::{Context, Result};
use isolarium_node::{NodeHost, NodeServer};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// First pause before a dead child is started again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived this long was well; the pause starts small again.
const HEALTHY: Duration = Duration::from_secs(30);

/// The privileged side's hold on the data directory.
#[derive(Debug)]
pub struct NodeDir {
    root: PathBuf,
    uid: u32,
    _lock: File,
}

impl NodeDir {
    /// Makes the directory for the service user, locks it for this node, writes `run/node.pid`.
    ///
    /// # Errors
    /// When another node has it or the file system refuses.
    pub fn open(root: &Path, uid: u32, gid: u32) -> Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize().with_context(|| root.display().to_string())?;
        let run = root.join("run");
        for dir in [&root, &run] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            // Sticky and root's: the service makes its own files here but cannot rename or remove what belongs to the
            // privileged half, whose records decide what it acts on.
            chown(dir, Some(0), Some(gid)).with_context(|| format!("cannot own {}", dir.display()))?;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1775))
                .with_context(|| format!("cannot protect {}", dir.display()))?;
        }
        let path = run.join("node.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        if !crate::layout::take(&lock).with_context(|| path.display().to_string())? {
            anyhow::bail!(
                "{} is in use by another isolarium process; stop it first",
                root.display()
            );
        }
        crate::layout::write_whole(
            &run.join("node.pid"),
            format!("{}\n", std::process::id()).as_bytes(),
            0o644,
        )
        .with_context(|| format!("cannot write {}/node.pid", run.display()))?;
        Ok(Self { root, uid, _lock: lock })
    }

    /// The directory, as an absolute path without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket on which this node answers.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/node.sock")
    }

    /// Answers the socket on a thread of its own until the process ends.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn answer(&self, socket: &Path, host: Arc<dyn NodeHost>) -> Result<()> {
        let server = NodeServer::bind(socket, self.uid, host)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        std::thread::Builder::new()
            .name("node-accept".into())
            .spawn(move || {
                if let Err(error) = server.run() {
                    tracing::error!(%error, "the node's listener failed");
                }
            })
            .context("no thread for the node's listener")?;
        Ok(())
    }
}

impl Drop for NodeDir {
    fn drop(&mut self) {
        // A stale pid file would point at a stranger; a failure to remove it harms nobody.
        let _stale = std::fs::remove_file(self.root.join("run/node.pid"));
    }
}

/// glibc's settings of the allocator, and ours: a request allocates some 100 small pieces, and the seven of each size that
/// a thread keeps by default are used up many times over. As many as here keep requests off the arenas and their locks, of
/// pieces up to glibc's own limit: a hundred threads can hoard 2 MiB each at most, and only what they used at one time. An operator's
/// settings win; other C libraries do not look.
const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=48");

/// Keeps the `serve` child running until SIGTERM or SIGINT, which it passes on; returns the child's exit code.
/// `arguments` are the child's whole command line after the program name.
///
/// # Errors
/// When the child cannot be started at all.
pub async fn keep_serving(program: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let allocator = std::env::var_os(ALLOCATOR.0).unwrap_or_else(|| ALLOCATOR.1.into());
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env(ALLOCATOR.0, allocator)
            .stdin(Stdio::null())
            // A terminal's Ctrl-C goes to the whole group; the parent alone decides when the child drains.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id();
        let stopped = tokio::select! {
            status = child.wait() => Ended::ByItself(status.context("cannot wait for the serve process")?),
            _ = terminate.recv() => Ended::Asked,
            _ = interrupt.recv() => Ended::Asked,
        };
        match stopped {
            Ended::Asked => {
                pass_on(pid, rustix::process::Signal::TERM);
                let status = tokio::select! {
                    status = child.wait() => status.context("cannot wait for the serve process")?,
                    // Asked twice: the operator does not want to wait for the drain.
                    _ = interrupt.recv() => { pass_on(pid, rustix::process::Signal::KILL); child.wait().await? }
                };
                return Ok(code(status));
            }
            // An exit code is a decision (bad configuration, address in use): starting again would not help.
            Ended::ByItself(status) if status.code().is_some_and(|code| code != PANICKED) => return Ok(code(status)),
            Ended::ByItself(status) => {
                tracing::error!(%status, "the serve process died; starting it again");
                if started.elapsed() > HEALTHY {
                    pause = FIRST_PAUSE;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                    _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Exit code of a Rust program whose main thread panicked.
const PANICKED: i32 = 101;

enum Ended {
    Asked,
    ByItself(ExitStatus),
}

fn pass_on(pid: Option<u32>, signal: rustix::process::Signal) {
    let pid = pid
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in between; then there is nobody to tell.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> ExitCode {
    let number = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}
