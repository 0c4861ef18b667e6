/* A hostile program: tries one way out of a container and says in one line of JSON how far it got.
 *
 *   probe ATTEMPT...   one line each: {"attempt": "vsock", "outcome": "closed", "errno": 97}
 *   probe all          every attempt of the table
 *   probe list         their names
 *   probe serve-abstract NAME   instead: listens at an abstract socket until it is killed
 *   probe serve PORT   instead: takes connections, prints one line of what each of them sent, answers
 *
 * An attempt of the table, or one with its target:
 *   tcp=ADDRESS,PORT,TEXT   udp=ADDRESS,PORT,TEXT   dns=SERVER,NAME   icmp=ADDRESS,TEXT   to carry TEXT or NAME out
 *   abstract=NAME           sysv=KEY                signal=PID                            to touch what is not in here
 *   sysv-make=KEY           sysv-drop=KEY           (run outside) the shared memory to touch
 *
 * Outcomes: "open" (it worked), "closed" (refused, with errno), "killed" (the process died, errno is the signal).
 * Every attempt is harmless where it succeeds: files are opened and not written, calls carry arguments that fail after
 * the permission check. Built without anything of ours: gcc -static -O1 -o probe probe.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* An attempt gives 0 or more when it is open, else -1 with errno. */
typedef long (*attempt_fn)(void);

/* For calls that check the permission first: any other error than "no" means that the door is open. */
static long unless_refused(long result) {
    if (result >= 0) return result;
    if (errno == EPERM || errno == EACCES || errno == ENOSYS) return -1;
    return 0;
}

/* ---- sockets ---- */
static long sock(long family, long type, long protocol) { return syscall(SYS_socket, family, type, protocol); }

static long vsock(void) { return sock(40, SOCK_STREAM, 0); }
/* The kernel looks at 32 bits, a filter at 64. */
static long vsock_truncated(void) { return sock(0x100000028L, SOCK_STREAM, 0); }
static long vsock_negative(void) { return sock(0x7fffffff00000028L, SOCK_STREAM, 0); }
static long packet(void) { return sock(17, SOCK_RAW, htons(3)); }
static long packet_truncated(void) { return sock(0x100000011L, SOCK_RAW, htons(3)); }
static long packet_old(void) { return sock(AF_INET, SOCK_PACKET, htons(3)); }
static long raw_icmp(void) { return sock(AF_INET, SOCK_RAW, 1); }
static long raw_tcp(void) { return sock(AF_INET, SOCK_RAW, 6); }
static long raw_ipv6(void) { return sock(AF_INET6, SOCK_RAW, 58); }
static long raw_truncated(void) { return sock(AF_INET, 0x100000003L, 1); }
static long ping_socket(void) { return sock(AF_INET, SOCK_DGRAM, 1); }
static long xdp(void) { return sock(44, SOCK_RAW, 0); }
static long alg(void) { return sock(38, SOCK_SEQPACKET, 0); }
static long bluetooth(void) { return sock(31, SOCK_RAW, 1); }
static long can(void) { return sock(29, SOCK_RAW, 1); }
static long rds(void) { return sock(21, SOCK_SEQPACKET, 0); }
static long tipc(void) { return sock(30, SOCK_STREAM, 0); }
static long key_socket(void) { return sock(15, SOCK_RAW, 2); }
static long nfc(void) { return sock(39, SOCK_RAW, 0); }
static long smc(void) { return sock(43, SOCK_STREAM, 0); }
/* A type that no family has: the kernel says EINVAL before it looks for the family, whether it has it or not. */
static long malformed(long family) { return sock(family, 15, 0); }
static long alg_malformed(void) { return malformed(38); }
static long bluetooth_malformed(void) { return malformed(31); }
static long can_malformed(void) { return malformed(29); }
static long rds_malformed(void) { return malformed(21); }
static long tipc_malformed(void) { return malformed(30); }
static long key_malformed(void) { return malformed(15); }
static long nfc_malformed(void) { return malformed(39); }
static long smc_malformed(void) { return malformed(43); }
static long netlink_generic(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC); }
static long netlink_netfilter(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER); }
static long netlink_audit(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }
static long netlink_uevent(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT); }
static long netlink_sock_diag(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG); }
static long netlink_xfrm(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_XFRM); }
static long netlink_truncated(void) { return sock(AF_NETLINK, SOCK_RAW, 0x100000000L + NETLINK_GENERIC); }

