//! A data directory with a busybox image, and everything that ran in it removed at the end.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's set-up may fail loudly"
)]

use isolarium_dataplane::{Host, HostOptions, SealedNetns};
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use isolarium_runtime::executor::{ExecutorError, ExitStatus, LaunchSpec, Limits, Mount, ProcessSpec, WorkloadState};
use isolarium_runtime::local::{LocalConfig, LocalRuntime, OciChoice, Walls};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A user that is nobody else on the machine.
pub const SERVICE: u32 = 64_901;

/// One lab per test; dropped with everything in it, also when the test panics.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub runtime: LocalRuntime,
    pub config: LocalConfig,
    pub layer: Sha256Digest,
    launched: std::cell::RefCell<Vec<WorkloadId>>,
}

pub fn helper() -> PathBuf {
    // target/debug/deps/<test> -> target/debug/examples/runtime-helper
    let exe = std::env::current_exe().unwrap();
    let helper = exe.ancestors().nth(2).unwrap().join("examples/runtime-helper");
    assert!(
        helper.exists(),
        "build it first: cargo build -p isolarium-runtime --examples"
    );
    helper
}

pub fn new_id() -> WorkloadId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = (u64::from(std::process::id()) << 20) + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("w-{number:017x}").parse().unwrap()
}

/// An isolated namespace as the product makes it.
pub fn netns(workload: &WorkloadId) -> SealedNetns {
    let host = Host::new(HostOptions {
        run_dir: std::env::temp_dir(),
        host_netns: None,
    });
    host.seal(&WorkloadNetwork {
        workload: workload.clone(),
        reach: Reach::Nothing,
    })
    .unwrap()
}

/// A tar entry.
pub enum Entry<'a> {
    Dir(&'a str, u32),
    File(&'a str, u32, &'a [u8]),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
    Owned(&'a str, u64, &'a [u8]),
}

/// A tar archive, with names written as they are, however wrong.
pub fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let (name, mode, kind, data): (&str, u32, tar::EntryType, &[u8]) = match entry {
            Entry::Dir(name, mode) => (name, *mode, tar::EntryType::Directory, &[]),
            Entry::File(name, mode, data) => (name, *mode, tar::EntryType::Regular, data),
            Entry::Link(name, _) => (name, 0o777, tar::EntryType::Symlink, &[]),
            Entry::Hard(name, _) => (name, 0o644, tar::EntryType::Link, &[]),
            Entry::Device(name) => (name, 0o666, tar::EntryType::Char, &[]),
            Entry::Owned(name, _, data) => (name, 0o644, tar::EntryType::Regular, data),
        };
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        match entry {
            Entry::Link(_, to) | Entry::Hard(_, to) => header.set_link_name_literal(to).unwrap(),
            Entry::Device(_) => {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            Entry::Owned(_, uid, _) => header.set_uid(*uid),
            _ => {}
        }
        // Straight into the header: the builder would refuse the names that the tests are about.
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn digest(bytes: &[u8]) -> Sha256Digest {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
        .parse()
        .unwrap()
}

/// An open file with these bytes.
pub fn blob(bytes: &[u8]) -> std::os::fd::OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.into()
}

fn image() -> Vec<u8> {
    let busybox = std::fs::read("/usr/bin/busybox").expect("the package busybox-static is needed");
    let mut entries = vec![
        Entry::Dir("bin/", 0o755),
        Entry::File("bin/busybox", 0o755, &busybox),
        Entry::Dir("etc/", 0o755),
        Entry::File(
            "etc/passwd",
            0o644,
            b"root:x:0:0::/root:/bin/sh\nworker:x:1000:1001::/home/worker:/bin/sh\n",
        ),
        Entry::File("etc/group", 0o644, b"root:x:0:\nworker:x:1001:\nextra:x:44:worker\n"),
        Entry::Dir("opt/", 0o755),
        Entry::Dir("opt/ml/", 0o755),
        Entry::File("opt/ml/from-image", 0o644, b"hidden by the platform\n"),
    ];
    let applets = [
        "sh", "cat", "ls", "id", "echo", "sleep", "seq", "dd", "touch", "mkdir", "rm", "env", "hostname", "stat",
        "mount", "ip", "ps", "nproc", "kill", "true", "false", "yes", "head", "grep", "chown", "chmod", "su", "wc",
        "nslookup", "tail", "ln", "readlink", "mkfifo",
    ];
    let names: Vec<String> = applets.iter().map(|name| format!("bin/{name}")).collect();
    entries.extend(names.iter().map(|name| Entry::Link(name, "busybox")));
    tar(&entries)
}

impl Lab {
    pub fn new() -> Self {
        Self::with(Walls::default())
    }

