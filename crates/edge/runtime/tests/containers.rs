//! Real containers: what they see, how they end, what is left of them. Needs root, crun (or runc) and busybox-static.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use common::{Lab, SERVICE, netns};
use isolarium_runtime::executor::{ExecutorError, Mount, WorkloadState};
use isolarium_runtime::local::{LocalConfig, LocalRuntime, OciChoice, RANGE, Walls};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Proves: CC-3
#[test]
fn a_container_runs_as_its_images_user_with_its_environment_and_ends_with_its_code() {
    let lab = Lab::new();
    let (status, lines) = lab.run("id -u; echo $GREETING $HOSTNAME $HOME; hostname; touch /tmp/x && echo tmp; exit 7");
    assert_eq!(lines, ["0", "hello algo-1 /root", "algo-1", "tmp"]);
    assert_eq!((status.code, status.signal, status.out_of_memory), (7, None, false));
    assert!(status.ended >= status.started);

    let mut spec = lab.spec("id; touch /tmp/x && echo tmp; touch /x || echo refused; echo back > /dev/stdout; grep CapEff /proc/self/status");
    spec.process.user = "worker".into();
    let (_, lines) = lab.run_spec(&spec);
    assert_eq!(lines[0], "uid=1000(worker) gid=1001(worker) groups=44(extra)");
    assert!(
        lines.contains(&"tmp".into()) && lines.contains(&"refused".into()) && lines.contains(&"back".into()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"CapEff:\t0000000000000000".into()),
        "a user that is not root holds nothing: {lines:?}"
    );
}