/* ---- changing the network from inside ---- */
struct route_request {
    struct nlmsghdr head;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
    } body;
    char attributes[128];
};

static void attribute(struct route_request *request, int type, const void *data, int size) {
    struct rtattr *slot = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->head.nlmsg_len));
    slot->rta_type = type;
    slot->rta_len = RTA_LENGTH(size);
    if (size) memcpy(RTA_DATA(slot), data, size);
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + RTA_ALIGN(slot->rta_len);
}

static long route_call(struct route_request *request) {
    int fd = sock(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0) return -1;
    request->head.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (send(fd, request, request->head.nlmsg_len, 0) < 0) return -1;
    char answer[4096];
    if (recv(fd, answer, sizeof answer, 0) < 0) return -1;
    struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)answer);
    errno = -error->error;
    return error->error ? -1 : 0;
}

static long new_link(void) {
    struct route_request request = {.head = {NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 1, 0}};
    attribute(&request, IFLA_IFNAME, "probe0", 7);
    struct { struct rtattr head; char kind[8]; } info = {{RTA_LENGTH(7), IFLA_INFO_KIND}, "bridge"};
    attribute(&request, IFLA_LINKINFO, &info, sizeof info);
    return route_call(&request);
}

static long new_address(void) {
    struct route_request request = {.head = {NLMSG_LENGTH(sizeof(struct ifaddrmsg)), RTM_NEWADDR, NLM_F_CREATE, 1, 0}};
    request.body.address = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 1};
    uint32_t address = htonl(0xcb00710a);
    attribute(&request, IFA_LOCAL, &address, 4);
    return route_call(&request);
}

static long new_route(void) {
    struct route_request request = {.head = {NLMSG_LENGTH(sizeof(struct rtmsg)), RTM_NEWROUTE, NLM_F_CREATE, 1, 0}};
    request.body.route = (struct rtmsg){.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_scope = RT_SCOPE_LINK, .rtm_type = RTN_UNICAST};
    uint32_t lo = 1;
    attribute(&request, RTA_OIF, &lo, 4);
    return route_call(&request);
}

static long interface_ioctl(unsigned long what) {
    int fd = sock(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
    return fd < 0 ? -1 : ioctl(fd, what, &request);
}

static long ioctl_flags(void) { return interface_ioctl(SIOCSIFFLAGS); }
static long ioctl_bridge(void) { return ioctl(sock(AF_INET, SOCK_STREAM, 0), 0x89a0, "probe1"); }

static long ioctl_route(void) {
    struct rtentry route = {0};
    route.rt_dst.sa_family = route.rt_genmask.sa_family = AF_INET;
    route.rt_flags = RTF_UP;
    route.rt_dev = "lo";
    return ioctl(sock(AF_INET, SOCK_DGRAM, 0), SIOCADDRT, &route);
}

static long option(int level, int name, int value) {
    int fd = sock(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : setsockopt(fd, level, name, &value, sizeof value);
}

static long so_mark(void) { return option(SOL_SOCKET, SO_MARK, 1); }
static long ip_transparent(void) { return option(IPPROTO_IP, 19, 1); }

/* ---- destinations ---- */
static long to4(const char *address, int port, int type) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = sock(AF_INET, type, 0);
    if (fd < 0) return -1;
    return type == SOCK_STREAM ? connect(fd, (struct sockaddr *)&to, sizeof to)
                               : sendto(fd, "probe", 5, 0, (struct sockaddr *)&to, sizeof to);
}

static long connect_outside(void) { return to4("203.0.113.10", 443, SOCK_STREAM); }
static long connect_metadata(void) { return to4("169.254.169.254", 80, SOCK_STREAM); }
static long connect_credentials(void) { return to4("169.254.170.2", 80, SOCK_STREAM); }
static long connect_services(void) { return to4("198.18.0.1", 443, SOCK_STREAM); }
static long udp_outside(void) { return to4("203.0.113.10", 9, SOCK_DGRAM); }
static long dns_outside(void) { return to4("198.51.100.53", 53, SOCK_DGRAM); }
static long broadcast(void) {
    int fd = sock(AF_INET, SOCK_DGRAM, 0), on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = 0xffffffff};
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    return sendto(fd, "probe", 5, 0, (struct sockaddr *)&to, sizeof to);
}

