//! Real containers on encrypted volumes. Needs root, crun (or runc), busybox-static, mkfs.ext4, loop devices and fscrypt.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

mod common;

use common::{Lab, SERVICE};
use isolarium_runtime::executor::{ExecutorError, PackFormat, VolumeKey, VolumeSpec, WorkloadState};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

const SPEC: VolumeSpec = VolumeSpec {
    bytes: 64 << 20,
    lasting: false,
};

/// Mounts and loop devices that lead below a directory.
fn kernel_knows(own: &Path) -> Vec<String> {
    let own = own.to_str().unwrap();
    let volumes = format!("{own}/volumes/");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut known: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&volumes))
        .map(Into::into)
        .collect();
    for entry in std::fs::read_dir("/sys/block").unwrap() {
        let backing = entry.unwrap().path().join("loop/backing_file");
        known.extend(std::fs::read_to_string(backing).ok().filter(|file| file.contains(own)));
    }
    known
}

/// The kernel lets go of a device a moment after its last user.
fn wait_until_forgotten(own: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !kernel_knows(own).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", kernel_knows(own));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a program of the operator's that starts now has mounted.
fn mounts_of_a_host(own: &Path) -> String {
    let at = |name: &str| own.join(name);
    std::fs::create_dir(at("hidden")).unwrap();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, at("lifeline"), fifo, mode, 0).unwrap();
    let _held = File::options().read(true).write(true).open(at("lifeline")).unwrap();
    let mut line = std::process::Command::new("unshare");
    line.arg("--net").arg(common::helper()).arg("program");
    line.args([at("hidden"), "".into(), at("lifeline")])
        .args(["cat", "/proc/self/mountinfo"]);
    let done = line.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// The container that starts later, and runs on, got a copy of all mounts that there were.
///
/// Proves: CC-36, NET-72
#[test]
fn a_volume_ends_with_its_workload_whoever_runs_beside_it() {
    let lab = Lab::new();
    let own = lab.dir.path();
    let mut spec =
        lab.spec("echo a secret word > /opt/ml/model/file; stat -c %u /opt/ml/model; sync; echo up; sleep 1000");
    spec.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    spec.encrypted = true;
    let refused = lab.launch(&spec);
    assert!(
        matches!(refused, Err(ExecutorError::Host(_))),
        "without its volume: {refused:?}"
    );
    assert!(matches!(
        lab.runtime.open_volume(&spec.workload),
        Err(ExecutorError::Unknown)
    ));
    lab.runtime
        .make_volume(&spec.workload, &SPEC, &VolumeKey::new([3; 32]))
        .unwrap();
    lab.launch(&spec).unwrap();
    lab.said(&spec.workload, "0");
    lab.said(&spec.workload, "up");
    let image = own.join("volumes").join(format!("{}.img", spec.workload));
    let bytes = std::fs::read(&image).unwrap();
    assert!(!bytes.windows(13).any(|window| window == b"a secret word"));
    assert!(
        !own.join("work")
            .join(spec.workload.as_str())
            .join("scratch/model")
            .exists()
    );
    // The service's part, by the descriptor that it is passed.
    let service = lab.runtime.open_volume(&spec.workload).unwrap();
    assert_eq!(rustix::fs::fstat(&service).unwrap().st_uid, SERVICE);
    drop(service);

    let beside = lab.spec("echo up; sleep 1000");
    lab.launch(&beside).unwrap();
    lab.said(&beside.workload, "up");
    let volume = format!("volumes/{} ", spec.workload);
    let here = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(here.contains(&volume), "control: it is mounted");
    let host = mounts_of_a_host(own);
    assert!(host.contains("/hidden ") && !host.contains(&volume), "{host}");
    lab.runtime.remove(&spec.workload).unwrap();
    wait_until_forgotten(own);
    assert_eq!(std::fs::read_dir(own.join("volumes")).unwrap().count(), 0);
    let state = lab.runtime.observe_one(&beside.workload).unwrap().state;
    assert!(
        matches!(state, WorkloadState::Running { .. }),
        "control: it holds what it holds"
    );
}

/// What a full volume holds can still be packed, into the part that is the platform's; what a closed one holds is no empty
/// directory.
///
/// Proves: CC-36
#[test]
fn a_full_volume_is_packed_and_a_closed_one_is_not_empty() {
    let lab = Lab::new();
    let mut spec = lab.spec("head -c 200000000 /dev/urandom > /opt/ml/model/all 2> /dev/null || echo full");
    spec.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    spec.encrypted = true;
    lab.runtime
        .make_volume(&spec.workload, &SPEC, &VolumeKey::new([3; 32]))
        .unwrap();
    assert_eq!(lab.run_spec(&spec).1, ["full"]);
    let service = lab.runtime.open_volume(&spec.workload).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
    let archive = || -> OwnedFd { rustix::fs::openat(&service, "archive", flags, rustix::fs::Mode::RUSR).unwrap() };
    let pack = |out: OwnedFd| lab.runtime.pack(&spec.workload, "model", PackFormat::Tar, out);
    assert_eq!(pack(archive()).unwrap().entries, 1);
    assert!(File::from(archive()).metadata().unwrap().len() > SPEC.bytes / 10 * 8);
    let spare = archive();
    drop(service);
    lab.runtime.close_volume(&spec.workload).unwrap();
    let closed = pack(spare);
    assert!(
        matches!(&closed, Err(ExecutorError::Host(text)) if text.contains("closed")),
        "{closed:?}"
    );
    lab.runtime.remove(&spec.workload).unwrap();
    wait_until_forgotten(lab.dir.path());
}