/// Proves: CC-3
#[test]
fn a_container_holds_seven_capabilities_at_most_and_cannot_gain_any() {
    let lab = Lab::new();
    let (_, lines) = lab.run("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID.
    let mask = 0b1111_1011_u64;
    for line in lines.iter().filter(|line| line.starts_with("Cap")) {
        let value = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(value & !mask, 0, "{line}");
    }
    assert!(
        lines.contains(&"NoNewPrivs:\t1".into()) && lines.contains(&"Seccomp:\t2".into()),
        "{lines:?}"
    );
}

/// Proves: CC-4, CC-34
#[test]
fn the_entry_point_is_pid_1_and_gets_the_stop_signal_itself() {
    let lab = Lab::new();
    let spec = lab.spec("trap 'echo stopping; exit 3' TERM; echo pid $$; while true; do sleep 0.05; done");
    lab.launch(&spec).unwrap();
    lab.said(&spec.workload, "pid 1");
    lab.runtime.terminate(&spec.workload, false).unwrap();
    assert_eq!(lab.ended(&spec.workload).code, 3);
    assert_eq!(lab.log(&spec.workload), ["pid 1", "stopping"]);
    lab.runtime.terminate(&spec.workload, true).unwrap();

    // Without a handler PID 1 ignores the polite signal; the other one it cannot.
    let spec = lab.spec_of(&["/bin/sleep", "1000"]);
    lab.launch(&spec).unwrap();
    lab.runtime.terminate(&spec.workload, false).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(matches!(
        lab.runtime.observe_one(&spec.workload).unwrap().state,
        WorkloadState::Running { .. }
    ));
    lab.runtime.terminate(&spec.workload, true).unwrap();
    let status = lab.ended(&spec.workload);
    assert_eq!(
        (status.code, status.signal, status.out_of_memory),
        (137, Some(9), false)
    );
}

#[test]
fn going_over_the_memory_limit_is_told_from_other_ends() {
    let lab = Lab::new();
    let mut spec = lab.spec("head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null; exit $?");
    spec.limits.memory_bytes = 32 << 20;
    let (status, _) = lab.run_spec(&spec);
    assert!(status.out_of_memory && status.code == 137, "{status:?}");
    // Control: the same program with enough memory ends well.
    let mut enough = lab.spec("head -c 20000000 /dev/zero | tail -c 15000000 >/dev/null; exit $?");
    enough.limits.memory_bytes = 128 << 20;
    assert_eq!(lab.run_spec(&enough).0.code, 0);
}

#[test]
fn limits_on_processes_disk_and_shared_memory_are_the_kernels() {
    let lab = Lab::new();
    let script = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done; echo made all";
    let mut spec = lab.spec(script);
    spec.limits.pids = 16;
    let (_, lines) = lab.run_spec(&spec);
    assert!(
        !lines.contains(&"made all".into()) && lines.iter().any(|line| line.contains("fork")),
        "{lines:?}"
    );
    assert!(
        lab.run(script).1.contains(&"made all".into()),
        "control: 64 processes are enough"
    );

    let fill = |path: &str, mib: u32| format!("dd if=/dev/zero of={path} bs=1M count={mib} 2>&1 | grep -c 'No space'");
    for path in ["/big", "/tmp/big", "/opt/ml/big", "/dev/shm/big"] {
        assert_eq!(lab.run(&fill(path, 40)).1, ["1"], "{path} is limited");
        assert_eq!(lab.run(&fill(path, 4)).1, ["0"], "control: {path} takes what fits");
    }

    // The kernel counts the periods in which it held a container back: no clock decides here.
    let mut busy = lab.spec("while :; do :; done");
    for (cpu_millis, held_back) in [(100, true), (64_000, false)] {
        busy.workload = common::new_id();
        busy.network.workload = busy.workload.clone();
        busy.limits.cpu_millis = cpu_millis;
        lab.launch(&busy).unwrap();
        let throttled = throttled_periods(lab.runtime.init_pid(&busy.workload).unwrap());
        lab.runtime.terminate(&busy.workload, true).unwrap();
        lab.ended(&busy.workload);
        assert_eq!(
            throttled > 0,
            held_back,
            "{throttled} of ten periods with {cpu_millis} thousandths of a CPU"
        );
    }
}

/// Periods, of at least ten, in which a process's CPU group was held back.
fn throttled_periods(pid: u32) -> u64 {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let folder = groups
        .lines()
        .find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers
                .split(',')
                .any(|name| name == "cpu")
                .then(|| format!("/sys/fs/cgroup/cpu{path}"))
        })
        .or_else(|| {
            groups
                .lines()
                .find_map(|line| line.strip_prefix("0::"))
                .map(|path| format!("/sys/fs/cgroup{path}"))
        })
        .unwrap();
    let count = |name: &str| -> u64 {
        let stat = std::fs::read_to_string(format!("{folder}/cpu.stat")).unwrap();
        stat.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|number| number.trim().parse().ok())
            .unwrap()
    };
    let mut looks = (0..2000).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        count("nr_periods")
    });
    assert!(
        looks.any(|periods| periods >= 10),
        "the group {folder} saw no ten periods in twenty seconds"
    );
    count("nr_throttled")
}

/// Proves: CC-6
#[test]
fn a_hundred_thousand_fast_lines_arrive_whole_and_in_order() {
    let lab = Lab::new();
    let (status, lines) = lab.run("seq 1 100000");
    assert_eq!(status.code, 0);
    assert_eq!(lines.len(), 100_000);
    assert!(lines.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()));
}

/// Proves: CC-6
#[test]
fn what_a_killed_container_wrote_is_kept_and_its_last_line_needs_no_newline() {
    let lab = Lab::new();
    let (status, lines) = lab.run(
        "seq 1 5000; echo to-stderr >&2; printf unfinished; kill -9 $$; sleep 0.1; exec yes > /dev/null & kill -9 -1",
    );
    // PID 1 cannot kill itself by a signal; it ends by the shell's own end.
    let _how = status.code;
    assert_eq!(lines.iter().filter(|line| line.parse::<u32>().is_ok()).count(), 5000);
    assert!(lines.contains(&"to-stderr".into()) && lines.iter().any(|line| line.contains("unfinished")));

    let spec = lab.spec("seq 1 1000; printf half; echo written >&2; sleep 1000");
    lab.launch(&spec).unwrap();
    // The last line of numbers would be too early: the half line is written after it.
    lab.said(&spec.workload, "written");
    lab.runtime.terminate(&spec.workload, true).unwrap();
    lab.ended(&spec.workload);
    let lines = lab.log(&spec.workload);
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (1002, "half"));
}

