//! The hostile program of `tests/isolation/probe` inside a container with all walls, and inside containers from which
//! the wall that closes an attempt was taken away. Needs root, gcc and a kernel of the kind the tests run on.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use common::{Entry, Lab, blob, digest, tar};
use isolarium_runtime::local::Walls;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The walls of the product.
const ALL: Walls = Walls {
    seccomp: true,
    user_namespace: true,
    capabilities: true,
    masked_paths: true,
};
const NO_FILTER: Walls = Walls { seccomp: false, ..ALL };
const NO_FILTER_ALL_CAPABILITIES: Walls = Walls {
    capabilities: false,
    ..NO_FILTER
};
const HOST_ROOT_WITHOUT_FILTER: Walls = Walls {
    user_namespace: false,
    ..NO_FILTER_ALL_CAPABILITIES
};
const HOST_ROOT_WITH_FILTER: Walls = Walls {
    seccomp: true,
    masked_paths: false,
    ..HOST_ROOT_WITHOUT_FILTER
};
const NO_MASKS: Walls = Walls {
    masked_paths: false,
    ..ALL
};
const NONE: Walls = Walls {
    masked_paths: false,
    ..HOST_ROOT_WITHOUT_FILTER
};

/// Without these walls the attempt is open: they, together, are what closes it.
const OPEN_WITHOUT: &[(Walls, &[&str])] = &[
    (
        NO_FILTER,
        &[
            "vsock",
            "vsock-truncated",
            "vsock-high-bits",
            "vsock-int80",
            "io-uring",
            "io-uring-register",
            "keyctl",
            "add-key",
            "request-key",
            "unshare-user",
            "unshare-user-packet",
            "clone-user",
            "clone3-user",
            "ptrace",
            "process-vm-readv",
            "process-vm-writev",
            "pidfd-getfd",
            "kcmp",
            "userfaultfd",
            "personality",
            "move-pages",
            "set-mempolicy",
            "modify-ldt",
            "clock-adjtime",
            "netlink-generic",
            "netlink-netfilter",
            "netlink-audit",
            "netlink-uevent",
            "netlink-sock-diag",
            "netlink-xfrm",
            "netlink-truncated",
        ],
    ),
    (
        NO_FILTER_ALL_CAPABILITIES,
        &[
            "chroot",
            "pivot-root",
            "clone-net",
            "unshare-net",
            "unshare-mount",
            "setns-mount",
            "fsopen",
            "open-tree",
            "mount-setattr",
            "mount-tmpfs",
            "mount-proc",
            "mount-bind",
            "mount-cgroup",
            "remount-proc-sys",
            "umount-proc-sys",
            "reboot",
            "sethostname",
            "setdomainname",
        ],
    ),
    (
        HOST_ROOT_WITHOUT_FILTER,
        &[
            "packet",
            "packet-truncated",
            "packet-old",
            "raw-icmp",
            "raw-tcp",
            "raw-ipv6",
            "raw-truncated",
            "xdp",
            "bpf-map",
            "bpf-program",
            "perf-event",
            "fanotify",
            "mount-sysfs",
            "remount-root",
            "open-by-handle",
            "setns-net",
            "settimeofday",
            "swapon",
            "syslog",
        ],
    ),
    (
        HOST_ROOT_WITH_FILTER,
        &[
            "capability-gain",
            "new-link",
            "new-address",
            "new-route",
            "ioctl-flags",
            "ioctl-bridge",
            "ioctl-route",
            "so-mark",
            "ip-transparent",
            "mknod-char",
            "mknod-block",
            "unmapped-user",
            "core-pattern",
            "ip-forward",
            "ping-range",
        ],
    ),
    (NO_MASKS, &["key-users"]),
    (NONE, &["timer-list", "irq-affinity"]),
];

/// Without the filter the refusal is another one: what answers now is the filter.
const OTHERWISE_WITHOUT_FILTER: &[&str] = &["name-to-handle", "vsock-x32"];

/// Closed by the empty network namespace; the control, the same attempt in a connected one, is in the network labs.
const CLOSED_BY_NAMESPACE: &[&str] = &[
    "connect-outside",
    "connect-metadata",
    "connect-credentials",
    "connect-services",
    "udp-outside",
    "dns-outside",
    "broadcast",
    "connect-ipv6",
    "multicast-ipv6",
    "connect-mptcp",
    "fast-open",
    "ping-socket",
];

/// Not in the container at all.
const ABSENT: &[&str] = &[
    "dev-mem",
    "dev-kvm",
    "dev-vsock",
    "dev-tun",
    "dev-fuse",
    "dev-loop",
    "dev-kmsg",
    "uevent-helper",
    "release-agent",
    "cgroup-procs",
];

