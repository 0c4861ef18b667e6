//! Attempts to lift the isolation from inside. One container with every wall tries all of them; for each set of walls
//! that closes attempts, one container without exactly that set tries those.

use crate::stand::{ALL, Findings, Stand, on_host, on_host_with};
use isolarium_runtime::local::Walls;
use std::sync::{Arc, Mutex, OnceLock};

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

/// What shows that a wall closes the attempt, and not chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    /// With these walls it is open.
    Open(Walls),
    /// Without the filter it is refused otherwise.
    Otherwise,
    /// A socket family. Asked for with a type that no family has, the filter's answer differs from the kernel's, whether
    /// the kernel has the family or not; where it has it, the socket is made without the walls.
    Family,
    /// On the host the file is there; where the host has no such file either, the same program finds one that is put there.
    NotThere(&'static str),
}
use Control::{Family, NotThere, Open, Otherwise};

type Row = (&'static str, Control);

macro_rules! attempts {
    ($table:ident: $($(#[$attribute:meta])* fn $name:ident { $attempt:literal: $control:expr })*) => {
        const $table: &[Row] = &[$(($attempt, $control)),*];
        $($(#[$attribute])* #[test] fn $name() { judge($attempt, $control); })*
    };
}

attempts! { EVERYWHERE:
    // Stopped by the system call filter alone.
    /// Proves: NI-23
    fn a_vsock_socket_cannot_be_made { "vsock": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_vsock_socket_cannot_be_made_by_a_family_that_is_truncated_to_it { "vsock-truncated": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_vsock_socket_cannot_be_made_by_a_family_with_other_high_bits { "vsock-high-bits": Open(NO_FILTER) }
    /// Proves: NI-23
    fn an_io_uring_cannot_be_made { "io-uring": Open(NO_FILTER) }
    /// Proves: NI-23
    fn an_io_uring_cannot_be_registered_with { "io-uring-register": Open(NO_FILTER) }
    /// Proves: NI-23
    fn key_rings_cannot_be_read { "keyctl": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_key_cannot_be_added { "add-key": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_key_cannot_be_requested { "request-key": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_user_namespace_cannot_be_unshared { "unshare-user": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_packet_socket_cannot_be_had_by_way_of_a_user_namespace { "unshare-user-packet": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_process_cannot_be_cloned_into_a_user_namespace { "clone-user": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_process_cannot_be_cloned_into_a_user_namespace_by_clone3 { "clone3-user": Open(NO_FILTER) }
    /// Proves: NI-23
    fn another_process_cannot_be_traced { "ptrace": Open(NO_FILTER) }
    /// Proves: NI-23
    fn another_processs_memory_cannot_be_read { "process-vm-readv": Open(NO_FILTER) }
    /// Proves: NI-23
    fn another_processs_memory_cannot_be_written { "process-vm-writev": Open(NO_FILTER) }
    /// Proves: NI-23
    fn another_processs_descriptors_cannot_be_taken { "pidfd-getfd": Open(NO_FILTER) }
    /// Proves: NI-23
    fn kernel_objects_of_processes_cannot_be_compared { "kcmp": Open(NO_FILTER) }
    /// Proves: NI-23
    fn page_faults_cannot_be_handled_by_the_program { "userfaultfd": Open(NO_FILTER) }
    /// Proves: NI-23
    fn the_execution_domain_cannot_be_changed { "personality": Open(NO_FILTER) }
    /// Proves: NI-23
    fn pages_cannot_be_moved_between_nodes { "move-pages": Open(NO_FILTER) }
    /// Proves: NI-23
    fn the_memory_policy_cannot_be_set { "set-mempolicy": Open(NO_FILTER) }
    /// Proves: NI-23
    fn the_clock_cannot_be_asked_for_its_adjustment { "clock-adjtime": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_generic_netlink_socket_cannot_be_made { "netlink-generic": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_netfilter_socket_cannot_be_made { "netlink-netfilter": Open(NO_FILTER) }
    /// Proves: NI-23
    fn an_audit_socket_cannot_be_made { "netlink-audit": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_device_event_socket_cannot_be_made { "netlink-uevent": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_socket_that_lists_sockets_cannot_be_made { "netlink-sock-diag": Open(NO_FILTER) }
    /// Proves: NI-23
    fn an_xfrm_socket_cannot_be_made { "netlink-xfrm": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_generic_netlink_socket_cannot_be_made_by_a_protocol_that_is_truncated_to_it { "netlink-truncated": Open(NO_FILTER) }

    // Stopped by the filter and by the missing capabilities.
    /// Proves: NI-23
    fn the_root_directory_cannot_be_changed { "chroot": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_root_mount_cannot_be_swapped { "pivot-root": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_process_cannot_be_cloned_into_a_network_namespace { "clone-net": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_network_namespace_cannot_be_unshared { "unshare-net": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_mount_namespace_cannot_be_unshared { "unshare-mount": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_mount_namespace_cannot_be_entered { "setns-mount": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_file_system_cannot_be_opened { "fsopen": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_mount_tree_cannot_be_copied { "open-tree": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_mounts_attributes_cannot_be_changed { "mount-setattr": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_tmpfs_cannot_be_mounted { "mount-tmpfs": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn a_fresh_proc_cannot_be_mounted { "mount-proc": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn proc_cannot_be_bound_elsewhere { "mount-bind": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_cgroup_tree_cannot_be_mounted { "mount-cgroup": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn proc_sys_cannot_be_remounted_writable { "remount-proc-sys": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_read_only_cover_of_proc_sys_cannot_be_unmounted { "umount-proc-sys": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_machine_cannot_be_rebooted { "reboot": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_host_name_cannot_be_changed { "sethostname": Open(NO_FILTER_ALL_CAPABILITIES) }
    /// Proves: NI-23
    fn the_domain_name_cannot_be_changed { "setdomainname": Open(NO_FILTER_ALL_CAPABILITIES) }

    // Stopped by the filter, the missing capabilities and the user namespace.
    /// Proves: NI-23
    fn a_packet_socket_cannot_be_made { "packet": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_packet_socket_cannot_be_made_by_a_family_that_is_truncated_to_it { "packet-truncated": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_packet_socket_of_the_old_kind_cannot_be_made { "packet-old": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_raw_icmp_socket_cannot_be_made { "raw-icmp": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_raw_tcp_socket_cannot_be_made { "raw-tcp": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_raw_ipv6_socket_cannot_be_made { "raw-ipv6": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_raw_socket_cannot_be_made_by_a_type_that_is_truncated_to_it { "raw-truncated": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn an_xdp_socket_cannot_be_made { "xdp": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_bpf_map_cannot_be_made { "bpf-map": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_bpf_program_cannot_be_loaded { "bpf-program": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn performance_counters_cannot_be_opened { "perf-event": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn file_access_cannot_be_watched { "fanotify": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn sysfs_cannot_be_mounted { "mount-sysfs": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn the_root_cannot_be_remounted { "remount-root": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_file_cannot_be_opened_by_its_handle { "open-by-handle": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn a_network_namespace_cannot_be_entered { "setns-net": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn the_clock_cannot_be_set { "settimeofday": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn swap_cannot_be_turned_on { "swapon": Open(HOST_ROOT_WITHOUT_FILTER) }
    /// Proves: NI-23
    fn the_kernels_log_cannot_be_read { "syslog": Open(HOST_ROOT_WITHOUT_FILTER) }

    // Allowed by the filter; stopped by the missing capabilities and the user namespace.
    /// Proves: NI-23
    fn a_capability_cannot_be_gained { "capability-gain": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn an_interface_cannot_be_made { "new-link": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn an_address_cannot_be_added { "new-address": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_route_cannot_be_added { "new-route": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn an_interface_cannot_be_switched { "ioctl-flags": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_bridge_cannot_be_made { "ioctl-bridge": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_route_cannot_be_added_the_old_way { "ioctl-route": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn packets_cannot_be_marked { "so-mark": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_foreign_address_cannot_be_bound { "ip-transparent": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_character_device_cannot_be_made { "mknod-char": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_block_device_cannot_be_made { "mknod-block": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn a_user_of_the_host_cannot_be_become { "unmapped-user": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn the_core_pattern_cannot_be_written { "core-pattern": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn forwarding_cannot_be_turned_on { "ip-forward": Open(HOST_ROOT_WITH_FILTER) }
    /// Proves: NI-23
    fn echo_sockets_cannot_be_allowed { "ping-range": Open(HOST_ROOT_WITH_FILTER) }

    // Stopped by the masked paths alone.
    /// Proves: NI-23
    fn the_list_of_key_users_cannot_be_read { "key-users": Open(NO_MASKS) }

    // Stopped by the masked paths and by the user namespace.
    /// Proves: NI-23
    fn the_kernels_timers_cannot_be_read { "timer-list": Open(NONE) }
    /// Proves: NI-23
    fn interrupts_cannot_be_steered { "irq-affinity": Open(NONE) }

    // Without the filter the kernel refuses in another way: what answers now is the filter.
    /// Proves: NI-23
    fn a_files_handle_cannot_be_had { "name-to-handle": Otherwise }

    // Families that a kernel may lack: whatever it has, the filter says no first.
    /// Proves: NI-23
    fn a_kernel_crypto_socket_cannot_be_made { "alg": Family }
    /// Proves: NI-23
    fn a_bluetooth_socket_cannot_be_made { "bluetooth": Family }
    /// Proves: NI-23
    fn a_can_bus_socket_cannot_be_made { "can": Family }
    /// Proves: NI-23
    fn an_rds_socket_cannot_be_made { "rds": Family }
    /// Proves: NI-23
    fn a_tipc_socket_cannot_be_made { "tipc": Family }
    /// Proves: NI-23
    fn an_ipsec_key_socket_cannot_be_made { "key-socket": Family }
    /// Proves: NI-23
    fn an_nfc_socket_cannot_be_made { "nfc": Family }
    /// Proves: NI-23
    fn an_smc_socket_cannot_be_made { "smc": Family }

    // Not in the container at all, though the host has them.
    /// Proves: NI-23
    fn physical_memory_is_not_there { "dev-mem": NotThere("/dev/mem") }
    /// Proves: NI-23
    fn the_hypervisor_device_is_not_there { "dev-kvm": NotThere("/dev/kvm") }
    /// Proves: NI-23
    fn the_vsock_device_is_not_there { "dev-vsock": NotThere("/dev/vsock") }
    /// Proves: NI-23
    fn the_tunnel_device_is_not_there { "dev-tun": NotThere("/dev/net/tun") }
    /// Proves: NI-23
    fn the_fuse_device_is_not_there { "dev-fuse": NotThere("/dev/fuse") }
    /// Proves: NI-23
    fn the_loop_control_device_is_not_there { "dev-loop": NotThere("/dev/loop-control") }
    /// Proves: NI-23
    fn the_kernel_log_device_is_not_there { "dev-kmsg": NotThere("/dev/kmsg") }
    /// Proves: NI-23
    fn the_device_event_helper_is_not_there { "uevent-helper": NotThere("/sys/kernel/uevent_helper") }
    /// Proves: NI-23
    fn the_cgroup_release_agent_is_not_there { "release-agent": NotThere("/sys/fs/cgroup/memory/release_agent") }
    /// Proves: NI-23
    fn the_cgroup_root_is_not_there { "cgroup-procs": NotThere("/sys/fs/cgroup/cgroup.procs") }
}

#[cfg(not(target_arch = "x86_64"))]
const PROCESSOR: &[Row] = &[];

#[cfg(target_arch = "x86_64")]
attempts! { PROCESSOR:
    /// Proves: NI-23
    fn a_vsock_socket_cannot_be_made_by_a_32_bit_call { "vsock-int80": Open(NO_FILTER) }
    /// Proves: NI-23
    fn the_segment_table_cannot_be_read_or_changed { "modify-ldt": Open(NO_FILTER) }
    /// Proves: NI-23
    fn a_vsock_socket_cannot_be_made_by_an_x32_call { "vsock-x32": Otherwise }
}

/// Refused by every kernel or, as here, part of none: closed without a control, and so not counted as attempts.
/// The system calls among them are not on the filter's list; `runtime` tests that.
const CLOSED_ANYWAY: &[&str] = &[
    "ambient-gain",
    "privileges-back",
    "etc-hosts",
    "etc-resolv-conf",
    "sysrq-trigger",
    "kcore",
    "iopl",
    "ioperm",
    "init-module",
    "kexec",
];

fn rows() -> impl Iterator<Item = Row> {
    EVERYWHERE.iter().chain(PROCESSOR).copied()
}

/// What the container with every wall found, once for all tests.
fn walled() -> &'static Findings {
    static FOUND: OnceLock<Findings> = OnceLock::new();
    FOUND.get_or_init(|| {
        let stand = Stand::new(ALL);
        stand.found(&stand.isolated(&["all"]))
    })
}

/// What the container with only these walls found of what is judged by it, once for all tests.
fn without(walls: Walls) -> Arc<Findings> {
    type Run = (Walls, Arc<OnceLock<Arc<Findings>>>);
    static RUNS: Mutex<Vec<Run>> = Mutex::new(Vec::new());
    let run = {
        let mut runs = RUNS.lock().unwrap();
        match runs.iter().find(|(known, _)| *known == walls) {
            Some((_, run)) => Arc::clone(run),
            None => {
                let run = Arc::default();
                runs.push((walls, Arc::clone(&run)));
                run
            }
        }
    };
    Arc::clone(run.get_or_init(|| {
        let malformed = |attempt: &str| format!("{attempt}-malformed");
        let attempts = rows().filter_map(|(attempt, control)| match control {
            Open(judged) if judged == walls => Some(attempt.to_owned()),
            Otherwise if walls == NO_FILTER => Some(attempt.to_owned()),
            Family if walls == NO_FILTER => Some(malformed(attempt)),
            Family if walls == HOST_ROOT_WITHOUT_FILTER => Some(attempt.to_owned()),
            _ => None,
        });
        let attempts: Vec<String> = attempts.collect();
        let stand = Stand::new(walls);
        let args: Vec<&str> = attempts.iter().map(String::as_str).collect();
        Arc::new(stand.found(&stand.isolated(&args)))
    }))
}

fn judge(attempt: &str, control: Control) {
    let closed = &walled()[attempt];
    assert!(!closed.open, "{attempt} is open");
    match control {
        Open(walls) => {
            let found = &without(walls)[attempt];
            assert!(found.open, "control: {attempt} with {walls:?}: errno {}", found.errno);
        }
        Otherwise => assert_ne!(&without(NO_FILTER)[attempt], closed, "control: {attempt}"),
        Family => {
            assert_eq!(closed.errno, libc::EAFNOSUPPORT, "the answer that libraries expect");
            let malformed = format!("{attempt}-malformed");
            assert_eq!(
                walled()[&malformed].errno,
                libc::EAFNOSUPPORT,
                "the filter answers first"
            );
            assert_eq!(
                without(NO_FILTER)[&malformed].errno,
                libc::EINVAL,
                "control: the kernel's own answer"
            );
            let bare = &without(HOST_ROOT_WITHOUT_FILTER)[attempt];
            let absent = [libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT];
            assert!(
                bare.open || absent.contains(&bare.errno),
                "control: the kernel makes it or lacks it: {bare:?}"
            );
        }
        NotThere(file) => {
            let errno = closed.errno;
            assert!(errno == libc::ENOENT, "{attempt}: errno {errno}");
            let mut host = on_host(&[attempt])[attempt].clone();
            if host.errno == libc::ENOENT {
                host = on_host_with(file, attempt)[attempt].clone();
            }
            assert!(host.open, "control: {host:?}");
        }
    }
}

/// Proves: NI-23
#[test]
fn families_that_this_kernel_lacks_are_known_by_name() {
    let bare = without(HOST_ROOT_WITHOUT_FILTER);
    let families = rows().filter(|(_, control)| *control == Family);
    let (open, absent): (Vec<_>, Vec<_>) = families.map(|(name, _)| name).partition(|name| bare[*name].open);
    let listed = include_str!("kernel-absent.txt");
    for name in absent {
        assert!(
            listed.lines().any(|line| line == name),
            "{name} is not made even without the walls and is not listed; with a control of its own: {open:?}"
        );
    }
}

/// A container in which nothing runs would close everything.
///
/// Proves: NI-11, NI-24
#[test]
fn what_programs_need_is_open_inside_and_no_attempt_is_forgotten() {
    let found = walled();
    let (needed, hostile): (Vec<_>, Vec<_>) = found.iter().partition(|(name, _)| name.starts_with("allowed-"));
    assert!(
        needed.len() >= 8 && needed.iter().all(|(_, finding)| finding.open),
        "{needed:?}"
    );
    let open: Vec<_> = hostile.iter().filter(|(_, finding)| finding.open).collect();
    assert!(open.is_empty(), "{open:?}");
    let mut judged: Vec<String> = CLOSED_ANYWAY.iter().map(|name| (*name).to_owned()).collect();
    for (attempt, control) in rows() {
        judged.push(attempt.to_owned());
        if control == Family {
            judged.push(format!("{attempt}-malformed"));
        }
    }
    judged.extend(crate::network::ATTEMPTS.iter().map(|row| row.attempt.to_owned()));
    judged.sort();
    let tried: Vec<String> = hostile.iter().map(|(name, _)| (*name).clone()).collect();
    assert_eq!(judged, tried, "each attempt is judged once");
}