/// Proves: NET-72
#[test]
fn containers_outlive_the_node_process_and_are_found_again_with_everything() {
    let mut lab = Lab::new();
    let running = lab.spec("echo first; sleep 1; echo second; exit 4");
    let ended = lab.spec("echo only; exit 5");
    lab.launch(&running).unwrap();
    lab.launch(&ended).unwrap();
    lab.ended(&ended.workload);
    let pid = lab.runtime.init_pid(&running.workload).unwrap();
    let group = lab.runtime.cgroup_id(&running.workload).unwrap();
    lab.runtime = LocalRuntime::open(lab.config.clone()).unwrap();
    assert_eq!(
        lab.runtime.init_pid(&running.workload).unwrap(),
        pid,
        "the container was not restarted"
    );
    assert_eq!(lab.runtime.cgroup_id(&running.workload).unwrap(), group);
    let mut seen = lab.runtime.observe().unwrap();
    seen.sort_by_key(|one| matches!(one.state, WorkloadState::Exited(_)));
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (&seen[0].workload, &seen[0].owner_arn),
        (&running.workload, &running.owner_arn)
    );
    assert!(matches!(seen[0].state, WorkloadState::Running { .. }));
    assert!(matches!(&seen[1].state, WorkloadState::Exited(status) if status.code == 5));
    lab.launch(&running).unwrap();
    assert_eq!(
        lab.runtime.init_pid(&running.workload).unwrap(),
        pid,
        "launching it again changes nothing"
    );
    assert_eq!(lab.ended(&running.workload).code, 4);
    assert_eq!(lab.log(&running.workload), ["first", "second"]);
    assert_eq!(lab.log(&ended.workload), ["only"]);
    assert!(
        matches!(lab.runtime.init_pid(&running.workload), Err(ExecutorError::Unknown)),
        "no pid of a dead process"
    );
}

/// Proves: NET-72
#[test]
fn a_container_does_not_outlive_a_killed_shim() {
    let lab = Lab::new();
    let spec = lab.spec("echo up; sleep 1000");
    lab.launch(&spec).unwrap();
    lab.said(&spec.workload, "up");
    let init = lab.runtime.init_pid(&spec.workload).unwrap();
    let shim = parent_of(init);
    assert!(has_mount(shim, "/mnt/root"), "control: the shim holds the mounts");
    kill(shim);
    let status = lab.ended(&spec.workload);
    assert_eq!((status.code, status.signal), (137, Some(9)));
    assert!(!is_alive(init), "its processes are gone");
    assert_eq!(lab.log(&spec.workload), ["up"]);
    assert_eq!(groups_of(spec.workload.as_str()), Vec::<String>::new());
}

/// A node that was started again may not touch the inputs of a container that is just being built, and must not take it
/// for one that was never launched.
///
/// Proves: NET-72
#[test]
fn a_second_node_waits_for_a_launch_that_the_first_one_began() {
    let lab = Lab::new();
    let spec = lab.spec("echo up; sleep 1000");
    let second = LocalRuntime::open(lab.config.clone()).unwrap();
    let (going, went) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let mut second_node = None;
        let mut attach = |_: std::os::fd::BorrowedFd<'_>, _| {
            let (second, workload, going) = (&second, &spec.workload, going.clone());
            second_node = Some(scope.spawn(move || {
                going.send(()).unwrap();
                second.prepare(workload).unwrap();
                second.observe_one(workload).unwrap().state
            }));
            went.recv().unwrap();
            Ok(())
        };
        lab.runtime.prepare(&spec.workload).unwrap();
        lab.runtime.launch(&spec, netns(&spec.workload), &mut attach).unwrap();
        let seen = second_node.unwrap().join().unwrap();
        assert!(matches!(seen, WorkloadState::Running { .. }), "{seen:?}");
    });
    second.launch(&spec, netns(&spec.workload), &mut |_, _| Ok(())).unwrap();
    lab.said(&spec.workload, "up");
    second.terminate(&spec.workload, true).unwrap();
    assert_eq!(lab.log(&spec.workload), ["up"], "started once");
    second.remove(&spec.workload).unwrap();
}