static long connect_ipv6(void) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
    inet_pton(AF_INET6, "2001:db8::1", &to.sin6_addr);
    return connect(sock(AF_INET6, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
}

static long multicast_ipv6(void) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
    return sendto(sock(AF_INET6, SOCK_DGRAM, 0), "probe", 5, 0, (struct sockaddr *)&to, sizeof to);
}

static long connect_mptcp(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(443)};
    inet_pton(AF_INET, "203.0.113.10", &to.sin_addr);
    return connect(sock(AF_INET, SOCK_STREAM, 262), (struct sockaddr *)&to, sizeof to);
}

static long fast_open(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(443)};
    inet_pton(AF_INET, "203.0.113.10", &to.sin_addr);
    return sendto(sock(AF_INET, SOCK_STREAM, 0), "probe", 5, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to);
}

/* ---- calls that walk round the filter ---- */
static long io_uring(void) {
    char parameters[120] = {0};
    return syscall(425, 4, parameters);
}

static long io_uring_register(void) { return unless_refused(syscall(427, -1, 0, 0, 0)) < 0 ? -1 : 0; }

#ifdef __x86_64__
/* socket(AF_VSOCK, SOCK_STREAM, 0) by the other two calling conventions of this processor. */
static long vsock_x32(void) { return syscall(0x40000000 + SYS_socket, 40, SOCK_STREAM, 0); }
static long vsock_int80(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(359L), "b"(40L), "c"(1L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) { errno = -result; return -1; }
    return result;
}
#endif

/* ---- namespaces ---- */
static long unshare_of(int flag) { return syscall(SYS_unshare, (long)flag); }
static long unshare_user(void) { return unshare_of(CLONE_NEWUSER); }
static long unshare_net(void) { return unshare_of(CLONE_NEWNET); }
static long unshare_mount(void) { return unshare_of(CLONE_NEWNS); }
static long unshare_user_then_packet(void) { return unshare_of(CLONE_NEWUSER | CLONE_NEWNET) < 0 ? -1 : packet(); }

static long clone_with(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, 0);
    return pid;
}

static long clone_user(void) { return clone_with(CLONE_NEWUSER); }
static long clone_net(void) { return clone_with(CLONE_NEWNET); }

static long clone3_user(void) {
    uint64_t arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(435, arguments, 64);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, 0);
    return pid;
}

static long setns_net(void) { return syscall(SYS_setns, open("/proc/1/ns/net", O_RDONLY), CLONE_NEWNET); }
static long setns_mount(void) { return syscall(SYS_setns, open("/proc/1/ns/mnt", O_RDONLY), CLONE_NEWNS); }

/* ---- mounts ---- */
static long mount_tmpfs(void) { mkdir("/tmp/m", 0755); return mount("none", "/tmp/m", "tmpfs", 0, NULL); }
static long mount_proc(void) { mkdir("/tmp/m", 0755); return mount("none", "/tmp/m", "proc", 0, NULL); }
static long mount_sysfs(void) { mkdir("/tmp/m", 0755); return mount("none", "/tmp/m", "sysfs", 0, NULL); }
static long mount_cgroup(void) { mkdir("/tmp/m", 0755); return mount("none", "/tmp/m", "cgroup2", 0, NULL); }
static long bind_mount(void) { mkdir("/tmp/m", 0755); return mount("/proc", "/tmp/m", NULL, MS_BIND | MS_REC, NULL); }
static long remount_root(void) { return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL); }
static long remount_proc_sys(void) { return mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL); }
static long umount_proc_sys(void) { return umount2("/proc/sys", MNT_DETACH); }
static long fs_open(void) { return syscall(430, "tmpfs", 0L); }
static long open_tree_clone(void) { return syscall(428, AT_FDCWD, "/", 1L); }
static long mount_attributes(void) {
    uint64_t attributes[4] = {0};
    return syscall(442, AT_FDCWD, "/", 0L, attributes, sizeof attributes);
}
static long pivot(void) { return unless_refused(syscall(SYS_pivot_root, "/tmp", "/tmp")); }
static long change_root(void) { return chroot("/tmp"); }