    pub fn with(walls: Walls) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: they start real containers"
        );
        let dir = tempfile::Builder::new().prefix("isolarium-runtime-").tempdir().unwrap();
        let config = LocalConfig {
            cdi_folders: Vec::new(),
            accelerators: "nvidia.com/gpu".into(),
            data_dir: dir.path().to_path_buf(),
            service_uid: SERVICE,
            service_gid: SERVICE,
            oci: OciChoice::Auto,
            self_exe: helper(),
            archive_timeout: std::time::Duration::from_secs(600),
            walls,
        };
        let runtime = LocalRuntime::open(config.clone()).unwrap();
        let image = image();
        let layer = digest(&image);
        runtime.unpack_layer(blob(&image), &layer).unwrap();
        Self {
            dir,
            runtime,
            config,
            layer,
            launched: std::cell::RefCell::default(),
        }
    }

    pub fn spec(&self, script: &str) -> LaunchSpec {
        self.spec_of(&["/bin/sh", "-c", script])
    }

    pub fn spec_of(&self, argv: &[&str]) -> LaunchSpec {
        let workload = new_id();
        LaunchSpec {
            network: WorkloadNetwork {
                workload: workload.clone(),
                reach: Reach::Nothing,
            },
            workload,
            owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/test".into(),
            hostname: "algo-1".into(),
            layers: vec![self.layer.clone()],
            process: ProcessSpec {
                argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec![("GREETING".into(), "hello".into())],
                cwd: "/".into(),
                user: String::new(),
            },
            hosts: Vec::new(),
            resolvers: Vec::new(),
            search: None,
            mounts: Vec::new(),
            held: false,
            beside: None,
            tunnel: None,
            encrypted: false,
            devices: Vec::new(),
            limits: Limits {
                cpu_millis: 2000,
                memory_bytes: 256 << 20,
                pids: 64,
                shm_bytes: 8 << 20,
                overlay_bytes: 16 << 20,
            },
        }
    }

    pub fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        self.launched.borrow_mut().push(spec.workload.clone());
        self.runtime.launch(spec, netns(&spec.workload), &mut |_, _| Ok(()))
    }

    /// Waits for the end.
    pub fn ended(&self, workload: &WorkloadId) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.runtime.observe_one(workload).unwrap().state {
                WorkloadState::Exited(status) => return status,
                WorkloadState::Running { .. } => {}
                state @ WorkloadState::NotStarted { .. } => panic!("{state:?}"),
            }
            assert!(Instant::now() < deadline, "{workload} does not end");
            self.runtime.changed(Duration::from_millis(200)).unwrap();
        }
    }

    /// All lines, once the log is complete.
    pub fn log(&self, workload: &WorkloadId) -> Vec<String> {
        let (mut offset, mut lines) = (0, Vec::new());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let chunk = self.runtime.read_log(workload, offset, 1 << 20).unwrap();
            offset = chunk.next;
            lines.extend(chunk.lines.into_iter().map(|line| line.text));
            if chunk.complete {
                return lines;
            }
            assert!(Instant::now() < deadline);
            self.runtime.changed(Duration::from_millis(100)).unwrap();
        }
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str) -> (ExitStatus, Vec<String>) {
        self.run_spec(&self.spec(script))
    }

    pub fn run_spec(&self, spec: &LaunchSpec) -> (ExitStatus, Vec<String>) {
        self.launch(spec).unwrap();
        let status = self.ended(&spec.workload);
        (status, self.log(&spec.workload))
    }

    /// Waits until the container has written this line.
    pub fn said(&self, workload: &WorkloadId, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let chunk = self.runtime.read_log(workload, 0, 1 << 20).unwrap();
            if chunk.lines.iter().any(|line| line.text == wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{wanted:?} not in {:?}", chunk.lines);
            self.runtime.changed(Duration::from_millis(100)).unwrap();
        }
    }

    pub fn scratch(name: &str, target: &str) -> Mount {
        Mount::Scratch {
            name: name.into(),
            target: target.into(),
            read_only: false,
        }
    }

    /// Stages an input the way the service does.
    pub fn stage(&self, workload: &WorkloadId, name: &str, mode: u32, bytes: &[u8]) {
        use std::os::unix::fs::{PermissionsExt, chown};
        self.runtime.prepare(workload).unwrap();
        let folder = self.dir.path().join("work").join(workload.as_str()).join("in");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        chown(folder.join(name), Some(SERVICE), Some(SERVICE)).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
        chown(&folder, Some(SERVICE), Some(SERVICE)).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for workload in self.launched.borrow().iter() {
            let removed = self.runtime.remove(workload);
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

pub fn file_bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::open(path).unwrap(), &mut bytes).unwrap();
    bytes
}
