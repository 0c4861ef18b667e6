use super::*;
use crate::host::{Host, HostOptions};
use crate::net_host::ObserveError;
use isolarium_netplan::compile::{compile_nothing, compile_workload};
use isolarium_netplan::intent::{HostNetwork, Reach, Uplink, WorkloadNetwork};
use isolarium_netplan::plan::NamespacePlan;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

/// Refuses one step, as a kernel does that lacks something or is out of memory.
struct FailAt {
    kernel: KernelHost,
    left: usize,
}

impl NetHost for FailAt {
    fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError> {
        self.kernel.observe(plan)
    }

    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        for step in steps {
            if self.left == 0 {
                let source = io::Error::other("told to fail");
                return Err(ApplyError::Refused {
                    step: Box::new(step.clone()),
                    source,
                });
            }
            self.left -= 1;
            self.kernel.apply(std::slice::from_ref(step))?;
        }
        Ok(())
    }
}

/// Takes every step but one, and says that it took it.
struct LieAt<'a> {
    kernel: KernelHost,
    at: usize,
    left_out: &'a Mutex<Option<Step>>,
}

impl NetHost for LieAt<'_> {
    fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError> {
        self.kernel.observe(plan)
    }

    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        for (at, step) in steps.iter().enumerate() {
            if at == self.at {
                *self.left_out.lock().unwrap() = Some(step.clone());
                continue;
            }
            // Steps that build on the one left out may fail: then nobody was lied to.
            self.kernel.apply(std::slice::from_ref(step))?;
        }
        Ok(())
    }
}

fn network() -> HostNetwork {
    HostNetwork {
        uplink: Uplink::None,
        platform: "100.64.0.0/16".parse().unwrap(),
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        uplink_links: "169.254.64.0/18".parse().unwrap(),
        elastic_ips: "198.19.0.0/16".parse().unwrap(),
        nat_idle: HostNetwork::NAT_IDLE,
    }
}

/// A platform namespace that goes away at the end of the test.
struct Standing {
    host: Host,
    dir: tempfile::TempDir,
}

impl Standing {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(HostOptions {
            run_dir: dir.path().into(),
            host_netns: None,
        });
        host.ensure(&network()).unwrap();
        Self { host, dir }
    }

    fn platform(&self) -> Arc<Handle> {
        let fd = netns::open(&self.dir.path().join("netns/platform")).unwrap();
        Arc::new(Handle::open(fd).unwrap())
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.host.teardown().unwrap();
    }
}

fn links_in(platform: &Handle) -> Vec<String> {
    platform
        .run(|| {
            let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            text.lines()
                .skip(2)
                .map(|line| line.split(':').next().unwrap().trim().to_owned())
                .collect()
        })
        .unwrap()
}

fn workload(reach: Reach) -> WorkloadNetwork {
    WorkloadNetwork {
        workload: "w-0123456789abcdef0".parse().unwrap(),
        reach,
    }
}

/// Proves: NI-6, NI-11, D-25
#[test]
fn a_sealed_namespace_holds_loopback_and_nothing_else() {
    let sealed = seal(&compile_nothing(), None).unwrap();
    let (devices, routes, ping, own) = netns::within(sealed.as_fd(), || {
        (
            fs::read_to_string("/proc/thread-self/net/dev").unwrap(),
            fs::read_to_string("/proc/thread-self/net/route").unwrap(),
            fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap(),
            fs::metadata("/proc/thread-self/ns/net").unwrap().ino(),
        )
    })
    .unwrap();
    let names: Vec<_> = devices
        .lines()
        .skip(2)
        .map(|line| line.split(':').next().unwrap().trim())
        .collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(routes.lines().count(), 1, "a header and no route: {routes}");
    assert_eq!(ping.trim(), "1\t0");
    assert_ne!(
        own,
        fs::metadata("/proc/self/ns/net").unwrap().ino(),
        "control: it is another namespace"
    );

    // Control: loopback works inside; outside there is an address that it cannot be confused with.
    let listener = netns::within(sealed.as_fd(), || std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    netns::within(sealed.as_fd(), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()
    })
    .unwrap();
    let refused = netns::within(sealed.as_fd(), || std::net::TcpStream::connect("203.0.113.10:443")).unwrap();
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    let inbound = std::net::TcpStream::connect(("127.0.0.1", port));
    assert!(inbound.is_err(), "nobody outside reaches its listener");
}

