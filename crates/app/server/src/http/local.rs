//! Connections that do not leave the machine.

use std::net::SocketAddr;
use std::os::fd::AsFd;

/// What every kernel has and lets everybody use: it sends as soon as the window allows it.
const UNPACED: &str = "reno";

/// Whether both ends of a connection are on this machine: over loopback, or between two of its own addresses.
pub fn is_local(own: SocketAddr, peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback() || peer.ip() == own.ip()
}

/// Takes the pacing from a connection on this machine. Where the host's congestion control is BBR, the kernel spaces its packets
/// with timers, by a rate that was estimated from how fast the answers were written: 8 MB over loopback then take nearly twice
/// the processor time. Packets between two ends of one machine meet no bottleneck that could be congested. Connections to
/// other machines keep what the host's operator chose.
pub fn unpace(socket: impl AsFd) {
    if let Err(error) = rustix::net::sockopt::set_tcp_congestion(socket, UNPACED) {
        tracing::debug!(%error, "a local connection keeps the host's congestion control");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_own_addresses_are_local_and_neighbours_are_not() {
        let at = |text: &str| text.parse().unwrap();
        assert!(is_local(at("127.0.0.1:4599"), at("127.0.0.1:50000")));
        assert!(is_local(at("[::ffff:127.0.0.1]:4599"), at("[::ffff:127.0.0.1]:50000")));
        assert!(is_local(at("[::1]:4599"), at("[::1]:50000")));
        assert!(is_local(at("192.0.2.1:4599"), at("192.0.2.1:50000")));
        assert!(!is_local(at("192.0.2.1:4599"), at("192.0.2.2:50000")));
    }

    #[test]
    fn a_connection_over_loopback_is_not_paced() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        unpace(&client);
        assert_eq!(rustix::net::sockopt::tcp_congestion(&client).unwrap(), UNPACED);
    }
}
