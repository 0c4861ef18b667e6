//! Asking the uplink's name servers, from sockets inside the platform network.

use super::answer::Asked;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Opens a UDP socket on a free port inside the platform network. Blocks shortly.
pub type OpenSocket = Arc<dyn Fn() -> io::Result<std::net::UdpSocket> + Send + Sync>;

/// Sends questions to the name servers, in order, each with its own socket, port and id.
pub struct Forwarder {
    upstream: Vec<SocketAddr>,
    timeout: Duration,
    open: OpenSocket,
}

impl Forwarder {
    /// Asks `upstream`, waiting `timeout` for each. None at all: every foreign name does not exist.
    pub fn new(upstream: Vec<SocketAddr>, timeout: Duration, open: OpenSocket) -> Self {
        Self {
            upstream,
            timeout,
            open,
        }
    }

    /// Whether there is nobody to ask.
    pub fn is_empty(&self) -> bool {
        self.upstream.is_empty()
    }

    /// The first good answer, under the client's own id.
    pub async fn forward(&self, question: &[u8], asked: &Asked) -> Option<Vec<u8>> {
        for server in &self.upstream {
            match tokio::time::timeout(self.timeout, self.ask(*server, question, asked)).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::warn!(%server, %error, "a name server could not be asked"),
                Err(_late) => tracing::debug!(%server, "a name server did not answer in time"),
            }
        }
        None
    }

    async fn ask(&self, server: SocketAddr, question: &[u8], asked: &Asked) -> io::Result<Vec<u8>> {
        let open = self.open.clone();
        let socket = tokio::task::spawn_blocking(move || open())
            .await
            .map_err(io::Error::other)??;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        // A connected socket takes answers from this server alone.
        socket.connect(server).await?;
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let mut message = question.to_vec();
        for (place, byte) in message.iter_mut().zip(id) {
            *place = byte;
        }
        socket.send(&message).await?;
        let mut buffer = vec![0; 65_535];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let mut reply: Vec<u8> = buffer.get(..length).unwrap_or_default().to_vec();
            if asked.is_answered_by(&reply, u16::from_be_bytes(id)) {
                for (place, byte) in reply.iter_mut().zip(asked.id().to_be_bytes()) {
                    *place = byte;
                }
                return Ok(reply);
            }
        }
    }
}
