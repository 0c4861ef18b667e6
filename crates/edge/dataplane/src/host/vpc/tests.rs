use super::*;
use crate::host::HostOptions;
use isolarium_model::WorkloadId;
use isolarium_netplan::id::{GroupId, InternetGatewayId, NatGatewayId};
use isolarium_netplan::intent::vpc::{
    AclEntry, GroupRule, Interface, Match, NatGateway, NetworkAcl, Peer, Target, Vpc,
};
use isolarium_netplan::intent::{HostNetwork, Reach, Uplink, WorkloadNetwork};
use isolarium_testkit::lab::topology::{self, Tape};
use std::net::{SocketAddr, TcpListener, TcpStream};

struct Machine {
    host: Host,
    _dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(HostOptions {
            run_dir: dir.path().into(),
            host_netns: None,
        });
        let network = HostNetwork {
            uplink: Uplink::None,
            platform: "100.64.0.0/16".parse().unwrap(),
            services: "198.18.0.0/17".parse().unwrap(),
            s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
            uplink_links: "169.254.64.0/18".parse().unwrap(),
            elastic_ips: "198.19.0.0/16".parse().unwrap(),
            nat_idle: HostNetwork::NAT_IDLE,
        };
        host.ensure(&network).unwrap();
        Self { host, _dir: dir }
    }

    /// Applies an intent; the kernel refuses what comes after `left` things that were done.
    fn apply(&self, vpc: &CheckedVpc, left: Option<usize>) -> Result<(), HostError> {
        *held(&self.host.routers.left) = left;
        let outcome = self.host.apply_vpc(vpc.clone());
        *held(&self.host.routers.left) = None;
        outcome
    }

    fn at(&self, id: InterfaceId) -> OwnedFd {
        netns::open(&self.host.interface_path(VPC(), id)).unwrap()
    }

    fn passes(&self, port: u16) -> bool {
        let to = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 11), port));
        netns::within(self.at(eni(2)).as_fd(), || {
            TcpStream::connect_timeout(&to, Duration::from_millis(80))
        })
        .unwrap()
        .is_ok()
    }

    /// What VPCs leave on the host: routers as the host knows them, files of namespaces, and links, addresses, routes and
    /// rules of the platform's namespace.
    fn leaves(&self) -> Vec<String> {
        let folder = self.host.router_path(VPC()).parent().unwrap().to_path_buf();
        let mut all: Vec<String> = match std::fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| entry.unwrap().path().display().to_string())
                .collect(),
            Err(_) => Vec::new(),
        };
        all.sort();
        all.push(format!("{:?}", self.host.vpcs().unwrap()));
        let platform = self.host.beyond().unwrap().platform;
        let show = "ip -o link | cut -d: -f2; ip -o -4 addr | awk '{print $2, $4}'; ip route show table all | sort; nft list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*//'";
        let shown = platform.run(|| std::process::Command::new("sh").args(["-c", show]).output().unwrap());
        all.push(String::from_utf8(shown.unwrap().stdout).unwrap());
        all
    }

    /// No namespace is handed out, to a transfer or a container.
    fn nothing_starts(&self, container: &WorkloadId) {
        let attached = self.host.attach_interface(VPC(), eni(3));
        assert!(matches!(attached, Err(SealError::Platform(_))), "{attached:?}");
        let sealed = self.seal(container);
        assert!(matches!(sealed, Err(SealError::Platform(_))), "{sealed:?}");
    }

    fn seal(&self, container: &WorkloadId) -> Result<SealedNetns, SealError> {
        let reach = Reach::Vpc {
            vpc: VPC(),
            interface: eni(5),
        };
        self.host.seal(&WorkloadNetwork {
            workload: container.clone(),
            reach,
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let torn_down = self.host.teardown();
        assert!(std::thread::panicking() || torn_down.is_ok(), "{torn_down:?}");
    }
}

#[expect(non_snake_case, reason = "a constant that is computed")]
fn VPC() -> VpcId {
    VpcId::of(1)
}

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

fn container() -> WorkloadId {
    "w-0000000000000000c".parse().unwrap()
}

/// Programs 1, 2 and `also`, a container 5, all in a group that admits one port. Whatever can be in a VPC besides is there
/// with the second of two intents alone.
fn intent(port: u16, also: u128, more: bool) -> CheckedVpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    vpc.id = VPC();
    vpc.nat_gateways.clear();
    vpc.dns.support = more;
    let like = vpc.interfaces.values().next().unwrap().clone();
    let group = GroupId::of(0);
    let rule = |traffic, peer: &str| GroupRule {
        traffic,
        peer: Peer::Block(peer.parse().unwrap()),
    };
    let tcp = Match::Tcp {
        ports: (port, port).try_into().unwrap(),
    };
    let own = vpc.groups.get_mut(&group).unwrap();
    own.ingress = BTreeSet::from([rule(tcp, "10.0.0.0/8")]);
    own.egress = BTreeSet::from([rule(Match::All, "0.0.0.0/0")]);
    let all = AclEntry {
        allow: true,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    for acl in vpc.acls.values_mut() {
        let entries = BTreeMap::from([(100 + port, all.clone())]);
        *acl = NetworkAcl {
            ingress: entries.clone(),
            egress: entries,
        };
    }
    let one = |n: u128, holder: Holder| Interface {
        primary: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 10)) + u32::try_from(n).unwrap()),
        secondary: BTreeSet::new(),
        source_dest_check: true,
        groups: BTreeSet::from([group]),
        public: None,
        holder,
        ..like.clone()
    };
    vpc.interfaces = [1, 2, also].map(|n| (eni(n), one(n, Holder::Program))).into();
    vpc.interfaces.insert(eni(5), one(5, Holder::Container(container())));
    vpc.route_tables.values_mut().for_each(|table| table.routes.clear());
    if more {
        let (gateway, nat) = (InternetGatewayId::of(1), NatGatewayId::of(1));
        vpc.internet_gateway = Some(gateway);
        for table in vpc.route_tables.values_mut() {
            table
                .routes
                .insert("0.0.0.0/0".parse().unwrap(), Target::NatGateway(nat));
            table
                .routes
                .insert("8.0.0.0/8".parse().unwrap(), Target::InternetGateway(gateway));
            table
                .routes
                .insert("192.168.0.0/16".parse().unwrap(), Target::Interface(eni(2)));
        }
        vpc.interfaces.get_mut(&eni(1)).unwrap().public = Some(Ipv4Addr::new(198, 19, 0, 1));
        let mut interface = one(100, Holder::Nat(nat));
        interface.groups.clear();
        vpc.interfaces.insert(eni(100), interface);
        let gateway = NatGateway {
            interface: eni(100),
            elastic_ip: Ipv4Addr::new(198, 19, 0, 2),
        };
        vpc.nat_gateways.insert(nat, gateway);
    }
    vpc.check().unwrap()
}