#[test]
fn removing_leaves_nothing() {
    let lab = Lab::new();
    let mut spec = lab.spec("echo up; mkdir /opt/ml/model/deep; touch /opt/ml/model/deep/file; sleep 1000");
    spec.mounts = vec![
        Lab::scratch("model", "/opt/ml/model"),
        Mount::Input {
            source: "in".into(),
            target: "/opt/ml/input".into(),
        },
    ];
    lab.stage(&spec.workload, "data", 0o444, b"x");
    lab.launch(&spec).unwrap();
    lab.said(&spec.workload, "up");
    let init = lab.runtime.init_pid(&spec.workload).unwrap();
    let shim = parent_of(init);
    let id = spec.workload.as_str().to_owned();
    assert!(
        !groups_of(&id).is_empty() && lab.dir.path().join("work").join(&id).exists(),
        "control: there was something"
    );
    lab.runtime.remove(&spec.workload).unwrap();
    assert_eq!(
        lab.runtime
            .observe_one(&spec.workload)
            .map_err(|error| error.to_string()),
        Err("no such workload".into())
    );
    assert!(ends(init) && ends(shim));
    assert_eq!(groups_of(&id), Vec::<String>::new());
    assert!(!lab.dir.path().join("work").join(&id).exists());
    let left = |folder: &str| {
        std::fs::read_dir(lab.dir.path().join("run").join(folder))
            .unwrap()
            .count()
    };
    assert_eq!((left("shims"), left("slots")), (0, 0));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id) && !mounts.contains("lowerdir=/mnt/l"));
    lab.runtime.remove(&spec.workload).unwrap();
}

/// Proves: CC-2, CC-9
#[test]
fn opt_ml_is_the_platforms_inputs_are_read_only_and_owned_by_root() {
    let lab = Lab::new();
    let mut spec = lab.spec(
        "ls /opt/ml; cat /opt/ml/input/data/train/set.csv; stat -c '%u:%g %a' /opt/ml/input/data/train/set.csv /opt/ml/input/data/train /opt/ml/model; \
         touch /opt/ml/input/data/train/new || echo refused; chmod 777 /opt/ml/input/data/train/set.csv || echo refused; \
         touch /opt/ml/model/weights && echo wrote; touch /opt/ml/seen/x || echo refused; mkdir /opt/ml/code && echo made",
    );
    lab.stage(&spec.workload, "set.csv", 0o444, b"1,2,3\n");
    spec.mounts = vec![
        Lab::scratch("model", "/opt/ml/model"),
        Mount::Input {
            source: "in".into(),
            target: "/opt/ml/input/data/train".into(),
        },
        Mount::Scratch {
            name: "seen".into(),
            target: "/opt/ml/seen".into(),
            read_only: true,
        },
    ];
    let (_, lines) = lab.run_spec(&spec);
    let said: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| !line.contains(": "))
        .collect();
    assert_eq!(
        said,
        [
            "input", "model", "seen", "1,2,3", "0:0 444", "0:0 555", "0:0 777", "refused", "refused", "wrote",
            "refused", "made"
        ],
        "{lines:?}"
    );
    // Another user of the image can read what is shown 0444, and the model directory is open to it.
    let mut other = lab.spec(
        "cat /opt/ml/input/set.csv; touch /opt/ml/model/mine && echo wrote; touch /opt/ml/input/x || echo refused",
    );
    other.process.user = "1000:1000".into();
    lab.stage(&other.workload, "set.csv", 0o444, b"4,5\n");
    other.mounts = vec![
        Lab::scratch("model", "/opt/ml/model"),
        Mount::Input {
            source: "in".into(),
            target: "/opt/ml/input".into(),
        },
    ];
    let (_, lines) = lab.run_spec(&other);
    assert!(
        ["4,5", "wrote", "refused"]
            .iter()
            .all(|said| lines.contains(&(*said).into())),
        "{lines:?}"
    );
    // On the host the files are still the service's.
    let staged = lab
        .dir
        .path()
        .join("work")
        .join(spec.workload.as_str())
        .join("in/set.csv");
    let found = std::fs::metadata(&staged).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&found), SERVICE);
    assert_eq!(common::file_bytes(&staged), b"1,2,3\n");
}

