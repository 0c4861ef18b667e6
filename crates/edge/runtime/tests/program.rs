//! Programs of the operator's: what they see, how they end, and that nothing of them is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's set-up may fail loudly"
)]

mod common;

use rustix::fs::Mode;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder with a hidden directory that holds `secret`, and a named pipe as lifeline.
struct Lab {
    dir: tempfile::TempDir,
    /// The lifeline's other end.
    held: Option<File>,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hidden = dir.path().join("hidden");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("secret"), "x").unwrap();
        let lifeline = dir.path().join("lifeline");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &lifeline, fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        // Both directions at once, so that opening does not wait; the helper's end is the one that reads.
        let held = File::options().read(true).write(true).open(&lifeline).unwrap();
        Self { dir, held: Some(held) }
    }

    /// By a caller that hands on a right over the machine to whatever it starts.
    fn command(&self, root: &Path, command: &[&str]) -> Command {
        let at = |name: &str| self.dir.path().join(name);
        // A network namespace without links, as another one than the machine's shows in /sys.
        let mut line = Command::new("unshare");
        line.arg("--net")
            .args(["setpriv", "--inh-caps", "+sys_admin"])
            .arg(common::helper())
            .arg("program")
            .arg(at("hidden"))
            .arg(root)
            .arg(at("lifeline"))
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        line
    }

    fn start(&self, root: &Path, command: &[&str]) -> Child {
        self.command(root, command).spawn().unwrap()
    }

    /// Exit code and what was written.
    fn ended(&self, root: &Path, command: &[&str]) -> (i32, String) {
        told(self.start(root, command))
    }
}

fn told(child: Child) -> (i32, String) {
    let done = child.wait_with_output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

const OWN: &str = "";

fn runs(line: &[u8]) -> bool {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.into_iter()
        .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|found| found.starts_with(line)))
}

/// Proves: PL-5
#[test]
fn a_program_has_its_own_view_and_its_exit_code_is_passed_on() {
    let lab = Lab::new();
    let hidden = lab.dir.path().join("hidden");
    let script = format!(
        "echo $WORD-${{HOME-none}}; hostname; cat /etc/hosts; ls {} | grep -c secret; echo $$; exit 7",
        hidden.display()
    );
    let (code, text) = lab.ended(Path::new(OWN), &["sh", "-c", &script]);
    assert_eq!(text, "given-none\nip-10-0-0-4\n10.0.0.4 only\n0\n2\n");
    assert_eq!(code, 7);
    assert!(hidden.join("secret").exists(), "it is hidden from the program alone");
    let mut from_there = lab.command(Path::new(OWN), &["sh", "-c", "cat secret 2>&1 || echo nothing"]);
    let (_, text) = told(from_there.current_dir(&hidden).spawn().unwrap());
    assert!(
        text.ends_with("nothing\n"),
        "also where its caller stands in it: {text}"
    );
    assert_eq!(
        lab.ended(Path::new(OWN), &["sh", "-c", "kill -9 $$"]).0,
        137,
        "as shells have it"
    );
    assert_eq!(lab.ended(Path::new(OWN), &["/no/such/program"]).0, 127);
    assert_eq!(lab.ended(Path::new(OWN), &["/etc/passwd"]).0, 126);
    let host = fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert!(!host.contains("10.0.0.4 only"), "the host's own file is as it was");
}

#[test]
fn what_a_program_leaves_running_ends_with_it() {
    // A session of its own, no pipe of the caller's, and nobody's child any more.
    let script = "(setsid sh -c 'echo started; exec sleep 300.25 >/dev/null 2>&1' 2>/dev/null &) | head -n 1";
    let (code, text) = Lab::new().ended(Path::new(OWN), &["sh", "-c", script]);
    assert_eq!((code, text.as_str()), (0, "started\n"));
    assert!(!runs(b"sleep\x00300.25"));
}

/// Proves: PL-5
#[test]
fn a_program_ends_with_a_signal_with_its_caller_and_with_its_network() {
    use rustix::process::{Pid, Signal, kill_process};
    let begun = |lab: &Lab, seconds: &str| {
        let script = format!("trap 'exit 9' TERM; sleep {seconds} & echo begun; wait; echo survived");
        let mut child = lab.start(Path::new(OWN), &["sh", "-c", &script]);
        let mut first = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        assert_eq!(&first, b"begun\n");
        child
    };
    let send = |child: &Child, signal| {
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
    };
    let lab = Lab::new();
    let child = begun(&lab, "300.31");
    // The shell says that it has begun when the other program is about to.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !runs(b"sleep\x00300.31") {
        assert!(Instant::now() < deadline, "control: it runs");
    }
    send(&child, Signal::TERM);
    assert_eq!(
        told(child),
        (9, String::new()),
        "the program's own answer to the signal"
    );

    let child = begun(&lab, "300.32");
    send(&child, Signal::KILL);
    assert_eq!(told(child).0, -1);
    // The output's end was the end of every process that had it.
    assert!(!runs(b"sleep\x00300.32"));

    let mut lab = lab;
    let child = begun(&lab, "300.33");
    drop(lab.held.take());
    assert_eq!(told(child), (77, String::new()));
    assert!(!runs(b"sleep\x00300.33") && !runs(b"sleep\x00300.31"));
}

#[test]
fn in_a_folder_everything_may_be_written_and_nothing_of_the_machine_reached() {
    let lab = Lab::new();
    // Characters that options of mounts mean something else by.
    let root = lab.dir.path().join("a:b,c");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("the package busybox-static is needed");
    let (null, mode) = (rustix::fs::makedev(1, 3), Mode::from_raw_mode(0o666));
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("device"), kind, mode, null).unwrap();
    let script = "/bin/busybox cat /etc/hosts; echo x > /made && echo written; \
                  /bin/busybox mount -t tmpfs none /bin 2>/dev/null || echo no mounts; \
                  (echo 1 >/proc/sys/kernel/panic) 2>/dev/null || echo no settings; \
                  /bin/busybox cat /device 2>/dev/null || echo no device of its own; /bin/busybox cat /dev/null; \
                  /bin/busybox ls /dev/null /sys/class/net >/dev/null && echo devices";
    let (code, text) = lab.ended(&root, &["/bin/busybox", "sh", "-c", script]);
    assert_eq!(
        text,
        "10.0.0.4 only\nwritten\nno mounts\nno settings\nno device of its own\ndevices\n"
    );
    assert_eq!(code, 0);
    assert!(
        !root.join("made").exists() && !root.join("etc").exists(),
        "the folder is as it was"
    );
    // A link of the folder's must not lead our files out of it.
    let outside = lab.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("etc")).unwrap();
    let (code, text) = lab.ended(&root, &["/bin/busybox", "true"]);
    assert_eq!(code, 78, "{text}");
    assert!(
        fs::read_dir(&outside).unwrap().next().is_none(),
        "nothing was written outside"
    );
}
