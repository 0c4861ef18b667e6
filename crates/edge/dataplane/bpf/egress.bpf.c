// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//
// Records what sealed containers try to reach, and refuses it a second time (design: the lo-only namespace is the wall).
//
// Attached to the cgroup of each sealed container. A connect or send towards anything but loopback is counted by
// (cgroup, protocol, address, port, process name) and answered ENETUNREACH, which is what the missing route would answer.
// Questions to port 53 of loopback, where nothing listens, are counted by name.
//
// Every cgroup has room for KINDS_MAX different attempts; the first ones stay, later ones are counted as lost. A container
// can thus neither push out its own first attempt nor those of others.
//
// The licence string is for the kernel, which gives some helpers only to programs that may be used under the GPL.

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define KINDS_MAX 512
#define NAME_MAX_WIRE 256
#define COMM 16
#define ENETUNREACH 101
#define AF_INET 2
#define AF_INET6 10
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_RAW 255
#define SOCK_RAW 3
#define SOCK_DGRAM 2
#define SOCK_TYPE_MASK 0xf
#define DNS 53
#define ANCESTORS 8

// The few kernel types that are read, by name: the loader looks up where their fields are.
struct upid {
	int nr;
} __attribute__((preserve_access_index));

struct pid {
	unsigned int level;
	struct upid numbers[1];
} __attribute__((preserve_access_index));

struct signal_struct {
	struct pid *pids[2];
} __attribute__((preserve_access_index));

struct task_struct {
	struct signal_struct *signal;
	char comm[COMM];
} __attribute__((preserve_access_index));

#define PIDTYPE_TGID 1

struct cgroup_state {
	__u64 lost;
	__u32 kinds;
	__u32 deny; // what attach says: DENY, and PEERS if it may reach addresses of the map of peers
};

#define DENY 1
#define PEERS 2

// An address that the cgroup's processes may reach: their own or another container's of the same job.
struct peer_key {
	__u64 cgroup;
	__u32 address; // network order
	__u32 pad;
};

struct attempt_key {
	__u64 cgroup;
	__u8 address[16]; // IPv4 as ::ffff:a.b.c.d
	char comm[COMM];
	__u16 port; // host order
	__u8 protocol;
	__u8 pad[5];
};

struct attempt {
	__u64 count;
	__u64 first; // nanoseconds since boot
	__u64 last;
	__u32 pid; // in the innermost pid namespace
	__u32 pad;
};

struct question_key {
	__u64 cgroup;
	__u64 hash; // of the name in lower case
	char comm[COMM];
	__u16 kind; // of the question, host order
	__u8 pad[6];
};

struct question {
	struct attempt seen;
	__u8 address[16]; // of the resolver that was asked
	__u32 length;
	__u8 name[NAME_MAX_WIRE]; // labels as on the wire, lower case
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct cgroup_state);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct peer_key);
	__type(value, __u8);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1048576);
	__type(key, struct attempt_key);
	__type(value, struct attempt);
} attempts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct question_key);
	__type(value, struct question);
} questions SEC(".maps");

// A question does not fit onto the stack.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct question);
} scratch SEC(".maps");

// The registered cgroup of the calling process: its own, or an ancestor when the container made groups below it.
static __always_inline struct cgroup_state *registered(__u64 *id)
{
	struct cgroup_state *state;

	*id = bpf_get_current_cgroup_id();
	state = bpf_map_lookup_elem(&cgroups, id);
	if (state)
		return state;
#pragma clang loop unroll(disable)
	for (int level = 1; level <= ANCESTORS; level++) {
		*id = bpf_get_current_ancestor_cgroup_id(level);
		state = bpf_map_lookup_elem(&cgroups, id);
		if (state)
			return state;
	}
	return 0;
}

static __always_inline void describe_process(char comm[COMM], __u32 *pid)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct pid *tgid = BPF_CORE_READ(task, signal, pids[PIDTYPE_TGID]);
	unsigned int level = BPF_CORE_READ(tgid, level);
	void *number = (void *)tgid + bpf_core_field_offset(struct pid, numbers) +
		       level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr);

	bpf_probe_read_kernel(pid, sizeof(*pid), number);
	bpf_probe_read_kernel_str(comm, COMM, &task->comm);
}

