use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::Ipv4Addr;
use std::str::FromStr;

fn zone() -> Zone {
    Zone {
        regions: vec!["us-east-1".parse().unwrap()],
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        endpoints: Default::default(),
        vpc: None,
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn open_loopback() -> OpenSocket {
    Arc::new(|| std::net::UdpSocket::bind("127.0.0.1:0"))
}

async fn resolver(upstream: Vec<SocketAddr>) -> (SocketAddr, SocketAddr) {
    resolver_waiting(upstream, Duration::from_millis(500)).await
}

/// A resolver that waits so long for its upstreams.
async fn resolver_waiting(upstream: Vec<SocketAddr>, patience: Duration) -> (SocketAddr, SocketAddr) {
    let forwarder = Forwarder::new(upstream, patience, open_loopback());
    let resolver = Resolver::new(Arc::new(zone()), Arc::new(forwarder));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    tokio::spawn(resolver.clone().serve_udp(udp));
    tokio::spawn(resolver.serve_tcp(tcp));
    addresses
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(question, server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(60), socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut framed = u16::try_from(question.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

/// A name server that answers `records` addresses to every question, after one answer with a wrong id.
async fn upstream(records: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut forged = Message::response(asked.metadata.id ^ 1, OpCode::Query);
            forged.add_query(asked.queries[0].clone());
            let lie = RData::A(A(Ipv4Addr::new(203, 0, 113, 66)));
            forged.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 1, lie));
            socket.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
            let mut reply = Message::response(asked.metadata.id, OpCode::Query);
            reply.add_query(asked.queries[0].clone());
            for n in 0..records {
                let address = Ipv4Addr::new(203, 0, 113, u8::try_from(n % 200).unwrap());
                reply.add_answer(Record::from_rdata(
                    asked.queries[0].name().clone(),
                    1,
                    RData::A(A(address)),
                ));
            }
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    address
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    message
        .answers
        .iter()
        .filter_map(|r| if let RData::A(a) = &r.data { Some(a.0) } else { None })
        .collect()
}

/// Proves: CC-86
#[tokio::test]
async fn service_names_lead_to_the_engine_by_udp_and_tcp() {
    let (udp, tcp) = resolver(Vec::new()).await;
    let asked = question("api.sagemaker.us-east-1.amazonaws.com.", RecordType::A);
    for reply in [ask_udp(udp, &asked).await, ask_tcp(tcp, &asked).await] {
        assert_eq!(reply.metadata.id, 4711);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(zone().services.contains(&addresses(&reply)[0]));
    }
    let bucket = ask_udp(udp, &question("data.s3.us-east-1.amazonaws.com.", RecordType::A)).await;
    assert!(zone().s3_prefix_list.contains(&addresses(&bucket)[0]));
    let six = ask_udp(udp, &question("s3.us-east-1.amazonaws.com.", RecordType::AAAA)).await;
    assert_eq!(
        (six.metadata.response_code, six.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let elsewhere = ask_udp(udp, &question("api.sagemaker.eu-west-1.amazonaws.com.", RecordType::A)).await;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::NXDomain);
}

fn vpc_zone() -> Zone {
    Zone {
        regions: ["us-east-1", "eu-west-1"].map(|region| region.parse().unwrap()).into(),
        vpc: Some(private::VpcNames {
            region: "us-east-1".parse().unwrap(),
            blocks: vec!["10.0.0.0/16".parse().unwrap()],
            hostnames: true,
            addresses: ["127.0.0.1", "10.0.1.20"].map(|one| one.parse().unwrap()).into(),
            endpoints: Vec::new(),
        }),
        ..zone()
    }
}

fn reply(zone: &Zone, name: &str, kind: RecordType) -> Message {
    match answer::answer(zone, None, &question(name, kind)) {
        Answer::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Proves: NET-52, NET-38
#[test]
fn every_spelling_of_s3_leads_to_the_prefix_list_and_other_regions_do_not() {
    let zone = vpc_zone();
    let at = |name: &str| addresses(&reply(&zone, name, RecordType::A));
    for name in [
        "s3.us-east-1.amazonaws.com.",
        "s3-us-east-1.amazonaws.com.",
        "s3.amazonaws.com.",
        "s3.dualstack.us-east-1.amazonaws.com.",
        "data.s3.us-east-1.amazonaws.com.",
        "data.s3-us-east-1.amazonaws.com.",
        "data.s3.amazonaws.com.",
        "packages.us-east-1.amazonaws.com.s3.us-east-1.amazonaws.com.",
    ] {
        let found = at(name);
        assert!(
            found.len() == 1 && zone.s3_prefix_list.contains(&found[0]),
            "{name}: {found:?}"
        );
    }
    for name in [
        "s3.eu-west-1.amazonaws.com.",
        "s3-eu-west-1.amazonaws.com.",
        "data.s3.eu-west-1.amazonaws.com.",
    ] {
        let found = at(name);
        assert!(
            found.len() == 1 && zone.services.contains(&found[0]),
            "{name}: {found:?}"
        );
    }
    let unserved = reply(&zone, "s3.ap-south-1.amazonaws.com.", RecordType::A);
    assert_eq!(unserved.metadata.response_code, ResponseCode::NXDomain);
}

/// Proves: NET-51
#[test]
fn private_names_are_answered_with_authority_and_never_forwarded() {
    let zone = vpc_zone();
    let found = reply(&zone, "ip-10-0-1-20.ec2.internal.", RecordType::A);
    assert_eq!(addresses(&found), [Ipv4Addr::new(10, 0, 1, 20)]);
    assert!(found.metadata.authoritative && found.metadata.recursion_available);
    let six = reply(&zone, "ip-10-0-1-20.ec2.internal.", RecordType::AAAA);
    assert_eq!(
        (six.metadata.response_code, six.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let back = reply(&zone, "20.1.0.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(back.answers[0].data.to_string(), "ip-10-0-1-20.ec2.internal.");
    for missing in [
        "ip-10-0-1-21.ec2.internal.",
        "21.1.0.10.in-addr.arpa.",
        "x.us-east-1.compute.internal.",
    ] {
        let reply = reply(&zone, missing, RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{missing}");
    }
    let elsewhere = super::tests::zone();
    let asked = question("ip-10-0-1-20.ec2.internal.", RecordType::A);
    assert!(
        matches!(answer::answer(&elsewhere, None, &asked), Answer::Forward(_)),
        "the platform network has none"
    );
}

#[test]
fn a_question_that_wants_no_recursion_is_not_forwarded() {
    let mut asked = Message::from_vec(&question("example.org.", RecordType::A)).unwrap();
    let forwarded = |message: &Message| answer::answer(&zone(), None, &message.to_vec().unwrap());
    assert!(matches!(forwarded(&asked), Answer::Forward(_)), "control");
    asked.metadata.recursion_desired = false;
    let Answer::Reply(reply) = forwarded(&asked) else {
        panic!("forwarded")
    };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

/// Answers nobody while it is off.
struct Switched(std::sync::Mutex<Option<Arc<Zone>>>);

impl Audience for Arc<Switched> {
    fn zone_of(&self, client: IpAddr) -> Option<Sight> {
        let zone = self.0.lock().unwrap().clone()?;
        let mut own = zone.vpc.as_ref()?.addresses.iter();
        let known = own.any(|one| IpAddr::V4(*one) == client);
        known.then(|| Sight {
            zone: zone.clone(),
            at: None,
        })
    }
}

/// Proves: NET-50
#[tokio::test]
async fn who_is_no_client_gets_no_answer_at_all() {
    let switch = Arc::new(Switched(std::sync::Mutex::new(None)));
    let forwarder = Forwarder::new(Vec::new(), Duration::from_millis(500), open_loopback());
    let resolver = Resolver::new(switch.clone(), Arc::new(forwarder));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, stream_server) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    tokio::spawn(resolver.clone().serve_udp(udp));
    tokio::spawn(resolver.serve_tcp(tcp));
    let asked = question("s3.us-east-1.amazonaws.com.", RecordType::A);

    // Off: the question over TCP is read and the connection closed without an answer.
    let mut stream = TcpStream::connect(stream_server).await.unwrap();
    let mut framed = u16::try_from(asked.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(&asked);
    stream.write_all(&framed).await.unwrap();
    assert!(stream.read_u16().await.is_err());
    // On, for a neighbour only: a stranger's datagram is not answered, and the answer that arrives first is to the
    // question that was asked after it, by an address that is a client.
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    *switch.0.lock().unwrap() = Some(Arc::new(vpc_zone()));
    stranger.send_to(&asked, server).await.unwrap();
    client.send_to(&asked, server).await.unwrap();
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).await.unwrap();
    assert!(
        !addresses(&Message::from_vec(&buffer[..length]).unwrap()).is_empty(),
        "control: a client is answered"
    );
    assert!(stranger.try_recv(&mut buffer).is_err());
}

#[tokio::test]
async fn foreign_names_do_not_exist_where_there_is_no_upstream() {
    // Nobody is waited for: this time is longer than the test waits.
    let (udp, _) = resolver_waiting(Vec::new(), Duration::from_secs(3600)).await;
    let reply = ask_udp(udp, &question("example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn foreign_names_are_asked_upstream_and_forged_answers_ignored() {
    let (udp, tcp) = resolver(vec![upstream(1).await]).await;
    let asked = question("example.org.", RecordType::A);
    for reply in [ask_udp(udp, &asked).await, ask_tcp(tcp, &asked).await] {
        assert_eq!(reply.metadata.id, 4711);
        assert_eq!(addresses(&reply), [Ipv4Addr::new(203, 0, 113, 0)]);
    }
}

#[tokio::test]
async fn a_silent_name_server_is_a_failure_and_the_next_is_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let quiet = silent.local_addr().unwrap();
    let (alone, _) = resolver(vec![quiet]).await;
    let asked = question("example.org.", RecordType::A);
    assert_eq!(
        ask_udp(alone, &asked).await.metadata.response_code,
        ResponseCode::ServFail
    );
    let (second, _) = resolver(vec![quiet, upstream(1).await]).await;
    assert_eq!(
        ask_udp(second, &asked).await.metadata.response_code,
        ResponseCode::NoError
    );
}

#[tokio::test]
async fn large_answers_are_truncated_by_udp_and_whole_by_tcp() {
    let (udp, tcp) = resolver(vec![upstream(60).await]).await;
    let asked = question("example.org.", RecordType::A);
    let cut = ask_udp(udp, &asked).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask_tcp(tcp, &asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 60);
    let mut roomy = Message::from_vec(&asked).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    roomy.set_edns(edns);
    let reply = ask_udp(udp, &roomy.to_vec().unwrap()).await;
    assert_eq!(reply.answers.len(), 60, "the client said that it takes more");
}

#[tokio::test]
async fn malformed_messages_get_an_error_or_silence() {
    assert!(matches!(answer::answer(&zone(), None, b""), Answer::Silence));
    assert!(
        matches!(answer::answer(&zone(), None, &[0xff; 40]), Answer::Silence),
        "claims to be an answer"
    );
    let mut two = Message::from_vec(&question("a.org.", RecordType::A)).unwrap();
    two.add_query(Query::query(Name::from_str("b.org.").unwrap(), RecordType::A));
    let mut notify = Message::from_vec(&question("a.org.", RecordType::A)).unwrap();
    notify.metadata.op_code = OpCode::Notify;
    let mut garbled = question("a.org.", RecordType::A);
    garbled.truncate(15);
    for (bytes, code) in [
        (two.to_vec().unwrap(), ResponseCode::FormErr),
        (notify.to_vec().unwrap(), ResponseCode::NotImp),
        (garbled, ResponseCode::FormErr),
        (question("a.org.", RecordType::AXFR), ResponseCode::Refused),
    ] {
        let Answer::Reply(reply) = answer::answer(&zone(), None, &bytes) else {
            panic!("no reply to {bytes:?}")
        };
        assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, code);
    }
}

#[test]
fn the_hosts_loopback_resolver_is_not_a_containers() {
    let text = "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver ::1\noptions edns0\n";
    assert_eq!(host_upstream(text), ["192.0.2.53:53".parse().unwrap()]);
}