/// Proves: CC-9
#[test]
fn an_input_that_the_service_swapped_for_a_link_is_not_followed() {
    let lab = Lab::new();
    let mut spec = lab.spec("cat /opt/ml/input/passwd");
    lab.runtime.prepare(&spec.workload).unwrap();
    let work = lab.dir.path().join("work").join(spec.workload.as_str());
    std::os::unix::fs::symlink("/etc", work.join("in")).unwrap();
    spec.mounts = vec![Mount::Input {
        source: "in".into(),
        target: "/opt/ml/input".into(),
    }];
    assert!(matches!(lab.launch(&spec), Err(ExecutorError::Host(_))));
    std::fs::remove_file(work.join("in")).unwrap();
    lab.stage(&spec.workload, "passwd", 0o444, b"staged\n");
    assert_eq!(
        lab.run_spec(&spec).1,
        ["staged"],
        "control: a real directory at the same place is shown"
    );
}

/// Proves: CC-9, NI-13
#[test]
fn a_container_sees_no_process_socket_or_file_of_the_platform() {
    let lab = Lab::new();
    let neighbour = lab.spec("echo secret > /opt/ml/model/secret; echo up; exec sleep 1000");
    let mut with_model = neighbour.clone();
    with_model.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    lab.launch(&with_model).unwrap();
    lab.said(&with_model.workload, "up");
    let (_, lines) = lab.run("ls /proc | grep -E '^[0-9]+$'; cat /proc/net/unix | wc -l; ls /opt/ml; ls /sys; ls /dev; env | grep -c -i -E 'aws|isolarium'");
    let pids: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert!(pids.iter().all(|pid| *pid < 20), "only its own processes: {pids:?}");
    let rest: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| line.parse::<u32>().is_err())
        .collect();
    let devices = [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(rest, devices, "nothing in /opt/ml and /sys, a minimal /dev");
    assert_eq!(lines.last().unwrap(), "0", "no variable of the platform");
}

/// Proves: NI-11
#[test]
fn an_isolated_container_has_loopback_and_nothing_else() {
    let lab = Lab::new();
    let (_, lines) = lab.run("ls /proc/sys/net/ipv4/conf; cat /proc/net/route /proc/net/ipv6_route | grep -v -c lo; cat /proc/net/dev | grep -c :");
    assert!(
        lines.starts_with(&["all".into(), "default".into(), "lo".into()]),
        "{lines:?}"
    );
    assert_eq!(lines.last().unwrap(), "1", "one interface");
    let (_, lines) = lab.run("ip addr add 10.0.0.1/8 dev lo || echo refused; ip link add x type veth || echo refused; ip route add default dev lo || echo refused");
    assert_eq!(lines.iter().filter(|line| *line == "refused").count(), 3, "{lines:?}");
    let (_, lines) = lab.run("yes | head -c 20 > /tmp/in; nslookup example.com 2>&1 | tail -1; hostname; cat /etc/resolv.conf; touch /etc/hosts || echo refused");
    assert!(lines.contains(&"nameserver 127.0.0.1".into()), "{lines:?}");
}

/// Proves: NET-73
#[test]
fn nothing_starts_when_the_report_cannot_be_attached() {
    let lab = Lab::new();
    let mut spec = lab.spec("touch /opt/ml/model/ran");
    spec.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    let refused = lab.runtime.launch(&spec, netns(&spec.workload), &mut |_, _| {
        Err(std::io::Error::other("no programs"))
    });
    assert!(matches!(refused, Err(ExecutorError::Seal(_))), "{refused:?}");
    assert!(matches!(
        lab.runtime.observe_one(&spec.workload).unwrap().state,
        WorkloadState::NotStarted { .. }
    ));
    assert_eq!(lab.runtime.read_file(&spec.workload, "model", "ran", 10).unwrap(), None);
    assert_eq!(groups_of(spec.workload.as_str()), Vec::<String>::new());
    // Control: the next try, with programs, runs; and the group is empty when they are attached.
    let was_empty = AtomicBool::new(false);
    let attach = &mut |group: std::os::fd::BorrowedFd<'_>, id: u64| {
        let path = format!("/proc/self/fd/{}/cgroup.procs", std::os::fd::AsRawFd::as_raw_fd(&group));
        was_empty.store(id > 0 && std::fs::read_to_string(path)?.is_empty(), Ordering::Relaxed);
        Ok(())
    };
    lab.runtime.launch(&spec, netns(&spec.workload), attach).unwrap();
    assert!(was_empty.load(Ordering::Relaxed));
    assert_eq!(lab.ended(&spec.workload).code, 0);
    assert!(
        lab.runtime
            .read_file(&spec.workload, "model", "ran", 10)
            .unwrap()
            .is_some()
    );
    lab.runtime.remove(&spec.workload).unwrap();
}

