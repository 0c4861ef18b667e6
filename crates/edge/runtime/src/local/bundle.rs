//! The OCI bundle's `config.json`: what the runtime is told to build around the process.

use crate::executor::LaunchSpec;
use crate::local::Walls;
use crate::local::cgroup::{self, Layout};
use crate::local::place::RANGE;
use crate::local::seccomp;
use crate::local::user::User;
use serde_json::{Value, json};

/// Capabilities inside the user namespace: enough for a web server that drops its user, none that reaches beyond the
/// container's own files and processes (CC-3: nothing is added to these).
const CAPABILITIES: [&str; 7] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
];

/// What a container gets when the wall of capabilities is taken away.
const EVERY_CAPABILITY: [&str; 19] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_MKNOD",
    "CAP_SYS_MODULE",
    "CAP_SYS_TIME",
    "CAP_SYS_BOOT",
    "CAP_SYS_RAWIO",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYSLOG",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
];

const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// A mount of the container whose source the shim prepared.
#[derive(Debug)]
pub struct BindMount {
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

/// Everything that goes into a bundle.
#[derive(Debug)]
pub struct Bundle<'a> {
    pub spec: &'a LaunchSpec,
    pub user: &'a User,
    pub walls: Walls,
    pub cgroups: &'a Layout,
    /// The prepared root file system.
    pub root: &'a str,
    /// Path by which the runtime reaches the sealed namespace.
    pub netns: &'a str,
    /// First host id of the workload's range.
    pub first_id: u32,
    /// In the order in which they are mounted.
    pub binds: &'a [BindMount],
    /// The runtime's own limit of open files: the container cannot get more.
    pub open_files: u64,
    /// An annotation of the runtime's own, with its value.
    pub annotation: Option<(&'a str, &'a str)>,
}

impl Bundle<'_> {
    /// The document.
    pub fn document(&self) -> Value {
        let mut linux = json!({
            "cgroupsPath": format!("/{}/{}", cgroup::PARENT, self.spec.workload),
            "resources": self.resources(),
            "namespaces": self.namespaces(),
        });
        if let Value::Object(linux) = &mut linux {
            if self.walls.user_namespace {
                let map = json!([{"containerID": 0, "hostID": self.first_id, "size": RANGE}]);
                linux.insert("uidMappings".into(), map.clone());
                linux.insert("gidMappings".into(), map);
            }
            if self.walls.masked_paths {
                linux.insert("maskedPaths".into(), json!(MASKED));
                linux.insert("readonlyPaths".into(), json!(READ_ONLY));
            }
            if self.walls.seccomp {
                linux.insert("seccomp".into(), seccomp::profile());
            }
        }
        let annotations: serde_json::Map<String, Value> = self
            .annotation
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect();
        json!({
            "ociVersion": "1.0.2",
            "annotations": annotations,
            "process": self.process(),
            "root": {"path": self.root, "readonly": false},
            "hostname": self.spec.hostname,
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    fn process(&self) -> Value {
        let capabilities = if self.walls.capabilities {
            &CAPABILITIES[..]
        } else {
            &EVERY_CAPABILITY[..]
        };
        json!({
            "terminal": false,
            "user": {"uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.additional_gids},
            "args": self.spec.process.argv,
            "env": self.environment(),
            "cwd": self.spec.process.cwd,
            // No ambient or inheritable set: a user other than root holds none.
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": self.open_files, "hard": self.open_files},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
            "noNewPrivileges": true,
        })
    }

    /// The spec's entries, the later of two winning, then what every Unix program expects.
    fn environment(&self) -> Vec<String> {
        let mut entries: Vec<(&str, &str)> = Vec::new();
        let home = self.user.home.as_deref().unwrap_or("/");
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", home),
            ("HOSTNAME", &self.spec.hostname),
        ];
        let given = self
            .spec
            .process
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.into_iter().chain(given) {
            match entries.iter_mut().find(|(known, _)| *known == name) {
                Some(entry) => entry.1 = value,
                None => entries.push((name, value)),
            }
        }
        entries
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn namespaces(&self) -> Vec<Value> {
        let walls = [("pid", self.walls.pid_namespace), ("ipc", self.walls.ipc_namespace)];
        let walls = walls.into_iter().filter_map(|(kind, stands)| stands.then_some(kind));
        let mut namespaces: Vec<Value> = walls
            .chain(["uts", "mount", "cgroup"])
            .map(|kind| json!({"type": kind}))
            .collect();
        namespaces.push(json!({"type": "network", "path": self.netns}));
        if self.walls.user_namespace {
            namespaces.push(json!({"type": "user"}));
        }
        namespaces
    }

    /// CC-7.
    fn resources(&self) -> Value {
        let limits = &self.spec.limits;
        let mut memory = json!({"limit": limits.memory_bytes});
        if self.cgroups.swap
            && let Value::Object(memory) = &mut memory
        {
            // Memory and swap together: no swap beyond the limit.
            memory.insert("swap".into(), json!(limits.memory_bytes));
        }
        json!({
            "memory": memory,
            "cpu": {"period": 100_000, "quota": limits.cpu_millis.saturating_mul(100)},
            "pids": {"limit": limits.pids},
            "devices": [{"allow": false, "access": "rwm"}],
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let shm = format!("size={}", self.spec.limits.shm_bytes);
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", shm]}),
            // Empty: sysfs would show the host's devices.
            json!({"destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "nodev", "ro", "mode=555", "size=4k"]}),
        ];
        if self.walls.ipc_namespace {
            // The queues belong to the namespace: without one of its own the container has nothing to mount.
            mounts.push(json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}));
        }
        mounts.extend(self.binds.iter().map(|bind| {
            let access = if bind.read_only { "ro" } else { "rw" };
            json!({"destination": bind.target, "type": "bind", "source": bind.source, "options": ["bind", access, "nosuid", "nodev"]})
        }));
        mounts
    }
}
