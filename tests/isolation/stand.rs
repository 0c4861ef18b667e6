//! A node of its own with an internet of its own, the hostile program as its only image, and everything that ran in it
//! removed at the end.

use isolarium_dataplane::kernel::netns;
use isolarium_dataplane::{Host, HostOptions, SealedNetns};
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::intent::{Reach, Uplink, WorkloadNetwork};
use isolarium_node::{LocalHost, Network};
use isolarium_runtime::executor::{Archives, Executor, LaunchSpec, Limits, ProcessSpec, WorkloadState};
use isolarium_runtime::local::{LocalConfig, LocalRuntime, OciChoice, Walls};
use isolarium_testkit::lab::{Internet, default_network};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A user that is nobody else on the machine.
const SERVICE: u32 = 64_902;

/// The walls of the product.
pub const ALL: Walls = Walls {
    seccomp: true,
    user_namespace: true,
    capabilities: true,
    masked_paths: true,
    ipc_namespace: true,
    pid_namespace: true,
};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub open: bool,
    /// Why it was closed; the signal when the process was killed.
    pub errno: i32,
}

/// Attempts by name.
pub type Findings = BTreeMap<String, Finding>;

/// Reads what the hostile program wrote.
pub fn findings(lines: &[String]) -> Findings {
    let finding = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let finding = Finding {
            open: value["outcome"] == "open",
            errno: value["errno"].as_i64().unwrap().try_into().unwrap(),
        };
        (value["attempt"].as_str().unwrap().to_owned(), finding)
    };
    lines.iter().map(finding).collect()
}

/// The hostile program, built once.
pub fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("isolation/probe/probe.c");
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe");
        // Another run of this suite may be using the program of that name.
        let fresh = built.with_extension(std::process::id().to_string());
        let mut gcc = Command::new("gcc");
        let status = gcc.args(["-static", "-O1", "-o"]).arg(&fresh).arg(source).status();
        assert!(status.unwrap().success(), "gcc builds the probe");
        std::fs::rename(fresh, &built).unwrap();
        built
    })
}

/// The hostile program as a process of the host, in the namespace of the calling thread.
pub fn on_host(attempts: &[&str]) -> Findings {
    let output = Command::new(program()).args(attempts).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    findings(&lines)
}