/// Proves: NET-73
#[test]
fn when_any_step_fails_no_namespace_is_handed_out_and_nothing_is_left() {
    let standing = Standing::new();
    let platform = standing.platform();
    let reach = Reach::ServiceNetwork {
        address: "100.64.0.9".parse().unwrap(),
    };
    let connected = compile_workload(&network(), &workload(reach)).unwrap();
    for (plan, handle) in [(compile_nothing(), None), (connected, Some(&platform))] {
        let mut refused = 0;
        loop {
            let outcome = seal_by(&plan, handle.cloned(), |kernel| FailAt { kernel, left: refused });
            match outcome {
                Err(SealError::Install(ApplyError::Refused { .. })) => {
                    assert_eq!(links_in(&platform), ["lo"], "after a failure of step {refused}");
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
                Ok(_) => break,
            }
        }
        assert!(
            refused >= 4,
            "control: there were steps to fail ({refused}), and without failure it works"
        );
    }
}

/// Proves: NET-73
#[test]
fn a_step_that_did_not_take_is_noticed_by_reading_back() {
    let standing = Standing::new();
    let platform = standing.platform();
    let mut drifted = 0;
    for at in 0.. {
        // An address of its own each time: the interface of the one before may still be going away.
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 1, 0)) + u32::try_from(at).unwrap());
        let plan = compile_workload(&network(), &workload(Reach::ServiceNetwork { address })).unwrap();
        let left_out = Mutex::new(None);
        let wrap = |kernel| LieAt {
            kernel,
            at,
            left_out: &left_out,
        };
        let outcome = seal_by(&plan, Some(Arc::clone(&platform)), wrap);
        let Some(step) = left_out.into_inner().unwrap() else {
            break;
        };
        match outcome {
            Err(SealError::Install(ApplyError::Drift(left))) => {
                assert!(left.contains(&step), "{step}: {left:?}");
                drifted += 1;
            }
            // Left out was what keeps the kernel from adding something of its own.
            Err(SealError::Install(ApplyError::Foreign { .. })) => drifted += 1,
            Err(SealError::Install(ApplyError::Refused { .. })) => {}
            Err(other) => panic!("{other:?}"),
            // A setting may have its value from the start.
            Ok(_) => assert!(
                matches!(step, Step::SetSysctl { .. }),
                "{step} was left out and nobody noticed"
            ),
        }
    }
    assert!(drifted >= 6, "only {drifted} lies were noticed");
}

/// Proves: NET-73
#[test]
fn a_foreign_interface_in_a_fresh_namespace_is_refused() {
    struct Meddling(KernelHost);
    impl NetHost for Meddling {
        fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError> {
            self.0.observe(plan)
        }
        fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
            self.0.apply(steps)?;
            let output = std::process::Command::new("ip")
                .args(["link", "add", "br0", "type", "bridge"])
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            Ok(())
        }
    }
    let outcome = seal_by(&compile_nothing(), None, Meddling);
    assert!(
        matches!(outcome, Err(SealError::Install(ApplyError::Foreign { ref what, .. })) if what == "interface br0"),
        "{outcome:?}"
    );
}

#[test]
fn one_address_is_never_given_to_two_workloads() {
    let standing = Standing::new();
    let reach = Reach::ServiceNetwork {
        address: "100.64.0.9".parse().unwrap(),
    };
    let first = standing.host.seal(&workload(reach.clone())).unwrap();
    assert!(standing.host.seal(&workload(reach.clone())).is_err());
    assert_eq!(
        links_in(&standing.platform()),
        ["lo", "w64400009"],
        "the first workload keeps its interface"
    );
    // The kernel takes the interface away with the namespace, some milliseconds later: whoever gets the address next
    // waits for that.
    drop(first);
    standing.host.seal(&workload(reach)).unwrap();
}

/// The first workload ends after the first refusal.
#[test]
fn an_address_that_is_becoming_free_is_waited_for() {
    let standing = Standing::new();
    let platform = standing.platform();
    let reach = Reach::ServiceNetwork {
        address: "100.64.0.9".parse().unwrap(),
    };
    let plan = compile_workload(&network(), &workload(reach)).unwrap();
    let mut first = Some(seal(&plan, Some(&platform)).unwrap());
    let mut refusals = 0;
    let second = while_leaving(|| {
        let outcome = seal_by(&plan, Some(Arc::clone(&platform)), |host| host);
        if outcome.is_err() {
            refusals += 1;
            first = None;
        }
        outcome
    });
    assert!(second.is_ok(), "{second:?}");
    assert!(refusals > 0 && first.is_none(), "control: the address was taken");
    // Any other refusal is final.
    let mut tries = 0;
    let refused = while_leaving(|| {
        tries += 1;
        seal_by(&plan, None, |host| host)
    });
    assert!(refused.is_err());
    assert_eq!(tries, 1);
}

