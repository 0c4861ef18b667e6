use super::*;
use crate::clock::SystemClock;
use crate::credentials::{Lifetimes, SessionError};
use crate::http::door::tests::door_in;
use crate::http::door::{Part, Visit};
use crate::tls::{Authority, Certificates, server_config};
use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use isolarium_model::Timestamp;
use isolarium_model::ec2::{EndpointKind, EndpointState, VpcEndpoint, key};
use isolarium_model::time::Clock;
use isolarium_netplan::id::{AclId, EndpointId, GroupId, InterfaceId, PrefixListId, RouteTableId, SubnetId};
use isolarium_netplan::intent::vpc::{
    Dns, Holder, Interface, NetworkAcl, RouteTable, S3Endpoint, SecurityGroup, Subnet, Vpc,
};
use isolarium_runtime::fake::FakeVpcs;
use isolarium_runtime::vpcs::{Destination, Flows, VpcSeen};
use isolarium_services::Source;
use isolarium_store::state::memory::MemoryState;
use isolarium_store::{Batch, Expect};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

mod endpoints;
mod packets;

const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 10);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// Says through what it was asked.
struct Told;
impl Part for Told {
    fn answer(self: Arc<Self>, visit: Visit, _: Request<Incoming>) -> Answering {
        Box::pin(async move { Response::new(crate::http::body::full(format!("{:?}", visit.source))) })
    }
}

/// Remembers where each door was opened.
#[derive(Default)]
struct Sockets {
    vpcs: FakeVpcs,
    opened: Mutex<BTreeMap<Door, Vec<SocketAddr>>>,
}

impl Sockets {
    fn at(&self, door: Door) -> SocketAddr {
        *self.opened.lock().unwrap()[&door].last().unwrap()
    }
}

impl Vpcs for Sockets {
    fn set_peers(
        &self,
        _: &std::collections::BTreeSet<std::collections::BTreeSet<std::net::Ipv4Addr>>,
    ) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError> {
        self.vpcs.apply_vpc(vpc)
    }
    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError> {
        self.vpcs.compare_vpc(vpc)
    }
    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError> {
        self.vpcs.remove_vpc(vpc)
    }
    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        self.vpcs.list_vpcs()
    }
    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError> {
        let socket = self.vpcs.listen_vpc(vpc, door)?;
        let copy = socket.try_clone().unwrap();
        let is_udp = matches!(
            door,
            Door::Resolver {
                transport: Transport::Udp,
                ..
            }
        );
        let address = if is_udp {
            std::net::UdpSocket::from(copy).local_addr()
        } else {
            std::net::TcpListener::from(copy).local_addr()
        };
        self.opened
            .lock()
            .unwrap()
            .entry(door)
            .or_default()
            .push(address.unwrap());
        Ok(socket)
    }
    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.vpcs.attach_interface(vpc, interface)
    }
    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.vpcs.detach_interface(vpc, interface)
    }
    fn dial_from(&self, _: VpcId, _: InterfaceId, _: Destination, _: Duration) -> Result<OwnedFd, ExecutorError> {
        Err(ExecutorError::Unknown)
    }
    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Result<Flows, ExecutorError> {
        self.vpcs.read_flows(vpc, since, timeout)
    }
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn public() -> PublicNames {
    PublicNames {
        regions: vec!["us-east-1".parse().unwrap()],
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        endpoints: Default::default(),
        zone_rule: true,
    }
}

fn interface(subnet: u128, primary: Ipv4Addr, holder: Holder) -> Interface {
    Interface {
        subnet: SubnetId::of(subnet),
        primary,
        secondary: Default::default(),
        groups: [GroupId::of(1)].into(),
        source_dest_check: true,
        public: None,
        holder,
    }
}