/// Refused by any kernel, by a file's owner, or only by kernels that have the feature: closed here without a control.
const CLOSED_ANYWAY: &[&str] = &[
    "ambient-gain",
    "privileges-back",
    "etc-hosts",
    "etc-resolv-conf",
    "sysrq-trigger",
    "kcore",
    "alg",
    "bluetooth",
    "can",
    "rds",
    "tipc",
    "key-socket",
    "nfc",
    "smc",
    "iopl",
    "ioperm",
    "init-module",
    "kexec",
];

type Findings = BTreeMap<String, (String, i64)>;

fn program() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/isolation/probe/probe.c");
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("probe");
        let status = Command::new("gcc")
            .args(["-static", "-O1", "-o"])
            .arg(&built)
            .arg(source)
            .status()
            .unwrap();
        assert!(status.success());
        common::file_bytes(&built)
    })
}

fn probe(walls: Walls, attempts: &[&str]) -> Findings {
    let lab = Lab::with(walls);
    let layer = tar(&[Entry::File("probe", 0o755, program())]);
    lab.runtime.unpack_layer(blob(&layer), &digest(&layer)).unwrap();
    let mut spec = lab.spec_of(&[&["/probe"], attempts].concat());
    spec.layers.push(digest(&layer));
    let (status, lines) = lab.run_spec(&spec);
    assert_eq!(status.code, 0, "{lines:?}");
    lines.iter().map(|line| finding(line)).collect()
}

fn finding(line: &str) -> (String, (String, i64)) {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    (text("attempt"), (text("outcome"), value["errno"].as_i64().unwrap()))
}

/// Proves: NI-11, NI-23
#[test]
fn every_way_out_is_closed_and_what_programs_need_is_open() {
    let found = probe(ALL, &["all"]);
    assert!(found.len() >= 120, "{}", found.len());
    for (attempt, (outcome, errno)) in &found {
        let expected_open = attempt.starts_with("allowed-");
        assert_eq!(outcome == "open", expected_open, "{attempt}: {outcome} {errno}");
    }
    for attempt in CLOSED_BY_NAMESPACE.iter().filter(|attempt| **attempt != "ping-socket") {
        assert_eq!(
            found[*attempt].1,
            i64::from(libc::ENETUNREACH),
            "{attempt}: refused at once, by the missing route"
        );
    }
    for attempt in ["vsock", "vsock-truncated", "vsock-high-bits", "packet", "alg"] {
        assert_eq!(
            found[attempt].1,
            i64::from(libc::EAFNOSUPPORT),
            "{attempt}: the answer that libraries expect"
        );
    }
    // Nothing the program tries is forgotten below.
    let judged = OPEN_WITHOUT
        .iter()
        .flat_map(|(_, attempts)| *attempts)
        .chain(OTHERWISE_WITHOUT_FILTER);
    let judged: Vec<&str> = judged
        .chain(CLOSED_BY_NAMESPACE)
        .chain(ABSENT)
        .chain(CLOSED_ANYWAY)
        .copied()
        .collect();
    let tried: Vec<&str> = found
        .keys()
        .map(String::as_str)
        .filter(|attempt| !attempt.starts_with("allowed-"))
        .collect();
    let missing: Vec<_> = tried.iter().filter(|attempt| !judged.contains(attempt)).collect();
    assert_eq!((missing.len(), judged.len()), (0, tried.len()), "{missing:?}");
}

/// The control of the test above: each attempt works where its wall is missing, so the probe can do it and the wall is
/// what stops it.
///
/// Proves: NI-23
#[test]
fn each_attempt_is_open_where_exactly_its_walls_were_taken_away() {
    for (walls, attempts) in OPEN_WITHOUT {
        for (attempt, (outcome, errno)) in probe(*walls, attempts) {
            assert_eq!(outcome, "open", "{attempt} with {walls:?}: errno {errno}");
        }
    }
    let with = probe(ALL, OTHERWISE_WITHOUT_FILTER);
    for (attempt, finding) in probe(NO_FILTER, OTHERWISE_WITHOUT_FILTER) {
        assert_ne!(finding, with[&attempt], "{attempt}");
    }
}

#[test]
fn devices_are_absent_in_the_container_though_the_host_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe");
    std::fs::write(&path, program()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let devices: Vec<&str> = ABSENT
        .iter()
        .filter(|attempt| attempt.starts_with("dev-"))
        .copied()
        .collect();
    let output = Command::new(&path).args(&devices).output().unwrap();
    let on_host: Findings = String::from_utf8(output.stdout).unwrap().lines().map(finding).collect();
    assert!(
        on_host.values().any(|(outcome, _)| outcome == "open"),
        "control: {on_host:?}"
    );
    for (attempt, finding) in probe(ALL, &devices) {
        assert_eq!(finding, ("closed".into(), i64::from(libc::ENOENT)), "{attempt}");
    }
}