/* ---- other processes ---- */
static long ptrace_child(void) {
    pid_t child = fork();
    if (child == 0) { pause(); _exit(0); }
    long result = ptrace(PTRACE_ATTACH, child, 0, 0);
    int saved = errno;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    errno = saved;
    return result;
}

static long process_read(void) {
    char from[8] = "x", to[8];
    struct iovec local = {to, 8}, remote = {from, 8};
    return syscall(SYS_process_vm_readv, getpid(), &local, 1L, &remote, 1L, 0L);
}

static long process_write(void) {
    char from[8] = "x", to[8];
    struct iovec local = {to, 8}, remote = {from, 8};
    return syscall(SYS_process_vm_writev, getpid(), &local, 1L, &remote, 1L, 0L);
}

static long take_descriptor(void) { return syscall(438, syscall(434, getpid(), 0), 0, 0); }
static long compare_kernel(void) { return syscall(SYS_kcmp, getpid(), getpid(), 0L, 0L, 0L); }


/* ---- kernel subsystems ---- */
static long bpf_map(void) {
    uint32_t attributes[18] = {2, 4, 4, 1};
    return syscall(SYS_bpf, 0L, attributes, sizeof attributes);
}

static long bpf_program(void) {
    uint64_t code[2] = {0x00000000000000b7ULL, 0x0000000000000095ULL};
    struct { uint32_t type, count; uint64_t code, licence; uint32_t rest[26]; } attributes = {1, 2, (uint64_t)code, (uint64_t) "GPL"};
    return syscall(SYS_bpf, 5L, &attributes, 48L);
}

static long perf_event(void) {
    uint32_t attributes[32] = {1, 128};
    return syscall(SYS_perf_event_open, attributes, 0L, -1L, -1L, 0L);
}

static long user_fault(void) { return syscall(SYS_userfaultfd, 1L); }
static long fanotify(void) { return unless_refused(syscall(SYS_fanotify_init, 0L, 0L)); }
static long key_ring(void) { return syscall(SYS_keyctl, 0L, -4L, 1L); }
static long key_add(void) { return syscall(SYS_add_key, "user", "isolarium-probe", "x", 1L, -3L); }
static long key_request(void) { return unless_refused(syscall(SYS_request_key, "user", "isolarium-probe", NULL, -3L)); }
static long personality_other(void) { return syscall(SYS_personality, 0x0040000L); }
static long move_pages(void) { return syscall(SYS_move_pages, 0L, 0L, NULL, NULL, NULL, 0L); }
static long memory_policy(void) { return syscall(SYS_set_mempolicy, 0L, NULL, 0L); }
static long handle_of(void) {
    struct { unsigned bytes; int type; char data[128]; } handle = {128, 0, {0}};
    int mount_id;
    return syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &handle, &mount_id, 0L);
}

static long open_handle(void) {
    struct { unsigned bytes; int type; char data[8]; } handle = {8, 1, {2}};
    return unless_refused(syscall(SYS_open_by_handle_at, open("/", O_RDONLY), &handle, O_RDONLY));
}