/// Two subnets with a table each; the first one's has the endpoint. Loopback addresses, so that sockets of this machine
/// have them.
fn vpc() -> Vpc {
    let subnet = |block: &str, table: u128| Subnet {
        block: block.parse().unwrap(),
        zone: "us-east-1a".into(),
        route_table: RouteTableId::of(table),
        acl: AclId::of(1),
    };
    Vpc {
        id: VpcId::of(1),
        blocks: vec!["127.0.0.0/16".parse().unwrap()],
        dns: Dns {
            support: true,
            hostnames: true,
            domain_name: None,
            servers: Vec::new(),
        },
        subnets: [
            (SubnetId::of(1), subnet("127.0.0.0/24", 1)),
            (SubnetId::of(2), subnet("127.0.1.0/24", 2)),
        ]
        .into(),
        acls: [(AclId::of(1), NetworkAcl::default())].into(),
        groups: [(GroupId::of(1), SecurityGroup::default())].into(),
        prefix_lists: [(PrefixListId::of(1), [public().s3_prefix_list].into())].into(),
        route_tables: [1, 2].map(|n| (RouteTableId::of(n), RouteTable::default())).into(),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces: [
            (InterfaceId::of(1), interface(1, INSIDE, Holder::Program)),
            (InterfaceId::of(2), interface(2, NEIGHBOUR, Holder::Program)),
            (
                InterfaceId::of(3),
                interface(1, Ipv4Addr::new(127, 0, 0, 11), Holder::Nobody),
            ),
        ]
        .into(),
        peers_only: false,
        interface_endpoints: Default::default(),
        s3_endpoints: [(
            EndpointId::of(1),
            S3Endpoint {
                prefix_list: PrefixListId::of(1),
                route_tables: [RouteTableId::of(1)].into(),
            },
        )]
        .into(),
    }
}

fn endpoint(policy: &str) -> VpcEndpoint {
    VpcEndpoint {
        id: EndpointId::of(1),
        vpc: VpcId::of(1),
        service_name: "com.amazonaws.us-east-1.s3".into(),
        kind: EndpointKind::Gateway {
            prefix_list: PrefixListId::of(1),
            route_tables: [RouteTableId::of(1)].into(),
        },
        state: EndpointState::Available,
        policy: policy.into(),
        created: Timestamp(0),
        tags: Default::default(),
    }
}

struct Lab {
    doors: VpcDoors,
    sockets: Arc<Sockets>,
    store: Arc<dyn StateStore>,
    dir: tempfile::TempDir,
}

fn lab() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
    let sockets = Arc::new(Sockets::default());
    Lab {
        doors: doors_over(sockets.clone(), &store, dir.path()),
        sockets,
        store,
        dir,
    }
}

/// Doors whose S3 tells through what it was asked.
fn doors_over(host: Arc<dyn Vpcs>, store: &Arc<dyn StateStore>, dir: &std::path::Path) -> VpcDoors {
    let mut front = door_in(dir);
    front.s3 = Arc::new(Told);
    let authority = Arc::new(Authority::open(&dir.join("ca"), SystemClock.now()).unwrap());
    let lifetimes = Lifetimes {
        lifetime: Duration::from_secs(3600),
        refresh_before: Duration::from_secs(900),
    };
    let nobody = Arc::new(|_: &_, _: &_, _: &_, _| Err(SessionError::Role("none".into())));
    let forwarder = Forwarder::new(
        Vec::new(),
        Duration::from_millis(100),
        Arc::new(|| std::net::UdpSocket::bind("127.0.0.1:0")),
    );
    VpcDoors::new(Behind {
        host,
        store: store.clone(),
        front: Arc::new(front),
        certificates: Arc::new(Certificates::new(
            authority.clone(),
            Arc::new(SystemClock),
            &public().regions,
            &[],
        )),
        tls: server_config(Arc::new(Certificates::of_s3(
            authority,
            Arc::new(SystemClock),
            &public().regions,
        )))
        .unwrap(),
        credentials: Arc::new(Credentials::new(
            store.clone(),
            Arc::new(SystemClock),
            nobody,
            lifetimes,
        )),
        forwarder: Arc::new(forwarder),
        public: public(),
        limits: ConnectionLimits {
            head: 8192,
            head_timeout: Duration::from_secs(5),
            connections: 100,
            each: None,
        },
        runtime: tokio::runtime::Handle::current(),
    })
}

