//! The doors of interface endpoints: certificates by name, one service, one policy.

use super::*;
use isolarium_netplan::intent::vpc::{EndpointService, InterfaceEndpoint};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

const AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 20);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);
const DOOR: Door = Door::Endpoint { address: AT };

fn s3_endpoint(policy: &str) -> VpcEndpoint {
    VpcEndpoint {
        id: EndpointId::of(7),
        kind: EndpointKind::Interface {
            service: EndpointService::S3,
            interfaces: [(SubnetId::of(1), InterfaceId::of(20))].into(),
            groups: [GroupId::of(1)].into(),
            private_dns: true,
            only_inbound: false,
            suffix: "0123abcd".into(),
        },
        ..endpoint(policy)
    }
}

/// The VPC with an endpoint for S3, one for the SageMaker API beside it.
fn with_endpoints() -> Vpc {
    let mut vpc = vpc();
    for (id, at, of, service) in [
        (20, AT, 7, EndpointService::S3),
        (21, OTHER, 8, EndpointService::SagemakerApi),
    ] {
        vpc.interfaces.insert(
            InterfaceId::of(id),
            interface(1, at, Holder::Endpoint(EndpointId::of(of))),
        );
        let one = InterfaceEndpoint {
            service,
            private_dns: true,
            suffix: "0123abcd".into(),
        };
        vpc.interface_endpoints.insert(EndpointId::of(of), one);
    }
    vpc
}

/// A connection with TLS for a name, if the other end agrees to it.
async fn secure(lab: &Lab, from: Ipv4Addr, door: Door, name: &str) -> Result<SendRequest<Empty<Bytes>>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(lab.dir.path().join("ca/ca.pem")).unwrap() {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket
        .connect(lab.sockets.at(door))
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let secure = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let secure = secure.map_err(|error| error.to_string())?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(secure))
        .await
        .unwrap();
    tokio::spawn(connection);
    Ok(sender)
}