static long module_load(void) { return unless_refused(syscall(SYS_init_module, NULL, 0L, "")); }
static long kexec(void) { return unless_refused(syscall(SYS_kexec_load, 0L, 1L << 20, NULL, 0L)); }
/* The permission is checked before the magic numbers, which are wrong. */
static long reboot_call(void) { return unless_refused(syscall(SYS_reboot, 0L, 0L, 0L, NULL)); }
static long swap_on(void) { return unless_refused(syscall(SYS_swapon, "/nonexistent", 0L)); }
static long set_time(void) { return syscall(SYS_settimeofday, NULL, NULL); }
static long adjust_clock(void) {
    char timex[256] = {0};
    return unless_refused(syscall(SYS_clock_adjtime, 0L, timex));
}
static long kernel_log(void) {
    char text[64];
    return syscall(SYS_syslog, 3L, text, sizeof text);
}
static long host_name(void) { return sethostname("probe", 5); }
static long domain_name(void) { return setdomainname("probe", 5); }
#ifdef __x86_64__
static long io_ports(void) { return syscall(SYS_iopl, 3L); }
static long io_port(void) { return syscall(SYS_ioperm, 0x80L, 1L, 1L); }
static long local_table(void) {
    char table[16];
    return syscall(SYS_modify_ldt, 0L, table, sizeof table);
}
#endif

/* ---- users and capabilities ---- */
static long unmapped_user(void) { return syscall(SYS_setresuid, 100000L, 100000L, 100000L); }
static long capability_gain(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    syscall(SYS_capget, &head, data);
    data[0].permitted |= 1u << CAP_NET_ADMIN;
    data[0].effective |= 1u << CAP_NET_ADMIN;
    return syscall(SYS_capset, &head, data);
}
static long ambient_gain(void) { return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0); }
static long privileges_back(void) { return prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0); }
static long make_device(void) { unlink("/tmp/d"); return mknod("/tmp/d", S_IFCHR | 0600, makedev(1, 11)); }
static long make_disk(void) { unlink("/tmp/b"); return mknod("/tmp/b", S_IFBLK | 0600, makedev(8, 0)); }

/* ---- files ---- */
static long writable(const char *path) { return open(path, O_WRONLY); }
/* A masked file is an empty device in its place. */
static long readable(const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    struct stat found;
    char byte;
    if (fd < 0 || fstat(fd, &found)) return -1;
    if (S_ISCHR(found.st_mode)) { errno = ENODATA; return -1; }
    return read(fd, &byte, 1);
}

static long core_pattern(void) { return writable("/proc/sys/kernel/core_pattern"); }
static long ip_forward(void) { return writable("/proc/sys/net/ipv4/ip_forward"); }
static long ping_range(void) { return writable("/proc/sys/net/ipv4/ping_group_range"); }
static long sysrq(void) { return writable("/proc/sysrq-trigger"); }
static long kcore(void) { return readable("/proc/kcore"); }
static long timers(void) { return readable("/proc/timer_list"); }
static long keys_file(void) { return readable("/proc/key-users"); }
static long irq(void) { return writable("/proc/irq/default_smp_affinity"); }
static long uevent_helper(void) { return writable("/sys/kernel/uevent_helper"); }
static long release_agent(void) { return writable("/sys/fs/cgroup/memory/release_agent"); }
static long cgroup_procs(void) { return writable("/sys/fs/cgroup/cgroup.procs"); }
static long hosts_file(void) { return writable("/etc/hosts"); }
static long resolver_file(void) { return writable("/etc/resolv.conf"); }
static long device_memory(void) { return open("/dev/mem", O_RDONLY); }
static long device_kvm(void) { return open("/dev/kvm", O_RDWR); }
static long device_vsock(void) { return open("/dev/vsock", O_RDONLY); }
static long device_tun(void) { return open("/dev/net/tun", O_RDWR); }
static long device_fuse(void) { return open("/dev/fuse", O_RDWR); }
static long device_loop(void) { return open("/dev/loop-control", O_RDWR); }
static long device_kmsg(void) { return open("/dev/kmsg", O_RDONLY); }