impl Lab {
    fn open(&self, vpc: Vpc) {
        self.sockets.apply_vpc(&vpc).unwrap();
        self.doors.open(&scope(), &Arc::new(vpc.check().unwrap())).unwrap();
    }

    fn put(&self, endpoint: &VpcEndpoint) {
        let batch = Batch::default()
            .put(&key(&scope(), endpoint.id), Expect::Any, endpoint)
            .unwrap();
        self.store.commit(batch).unwrap();
    }

    async fn connect(&self, from: Ipv4Addr, door: Door) -> std::io::Result<SendRequest<Empty<Bytes>>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream: TcpStream = socket.connect(self.sockets.at(door)).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn ask(&self, from: Ipv4Addr) -> (StatusCode, String) {
        let mut connection = self.connect(from, Door::S3 { port: 80 }).await.unwrap();
        get(&mut connection).await
    }
}

async fn get(connection: &mut SendRequest<Empty<Bytes>>) -> (StatusCode, String) {
    let request = Request::get("/data/k")
        .header("host", "s3.us-east-1.amazonaws.com")
        .body(Empty::new())
        .unwrap();
    connection.ready().await.unwrap();
    let answer = connection.send_request(request).await.unwrap();
    let status = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

/// The number of a resolver's answers to a question from an address; `None`: it has no socket any more.
async fn names(lab: &Lab, from: Ipv4Addr, server: SocketAddr) -> Option<usize> {
    let _ = lab;
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
    asked.metadata.recursion_desired = true;
    asked.add_query(Query::query(
        Name::from_ascii("ip-127-0-0-10.ec2.internal.").unwrap(),
        RecordType::A,
    ));
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 1500];
    // A closed port says so by ICMP, which ends the wait.
    let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer))
        .await
        .unwrap()
        .ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap().answers.len())
}

/// Proves: NET-34, NET-35
#[tokio::test(flavor = "multi_thread")]
async fn s3_sees_the_private_address_the_vpc_the_endpoint_and_its_policy_of_this_moment() {
    let lab = lab();
    lab.put(&endpoint("first"));
    lab.open(vpc());
    let mut connection = lab.connect(INSIDE, Door::S3 { port: 80 }).await.unwrap();
    let seen = |policy: &str| {
        let source = Source::Endpoint(isolarium_services::context::EndpointSource {
            vpc_id: VpcId::of(1).to_string(),
            endpoint_id: EndpointId::of(1).to_string(),
            region: scope().region,
            address: INSIDE.into(),
            secure: false,
            gateway: true,
            policy: Some(policy.into()),
        });
        (StatusCode::OK, format!("{source:?}"))
    };
    assert_eq!(get(&mut connection).await, seen("first"));
    // On the same connection, without anybody telling the doors.
    lab.put(&endpoint("second"));
    assert_eq!(get(&mut connection).await, seen("second"));
}

