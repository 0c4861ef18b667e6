//! The internet stub: a namespace with servers on documentation addresses, and on addresses that no container may reach,
//! so that a refusal is told from an absence.

use anyhow::{Context, Result, ensure};
use isolarium_dataplane::NetHost;
use isolarium_dataplane::kernel::handle::Handle;
use isolarium_dataplane::kernel::{KernelHost, netns};
use isolarium_netplan::Step;
use isolarium_netplan::plan::{LinkName, Place};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Addresses of the internet stub.
#[derive(Debug)]
pub struct Stub;

impl Stub {
    /// A public web server.
    pub const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    /// A public resolver.
    pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
    /// Another public host.
    pub const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
    /// Addresses that the stub would answer on, one of each range that containers are refused.
    pub const REFUSED: [Ipv4Addr; 9] = [
        Ipv4Addr::new(10, 1, 2, 3),
        Ipv4Addr::new(172, 16, 9, 9),
        Ipv4Addr::new(172, 31, 255, 1),
        Ipv4Addr::new(192, 168, 77, 7),
        Ipv4Addr::new(100, 127, 0, 1),
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 1, 1),
        Ipv4Addr::new(198, 19, 0, 1),
        Ipv4Addr::new(198, 18, 200, 1),
    ];
    /// TCP and UDP port on every address: TCP answers one HTTP request, UDP sends back what came.
    pub const PORT: u16 = 80;
    /// A second such port.
    pub const OTHER_PORT: u16 = 8080;
}

/// Something that reached a server of the stub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Who it came from, as seen there.
    pub from: SocketAddr,
    /// Where it went.
    pub to: SocketAddr,
}

#[derive(Debug, Default)]
struct Seen {
    arrivals: Mutex<Vec<Arrival>>,
    questions: Mutex<Vec<String>>,
    zone: Mutex<BTreeMap<String, Ipv4Addr>>,
    over: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stub, running. Drop ends its servers and its namespace.
pub struct Internet {
    netns: OwnedFd,
    seen: Arc<Seen>,
    servers: Vec<JoinHandle<()>>,
}

const LOOK_UP: Duration = Duration::from_millis(20);

impl Internet {
    /// Builds the namespace and starts the servers.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses something.
    pub fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network labs need root; run the tests as root"
        );
        let netns = netns::within_fresh(|fd| fd)?;
        let handle = Arc::new(Handle::open(netns.try_clone()?)?);
        let mut kernel = KernelHost {
            places: BTreeMap::from([(Place::Uplink, handle)]),
            ..KernelHost::default()
        };
        let place = Place::Uplink;
        let mut steps = vec![Step::SetUp {
            place,
            link: LinkName::lo(),
        }];
        let addresses = [Stub::WEB, Stub::DNS, Stub::OTHER].into_iter().chain(Stub::REFUSED);
        steps.extend(addresses.map(|address| Step::AddAddress {
            place,
            link: LinkName::lo(),
            address,
        }));
        kernel.apply(&steps)?;
        let mut internet = Self {
            netns,
            seen: Arc::default(),
            servers: Vec::new(),
        };
        for port in [Stub::PORT, Stub::OTHER_PORT] {
            let tcp = internet
                .inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?
                .context("stub TCP")?;
            internet.serve("stub-tcp", move |seen| serve_tcp(&tcp, seen))?;
        }
        for address in [Stub::WEB, Stub::DNS, Stub::OTHER].into_iter().chain(Stub::REFUSED) {
            for port in [53, Stub::PORT] {
                let udp = internet
                    .inside(|| UdpSocket::bind((address, port)))?
                    .context("stub UDP")?;
                internet.serve("stub-udp", move |seen| serve_udp(&udp, seen))?;
            }
        }
        Ok(internet)
    }

    /// A namespace without servers and addresses: nobody answers.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses something.
    pub fn bare() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network labs need root; run the tests as root"
        );
        Ok(Self {
            netns: netns::within_fresh(|fd| fd)?,
            seen: Arc::default(),
            servers: Vec::new(),
        })
    }

    /// The stub's namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// A path by which other processes can open the namespace while this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }

    /// Runs something inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        Ok(netns::within(self.netns(), work)?)
    }

    /// Lets the resolver answer a name. Others get NXDOMAIN.
    pub fn name(&self, name: &str, address: Ipv4Addr) {
        held(&self.seen.zone).insert(name.to_lowercase(), address);
    }

    /// What reached the servers so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        held(&self.seen.arrivals).clone()
    }

    /// Names that the resolver was asked for so far.
    pub fn questions(&self) -> Vec<String> {
        held(&self.seen.questions).clone()
    }

    fn serve(&mut self, name: &str, work: impl FnOnce(&Seen) + Send + 'static) -> Result<()> {
        let seen = Arc::clone(&self.seen);
        let builder = std::thread::Builder::new().name(name.into()).stack_size(128 << 10);
        self.servers.push(builder.spawn(move || work(&seen))?);
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _a_server_that_panicked_has_ended_too = server.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, seen: &Seen) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !seen.over.load(Ordering::Relaxed) {
        let Ok((stream, from)) = listener.accept() else {
            std::thread::sleep(LOOK_UP / 10);
            continue;
        };
        let Ok(to) = stream.local_addr() else { continue };
        held(&seen.arrivals).push(Arrival {
            transport: "tcp",
            from,
            to,
        });
        // A client that breaks off is its own matter; the arrival is written down.
        let _answered = answer_http(stream, from, to);
    }
}

fn answer_http(mut stream: TcpStream, from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut request = [0; 2048];
    let length = stream.read(&mut request)?;
    let first = String::from_utf8_lossy(request.get(..length).unwrap_or_default())
        .lines()
        .next()
        .unwrap_or("")
        .to_owned();
    let body = serde_json::json!({"request": first, "from": from.ip(), "to": to}).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn serve_udp(socket: &UdpSocket, seen: &Seen) {
    let (Ok(()), Ok(to)) = (socket.set_read_timeout(Some(LOOK_UP)), socket.local_addr()) else {
        return;
    };
    let mut buffer = [0; 2048];
    while !seen.over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        held(&seen.arrivals).push(Arrival {
            transport: "udp",
            from,
            to,
        });
        let message = buffer.get(..length).unwrap_or_default();
        let answer = if to.port() == 53 {
            answer_dns(message, seen)
        } else {
            Some(message.to_vec())
        };
        if let Some(answer) = answer {
            let _the_asker_may_be_gone = socket.send_to(&answer, from);
        }
    }
}

/// Answers one question for an A record.
fn answer_dns(message: &[u8], seen: &Seen) -> Option<Vec<u8>> {
    let (id, mut rest) = (message.get(..2)?, message.get(12..)?);
    let mut labels = Vec::new();
    let question_length = loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            break message.len() - after.len() + 4 - 12;
        }
        labels.push(String::from_utf8_lossy(after.get(..usize::from(*length))?).to_lowercase());
        rest = after.get(usize::from(*length)..)?;
    };
    let name = labels.join(".");
    held(&seen.questions).push(name.clone());
    let known = held(&seen.zone).get(&name).copied();
    let (code, count) = if known.is_some() { (0_u8, 1_u8) } else { (3, 0) };
    let mut answer = id.to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(message.get(12..12 + question_length)?);
    if let Some(address) = known {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
