//! The system calls a container may make: an allow-list of our own, as an OCI `linux.seccomp` value.
//!
//! Anything not named answers ENOSYS, so that libraries take their fallback. Never listed, and why:
//! - `clone3` hides its flags behind a pointer; `unshare`, `setns` and clone's namespace flags make user namespaces.
//! - `io_uring_*` opens sockets without the socket call; `bpf`, `perf_event_open`, `userfaultfd`: attack surface.
//! - `ptrace`, `process_vm_*`, `pidfd_getfd`, `kcmp`: one process into another.
//! - `add_key`, `keyctl`, `request_key`: key rings are not part of any namespace.
//! - the mount family, `pivot_root`, `chroot`, `name_to_handle_at`, `open_by_handle_at`, `quotactl`, `swapon`.
//! - modules, `kexec`, `reboot`, clocks, `syslog`, `iopl`, `modify_ldt`, `set_mempolicy`, `move_pages`, `mbind`.
//!
//! Socket families are allowed by equality: the kernel truncates the argument to 32 bits and a filter sees 64, so a
//! rule "not 40" would let 0x1_0000_0028 (AF_VSOCK) pass.

use serde_json::{Value, json};

/// Allowed with any arguments. Names that an architecture lacks are skipped by the OCI runtime.
const ALLOWED: &[&str] = &[
    // Files.
    "access",
    "chdir",
    "chmod",
    "chown",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futimesat",
    "getcwd",
    "getdents",
    "getdents64",
    "getxattr",
    "ioctl",
    "lchown",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "llistxattr",
    "lremovexattr",
    "lseek",
    "lsetxattr",
    "lstat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "removexattr",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendfile",
    "setxattr",
    "splice",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync",
    "sync_file_range",
    "syncfs",
    "tee",
    "truncate",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "vmsplice",
    "write",
    "writev",
    "cachestat",
    "ustat",
    // Waiting and events.
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_ctl_old",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "epoll_wait_old",
    "eventfd",
    "eventfd2",
    "inotify_add_watch",
    "inotify_init",
    "inotify_init1",
    "inotify_rm_watch",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_setup",
    "io_submit",
    "poll",
    "ppoll",
    "pselect6",
    "select",
    "signalfd",
    "signalfd4",
    // Memory.
    "brk",
    "madvise",
    "membarrier",
    "memfd_create",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "process_madvise",
    "process_mrelease",
    "remap_file_pages",
    "get_mempolicy",
    "map_shadow_stack",
    // Processes, threads, signals.
    "alarm",
    "arch_prctl",
    "capget",
    "capset",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "futex",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "get_robust_list",
    "get_thread_area",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getsid",
    "gettid",
    "kill",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "prlimit64",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "sched_yield",
    "set_robust_list",
    "set_thread_area",
    "set_tid_address",
    "setpgid",
    "setpriority",
    "setsid",
    "sigaltstack",
    "tgkill",
    "tkill",
    "vfork",
    "wait4",
    "waitid",
    "getrlimit",
    "setrlimit",
    "getrusage",
    "times",
    "ioprio_get",
    "ioprio_set",
    "seccomp",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    // Users.
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getresgid",
    "getresuid",
    "getuid",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setuid",
    // Sockets, once made.
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    // Time and the system's description.
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "getcpu",
    "getitimer",
    "getrandom",
    "gettimeofday",
    "nanosleep",
    "setitimer",
    "sysinfo",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "uname",
    // System V and POSIX shared memory, queues and semaphores: per ipc namespace.
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: [u64; 7] = [
    0x2_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;

fn equal(index: u32, value: u64) -> Value {
    json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"})
}

fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

fn allow(names: &[&str], args: &[Value]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args})
}

fn refuse(name: &str, errno: i32, args: &[Value]) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args})
}

fn sockets(rules: &mut Vec<Value>) {
    rules.push(allow(&["socket"], &[equal(0, AF_UNIX)]));
    for family in [AF_INET, AF_INET6] {
        for kind in [1, 2] {
            // SOCK_STREAM and SOCK_DGRAM; the flags beside them do not matter.
            rules.push(allow(&["socket"], &[equal(0, family), masked(1, 0xf, kind)]));
        }
        for kind in (0..=15).filter(|kind| !matches!(kind, 1 | 2)) {
            rules.push(refuse("socket", libc::EPERM, &[equal(0, family), masked(1, 0xf, kind)]));
        }
    }
    // Routes and addresses may be read (getifaddrs does); every other netlink protocol is refused.
    rules.push(allow(&["socket"], &[equal(0, AF_NETLINK), equal(2, 0)]));
    rules.push(refuse(
        "socket",
        libc::EPROTONOSUPPORT,
        &[
            equal(0, AF_NETLINK),
            json!({"index": 2, "value": 0, "op": "SCMP_CMP_NE"}),
        ],
    ));
    // Libraries expect this error for a family that is not there.
    for family in (0..AF_NETLINK).filter(|family| ![AF_UNIX, AF_INET, AF_INET6].contains(family)) {
        rules.push(refuse("socket", libc::EAFNOSUPPORT, &[equal(0, family)]));
    }
    rules.push(refuse(
        "socket",
        libc::EAFNOSUPPORT,
        &[json!({"index": 0, "value": AF_NETLINK, "op": "SCMP_CMP_GT"})],
    ));
    rules.push(allow(&["socketpair"], &[equal(0, AF_UNIX)]));
}

/// The profile. NI-23: nothing here lets a process change what it can reach.
pub fn profile() -> Value {
    let mut rules = vec![allow(ALLOWED, &[])];
    sockets(&mut rules);
    let every_flag = NAMESPACE_FLAGS.iter().sum::<u64>();
    rules.push(allow(&["clone"], &[masked(0, every_flag, 0)]));
    for flag in NAMESPACE_FLAGS {
        rules.push(refuse("clone", libc::EPERM, &[masked(0, flag, flag)]));
    }
    // The default personality and the question which one it is.
    for value in [0, 0xffff_ffff] {
        rules.push(allow(&["personality"], &[equal(0, value)]));
    }
    let architecture = if cfg!(target_arch = "aarch64") {
        "SCMP_ARCH_AARCH64"
    } else {
        "SCMP_ARCH_X86_64"
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        // One architecture: 32-bit and x32 calls have other numbers and would walk past the list.
        "architectures": [architecture],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NI-23
    #[test]
    fn the_list_names_none_of_the_calls_that_change_what_a_process_reaches() {
        for name in [
            "clone3",
            "unshare",
            "setns",
            "mount",
            "umount2",
            "move_mount",
            "open_tree",
            "fsopen",
            "mount_setattr",
            "pivot_root",
            "chroot",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "add_key",
            "keyctl",
            "request_key",
            "name_to_handle_at",
            "open_by_handle_at",
            "init_module",
            "finit_module",
            "kexec_load",
            "reboot",
            "settimeofday",
            "clock_settime",
            "clock_adjtime",
            "iopl",
            "ioperm",
            "modify_ldt",
            "set_mempolicy",
            "move_pages",
            "mbind",
            "syslog",
            "quotactl",
            "swapon",
            "acct",
            "sethostname",
            "setdomainname",
            "fanotify_init",
            "lookup_dcookie",
            "socket",
            "socketpair",
            "clone",
            "personality",
            "vhangup",
            "nfsservctl",
            "uselib",
        ] {
            assert!(!ALLOWED.contains(&name), "{name}");
        }
        let mut sorted = ALLOWED.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), ALLOWED.len(), "a name twice");
    }
}