/// Proves: BT-15, NET-36
#[tokio::test(flavor = "multi_thread")]
async fn only_interfaces_whose_table_has_the_endpoint_are_served() {
    let lab = lab();
    lab.put(&endpoint("any"));
    lab.open(vpc());
    assert_eq!(lab.ask(INSIDE).await.0, StatusCode::OK, "control");
    for from in [NEIGHBOUR, STRANGER, Ipv4Addr::LOCALHOST] {
        let (status, told) = lab.ask(from).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{from}");
        assert!(told.contains("<Code>AccessDenied</Code>"), "{told}");
    }
    let mut wider = vpc();
    let tables = &mut wider.s3_endpoints.get_mut(&EndpointId::of(1)).unwrap().route_tables;
    tables.insert(RouteTableId::of(2));
    lab.open(wider);
    assert_eq!(lab.ask(NEIGHBOUR).await.0, StatusCode::OK, "associated while it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_endpoint_answers_no_request_of_open_connections_and_then_takes_none() {
    let lab = lab();
    lab.put(&endpoint("any"));
    lab.open(vpc());
    let mut connection = lab.connect(INSIDE, Door::S3 { port: 80 }).await.unwrap();
    assert_eq!(get(&mut connection).await.0, StatusCode::OK, "control");
    let mut going = endpoint("any");
    going.state = EndpointState::Deleting;
    lab.put(&going);
    assert_eq!(get(&mut connection).await.0, StatusCode::FORBIDDEN);
    connection.ready().await.unwrap_err();
    let mut without = vpc();
    without.s3_endpoints.clear();
    lab.open(without);
    // The listener ends on its own thread; its port refuses from then on.
    while lab.connect(INSIDE, Door::S3 { port: 80 }).await.is_ok() {
        tokio::task::yield_now().await;
    }
    lab.open(vpc());
    lab.put(&endpoint("any"));
    assert_eq!(lab.ask(INSIDE).await.0, StatusCode::OK, "a new one is served again");
}

/// Proves: NET-50
#[tokio::test(flavor = "multi_thread")]
async fn the_resolver_answers_at_both_addresses_while_dns_support_is_on() {
    let lab = lab();
    lab.open(vpc());
    let doors = ["127.0.0.2", "169.254.169.253"].map(|address| Door::Resolver {
        address: address.parse().unwrap(),
        transport: Transport::Udp,
    });
    for door in doors {
        assert_eq!(names(&lab, INSIDE, lab.sockets.at(door)).await, Some(1), "{door:?}");
    }
    let before = lab.sockets.at(doors[0]);
    let mut silent = vpc();
    silent.dns.support = false;
    lab.open(silent);
    while names(&lab, INSIDE, before).await.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        lab.sockets.opened.lock().unwrap()[&doors[0]].len(),
        1,
        "and none is opened again"
    );
    lab.open(vpc());
    assert_eq!(names(&lab, INSIDE, lab.sockets.at(doors[0])).await, Some(1), "on again");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_again_keeps_what_is_open_and_closing_ends_all() {
    let lab = lab();
    lab.put(&endpoint("any"));
    lab.open(vpc());
    lab.open(vpc());
    let opened = lab.sockets.opened.lock().unwrap().clone();
    assert_eq!(opened.len(), 7, "four of the resolver, two of S3, credentials");
    assert!(opened.values().all(|all| all.len() == 1), "each once");
    assert_eq!(lab.ask(INSIDE).await.0, StatusCode::OK, "control");
    lab.doors.close(VpcId::of(1));
    for door in [Door::S3 { port: 80 }, Door::S3 { port: 443 }, Door::Credentials] {
        while lab.connect(INSIDE, door).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_the_host_refuses_is_opened_by_the_next_call() {
    let lab = lab();
    lab.put(&endpoint("any"));
    lab.sockets.apply_vpc(&vpc()).unwrap();
    lab.sockets.vpcs.state().failing.insert("listen_vpc", "no".into());
    let checked = Arc::new(vpc().check().unwrap());
    assert!(lab.doors.open(&scope(), &checked).is_err());
    lab.sockets.vpcs.state().failing.clear();
    lab.doors.open(&scope(), &checked).unwrap();
    assert_eq!(lab.ask(INSIDE).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_with_the_interface_of_the_sender() {
    let lab = lab();
    lab.open(vpc());
    let mut connection = lab.connect(INSIDE, Door::Credentials).await.unwrap();
    let (status, told) = get(&mut connection).await;
    assert_eq!(
        (status, told.contains("no credentials here")),
        (StatusCode::NOT_FOUND, true),
        "{told}"
    );
}

#[test]
fn interfaces_that_nobody_holds_are_nobody() {
    let view = View::of(&scope(), &Arc::new(vpc().check().unwrap()), &public());
    assert!(view.interface_at(INSIDE.into()).is_some(), "control");
    assert!(view.interface_at("127.0.0.11".parse().unwrap()).is_none());
    assert_eq!(view.s3_endpoint_of(INSIDE.into()), Some(EndpointId::of(1)));
    assert_eq!(view.s3_endpoint_of(NEIGHBOUR.into()), None);
}
