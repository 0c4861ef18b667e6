//! The client against a server that speaks HTTPS and S3's answers by script, with a certificate of a real authority.

use super::s3::{Client, Keys, S3Error, Way};
use super::{DialError, Inside, Secure, Settings};
use crate::clock::SystemIds;
use crate::tls::{Authority, Certificates, server_config};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::time::Clock;
use isolarium_model::{Secret, Timestamp};
use isolarium_netplan::intent::Transport;
use isolarium_reconcile::Cut;
use isolarium_reconcile::http::Connection;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Timestamp(i64::try_from(since.as_millis()).unwrap())
    }
}

/// What the server is asked: the head's first line, its headers in lower case, the body.
#[derive(Clone, Debug)]
struct Got {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// What it answers, whole, and whether the connection ends there.
#[derive(Clone)]
struct Says {
    bytes: Vec<u8>,
    closes: bool,
}

fn says(status: &str, headers: &str, body: &[u8]) -> Says {
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Says { bytes, closes: false }
}

/// A name server and an S3 on loopback.
struct World {
    s3: SocketAddr,
    dns: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    secure: Secure,
    /// Nobody answers at S3's port.
    unreachable: bool,
    connections: Mutex<usize>,
    cut: Arc<Cut>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(script: Vec<Says>, code: ResponseCode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(folder.path(), Now.now()).unwrap());
        let secure = Secure::new(authority.certificate()).unwrap();
        let regions = ["us-east-1".parse().unwrap()];
        let config = server_config(Arc::new(Certificates::new(authority, Arc::new(Now), &regions, &[]))).unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let s3 = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script.into_iter()));
        let heard = got.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, script, heard) = (config.clone(), script.clone(), heard.clone());
                thread::spawn(move || serve(stream.unwrap(), config, &script, &heard));
            }
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
                reply.metadata.response_code = code;
                let name = asked.queries[0].name().clone();
                reply.add_queries(asked.queries.iter().cloned());
                if code == ResponseCode::NoError {
                    let address = RData::A(A(Ipv4Addr::new(198, 18, 128, 1)));
                    reply.add_answer(Record::from_rdata(name, 60, address));
                }
                socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            }
        });
        Self {
            s3,
            dns,
            got,
            secure,
            unreachable: false,
            connections: Mutex::new(0),
            cut: Arc::default(),
            _folder: folder,
        }
    }

    fn client<'a>(&'a self, settings: &'a Settings) -> Client<'a> {
        Client {
            inside: self,
            way: self,
            secure: &self.secure,
            settings,
            clock: &Now,
            ids: &SystemIds,
            keys: Keys {
                access_key_id: "ASIAEXAMPLE".into(),
                secret: Secret::new("secret"),
                token: Secret::new("token"),
            },
            region: "us-east-1",
            servers: vec![Ipv4Addr::new(10, 0, 0, 2)],
            connection: None::<Connection>,
            cut: Arc::clone(&self.cut),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|got| got.line.clone()).collect()
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    script: &Mutex<std::vec::IntoIter<Says>>,
    got: &Mutex<Vec<Got>>,
) {
    let session = rustls::ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(rustls::StreamOwned::new(session, stream));
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_string());
        }
        let length = lines
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let says = script.lock().unwrap().next().unwrap();
        let refuses = says.bytes.starts_with(b"HTTP/1.1 403");
        let mut body = vec![0; length];
        if lines.iter().any(|line| line == "expect: 100-continue") {
            if refuses {
                body.clear();
            } else {
                stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                stream.get_mut().flush().unwrap();
            }
        }
        stream.read_exact(&mut body).unwrap();
        got.lock().unwrap().push(Got {
            line: lines.remove(0),
            headers: lines,
            body,
        });
        stream.get_mut().write_all(&says.bytes).unwrap();
        stream.get_mut().flush().unwrap();
        if says.closes {
            let _ = stream.get_ref().sock.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

impl Inside for World {
    fn tcp(&self, to: SocketAddrV4, timeout: Duration) -> Result<TcpStream, DialError> {
        assert_eq!(to.to_string(), "198.18.128.1:443");
        *self.connections.lock().unwrap() += 1;
        if self.unreachable {
            return Err(DialError::NoPath("timed out".into()));
        }
        TcpStream::connect_timeout(&self.s3, timeout).map_err(|error| DialError::NoPath(error.to_string()))
    }

    fn udp(&self, to: SocketAddrV4) -> Result<UdpSocket, DialError> {
        assert_eq!(to.to_string(), "10.0.0.2:53");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.dns).unwrap();
        Ok(socket)
    }
}

impl Way for World {
    fn blocked(&self, to: SocketAddrV4, _: Transport) -> Option<String> {
        self.unreachable.then(|| format!("no route to {to}"))
    }
}

fn uri(text: &str) -> S3Uri {
    text.parse().unwrap()
}

fn quick() -> Settings {
    Settings {
        pause: Duration::from_millis(1),
        part: 100_000,
        ..Settings::default()
    }
}

fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_listing_goes_over_its_pages_on_one_signed_connection() {
    let page = |keys: &[&str], next: Option<&str>| {
        let objects: String = keys
            .iter()
            .map(|key| format!("<Contents><Key>{key}</Key><Size>3</Size></Contents>"))
            .collect();
        let next = next.map_or(String::new(), |token| {
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")
        });
        says(
            "200 OK",
            "",
            format!("<ListBucketResult>{objects}{next}</ListBucketResult>").as_bytes(),
        )
    };
    let world = World::new(
        vec![page(&["a/1", "a/&lt;2"], Some("t/1=")), page(&["a/3"], None)],
        ResponseCode::NoError,
    );
    let settings = quick();
    let found = world.client(&settings).list(&uri("s3://data/a/")).unwrap();
    let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a/1", "a/<2", "a/3"]);
    assert_eq!(
        world.lines(),
        [
            "GET /data?list-type=2&prefix=a%2F HTTP/1.1",
            "GET /data?continuation-token=t%2F1%3D&list-type=2&prefix=a%2F HTTP/1.1"
        ]
    );
    assert_eq!(*world.connections.lock().unwrap(), 1);
    let got = world.got.lock().unwrap();
    for one in got.iter() {
        let has = |text: &str| one.headers.iter().any(|header| header.starts_with(text));
        assert!(
            has("authorization: AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/"),
            "{one:?}"
        );
        assert!(has("x-amz-security-token: token"));
        assert!(has("host: s3.us-east-1.amazonaws.com"));
    }
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let mut broken = says("200 OK", "etag: \"e\"\r\n", b"0123456789");
    broken.bytes.truncate(broken.bytes.len() - 6);
    broken.closes = true;
    let world = World::new(
        vec![broken, says("206 Partial Content", "", b"456789")],
        ResponseCode::NoError,
    );
    let settings = quick();
    let mut bytes = Vec::new();
    let length = world.client(&settings).get(&uri("s3://data/k"), &mut bytes, u64::MAX);
    assert_eq!((length.unwrap(), bytes.as_slice()), (10, b"0123456789".as_slice()));
    let got = world.got.lock().unwrap();
    assert!(got[1].headers.contains(&"range: bytes=4-".to_string()), "{:?}", got[1]);
    assert!(got[1].headers.contains(&"if-match: \"e\"".to_string()));
    drop(got);
    let world = World::new(vec![says("200 OK", "", b"0123456789")], ResponseCode::NoError);
    let refused = world.client(&settings).get(&uri("s3://data/k"), &mut Vec::new(), 9);
    assert!(matches!(refused, Err(S3Error::Refused { code, .. }) if code == "EntityTooLarge"));
}

/// Proves: CC-36
#[test]
fn a_large_file_is_stored_in_parts_and_a_refused_one_is_aborted() {
    let begun = || {
        says(
            "200 OK",
            "",
            b"<InitiateMultipartUploadResult><UploadId>u 1</UploadId></InitiateMultipartUploadResult>",
        )
    };
    let part = |tag: &str| says("200 OK", &format!("etag: \"{tag}\"\r\n"), b"");
    let done = says("200 OK", "", b"<CompleteMultipartUploadResult/>");
    let world = World::new(
        vec![begun(), part("a"), part("b"), part("c"), done],
        ResponseCode::NoError,
    );
    let settings = quick();
    let content: Vec<u8> = (0..250_000u32).map(|n| n.to_le_bytes()[0]).collect();
    world
        .client(&settings)
        .put(&uri("s3://out/m"), &file(&content), Some("alias/k"))
        .unwrap();
    let got = world.got.lock().unwrap().clone();
    assert_eq!(got[0].line, "POST /out/m?uploads= HTTP/1.1");
    assert_eq!(got[2].line, "PUT /out/m?partNumber=2&uploadId=u%201 HTTP/1.1");
    let asks = |got: &Got, header: &str| got.headers.iter().any(|line| line.eq_ignore_ascii_case(header));
    assert!(asks(&got[0], "x-amz-server-side-encryption: aws:kms"));
    assert!(asks(&got[0], "x-amz-server-side-encryption-aws-kms-key-id: alias/k"));
    assert!(
        !asks(&got[1], "x-amz-server-side-encryption: aws:kms"),
        "parts are the upload's"
    );
    let sent: Vec<u8> = got[1..4].iter().flat_map(|one| one.body.clone()).collect();
    assert!(sent == content, "every byte, in order");
    let list = String::from_utf8(got[4].body.clone()).unwrap();
    assert!(
        list.contains("<PartNumber>3</PartNumber><ETag>&quot;c&quot;</ETag>"),
        "{list}"
    );

    let denied = says(
        "403 Forbidden",
        "",
        b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
    );
    let world = World::new(
        vec![begun(), denied, says("204 No Content", "", b"")],
        ResponseCode::NoError,
    );
    let refused = world
        .client(&settings)
        .put(&uri("s3://out/m"), &file(&content), None)
        .unwrap_err();
    assert!(
        matches!(&refused, S3Error::Refused { code, .. } if code == "AccessDenied"),
        "{refused:?}"
    );
    assert_eq!(world.lines()[2], "DELETE /out/m?uploadId=u%201 HTTP/1.1");
    assert!(
        world.got.lock().unwrap()[1].body.is_empty(),
        "nothing is sent after an early refusal"
    );
}