/// The hostile program as a process of the host that has an empty file of this name, which the host itself may lack.
pub fn on_host_with(file: &str, attempt: &str) -> Findings {
    let folder = Path::new(file).parent().unwrap().to_str().unwrap();
    let script = r#"at=$1
        while [ ! -d "$at" ]; do at=${at%/*}; done
        mount -t tmpfs none "$at" && mkdir -p "$1" && : >"$2" && exec "$3" "$4""#;
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            folder,
            file,
        ])
        .arg(program())
        .arg(attempt)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    findings(&text.lines().map(str::to_owned).collect::<Vec<_>>())
}

fn image() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, mode, kind, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("etc/", 0o755, tar::EntryType::Directory, &[]);
    add(
        "probe",
        0o755,
        tar::EntryType::Regular,
        &std::fs::read(program()).unwrap(),
    );
    builder.into_inner().unwrap()
}

fn new_id() -> WorkloadId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = (u64::from(std::process::id()) << 20) + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("w-{number:017x}").parse().unwrap()
}

/// Runs a tool of the host.
pub fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {output:?}");
}

/// A node with its data directory and its internet.
pub struct Stand {
    pub host: LocalHost,
    pub internet: Internet,
    config: LocalConfig,
    layer: Sha256Digest,
    launched: RefCell<Vec<WorkloadId>>,
    dir: tempfile::TempDir,
}

impl Stand {
    /// A node whose containers have these walls.
    pub fn new(walls: Walls) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: they start real containers"
        );
        let internet = Internet::new().unwrap();
        let dir = tempfile::Builder::new()
            .prefix("isolarium-isolation-")
            .tempdir()
            .unwrap();
        let config = LocalConfig {
            data_dir: dir.path().to_path_buf(),
            service_uid: SERVICE,
            service_gid: SERVICE,
            oci: OciChoice::Auto,
            self_exe: env!("CARGO_BIN_EXE_isolarium-test-shim").into(),
            archive_timeout: std::time::Duration::from_secs(600),
            cdi_folders: Vec::new(),
            accelerators: "nvidia.com/gpu".into(),
            walls,
        };
        let network = default_network(Uplink::Netns { path: internet.path() });
        let host = LocalHost::open(config.clone(), (0, 0), network.clone()).unwrap();
        let bytes = image();
        let layer = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let stand = Self {
            host,
            internet,
            config,
            layer: layer.parse().unwrap(),
            launched: RefCell::default(),
            dir,
        };
        stand.host.ensure_network(&network).unwrap();
        let mut blob = tempfile::tempfile().unwrap();
        blob.write_all(&bytes).unwrap();
        blob.rewind().unwrap();
        stand.host.unpack_layer(blob.into(), &stand.layer).unwrap();
        stand
    }

    /// The namespace that routes for containers without isolation.
    pub fn platform(&self) -> OwnedFd {
        netns::open(&self.dir.path().join("run/netns/platform")).unwrap()
    }

    /// The network namespace of a container that runs.
    pub fn namespace_of(&self, workload: &WorkloadId) -> OwnedFd {
        let runtime = LocalRuntime::open(self.config.clone()).unwrap();
        let pid = runtime.init_pid(workload).unwrap();
        netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).unwrap()
    }

    fn spec(&self, reach: Reach, args: &[&str]) -> LaunchSpec {
        let workload = new_id();
        self.launched.borrow_mut().push(workload.clone());
        LaunchSpec {
            network: WorkloadNetwork {
                workload: workload.clone(),
                reach,
            },
            workload,
            owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/hostile".into(),
            hostname: "algo-1".into(),
            layers: vec![self.layer.clone()],
            process: ProcessSpec {
                argv: [&["/probe"], args].concat().into_iter().map(str::to_owned).collect(),
                env: Vec::new(),
                cwd: "/".into(),
                user: String::new(),
            },
            hosts: Vec::new(),
            resolvers: Vec::new(),
            search: None,
            mounts: Vec::new(),
            encrypted: false,
            devices: Vec::new(),
            limits: Limits {
                cpu_millis: 2000,
                memory_bytes: 128 << 20,
                pids: 64,
                shm_bytes: 8 << 20,
                overlay_bytes: 16 << 20,
            },
            held: false,
            beside: None,
            tunnel: None,
        }
    }

    /// Starts an isolated container as the product does.
    pub fn isolated(&self, args: &[&str]) -> WorkloadId {
        let spec = self.spec(Reach::Nothing, args);
        self.host.launch(&spec).unwrap();
        spec.workload
    }

    /// Starts a container without isolation as the product does.
    pub fn default_container(&self, address: Ipv4Addr, args: &[&str]) -> WorkloadId {
        let spec = self.spec(Reach::ServiceNetwork { address }, args);
        self.host.launch(&spec).unwrap();
        spec.workload
    }

    /// The control of the network's wall: the container of [`Self::isolated`] with nothing but that wall gone. `change`
    /// gets the namespace, empty as the product makes it, before the container starts; no hook refuses in its place.
    pub fn breached(&self, args: &[&str], change: impl FnOnce(&SealedNetns)) -> WorkloadId {
        let spec = self.spec(Reach::Nothing, args);
        let seals = Host::new(HostOptions {
            run_dir: self.dir.path().join("run"),
            host_netns: None,
        });
        let sealed = seals.seal(&spec.network).unwrap();
        change(&sealed);
        let runtime = LocalRuntime::open(self.config.clone()).unwrap();
        runtime.launch(&spec, sealed, &mut |_, _| Ok(())).unwrap();
        spec.workload
    }

    /// Plugs a namespace straight into the internet, with a default route for both families and echo sockets allowed.
    pub fn plug(&self, sealed: &SealedNetns) {
        let into = format!("/proc/{}/fd/{}", std::process::id(), sealed.as_fd().as_raw_fd());
        let outside = || {
            for (file, value) in [("all", "0"), ("default", "0"), ("lo", "0")] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{file}/disable_ipv6"), value).unwrap();
            }
            run("ip", "link add out0 type veth peer name eth0");
            run("ip", &format!("link set eth0 netns {into}"));
            run("ip", "link set out0 up");
            run("ip", "addr add 192.0.0.1/29 dev out0");
            run("ip", "addr add fd00:5::1/64 dev out0 nodad");
            for address in ["169.254.170.2/32", "198.18.0.1/32", "2001:db8::1/128"] {
                run("ip", &format!("addr add {address} dev lo"));
            }
        };
        self.internet.inside(outside).unwrap();
        let inside = || {
            for file in ["all", "default", "eth0"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{file}/disable_ipv6"), "0").unwrap();
            }
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            run("ip", "link set eth0 up");
            run("ip", "addr add 192.0.0.2/29 dev eth0");
            run("ip", "addr add fd00:5::2/64 dev eth0 nodad");
            run("ip", "route add default via 192.0.0.1");
            run("ip", "-6 route add default via fd00:5::1");
        };
        netns::within(sealed.as_fd(), inside).unwrap();
    }

    /// The complete output of a container that ended well.
    pub fn output(&self, workload: &WorkloadId) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.host.observe_one(workload).unwrap().state {
                WorkloadState::Exited(status) => {
                    assert_eq!(status.code, 0, "{:?}", self.said(workload));
                    break;
                }
                WorkloadState::Running { .. } => {}
                state @ WorkloadState::NotStarted { .. } => panic!("{state:?}"),
            }
            assert!(Instant::now() < deadline, "{workload} does not end");
            self.host.changed(Duration::from_millis(200)).unwrap();
        }
        let (mut offset, mut lines) = (0, Vec::new());
        loop {
            let chunk = self.host.read_log(workload, offset, 1 << 20).unwrap();
            offset = chunk.next;
            lines.extend(chunk.lines.into_iter().map(|line| line.text));
            if chunk.complete {
                return lines;
            }
            assert!(Instant::now() < deadline, "the output of {workload} does not end");
            self.host.changed(Duration::from_millis(100)).unwrap();
        }
    }

    /// What a container found out, when it has ended.
    pub fn found(&self, workload: &WorkloadId) -> Findings {
        findings(&self.output(workload))
    }

    /// What a container has written so far.
    pub fn said(&self, workload: &WorkloadId) -> Vec<String> {
        let chunk = self.host.read_log(workload, 0, 1 << 20).unwrap();
        chunk.lines.into_iter().map(|line| line.text).collect()
    }

    /// Waits until a container has written this line.
    pub fn wait_for(&self, workload: &WorkloadId, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.said(workload).iter().any(|said| said == line) {
            assert!(Instant::now() < deadline, "{line:?} not in {:?}", self.said(workload));
            self.host.changed(Duration::from_millis(100)).unwrap();
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let mut faults = Vec::new();
        for workload in self.launched.borrow().iter() {
            faults.extend(self.host.remove(workload).err());
        }
        faults.extend(self.host.teardown().err());
        assert!(faults.is_empty() || std::thread::panicking(), "{faults:?}");
    }
}