/* ---- what must work: a probe that finds nothing because it cannot run proves nothing ---- */
static long loopback(void) {
    int server = sock(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (server < 0 || bind(server, (struct sockaddr *)&at, size) || listen(server, 1)) return -1;
    getsockname(server, (struct sockaddr *)&at, &size);
    return connect(sock(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&at, size);
}
static long unix_pair(void) { int pair[2]; return socketpair(AF_UNIX, SOCK_STREAM, 0, pair); }
static long ipv6_socket(void) { return sock(AF_INET6, SOCK_STREAM, 0); }
static long interface_list(void) { return sock(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE); }
static long plain_clone(void) { return clone_with(0); }
static long memory_file(void) { return syscall(SYS_memfd_create, "probe", 0L); }
static long temporary_file(void) { return open("/tmp/probe", O_CREAT | O_WRONLY, 0600); }
static long change_user(void) { return syscall(SYS_setresuid, 1000L, 1000L, 1000L); }

static const struct { const char *name; attempt_fn try; } attempts[] = {
    {"allowed-loopback", loopback}, {"allowed-unix", unix_pair}, {"allowed-ipv6-socket", ipv6_socket},
    {"allowed-netlink-route", interface_list}, {"allowed-clone", plain_clone}, {"allowed-memfd", memory_file},
    {"allowed-tmp", temporary_file}, {"allowed-setuid", change_user},
    {"vsock", vsock}, {"vsock-truncated", vsock_truncated}, {"vsock-high-bits", vsock_negative}, {"packet", packet},
    {"packet-truncated", packet_truncated}, {"packet-old", packet_old}, {"raw-icmp", raw_icmp}, {"raw-tcp", raw_tcp},
    {"raw-ipv6", raw_ipv6}, {"raw-truncated", raw_truncated}, {"ping-socket", ping_socket}, {"xdp", xdp}, {"alg", alg},
    {"bluetooth", bluetooth}, {"can", can}, {"rds", rds}, {"tipc", tipc}, {"key-socket", key_socket}, {"nfc", nfc}, {"smc", smc},
    {"alg-malformed", alg_malformed}, {"bluetooth-malformed", bluetooth_malformed}, {"can-malformed", can_malformed},
    {"rds-malformed", rds_malformed}, {"tipc-malformed", tipc_malformed}, {"key-socket-malformed", key_malformed},
    {"nfc-malformed", nfc_malformed}, {"smc-malformed", smc_malformed},
    {"netlink-generic", netlink_generic}, {"netlink-netfilter", netlink_netfilter}, {"netlink-audit", netlink_audit},
    {"netlink-uevent", netlink_uevent}, {"netlink-sock-diag", netlink_sock_diag}, {"netlink-xfrm", netlink_xfrm},
    {"netlink-truncated", netlink_truncated},
    {"new-link", new_link}, {"new-address", new_address}, {"new-route", new_route}, {"ioctl-flags", ioctl_flags},
    {"ioctl-bridge", ioctl_bridge}, {"ioctl-route", ioctl_route}, {"so-mark", so_mark}, {"ip-transparent", ip_transparent},
    {"connect-outside", connect_outside}, {"connect-metadata", connect_metadata}, {"connect-credentials", connect_credentials},
    {"connect-services", connect_services}, {"udp-outside", udp_outside}, {"dns-outside", dns_outside}, {"broadcast", broadcast},
    {"connect-ipv6", connect_ipv6}, {"multicast-ipv6", multicast_ipv6}, {"connect-mptcp", connect_mptcp}, {"fast-open", fast_open},
    {"io-uring", io_uring}, {"io-uring-register", io_uring_register},
#ifdef __x86_64__
    {"vsock-x32", vsock_x32}, {"vsock-int80", vsock_int80}, {"iopl", io_ports}, {"ioperm", io_port}, {"modify-ldt", local_table},
#endif
    {"unshare-user", unshare_user}, {"unshare-net", unshare_net}, {"unshare-mount", unshare_mount},
    {"unshare-user-packet", unshare_user_then_packet}, {"clone-user", clone_user}, {"clone-net", clone_net},
    {"clone3-user", clone3_user}, {"setns-net", setns_net}, {"setns-mount", setns_mount},
    {"mount-tmpfs", mount_tmpfs}, {"mount-proc", mount_proc}, {"mount-sysfs", mount_sysfs}, {"mount-cgroup", mount_cgroup},
    {"mount-bind", bind_mount}, {"remount-root", remount_root}, {"remount-proc-sys", remount_proc_sys},
    {"umount-proc-sys", umount_proc_sys}, {"fsopen", fs_open}, {"open-tree", open_tree_clone}, {"mount-setattr", mount_attributes},
    {"pivot-root", pivot}, {"chroot", change_root},
    {"ptrace", ptrace_child}, {"process-vm-readv", process_read}, {"process-vm-writev", process_write},
    {"pidfd-getfd", take_descriptor}, {"kcmp", compare_kernel},
    {"bpf-map", bpf_map}, {"bpf-program", bpf_program}, {"perf-event", perf_event}, {"userfaultfd", user_fault},
    {"fanotify", fanotify}, {"keyctl", key_ring}, {"add-key", key_add}, {"request-key", key_request},
    {"personality", personality_other}, {"move-pages", move_pages}, {"set-mempolicy", memory_policy},
    {"name-to-handle", handle_of}, {"open-by-handle", open_handle}, {"init-module", module_load}, {"kexec", kexec},
    {"reboot", reboot_call}, {"swapon", swap_on}, {"settimeofday", set_time}, {"clock-adjtime", adjust_clock},
    {"syslog", kernel_log}, {"sethostname", host_name}, {"setdomainname", domain_name},
    {"unmapped-user", unmapped_user}, {"capability-gain", capability_gain}, {"ambient-gain", ambient_gain},
    {"privileges-back", privileges_back}, {"mknod-char", make_device}, {"mknod-block", make_disk},
    {"core-pattern", core_pattern}, {"ip-forward", ip_forward}, {"ping-range", ping_range}, {"sysrq-trigger", sysrq},
    {"kcore", kcore}, {"timer-list", timers}, {"key-users", keys_file}, {"irq-affinity", irq}, {"uevent-helper", uevent_helper},
    {"release-agent", release_agent}, {"cgroup-procs", cgroup_procs}, {"etc-hosts", hosts_file}, {"etc-resolv-conf", resolver_file},
    {"dev-mem", device_memory}, {"dev-kvm", device_kvm}, {"dev-vsock", device_vsock}, {"dev-tun", device_tun},
    {"dev-fuse", device_fuse}, {"dev-loop", device_loop}, {"dev-kmsg", device_kmsg},
};
static const int count = sizeof attempts / sizeof *attempts;

/* ---- with a target ---- */
static char *fields[3];

static int address_of(struct sockaddr_in *to, const char *port) {
    *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    return inet_pton(AF_INET, fields[0], &to->sin_addr) == 1 ? 0 : -1;
}

static long tcp_text(void) {
    struct sockaddr_in to;
    int fd = sock(AF_INET, SOCK_STREAM, 0);
    char request[512], answer[512];
    int length = snprintf(request, sizeof request, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", fields[2], fields[0]);
    if (address_of(&to, fields[1]) || fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) return -1;
    if (send(fd, request, length, MSG_NOSIGNAL) != length) return -1;
    return read(fd, answer, sizeof answer) > 0 ? 0 : -1;
}

static long udp_text(void) {
    struct sockaddr_in to;
    return address_of(&to, fields[1]) ? -1 : sendto(sock(AF_INET, SOCK_DGRAM, 0), fields[2], strlen(fields[2]), 0, (struct sockaddr *)&to, sizeof to);
}

/* The name as labels of one question, answer not awaited. */
static long dns_name(void) {
    struct sockaddr_in to;
    unsigned char message[300] = {0x12, 0x34, 1, 0, 0, 1}, *at = message + 12;
    for (char *label = strtok(fields[1], "."); label; label = strtok(NULL, ".")) {
        *at++ = strlen(label);
        at = mempcpy(at, label, strlen(label));
    }
    at = mempcpy(at, "\0\0\1\0\1", 5);
    return address_of(&to, "53") ? -1 : sendto(sock(AF_INET, SOCK_DGRAM, 0), message, at - message, 0, (struct sockaddr *)&to, sizeof to);
}

static long icmp_text(void) {
    struct sockaddr_in to;
    char echo[300] = {8};
    int fd = sock(AF_INET, SOCK_DGRAM, 1);
    strcpy(echo + 8, fields[1]);
    if (address_of(&to, "0") || fd < 0) return -1;
    return sendto(fd, echo, 8 + strlen(fields[1]), 0, (struct sockaddr *)&to, sizeof to);
}

static long abstract_socket(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path + 1, fields[0]);
    return connect(sock(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(fields[0]));
}

static long shared_memory(void) { return shmget(atoi(fields[0]), 0, 0); }
static long make_shared_memory(void) { return shmget(atoi(fields[0]), 4096, IPC_CREAT | 0666); }
static long drop_shared_memory(void) { return shmctl(shmget(atoi(fields[0]), 0, 0), IPC_RMID, NULL); }
static long signal_process(void) { return kill(atoi(fields[0]), 0); }

static const struct { const char *name; int fields; attempt_fn try; } aimed[] = {
    {"tcp=", 3, tcp_text}, {"udp=", 3, udp_text}, {"dns=", 2, dns_name}, {"icmp=", 2, icmp_text},
    {"abstract=", 1, abstract_socket}, {"sysv=", 1, shared_memory}, {"sysv-make=", 1, make_shared_memory},
    {"sysv-drop=", 1, drop_shared_memory}, {"signal=", 1, signal_process},
};

static attempt_fn attempt_of(const char *text) {
    for (int number = 0; number < count; number++)
        if (!strcmp(attempts[number].name, text)) return attempts[number].try;
    for (unsigned kind = 0; kind < sizeof aimed / sizeof *aimed; kind++) {
        size_t length = strlen(aimed[kind].name);
        if (strncmp(aimed[kind].name, text, length)) continue;
        char *rest = strdup(text + length);
        int found = 0;
        while (found < 3 && (fields[found] = strsep(&rest, ","))) found++;
        return found == aimed[kind].fields ? aimed[kind].try : NULL;
    }
    return NULL;
}

static int serve(const char *port) {
    int listener = sock(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 16)) return 1;
    puts("serving");
    fflush(stdout);
    for (;;) {
        char text[512];
        int fd = accept(listener, NULL, NULL);
        long got = read(fd, text, sizeof text - 1);
        text[got > 0 ? got : 0] = 0;
        text[strcspn(text, "\r\n")] = 0;
        puts(text);
        fflush(stdout);
        if (write(fd, "HTTP/1.1 200 OK\r\n\r\n", 19) < 0) perror("answer");
        close(fd);
    }
}

static int serve_abstract(const char *name) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int listener = sock(AF_UNIX, SOCK_STREAM, 0);
    strncpy(at.sun_path + 1, name, sizeof at.sun_path - 2);
    if (bind(listener, (struct sockaddr *)&at, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) || listen(listener, 16)) return 1;
    puts("serving");
    fflush(stdout);
    for (;;) pause();
}

/* In a child: an attempt may kill the process, hang, or change it. */
static void perform(const char *name, attempt_fn try) {
    int pipe_ends[2];
    if (pipe(pipe_ends)) exit(2);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) exit(2);
    if (child == 0) {
        alarm(5);
        errno = 0;
        int32_t answer[2] = {try() >= 0};
        answer[1] = answer[0] ? 0 : errno;
        _exit(write(pipe_ends[1], answer, sizeof answer) != sizeof answer);
    }
    close(pipe_ends[1]);
    int32_t answer[2];
    long got = read(pipe_ends[0], answer, sizeof answer);
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    const char *outcome = got != sizeof answer ? "killed" : answer[0] ? "open" : "closed";
    int number_shown = got != sizeof answer ? WTERMSIG(status) : answer[1];
    printf("{\"attempt\": \"%s\", \"outcome\": \"%s\", \"errno\": %d}\n", name, outcome, number_shown);
}

int main(int argc, char **argv) {
    int all = argc == 1 || !strcmp(argv[1], "all") || !strcmp(argv[1], "train");
    if (argc > 1 && !strcmp(argv[1], "list")) {
        for (int number = 0; number < count; number++) puts(attempts[number].name);
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "serve")) return serve(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "serve-abstract")) return serve_abstract(argv[2]);
    for (int number = 0; all && number < count; number++) perform(attempts[number].name, attempts[number].try);
    for (int at = 1; !all && at < argc; at++) {
        attempt_fn try = attempt_of(argv[at]);
        if (!try) {
            fprintf(stderr, "unknown attempt %s\n", argv[at]);
            return 2;
        }
        perform(argv[at], try);
    }
    return 0;
}