#[test]
fn what_cannot_run_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    for (argv, user, words) in [
        (vec!["/no/such/program"], "", "not found"),
        (vec!["nosuch"], "", "not found"),
        (vec!["/bin/sh"], "nosuchuser", "nosuchuser"),
        (vec!["/etc/passwd"], "", "ermi"),
    ] {
        let mut spec = lab.spec_of(&argv);
        spec.process.user = user.into();
        let error = lab.launch(&spec).unwrap_err();
        assert!(
            matches!(&error, ExecutorError::Unstartable(text) if text.contains(words)),
            "{argv:?}: {error:?}"
        );
        assert!(!error.to_string().contains("/mnt"), "no host path: {error}");
        assert!(matches!(
            lab.runtime.observe_one(&spec.workload).unwrap().state,
            WorkloadState::NotStarted { .. }
        ));
        assert_eq!(groups_of(spec.workload.as_str()), Vec::<String>::new());
        spec.process.argv = vec!["/bin/true".into()];
        spec.process.user = String::new();
        lab.launch(&spec).unwrap();
        assert_eq!(
            lab.ended(&spec.workload).code,
            0,
            "control: the same workload, mended, runs"
        );
    }
}

#[test]
fn launches_at_the_same_time_start_one_container_each_in_ranges_of_their_own() {
    let lab = Lab::new();
    let specs: Vec<_> = (0..6).map(|_| lab.spec("sleep 1000")).collect();
    let runtime = &lab.runtime;
    std::thread::scope(|scope| {
        for spec in specs.iter().chain(&specs) {
            scope.spawn(move || runtime.launch(spec, netns(&spec.workload), &mut |_, _| Ok(())).unwrap());
        }
    });
    let mut owners: Vec<u32> = specs
        .iter()
        .map(|spec| {
            let pid = runtime.init_pid(&spec.workload).unwrap();
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).unwrap())
        })
        .collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), specs.len(), "no two share a user");
    assert!(
        owners
            .iter()
            .all(|uid| *uid >= 600_000_000 && uid % RANGE == 600_000_000 % RANGE),
        "{owners:?}"
    );
    assert_eq!(runtime.observe().unwrap().len(), specs.len());
    for spec in &specs {
        runtime.remove(&spec.workload).unwrap();
    }
}

#[test]
fn waiting_for_changes_ends_with_output_and_with_the_end() {
    let lab = Lab::new();
    let spec = lab.spec("sleep 0.3; echo output; sleep 1000");
    lab.launch(&spec).unwrap();
    while lab.runtime.changed(Duration::ZERO).is_ok()
        && lab.runtime.read_log(&spec.workload, 0, 100).unwrap().lines.is_empty()
    {
        let start = Instant::now();
        lab.runtime.changed(Duration::from_secs(20)).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "woken by the output, not by the clock"
        );
    }
    std::thread::sleep(Duration::from_millis(100));
    lab.runtime.changed(Duration::ZERO).unwrap();
    // Looking is no change: or whoever looks because of one would never come to rest.
    assert_eq!(lab.runtime.observe().unwrap().len(), 1);
    lab.runtime.read_log(&spec.workload, 0, 100).unwrap();
    let start = Instant::now();
    lab.runtime.changed(Duration::from_millis(150)).unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(140),
        "control: nothing happens, nobody is woken"
    );
    lab.runtime.terminate(&spec.workload, true).unwrap();
    lab.runtime.changed(Duration::from_secs(20)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    lab.ended(&spec.workload);
}

