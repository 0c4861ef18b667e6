//! The doors over real packets: a VPC in the kernel, programs inside its interfaces' namespaces. Needs root.

use super::*;
use isolarium_netplan::flowlog::{FlowRecord, Ranges, attribute};
use isolarium_netplan::intent::vpc::{AclEntry, GroupRule, Match, Peer};
use isolarium_netplan::intent::{HostNetwork, Uplink};
use isolarium_netplan::reach::Direction;
use isolarium_node::{LocalHost, Network};
use isolarium_runtime::local::{LocalConfig, OciChoice, Walls};
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;

const S3: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 7, 1, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 7, 2, 10);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection that must not come about is waited for.
const DENIED: Duration = Duration::from_millis(300);

/// A real VPC with doors; torn down with the guard.
struct Real {
    host: Arc<LocalHost>,
    doors: VpcDoors,
    store: Arc<dyn StateStore>,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.doors.close(VpcId::of(1));
        if let Err(error) = self.host.teardown() {
            eprintln!("a lab was not torn down: {error}");
        }
    }
}

fn network() -> HostNetwork {
    HostNetwork {
        uplink: Uplink::None,
        platform: "100.92.0.0/24".parse().unwrap(),
        services: public().services,
        s3_prefix_list: public().s3_prefix_list,
        uplink_links: "169.254.64.0/18".parse().unwrap(),
        elastic_ips: "198.19.0.0/16".parse().unwrap(),
        nat_idle: HostNetwork::NAT_IDLE,
    }
}

fn everybody() -> Peer {
    Peer::Block("0.0.0.0/0".parse().unwrap())
}

/// Two subnets; the table of the first one has the endpoint. The group lets everything out and port 443 in.
fn real_vpc() -> Vpc {
    let mut made = vpc();
    made.blocks = vec!["10.7.0.0/16".parse().unwrap()];
    for (n, block, address) in [(1, "10.7.1.0/24", FIRST), (2, "10.7.2.0/24", SECOND)] {
        made.subnets.get_mut(&SubnetId::of(n)).unwrap().block = block.parse().unwrap();
        made.interfaces.get_mut(&InterfaceId::of(n)).unwrap().primary = address;
    }
    made.interfaces.remove(&InterfaceId::of(3));
    let open = |allow| AclEntry {
        allow,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    let acl = NetworkAcl {
        ingress: [(100, open(true))].into(),
        egress: [(100, open(true))].into(),
    };
    made.acls.insert(AclId::of(1), acl);
    made.groups.insert(
        GroupId::of(1),
        SecurityGroup {
            ingress: [web(everybody())].into(),
            egress: [GroupRule {
                traffic: Match::All,
                peer: everybody(),
            }]
            .into(),
        },
    );
    made
}

/// Port 443.
fn web(peer: Peer) -> GroupRule {
    GroupRule {
        traffic: Match::Tcp {
            ports: (443, 443).try_into().unwrap(),
        },
        peer,
    }
}

impl Real {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig {
            cdi_folders: Vec::new(),
            accelerators: "nvidia.com/gpu".into(),
            data_dir: dir.path().into(),
            service_uid: 64_900,
            service_gid: 64_900,
            oci: OciChoice::Auto,
            self_exe: std::env::current_exe().unwrap(),
            archive_timeout: Duration::from_secs(600),
            walls: Walls::default(),
        };
        let host = Arc::new(LocalHost::open(config, (0, 0), network()).unwrap());
        host.ensure_network(&network()).unwrap();
        let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
        let folder = dir.path().join("engine");
        std::fs::create_dir(&folder).unwrap();
        let real = Self {
            doors: doors_over(host.clone(), &store, &folder),
            host,
            store,
            _dir: dir,
        };
        let batch = Batch::default().put(&key(&scope(), EndpointId::of(1)), Expect::Any, &endpoint("any"));
        real.store.commit(batch.unwrap()).unwrap();
        real.apply(real_vpc());
        for n in [1, 2] {
            real.host.attach_interface(VpcId::of(1), InterfaceId::of(n)).unwrap();
        }
        real
    }

    fn apply(&self, vpc: Vpc) {
        self.host.apply_vpc(&vpc).unwrap();
        self.doors.open(&scope(), &Arc::new(vpc.check().unwrap())).unwrap();
    }

    fn dial(&self, from: u128, transport: Transport, address: Ipv4Addr, port: u16, wait: Duration) -> Option<OwnedFd> {
        let to = Destination {
            transport,
            address,
            port,
        };
        self.host.dial_from(VpcId::of(1), InterfaceId::of(from), to, wait).ok()
    }

    fn connect(&self, from: u128, address: Ipv4Addr, port: u16) -> Option<StdStream> {
        let wait = if port == 80 || port == 53 { PATIENCE } else { DENIED };
        self.dial(from, Transport::Tcp, address, port, wait)
            .map(StdStream::from)
    }

    /// Whether a connection that must not come about does.
    fn arrives(&self, from: u128, address: Ipv4Addr, port: u16) -> bool {
        self.dial(from, Transport::Tcp, address, port, DENIED).is_some()
    }

    /// Records of the traffic since the last call, until there is one that `wanted` likes.
    fn records(&self, since: &mut u64, wanted: impl Fn(&FlowRecord) -> bool) -> Vec<FlowRecord> {
        let vpc = real_vpc().check().unwrap();
        let mut all = Vec::new();
        while !all.iter().any(&wanted) {
            let told = self
                .host
                .read_flows(VpcId::of(1), *since, Duration::from_secs(1))
                .unwrap();
            *since = told.next;
            all.extend(attribute(&vpc, &told.flows));
        }
        all
    }
}

