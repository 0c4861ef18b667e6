//! The name servers of containers without network isolation, one in the platform network and one in every VPC: private
//! names of the VPC (NET-51), public service names that lead to the engine (NET-52), everything else from the uplink's
//! name servers (CC-86). Their sockets live inside those networks; `node` opened them there.

pub mod answer;
pub mod endpoints;
mod forward;
pub mod private;
pub(crate) mod shares;

#[cfg(test)]
mod tests;

use answer::{Answer, Zone};
pub use forward::{Forwarder, OpenSocket};
use isolarium_netplan::intent::Transport;
use shares::Shares;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Questions in progress at one time; more are dropped and asked again by their clients.
const IN_PROGRESS: usize = 512;
/// What one client may have in progress, so that it cannot take the name server from its neighbours.
const IN_PROGRESS_EACH: usize = 64;
/// TCP connections at one time.
const CONNECTIONS: usize = 128;
/// TCP connections of one client.
const CONNECTIONS_EACH: usize = 16;
/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Who is answered, and what names it sees.
pub trait Audience: Send + Sync + 'static {
    /// The names that a client sees now; `None`: it gets no answer at all.
    fn zone_of(&self, client: IpAddr) -> Option<Sight>;
}

/// What a client sees.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The names.
    pub zone: Arc<Zone>,
    /// The Availability Zone that the client is in; none in the platform network.
    pub at: Option<String>,
}

/// Everybody who reaches the socket sees the same.
impl Audience for Arc<Zone> {
    fn zone_of(&self, _: IpAddr) -> Option<Sight> {
        Some(Sight {
            zone: self.clone(),
            at: None,
        })
    }
}

/// A running name server.
pub struct Resolver {
    audience: Box<dyn Audience>,
    forwarder: Arc<Forwarder>,
    questions: Semaphore,
    questions_each: Shares,
}

impl Resolver {
    /// Answers `audience`, asks `forwarder` for names that are not the engine's.
    pub fn new(audience: impl Audience, forwarder: Arc<Forwarder>) -> Arc<Self> {
        Arc::new(Self {
            audience: Box::new(audience),
            forwarder,
            questions: Semaphore::new(IN_PROGRESS),
            questions_each: Shares::of(IN_PROGRESS_EACH),
        })
    }

    /// The answer to one message; `None` when it deserves none.
    async fn ask(&self, client: IpAddr, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Sight { zone, at } = self.audience.zone_of(client)?;
        match answer::answer(&zone, at.as_deref(), question) {
            Answer::Reply(reply) => Some(reply),
            Answer::Silence => None,
            // Said at once where there is nobody to ask, so that no client waits.
            Answer::Forward(asked) if self.forwarder.is_empty() => asked.no_such_name(),
            Answer::Forward(asked) => {
                let reply = match self.forwarder.forward(question, &asked).await {
                    Some(reply) => reply,
                    None => asked.server_failure()?,
                };
                match transport {
                    Transport::Udp if reply.len() > asked.payload_limit() => asked.truncated(),
                    Transport::Udp | Transport::Tcp => Some(reply),
                }
            }
        }
    }

    /// Serves UDP questions until the socket fails.
    ///
    /// # Errors
    /// The socket's.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An ICMP answer to an earlier reply; the socket is well.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let question: Vec<u8> = buffer.get(..length).unwrap_or_default().to_vec();
            let (this, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                let (Ok(_permit), Some(_share)) = (this.questions.try_acquire(), this.questions_each.take(client.ip()))
                else {
                    return;
                };
                if let Some(reply) = this.ask(client.ip(), &question, Transport::Udp).await
                    && let Err(error) = socket.send_to(&reply, client).await
                {
                    tracing::debug!(%client, %error, "a DNS answer was not sent");
                }
            });
        }
    }

    /// Serves TCP connections until the listener fails.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let connections_each = Shares::of(CONNECTIONS_EACH);
        loop {
            let (stream, client) = listener.accept().await?;
            let Ok(permit) = connections.clone().try_acquire_owned() else {
                continue;
            };
            let Some(share) = connections_each.take(client.ip()) else {
                continue;
            };
            let this = self.clone();
            tokio::spawn(async move {
                let _held = (permit, share);
                if let Err(error) = this.converse(client.ip(), stream).await {
                    tracing::debug!(%client, %error, "a DNS connection ended");
                }
            });
        }
    }

    async fn converse(&self, client: IpAddr, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
                Ok(Ok(length)) => length,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_idle) => return Ok(()),
            };
            let mut question = vec![0; usize::from(length)];
            tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
            let Some(reply) = self.ask(client, &question, Transport::Tcp).await else {
                return Ok(());
            };
            let length = u16::try_from(reply.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&reply);
            tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }
}

/// The host's own name servers, as far as a container's network can reach them: a loopback address is the host's alone.
pub fn host_upstream(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .trim()
                .parse::<std::net::Ipv4Addr>()
                .ok()
        })
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .map(|address| SocketAddr::from((address, 53)))
        .collect()
}