#[test]
fn the_host_check_builds_a_container_and_leaves_nothing() {
    let lab = Lab::new();
    let before = std::fs::read_dir(lab.dir.path()).unwrap().count();
    let checks = isolarium_runtime::local::probe_host(&lab.config);
    for check in &checks {
        assert!(
            !matches!(check.outcome, isolarium_runtime::local::CheckOutcome::Missing(_)),
            "{check:?}"
        );
    }
    assert_eq!(std::fs::read_dir(lab.dir.path()).unwrap().count(), before);
    // Control: a runtime that does not work is found out.
    let mut config = lab.config.clone();
    config.oci = isolarium_runtime::local::OciChoice::Path("/bin/false".into());
    let broken = isolarium_runtime::local::probe_host(&config);
    assert!(
        broken
            .iter()
            .filter(|check| matches!(check.outcome, isolarium_runtime::local::CheckOutcome::Missing(_)))
            .count()
            >= 2,
        "{broken:?}"
    );
}

#[test]
fn the_other_oci_runtime_builds_the_same_container() {
    let mut lab = Lab::new();
    lab.config.oci = OciChoice::Path("/usr/sbin/runc".into());
    lab.runtime = LocalRuntime::open(lab.config.clone()).unwrap();
    let mut spec = lab.spec(
        "id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp:)' /proc/self/status; ls /proc/sys/net/ipv4/conf; cat /proc/self/uid_map; touch /opt/ml/model/x && echo wrote; exit 9",
    );
    spec.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    let (status, lines) = lab.run_spec(&spec);
    assert_eq!(status.code, 9);
    let start = [
        "0",
        "CapEff:\t00000000000000fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "all",
        "default",
        "lo",
    ];
    assert_eq!(&lines[..start.len()], start);
    assert!(
        lines[start.len()].contains("6000") && lines.last().unwrap() == "wrote",
        "{lines:?}"
    );
    let error = lab.launch(&lab.spec_of(&["/no/such/program"])).unwrap_err();
    assert!(matches!(error, ExecutorError::Unstartable(_)), "{error:?}");
    assert_eq!(groups_of(spec.workload.as_str()), Vec::<String>::new());
}

#[test]
fn a_working_directory_that_the_image_lacks_is_made() {
    let lab = Lab::new();
    let mut spec = lab.spec("pwd; touch here && echo wrote");
    spec.process.cwd = "/srv/deep/er".into();
    assert_eq!(lab.run_spec(&spec).1, ["/srv/deep/er", "wrote"]);
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap()
        .parse()
        .unwrap()
}

/// A dead process keeps its number until its parent, which may be somebody else's, has asked for its status.
/// Whether a process that was told to end does so. Its lock, which removal waits for, goes a moment before it does.
fn ends(pid: u32) -> bool {
    (0..500).any(|look| {
        if look > 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        !is_alive(pid)
    })
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("\nState:\tZ"))
}