// Whether the cgroup may have one more kind of attempt.
static __always_inline int room(struct cgroup_state *state)
{
	if (state->kinds >= KINDS_MAX) {
		__sync_fetch_and_add(&state->lost, 1);
		return 0;
	}
	__sync_fetch_and_add(&state->kinds, 1);
	return 1;
}

static __always_inline void again(struct attempt *known, __u64 now)
{
	__sync_fetch_and_add(&known->count, 1);
	known->last = now;
}

static __always_inline void record(struct cgroup_state *state, struct attempt_key *key)
{
	struct attempt fresh = { .count = 1 };
	struct attempt *known;

	describe_process(key->comm, &fresh.pid);
	fresh.first = fresh.last = bpf_ktime_get_boot_ns();
	known = bpf_map_lookup_elem(&attempts, key);
	if (known)
		again(known, fresh.last);
	else if (room(state) && bpf_map_update_elem(&attempts, key, &fresh, BPF_NOEXIST)) {
		// Another CPU was faster, or memory is short.
		known = bpf_map_lookup_elem(&attempts, key);
		if (known)
			again(known, fresh.last);
		else
			__sync_fetch_and_add(&state->lost, 1);
	}
}

// The errno that the process would see without us.
static __always_inline int refuse(void)
{
	bpf_set_retval(-ENETUNREACH);
	return 0;
}

