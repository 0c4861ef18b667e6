use super::*;

const HYBRID: &str = "\
30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw shared:12 - cgroup2 cgroup2 rw
";
const UNIFIED: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn a_hybrid_machine_has_v1_controllers_and_hides_v2() {
    let layout = Layout::from_mountinfo(HYBRID);
    assert!(!layout.is_unified());
    assert_eq!(layout.hide, [PathBuf::from("/sys/fs/cgroup/unified")]);
    assert!(layout.has_v1("cpu") && layout.has_v1("memory") && !layout.has_v1("pids"));
}

#[test]
fn a_v2_machine_hides_nothing() {
    let layout = Layout::from_mountinfo(UNIFIED);
    assert!(layout.is_unified() && layout.hide.is_empty());
}

#[test]
fn out_of_memory_kills_are_read_from_both_versions() {
    assert_eq!(oom_kill_count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
    assert_eq!(
        oom_kill_count("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"),
        1
    );
    assert_eq!(oom_kill_count(""), 0);
}

#[test]
fn options_are_those_of_the_v2_hierarchy() {
    let systemd =
        "32 25 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    assert_eq!(v2_options(systemd), ["nsdelegate", "memory_recursiveprot"]);
    let hybrid = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n41 31 0:38 / /u rw - cgroup2 cgroup2 rw\n";
    assert_eq!(v2_options(hybrid), [""; 0]);
}