/// Proves: NET-73, NET-72
#[test]
fn when_any_step_of_a_new_vpc_fails_nothing_starts_and_the_next_attempt_completes_it() {
    let machine = Machine::new();
    let vpc = intent(9001, 3, true);
    let mut failed = 0;
    let before = machine.leaves();
    while let Err(error) = machine.apply(&vpc, Some(failed)) {
        assert!(format!("{error:?}").contains("told to fail"), "{error:?}");
        machine.nothing_starts(&container());
        // Whoever gives up instead leaves nothing behind.
        machine.host.remove_vpc(VPC()).unwrap();
        assert_eq!(machine.leaves(), before, "after step {failed}");
        machine.apply(&vpc, Some(failed)).unwrap_err();
        machine.apply(&vpc, None).unwrap();
        assert_ne!(machine.leaves(), before, "control: a VPC shows");
        assert_eq!(
            machine.host.compare_vpc(&vpc).unwrap(),
            Vec::<String>::new(),
            "after step {failed}"
        );
        machine.host.attach_interface(VPC(), eni(3)).unwrap();
        drop(machine.seal(&container()).unwrap());
        machine.host.remove_vpc(VPC()).unwrap();
        failed += 1;
    }
    assert!(
        failed >= 20,
        "control: {failed} steps failed, and without failure it works"
    );
}

/// Proves: NET-73, NET-72
#[test]
fn when_any_step_of_a_change_fails_nothing_passes_that_neither_intent_admits_and_the_next_attempt_completes_it() {
    let machine = Machine::new();
    let (old, new): (Vpc, Vpc) = ((*intent(9000, 4, false)).clone(), (*intent(9001, 3, true)).clone());
    let (old, new) = (old.check().unwrap(), new.check().unwrap());
    machine.apply(&old, None).unwrap();
    for n in [1, 2, 4] {
        machine.host.attach_interface(VPC(), eni(n)).unwrap();
    }
    let _listeners = [9000, 9001, 9002].map(|port| {
        netns::within(machine.at(eni(1)).as_fd(), || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
        })
        .unwrap()
    });
    let mut failed = 0;
    loop {
        assert_eq!(
            [9000, 9001, 9002].map(|port| machine.passes(port)),
            [true, false, false],
            "control"
        );
        let outcome = machine.apply(&new, Some(failed));
        let Err(error) = outcome else { break };
        assert!(format!("{error:?}").contains("told to fail"), "{error:?}");
        assert!(!machine.passes(9002), "after step {failed}");
        machine.nothing_starts(&container());
        machine.apply(&new, None).unwrap();
        assert_eq!(
            machine.host.compare_vpc(&new).unwrap(),
            Vec::<String>::new(),
            "after step {failed}"
        );
        assert_eq!(
            [9000, 9001, 9002].map(|port| machine.passes(port)),
            [false, true, false]
        );
        machine.host.attach_interface(VPC(), eni(3)).unwrap();
        machine.host.detach_interface(VPC(), eni(3)).unwrap();
        machine.apply(&old, None).unwrap();
        machine.host.attach_interface(VPC(), eni(4)).unwrap();
        failed += 1;
    }
    assert!(
        failed >= 10,
        "control: {failed} steps failed, and without failure it works"
    );
}