/// A VPC's router with the plan of one interface in it.
fn interface(standing: &Standing) -> (isolarium_netplan::plan::WorkloadPlan, Arc<Handle>) {
    use isolarium_netplan::intent::vpc::Holder;
    use isolarium_testkit::lab::topology::{self, Tape};
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    let id = *vpc.interfaces.keys().next().unwrap();
    vpc.interfaces.get_mut(&id).unwrap().holder = Holder::Program;
    let vpc = vpc.check().unwrap();
    let plan = isolarium_netplan::compile_interface(&vpc, id).unwrap();
    let path = standing.dir.path().join("netns").join(vpc.id.to_string());
    standing.host.apply_vpc(vpc).unwrap();
    (plan, Arc::new(Handle::open(netns::open(&path).unwrap()).unwrap()))
}

/// Proves: NET-73
#[test]
fn when_any_step_of_a_vpcs_interface_fails_nothing_starts_and_nothing_is_left() {
    let standing = Standing::new();
    let (plan, router) = interface(&standing);
    let mut refused = 0;
    loop {
        match seal_by(&plan, Some(Arc::clone(&router)), |kernel| FailAt {
            kernel,
            left: refused,
        }) {
            Err(SealError::Install(ApplyError::Refused { .. })) => {
                assert_eq!(links_in(&router), ["lo", "up0"], "after a failure of step {refused}");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => break,
        }
    }
    assert!(
        refused >= 10,
        "control: {refused} steps failed, and without failure it works"
    );
}

/// Proves: NET-73
#[test]
fn a_step_of_a_vpcs_interface_that_did_not_take_is_noticed() {
    let standing = Standing::new();
    let (plan, router) = interface(&standing);
    let (mut noticed, mut at) = (0, 0);
    loop {
        let left_out = Mutex::new(None);
        let wrap = |kernel| LieAt {
            kernel,
            at,
            left_out: &left_out,
        };
        let outcome = seal_by(&plan, Some(Arc::clone(&router)), wrap).map(drop);
        let Some(step) = left_out.into_inner().unwrap() else {
            break;
        };
        match outcome {
            Err(SealError::Install(_)) => noticed += 1,
            Err(other) => panic!("{other:?}"),
            Ok(()) => assert!(
                matches!(step, Step::SetSysctl { .. }),
                "{step} was left out and nobody noticed"
            ),
        }
        at += 1;
        // The kernel takes a namespace that was given up apart some time later.
        let end = Instant::now() + LEAVING;
        while links_in(&router).len() > 2 && Instant::now() < end {
            thread::sleep(PAUSE);
        }
    }
    assert!(noticed >= 8, "only {noticed} lies were noticed");
}

/// The untouched namespace is the control, before and after the one that was changed.
///
/// Proves: CC-10, NET-73
#[test]
fn a_namespace_is_joined_only_while_it_is_what_its_plan_says() {
    let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
    let sealed = seal(&compile_nothing(), None).unwrap();
    let fd = || sealed.as_fd().try_clone_to_owned().unwrap();
    let again = joined(fd(), &compile_nothing()).unwrap();
    assert_eq!(inode(again.as_fd()), inode(sealed.as_fd()));
    let ip = |arguments: &str| {
        let status = netns::within(sealed.as_fd(), || {
            std::process::Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap()
        });
        assert!(status.unwrap().success(), "{arguments}");
    };
    ip("link add way-out type veth peer name way-in");
    assert!(matches!(joined(fd(), &compile_nothing()), Err(SealError::Install(_))));
    ip("link del way-out");
    joined(fd(), &compile_nothing()).unwrap();

    // A workload with a way out is not joined by one that is to have none, and the other way round.
    let standing = Standing::new();
    let open = workload(Reach::ServiceNetwork {
        address: Ipv4Addr::new(100, 64, 3, 7),
    });
    let outside = standing.host.seal(&open).unwrap();
    let beside = || outside.as_fd().try_clone_to_owned().unwrap();
    standing.host.join(beside(), &open).unwrap();
    assert!(standing.host.join(beside(), &workload(Reach::Nothing)).is_err());
    assert!(standing.host.join(fd(), &open).is_err());
    standing.host.join(fd(), &workload(Reach::Nothing)).unwrap();
}