/// Proves: VPC-12, VPC-21
#[test]
fn no_way_and_no_name_are_told_apart_from_a_refusal() {
    let settings = quick();
    let mut world = World::new(Vec::new(), ResponseCode::NoError);
    world.unreachable = true;
    let failed = world.client(&settings).list(&uri("s3://data/a")).unwrap_err();
    assert!(
        matches!(&failed, S3Error::NoPath { why: Some(why), .. } if why.contains("no route")),
        "{failed:?}"
    );
    assert_eq!(
        *world.connections.lock().unwrap(),
        1,
        "what is known to be blocked is not tried again"
    );
    let world = World::new(Vec::new(), ResponseCode::NXDomain);
    let failed = world.client(&settings).list(&uri("s3://data/a")).unwrap_err();
    assert!(
        matches!(&failed, S3Error::Name { name, .. } if name == "s3.us-east-1.amazonaws.com"),
        "{failed:?}"
    );
    let said = says(
        "404 Not Found",
        "",
        b"<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>",
    );
    let world = World::new(vec![said], ResponseCode::NoError);
    let failed = world.client(&settings).list(&uri("s3://data/a")).unwrap_err();
    assert!(
        matches!(&failed, S3Error::Refused { code, .. } if code == "NoSuchBucket"),
        "control: {failed:?}"
    );
}

/// Whoever answers at S3's address in a VPC must have a certificate of the engine's authority.
#[test]
fn another_authoritys_certificate_gets_no_request() {
    let settings = quick();
    let mut world = World::new(vec![says("200 OK", "", b"<ListBucketResult/>")], ResponseCode::NoError);
    assert!(world.client(&settings).list(&uri("s3://data/a")).is_ok(), "control");
    let other = tempfile::tempdir().unwrap();
    let other = Authority::open(other.path(), Now.now()).unwrap();
    world.secure = Secure::new(other.certificate()).unwrap();
    let failed = world.client(&settings).list(&uri("s3://data/a")).unwrap_err();
    assert!(matches!(failed, S3Error::Broken(_)), "{failed:?}");
    assert_eq!(world.lines().len(), 1);
}

/// What `transfer` returns after somebody has waited for the server to hear of it and then cut it.
fn cut_after<T: Send>(world: &World, heard: impl Fn() -> bool, transfer: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let under_way = scope.spawn(transfer);
        while !heard() {
            thread::sleep(Duration::from_millis(5));
        }
        world.cut.make();
        under_way.join().unwrap()
    })
}

/// Proves: SM-28
#[test]
fn a_peer_that_says_nothing_holds_nobody_who_wants_to_stop() {
    // Longer than any test lasts: only the cut ends these.
    let settings = Settings {
        connect_timeout: Duration::from_secs(3600),
        name_timeout: Duration::from_secs(3600),
        idle_timeout: Duration::from_secs(3600),
        ..quick()
    };
    // S3 takes the connection and never speaks.
    let mut world = World::new(Vec::new(), ResponseCode::NoError);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    world.s3 = silent.local_addr().unwrap();
    let taken = Mutex::new(Vec::new());
    let heard = || {
        taken.lock().unwrap().extend(silent.accept());
        !taken.lock().unwrap().is_empty()
    };
    let failed = cut_after(&world, heard, || {
        world.client(&settings).list(&uri("s3://data/a")).unwrap_err()
    });
    assert!(matches!(failed, S3Error::Broken(_)), "{failed:?}");
    assert_eq!(*world.connections.lock().unwrap(), 1, "nothing is tried again");
    // The name server never answers.
    let mut world = World::new(Vec::new(), ResponseCode::NoError);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    world.dns = silent.local_addr().unwrap();
    let heard = || silent.recv(&mut [0; 512]).is_ok();
    let failed = cut_after(&world, heard, || {
        world.client(&settings).list(&uri("s3://data/a")).unwrap_err()
    });
    assert!(matches!(failed, S3Error::Name { .. }), "{failed:?}");
    // An answer that comes byte by byte moves on, and ends with the operator's limit all the same.
    let mut slow = says("200 OK", "", b"");
    slow.bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123".to_vec();
    let mut world = World::new(vec![slow], ResponseCode::NoError);
    world.cut = Arc::new(Cut::within(Duration::from_millis(300)));
    let failed = world.client(&settings).get(&uri("s3://data/k"), &mut Vec::new(), 1000);
    assert!(matches!(failed, Err(S3Error::Broken(_))), "{failed:?}");
    assert!(world.cut.why().is_some());
    let world = World::new(vec![says("200 OK", "", b"0123")], ResponseCode::NoError);
    let got = world.client(&settings).get(&uri("s3://data/k"), &mut Vec::new(), 1000);
    assert_eq!(got.unwrap(), 4, "control");
}
