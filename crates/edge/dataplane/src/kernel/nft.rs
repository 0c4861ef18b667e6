//! The `nft` program in its JSON form, run by a thread that is inside the namespace. Whole tables only; interfaces of
//! workloads need no rule of their own.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Loading 10,000 elements takes 0.1 s here; a minute means that something hangs.
const LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = "nft";
/// Service managers start programs with short paths.
const SEARCH: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin";

/// Loads one transaction: all of it or nothing.
pub(crate) fn load(input: &Value) -> io::Result<()> {
    run(&["-j", "-f", "-"], input.to_string().as_bytes()).map(drop)
}

/// Lists one table, or everything. `None`: the table does not exist.
pub(crate) fn list(table: Option<&str>) -> io::Result<Option<Value>> {
    let output = match table {
        None => run(&["-j", "list", "ruleset"], b"")?,
        Some(table) => match run(&["-j", "list", "table", "inet", table], b"") {
            Err(error) if error.to_string().contains("No such file or directory") => return Ok(None),
            other => other?,
        },
    };
    serde_json::from_slice(&output).map(Some).map_err(io::Error::other)
}

fn run(args: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .env_clear()
        .env("PATH", SEARCH)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(error.kind(), "the program nft is missing; install nftables"),
            _ => error,
        })?;
    let (output, complaint) = talk(&mut child, input);
    let status = wait(&mut child)?;
    if status.success() {
        return output;
    }
    let complaint = complaint.unwrap_or_default();
    let first = String::from_utf8_lossy(&complaint)
        .trim()
        .lines()
        .next()
        .unwrap_or("no message")
        .to_owned();
    Err(io::Error::other(format!("nft: {first}")))
}

/// Feeds the input and collects both outputs at once, so that neither side waits for the other.
fn talk(child: &mut Child, input: &[u8]) -> (io::Result<Vec<u8>>, io::Result<Vec<u8>>) {
    fn drain(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        stream.map_or(Ok(0), |mut stream| stream.read_to_end(&mut bytes))?;
        Ok(bytes)
    }
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let id = child.id();
    thread::scope(|scope| {
        let (finished, watch) = std::sync::mpsc::channel::<()>();
        // The dog lets go when the sender is dropped at the end of this function.
        scope.spawn(move || {
            if watch.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                kill(id);
            }
        });
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // It may have refused the input and gone; its exit status tells.
                let _ignored = stdin.write_all(input);
            }
        });
        let complaint = scope.spawn(move || drain(stderr));
        let output = drain(stdout);
        let complaint = complaint
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
        drop(finished);
        (output, complaint)
    })
}

fn kill(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        let _it_may_be_gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    // Both outputs are closed: it has ended or is about to.
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            return child.wait();
        }
        thread::sleep(Duration::from_micros(200));
    }
}