fn has_mount(pid: u32, point: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        .unwrap()
        .contains(&format!(" {point} "))
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Control groups of a workload, in every hierarchy.
fn groups_of(id: &str) -> Vec<String> {
    let Ok(points) = std::fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    points
        .filter_map(|point| Some(point.ok()?.path().join("isolarium").join(id)))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

/// The first container of an engine starts in a shim of its own with a filter that is compiled for it; the next ones in
/// a shim that was started ahead, with the filter of the first.
///
/// Proves: NI-23, CC-3
#[test]
fn what_an_earlier_launch_left_for_the_next_takes_no_wall_away() {
    let lab = Lab::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; ls /proc/self/fd; while read inside outside count; do echo $inside $count; done < /proc/self/uid_map; \
                  busybox unshare -U true 2>&1; busybox unshare -n true 2>&1; busybox mount -t tmpfs x /tmp 2>&1; \
                  busybox chroot / true 2>&1; busybox hostname other 2>&1; busybox ping -c 1 127.0.0.1 2>&1; \
                  busybox arping -c 1 127.0.0.1 2>&1; echo done";
    let (_, first) = lab.run(script);
    assert!(
        first.contains(&"Seccomp:\t2".into()) && first.contains(&"Seccomp_filters:\t1".into()),
        "{first:?}"
    );
    assert!(
        first.contains(&"unshare: unshare(0x10000000): Function not implemented".into()),
        "{first:?}"
    );
    assert_eq!(first.last().unwrap(), "done");
    for _ in 0..3 {
        assert_eq!(lab.run(script).1, first);
    }
    // Control: without the filter the same script is answered otherwise.
    let open = Lab::with(Walls {
        seccomp: false,
        ..Walls::default()
    });
    for _ in 0..2 {
        let (_, lines) = open.run(script);
        assert!(lines.contains(&"Seccomp:\t0".into()), "{lines:?}");
        assert!(
            !lines.contains(&"unshare: unshare(0x10000000): Function not implemented".into()),
            "{lines:?}"
        );
    }
}

#[test]
fn a_shim_that_died_before_its_launch_is_replaced() {
    let lab = Lab::new();
    let folder = lab.dir.path().join("starts");
    std::fs::create_dir(&folder).unwrap();
    // The second shim that is started, which is the one started ahead, ends at once.
    let program = lab.dir.path().join("program");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = shim ] || exec {helper} \"$@\"\nif mkdir {folder}/first 2>/dev/null; then exec {helper} \"$@\"; fi\n\
         if mkdir {folder}/second 2>/dev/null; then echo $$ > {folder}/pid.new; mv {folder}/pid.new {folder}/pid; exit 1; fi\n\
         echo again > {folder}/third\nexec {helper} \"$@\"\n",
        helper = common::helper().display(),
        folder = folder.display(),
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = LocalRuntime::open(LocalConfig {
        self_exe: program,
        ..lab.config.clone()
    })
    .unwrap();
    let launch = |text: &str| {
        let spec = lab.spec(text);
        runtime
            .launch(&spec, netns(&spec.workload), &mut |_, _| Ok(()))
            .unwrap();
        assert_eq!(lab.ended(&spec.workload).code, 5);
        runtime.remove(&spec.workload).unwrap();
    };
    launch("exit 5");
    let deadline = Instant::now() + Duration::from_secs(30);
    let dead = || {
        let pid = std::fs::read_to_string(folder.join("pid")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
        stat.contains(") Z ").then_some(())
    };
    while dead().is_none() {
        assert!(Instant::now() < deadline, "the shim that was started ahead did not end");
        std::thread::yield_now();
    }
    launch("exit 5");
    assert!(
        folder.join("third").exists(),
        "a third shim was started for the second launch"
    );
}

/// The runtime is a script here, whose calls tell whether they were given a filter.
///
/// Proves: NI-23
#[test]
fn a_compiled_filter_is_used_with_the_runtime_that_compiled_it_alone() {
    let lab = Lab::new();
    let crun = lab.dir.path().join("crun");
    let told = lab.dir.path().join("told");
    let install = || {
        let fresh = crun.with_extension("new");
        let script = format!(
            "#!/bin/sh\ngrep -c run.oci.seccomp_bpf_data config.json >>{}\nexec /usr/bin/crun \"$@\"\n",
            told.display()
        );
        std::fs::write(&fresh, script).unwrap();
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &crun).unwrap();
    };
    install();
    let runtime = LocalRuntime::open(LocalConfig {
        oci: OciChoice::Path(crun.clone()),
        ..lab.config.clone()
    })
    .unwrap();
    let launch = || {
        let spec = lab.spec("grep -q '^Seccomp:.2$' /proc/self/status && exit 5");
        runtime
            .launch(&spec, netns(&spec.workload), &mut |_, _| Ok(()))
            .unwrap();
        assert_eq!(lab.ended(&spec.workload).code, 5);
        runtime.remove(&spec.workload).unwrap();
    };
    for _ in 0..2 {
        launch();
    }
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "0\n1\n");
    install();
    for _ in 0..2 {
        launch();
    }
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "0\n1\n0\n1\n");
}