// Whether the address stays inside: 127.0.0.0/8, and 0.0.0.0, which a connect takes for the own machine.
static __always_inline int loopback4(__u32 address)
{
	return (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || address == 0;
}

// Whether the address is a peer's, of a cgroup that has peers.
static __always_inline int peer4(struct cgroup_state *state, __u64 cgroup, __u32 address)
{
	struct peer_key key = { .cgroup = cgroup, .address = address };

	return state->deny & PEERS && bpf_map_lookup_elem(&peers, &key);
}

static __always_inline void map4(__u8 out[16], __u32 address)
{
	__builtin_memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	__builtin_memcpy(out + 12, &address, 4);
}

static __always_inline int leave4(struct bpf_sock_addr *ctx)
{
	struct attempt_key key = {};
	struct cgroup_state *state;
	__u32 address = ctx->user_ip4;

	if (loopback4(address))
		return 1;
	state = registered(&key.cgroup);
	if (!state)
		return refuse();
	if (peer4(state, key.cgroup, address))
		return 1;
	map4(key.address, address);
	key.port = bpf_ntohs(ctx->user_port);
	key.protocol = ctx->protocol;
	record(state, &key);
	return state->deny ? refuse() : 1;
}

static __always_inline int leave6(struct bpf_sock_addr *ctx)
{
	struct attempt_key key = {};
	struct cgroup_state *state;
	__u32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];

	if (a == 0 && b == 0 && c == 0 && (d == 0 || d == bpf_htonl(1)))
		return 1;
	if (a == 0 && b == 0 && c == bpf_htonl(0xffff) && loopback4(d))
		return 1;
	state = registered(&key.cgroup);
	if (!state)
		return refuse();
	if (a == 0 && b == 0 && c == bpf_htonl(0xffff) && peer4(state, key.cgroup, d))
		return 1;
	__builtin_memcpy(key.address, &a, 4);
	__builtin_memcpy(key.address + 4, &b, 4);
	__builtin_memcpy(key.address + 8, &c, 4);
	__builtin_memcpy(key.address + 12, &d, 4);
	key.port = bpf_ntohs(ctx->user_port);
	key.protocol = ctx->protocol;
	record(state, &key);
	return state->deny ? refuse() : 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return leave4(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return leave4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return leave6(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return leave6(ctx);
}

// Copies the first question's name in lower case and returns its length, 0 if it is none.
static __always_inline __u32 read_name(struct __sk_buff *skb, __u32 at, struct question *question, __u64 *hash)
{
	__u32 room_left, label = 0;

	if (skb->len <= at)
		return 0;
	room_left = skb->len - at;
	if (room_left > NAME_MAX_WIRE - 1)
		room_left = NAME_MAX_WIRE - 1;
	// For the verifier, which lost the bounds above.
	asm volatile("" : "+r"(room_left));
	room_left &= NAME_MAX_WIRE - 1;
	if (room_left == 0)
		return 0;
	if (bpf_skb_load_bytes(skb, at, question->name, room_left))
		return 0;
	*hash = 0xcbf29ce484222325ULL;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < NAME_MAX_WIRE - 1; i++) {
		__u8 byte;

		if (i >= room_left)
			return 0;
		byte = question->name[i];
		if (label == 0) {
			if (byte == 0) {
				question->length = i;
				return i + 1;
			}
			if (byte > 63)
				return 0;
			label = byte;
		} else {
			if (byte >= 'A' && byte <= 'Z')
				question->name[i] = byte + ('a' - 'A');
			label--;
		}
		*hash = (*hash ^ question->name[i]) * 0x100000001b3ULL;
	}
	return 0;
}

static __always_inline void record_question(struct __sk_buff *skb, struct cgroup_state *state, __u64 cgroup, __u32 dns,
					    __u8 address[16])
{
	struct question_key key = { .cgroup = cgroup };
	__u32 zero = 0, name;
	struct question *fresh = bpf_map_lookup_elem(&scratch, &zero);
	struct question *known;
	__u64 now = bpf_ktime_get_boot_ns();
	__u16 kind = 0;
	__u8 flags;

	// A response is no question.
	if (!fresh || bpf_skb_load_bytes(skb, dns + 2, &flags, 1) || flags & 0x80)
		return;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	name = read_name(skb, dns + 12, fresh, &key.hash);
	if (!name)
		return;
	bpf_skb_load_bytes(skb, dns + 12 + name, &kind, sizeof(kind));
	key.kind = bpf_ntohs(kind);
	describe_process(key.comm, &fresh->seen.pid);
	fresh->seen.count = 1;
	fresh->seen.first = fresh->seen.last = now;
	__builtin_memcpy(fresh->address, address, 16);
	known = bpf_map_lookup_elem(&questions, &key);
	if (known)
		again(&known->seen, now);
	else if (room(state) && bpf_map_update_elem(&questions, &key, fresh, BPF_NOEXIST))
		__sync_fetch_and_add(&state->lost, 1);
}

// Packets. Where there is loopback alone nothing else gets here, and where there are peers nothing but theirs; the second
// wall holds if there were more.
SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct cgroup_state *state;
	__u8 address[16] = {}, version, protocol;
	__u32 transport;
	__u16 port;
	__u64 id;
	__u32 to = 0;
	int inside;

	if (bpf_skb_load_bytes(skb, 0, &version, 1))
		return 0;
	if (version >> 4 == 4) {
		if (bpf_skb_load_bytes(skb, 9, &protocol, 1) || bpf_skb_load_bytes(skb, 16, &to, 4))
			return 0;
		inside = loopback4(to);
		map4(address, to);
		transport = (version & 0xf) * 4;
	} else {
		if (bpf_skb_load_bytes(skb, 6, &protocol, 1) || bpf_skb_load_bytes(skb, 24, address, 16))
			return 0;
		inside = 1;
#pragma clang loop unroll(disable)
		for (int i = 0; i < 15; i++)
			inside &= address[i] == 0;
		inside &= address[15] <= 1;
		transport = 40;
	}
	id = bpf_skb_cgroup_id(skb);
	state = bpf_map_lookup_elem(&cgroups, &id);
	if (!state)
		state = registered(&id);
	if (!state)
		return inside;
	if (inside && protocol == PROTO_UDP && !bpf_skb_load_bytes(skb, transport + 2, &port, 2) && port == bpf_htons(DNS))
		record_question(skb, state, id, transport + 8, address);
	return inside || !state->deny || (to && peer4(state, id, to));
}

// Raw and ICMP sockets have no destination yet; the kernel refuses them for want of a capability. This only remembers that
// somebody asked. Arguments: family, type, protocol, kern.
SEC("lsm_cgroup/socket_create")
int socket_create(unsigned long long *ctx)
{
	struct attempt_key key = {};
	struct cgroup_state *state;
	int family = (int)ctx[0], type = (int)ctx[1] & SOCK_TYPE_MASK, protocol = (int)ctx[2];
	int icmp = protocol == 1 || protocol == 58;

	if (family != AF_INET && family != AF_INET6)
		return 1;
	if (type != SOCK_RAW && !(type == SOCK_DGRAM && icmp))
		return 1;
	state = registered(&key.cgroup);
	if (!state)
		return 1;
	// Peers may be pinged.
	if (type == SOCK_DGRAM && state->deny & PEERS)
		return 1;
	if (family == AF_INET)
		map4(key.address, 0);
	key.protocol = icmp ? protocol : PROTO_RAW;
	record(state, &key);
	return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
