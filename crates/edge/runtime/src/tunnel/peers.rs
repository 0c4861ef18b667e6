//! One container's peers, each with a WireGuard session. Nothing here knows of descriptors: packets come as bytes and leave by
//! a function.

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use isolarium_model::WorkloadId;
use isolarium_netplan::intent::Tunnel;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A packet that is to be sent.
pub(super) enum Packet<'a> {
    /// Encrypted, for a peer.
    Wire(Ipv4Addr, &'a [u8]),
    /// For the container.
    Plain(&'a [u8]),
}

/// Handshakes of a second beyond which a peer has to show first that it is where it says.
const HANDSHAKES: u64 = 1000;

/// How long a peer whose key is not there yet is not looked for again.
const LOOK: Duration = Duration::from_millis(50);

/// A key that exists in this process alone.
pub(super) struct Keys {
    secret: StaticSecret,
}

impl Keys {
    /// A fresh one. The secret half wipes itself from memory when it is dropped.
    pub fn make() -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            secret: StaticSecret::from(bytes),
        })
    }

    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.secret).to_bytes()
    }
}

struct Peer {
    workload: WorkloadId,
    /// Told apart by it in the protocol's own header.
    index: u32,
    session: Option<Tunn>,
    looked: Option<Instant>,
}

/// All peers of one container.
pub(super) struct Peers {
    keys: Keys,
    own: Ipv4Addr,
    all: BTreeMap<Ipv4Addr, Peer>,
    folder: OwnedFd,
    limiter: Arc<RateLimiter>,
}

impl Peers {
    pub fn new(keys: Keys, tunnel: &Tunnel, folder: OwnedFd) -> Self {
        let peer = |(index, (address, workload)): (u32, &(Ipv4Addr, WorkloadId))| {
            let peer = Peer {
                workload: workload.clone(),
                index,
                session: None,
                looked: None,
            };
            (*address, peer)
        };
        let limiter = RateLimiter::new(&PublicKey::from(&keys.secret), HANDSHAKES);
        Self {
            own: tunnel.own,
            all: (1..).zip(&tunnel.peers).map(peer).collect(),
            folder,
            limiter: Arc::new(limiter),
            keys,
        }
    }

    /// The session with a peer, whose key is looked up when it is first needed. `None` for strangers.
    fn session(&mut self, address: Ipv4Addr) -> Option<&mut Tunn> {
        let peer = self.all.get_mut(&address)?;
        if peer.session.is_none() && peer.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            peer.looked = Some(Instant::now());
            let public = key_of(&self.folder, &peer.workload)?;
            peer.session = Some(Tunn::new(
                self.keys.secret.clone(),
                PublicKey::from(public),
                None,
                None,
                peer.index,
                Some(Arc::clone(&self.limiter)),
            ));
        }
        peer.session.as_mut()
    }

    /// A packet of the container.
    pub fn leave(&mut self, packet: &[u8], room: &mut [u8], send: &mut dyn FnMut(Packet<'_>)) {
        let Some(IpAddr::V4(to)) = Tunn::dst_address(packet) else {
            return;
        };
        if let Some(session) = self.session(to)
            && let TunnResult::WriteToNetwork(bytes) = session.encapsulate(packet, room)
        {
            send(Packet::Wire(to, bytes));
        }
    }

    /// A packet of the wire. What does not come from a peer, or was not encrypted by the one at whose address it comes from, is
    /// dropped.
    pub fn arrive(&mut self, from: SocketAddrV4, packet: &[u8], room: &mut [u8], send: &mut dyn FnMut(Packet<'_>)) {
        if from.port() != Tunnel::PORT {
            return;
        }
        let (peer, own) = (*from.ip(), self.own);
        let Some(session) = self.session(peer) else { return };
        let mut packet = packet;
        loop {
            match session.decapsulate(Some(IpAddr::V4(peer)), packet, room) {
                TunnResult::WriteToNetwork(bytes) => {
                    send(Packet::Wire(peer, bytes));
                    // Packets that waited for the session follow.
                    packet = &[];
                }
                TunnResult::WriteToTunnelV4(bytes, source) => {
                    // INVARIANT (peer-is-who-it-is): an address inside belongs to the key that is registered for it.
                    if source == peer && Tunn::dst_address(bytes) == Some(IpAddr::V4(own)) {
                        send(Packet::Plain(bytes));
                    }
                    return;
                }
                TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV6(..) => return,
            }
        }
    }

    /// New keys for old sessions, repeated handshakes.
    pub fn tick(&mut self, room: &mut [u8], send: &mut dyn FnMut(Packet<'_>)) {
        self.limiter.reset_count();
        for (address, peer) in &mut self.all {
            if let Some(session) = &mut peer.session
                && let TunnResult::WriteToNetwork(bytes) = session.update_timers(room)
            {
                send(Packet::Wire(*address, bytes));
            }
        }
    }
}

/// The public key of a peer's process, once it has one.
fn key_of(folder: &OwnedFd, workload: &WorkloadId) -> Option<[u8; 32]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(folder, workload.as_str(), flags, Mode::empty()).ok()?;
    let mut public = [0_u8; 32];
    std::fs::File::from(file).read_exact(&mut public).ok()?;
    Some(public)
}
