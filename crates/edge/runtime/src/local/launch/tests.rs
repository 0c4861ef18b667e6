//! Shims that do not do their part. Needs root.

use super::*;
use crate::executor::{Limits, ProcessSpec};
use crate::local::spare::Idle;
use crate::local::{LocalConfig, OciChoice, Walls};
use isolarium_model::WorkloadId;
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn spec(workload: WorkloadId, env_bytes: usize) -> LaunchSpec {
    LaunchSpec {
        network: WorkloadNetwork {
            workload: workload.clone(),
            reach: Reach::Nothing,
        },
        workload,
        owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/test".into(),
        hostname: "algo-1".into(),
        layers: Vec::new(),
        process: ProcessSpec {
            argv: vec!["/bin/true".into()],
            env: vec![("LONG".into(), "x".repeat(env_bytes))],
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
            cpu_millis: 1000,
            memory_bytes: 64 << 20,
            pids: 16,
            shm_bytes: 1 << 20,
            overlay_bytes: 1 << 20,
        },
    }
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A shim that is stopped, or has not got all of its job, would start the container when it goes on: long after its
/// launch was given up, perhaps after its workload was removed.
#[test]
fn a_shim_that_does_not_answer_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut runtime = LocalRuntime::open(LocalConfig {
        cdi_folders: Vec::new(),
        accelerators: "nvidia.com/gpu".into(),
        data_dir: dir.path().join("data"),
        service_uid: 64_902,
        service_gid: 64_902,
        oci: OciChoice::Path(std::env::current_exe().unwrap()),
        self_exe: program,
        archive_timeout: Duration::from_secs(60),
        walls: Walls::default(),
    })
    .unwrap();
    runtime.patience = Duration::from_millis(200);
    let netns = fs::File::open("/proc/self/ns/net").unwrap();
    // The longer one does not fit into the socket: the shim that waits does not take it, nor does the one after it.
    for (number, env_bytes) in [(1_u64, 1), (2, 16 << 20)] {
        runtime.spare.refill(&runtime.config.self_exe);
        let waiting = runtime.spare.pid().unwrap();
        assert!(lives(waiting), "control: it waits");
        let workload: WorkloadId = format!("w-{:017x}", (u64::from(std::process::id()) << 24) + number)
            .parse()
            .unwrap();
        let refused = runtime.launch_in(&spec(workload.clone(), env_bytes), netns.as_fd(), None, &mut |_, _| {
            Ok(())
        });
        assert!(matches!(refused, Err(ExecutorError::Host(_))), "{refused:?}");
        assert!(!runtime.shim_lives(&workload).unwrap(), "nobody holds the lock");
        runtime.reap();
        assert!(lock(&runtime.children).is_empty() && !lives(waiting));
        runtime.remove(&workload).unwrap();
    }
}

/// What waits for the next workload has nothing of the one before: no descriptor, no environment, no directory.
#[test]
fn a_shim_that_waits_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    let script = "#!/bin/sh\nreadlink /proc/self/fd/* >DIR/fds\nenv >DIR/env\npwd >DIR/pwd\n";
    fs::write(&program, script.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // What a launch has open meanwhile.
    let namespace = fs::File::open("/proc/self/ns/net").unwrap();
    let (_one, _other) = UnixStream::pair().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let held = || -> Vec<String> { read("fds").lines().skip(1).map(str::to_owned).collect() };
    // Whoever started this test may have left it some: they are no launch's.
    let mut plain = Command::new(&program);
    assert!(plain.stdin(namespace).stderr(Stdio::null()).status().unwrap().success());
    assert!(read("fds").starts_with("net:["), "control: {}", read("fds"));
    let always = held();
    let mut idle = Idle::start(&program).unwrap();
    assert!(idle.child.wait().unwrap().success());
    assert!(read("fds").starts_with("socket:["), "its standard input");
    assert_eq!(held(), always);
    assert_eq!(read("pwd"), "/\n");
    let shells = ["PWD=", "OLDPWD=", "SHLVL=", "_="];
    let env = read("env");
    assert!(
        env.lines().all(|line| shells.iter().any(|name| line.starts_with(name))),
        "{env}"
    );
}