async fn get_at(connection: &mut SendRequest<Empty<Bytes>>, host: &str) -> (StatusCode, String) {
    let request = Request::get("/data/k").header("host", host).body(Empty::new()).unwrap();
    connection.ready().await.unwrap();
    let answer = connection.send_request(request).await.unwrap();
    let status = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

const PRIVATE: &str = "s3.us-east-1.amazonaws.com";

/// Proves: NET-46, NET-47
#[tokio::test(flavor = "multi_thread")]
async fn a_request_carries_the_vpc_the_endpoint_the_private_address_and_the_policy_of_this_moment() {
    let lab = lab();
    lab.put(&s3_endpoint("first"));
    lab.open(with_endpoints());
    let mut connection = secure(&lab, INSIDE, DOOR, PRIVATE).await.unwrap();
    let seen = |policy: &str| {
        let source = Source::Endpoint(isolarium_services::context::EndpointSource {
            vpc_id: VpcId::of(1).to_string(),
            endpoint_id: EndpointId::of(7).to_string(),
            region: scope().region,
            address: INSIDE.into(),
            secure: true,
            gateway: false,
            policy: Some(policy.into()),
        });
        (StatusCode::OK, format!("{source:?}"))
    };
    assert_eq!(get_at(&mut connection, PRIVATE).await, seen("first"));
    lab.put(&s3_endpoint("second"));
    assert_eq!(
        get_at(&mut connection, PRIVATE).await,
        seen("second"),
        "on the same connection"
    );
    for state in [EndpointState::Pending, EndpointState::Deleting] {
        let mut connection = secure(&lab, INSIDE, DOOR, PRIVATE).await.unwrap();
        let mut other = s3_endpoint("third");
        other.state = state;
        lab.put(&other);
        assert_eq!(
            get_at(&mut connection, PRIVATE).await.0,
            StatusCode::FORBIDDEN,
            "{state}"
        );
    }
}

/// Proves: NET-42, NET-48, PL-8, D-3
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_covers_the_endpoints_names_and_no_other_name_gets_a_connection() {
    let lab = lab();
    lab.put(&s3_endpoint("any"));
    lab.open(with_endpoints());
    let own = format!("{}-0123abcd", EndpointId::of(7));
    let domain = "s3.us-east-1.vpce.amazonaws.com";
    for name in [
        PRIVATE.to_owned(),
        format!("data.{PRIVATE}"),
        format!("{own}.{domain}"),
        format!("{own}-us-east-1a.{domain}"),
        format!("{}.{domain}", EndpointId::of(7)),
        format!("bucket.{own}.{domain}"),
        format!("data.bucket.{own}.{domain}"),
    ] {
        let mut connection = secure(&lab, INSIDE, DOOR, &name)
            .await
            .unwrap_or_else(|told| panic!("{name}: {told}"));
        assert_eq!(get_at(&mut connection, &name).await.0, StatusCode::OK, "{name}");
    }
    for name in [
        "api.sagemaker.us-east-1.amazonaws.com".to_owned(),
        "s3.eu-west-1.amazonaws.com".to_owned(),
        format!("{}-0123abce.{domain}", EndpointId::of(7)),
        format!("{own}-us-east-1b.{domain}"),
        format!("{}-0123abcd.{domain}", EndpointId::of(8)),
        format!("{own}.api.sagemaker.us-east-1.vpce.amazonaws.com"),
        "localhost".to_owned(),
    ] {
        assert!(secure(&lab, INSIDE, DOOR, &name).await.is_err(), "{name}");
    }
}

/// Proves: NET-46
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_serves_its_own_hosts_and_service_to_interfaces_of_its_vpc() {
    let lab = lab();
    lab.put(&s3_endpoint("any"));
    let mut api = s3_endpoint("any");
    api.id = EndpointId::of(8);
    if let EndpointKind::Interface { service, .. } = &mut api.kind {
        *service = EndpointService::SagemakerApi;
    }
    lab.put(&api);
    lab.open(with_endpoints());
    let api_name = "api.sagemaker.us-east-1.amazonaws.com";
    for (host, status) in [
        (PRIVATE, StatusCode::OK),
        ("127.0.0.20", StatusCode::OK),
        (api_name, StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.21", StatusCode::MISDIRECTED_REQUEST),
        (
            "s3.us-east-1.amazonaws.com.evil.example",
            StatusCode::MISDIRECTED_REQUEST,
        ),
    ] {
        let mut connection = secure(&lab, INSIDE, DOOR, PRIVATE).await.unwrap();
        assert_eq!(get_at(&mut connection, host).await.0, status, "{host}");
    }
    // What S3 would answer is no operation of the API.
    let mut connection = secure(&lab, INSIDE, Door::Endpoint { address: OTHER }, api_name)
        .await
        .unwrap();
    let (status, told) = get_at(&mut connection, api_name).await;
    assert!(
        status.is_client_error() && !told.contains("Endpoint(EndpointSource"),
        "{status} {told}"
    );
    // The router lets nobody else through; the door asks again.
    let mut connection = secure(&lab, STRANGER, DOOR, PRIVATE).await.unwrap();
    assert_eq!(get_at(&mut connection, PRIVATE).await.0, StatusCode::FORBIDDEN);
}

/// Proves: NET-42
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_goes_takes_its_door_and_its_names_along() {
    let lab = lab();
    lab.put(&s3_endpoint("any"));
    lab.open(with_endpoints());
    let name = format!("{}-0123abcd.s3.us-east-1.vpce.amazonaws.com", EndpointId::of(7));
    let found = |lab: &Lab| lab.doors.behind.public.endpoints.lookup(&name, None);
    assert_eq!(found(&lab), Some(vec![AT]));
    assert!(secure(&lab, INSIDE, DOOR, PRIVATE).await.is_ok(), "control");
    lab.open(vpc());
    assert_eq!(found(&lab), Some(Vec::new()));
    while secure(&lab, INSIDE, DOOR, PRIVATE).await.is_ok() {
        tokio::task::yield_now().await;
    }
    lab.open(with_endpoints());
    assert!(secure(&lab, INSIDE, DOOR, PRIVATE).await.is_ok(), "it is served again");
    lab.doors.close(VpcId::of(1));
    assert_eq!(found(&lab), Some(Vec::new()));
}