fn http(mut stream: StdStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /data/k HTTP/1.1\r\nhost: s3-us-east-1.amazonaws.com\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn asked(name: &str) -> Vec<u8> {
    let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
    asked.metadata.recursion_desired = true;
    asked.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    asked.to_vec().unwrap()
}

/// The answers to a question by UDP.
fn by_udp(socket: OwnedFd, name: &str) -> usize {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&asked(name)).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap().answers.len()
}

/// The answers to a question by TCP.
fn by_tcp(mut stream: StdStream, name: &str) -> usize {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = asked(name);
    let mut framed = u16::try_from(question.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(&question);
    stream.write_all(&framed).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    Message::from_vec(&reply).unwrap().answers.len()
}

/// Proves: NET-32, NET-34, NET-37, BT-15, VPC-14, VPC-20
#[tokio::test(flavor = "multi_thread")]
async fn packets_reach_s3_by_the_endpoint_with_their_private_address_where_table_and_group_lead_there() {
    let real = Real::new();
    let told = http(real.connect(1, S3, 80).expect("the table leads to the endpoint"));
    assert!(told.contains(&format!("address: {FIRST}")), "{told}");
    assert!(
        told.contains(&EndpointId::of(1).to_string()) && told.contains(&VpcId::of(1).to_string()),
        "{told}"
    );
    assert!(
        real.connect(1, Ipv4Addr::new(198, 18, 130, 77), 80).is_some(),
        "every address of the list"
    );
    assert!(!real.arrives(2, S3, 80), "its table has no route");
    assert!(!real.arrives(1, S3, 22), "S3 is not served there");

    let mut narrow = real_vpc();
    narrow.groups.get_mut(&GroupId::of(1)).unwrap().egress = [GroupRule {
        traffic: Match::All,
        peer: Peer::Block("10.0.0.0/8".parse().unwrap()),
    }]
    .into();
    real.apply(narrow.clone());
    assert!(!real.arrives(1, S3, 443), "the group does not let it out");
    let listed = web(Peer::PrefixList(PrefixListId::of(1)));
    narrow.groups.get_mut(&GroupId::of(1)).unwrap().egress.insert(listed);
    real.apply(narrow);
    assert!(
        real.connect(1, S3, 443).is_some(),
        "control: a rule for the prefix list does"
    );
    assert!(!real.arrives(1, S3, 80), "for that port alone");

    let mut without = real_vpc();
    without.s3_endpoints.clear();
    real.apply(without);
    assert!(!real.arrives(1, S3, 80), "deleted");
}

/// Proves: NET-50, NET-51, NET-18, VPC-21
#[tokio::test(flavor = "multi_thread")]
async fn packets_reach_the_resolver_at_both_addresses_and_none_while_dns_support_is_off() {
    let real = Real::new();
    let link_local = Ipv4Addr::new(169, 254, 169, 253);
    for address in [RESOLVER, link_local] {
        let socket = real.dial(2, Transport::Udp, address, 53, PATIENCE).unwrap();
        assert_eq!(by_udp(socket, "ip-10-7-1-10.ec2.internal."), 1, "{address}");
        let stream = real.connect(2, address, 53).unwrap();
        assert_eq!(by_tcp(stream, "data.s3-us-east-1.amazonaws.com."), 1, "{address}");
    }
    // Neither groups nor ACLs have a say (NET-18).
    let mut mute = real_vpc();
    mute.groups.get_mut(&GroupId::of(1)).unwrap().egress.clear();
    real.apply(mute);
    let socket = real.dial(2, Transport::Udp, RESOLVER, 53, PATIENCE).unwrap();
    assert_eq!(by_udp(socket, "ip-10-7-2-10.ec2.internal."), 1);

    let mut silent = real_vpc();
    silent.dns.support = false;
    real.apply(silent);
    for address in [RESOLVER, link_local] {
        assert!(!real.arrives(2, address, 53), "{address}");
    }
    real.apply(real_vpc());
    assert_eq!(
        by_tcp(real.connect(2, RESOLVER, 53).unwrap(), "ip-10-7-1-10.ec2.internal."),
        1,
        "on again"
    );
}

/// Proves: CC-80
#[tokio::test(flavor = "multi_thread")]
async fn packets_reach_the_credentials_endpoint_of_their_vpc() {
    let real = Real::new();
    let told = http(real.connect(1, Ipv4Addr::new(169, 254, 170, 2), 80).unwrap());
    assert!(
        told.starts_with("HTTP/1.1 404") && told.contains("no credentials here"),
        "{told}"
    );
    assert!(
        !real.arrives(1, Ipv4Addr::new(169, 254, 170, 2), 22),
        "nothing else is there"
    );
}

/// Proves: NET-57, VPC-9, VPC-14
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_pass_and_packets_that_are_refused_become_records_with_their_five_tuple() {
    let real = Real::new();
    let mut since = 0;
    // Accounting begins with the first look.
    since = real.host.read_flows(VpcId::of(1), since, Duration::ZERO).unwrap().next;
    let stream = real.connect(1, S3, 80).unwrap();
    let port = stream.local_addr().unwrap().port();
    http(stream);
    let is_s3 = |one: &FlowRecord| one.destination == S3 && one.source_port == port;
    let records = real.records(&mut since, is_s3);
    let sent = records.iter().find(|one| is_s3(one)).unwrap();
    assert_eq!(
        (sent.interface, sent.direction, sent.accepted),
        (InterfaceId::of(1), Direction::Egress, true)
    );
    assert_eq!(
        (sent.source, sent.destination_port, sent.protocol, sent.path),
        (FIRST, 80, 6, Some(7))
    );
    assert!(sent.counts.packets > 0 && sent.counts.bytes > 0);
    let ranges = Ranges {
        s3: vec![public().s3_prefix_list],
        amazon: Vec::new(),
    };
    assert_eq!(ranges.service(sent.packet_destination), Some("S3"));

    // The receiver's group lets port 443 in alone; nobody listens, so what gets in is answered by a reset.
    assert!(!real.arrives(1, SECOND, 22));
    let refused = |one: &FlowRecord| one.destination_port == 22 && !one.accepted;
    let records = real.records(&mut since, refused);
    let rejected = records.iter().find(|one| refused(one)).unwrap();
    assert_eq!(
        (rejected.interface, rejected.direction),
        (InterfaceId::of(2), Direction::Ingress)
    );
    assert_eq!((rejected.source, rejected.destination), (FIRST, SECOND));
    assert!(
        records
            .iter()
            .any(|one| one.interface == InterfaceId::of(1) && one.destination_port == 22 && one.accepted),
        "its own side let it go"
    );
    assert!(!real.arrives(1, SECOND, 443), "control: it gets in, and nobody listens");
    let passed = |one: &FlowRecord| one.interface == InterfaceId::of(2) && one.destination_port == 443 && one.accepted;
    real.records(&mut since, passed);
}
