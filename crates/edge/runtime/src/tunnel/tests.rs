use super::peers::{Keys, Packet, Peers};
use super::publish;
use isolarium_model::WorkloadId;
use isolarium_netplan::intent::Tunnel;
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const WORDS: &[u8] = b"what nobody else is to read";

fn workload(address: Ipv4Addr) -> WorkloadId {
    format!("w-{:017x}", u32::from(address)).parse().unwrap()
}

/// A datagram as a container sends it.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, words: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + words.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(words);
    packet
}

struct Pair {
    folder: tempfile::TempDir,
    a: Peers,
    b: Peers,
    /// Everything that was sent between them: sender, bytes.
    wire: Vec<(Ipv4Addr, Vec<u8>)>,
    heard: Vec<Vec<u8>>,
}

fn open(folder: &tempfile::TempDir) -> OwnedFd {
    rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn peers(folder: &tempfile::TempDir, own: Ipv4Addr, others: &[Ipv4Addr]) -> Peers {
    let keys = Keys::make().unwrap();
    publish(&open(folder), &workload(own), &keys.public()).unwrap();
    let tunnel = Tunnel {
        own,
        peers: others.iter().map(|one| (*one, workload(*one))).collect(),
    };
    Peers::new(keys, &tunnel, open(folder))
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            a: peers(&folder, A, &[B]),
            b: peers(&folder, B, &[A]),
            folder,
            wire: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// A's container sends; all that follows from it happens.
    fn say(&mut self, packet: &[u8]) {
        let mut room = vec![0; 65536];
        let mut going: VecDeque<(Ipv4Addr, Vec<u8>)> = VecDeque::new();
        self.a.leave(packet, &mut room, &mut |packet| {
            if let Packet::Wire(to, bytes) = packet {
                going.push_back((to, bytes.to_vec()));
            }
        });
        while let Some((to, bytes)) = going.pop_front() {
            let (receiver, from) = if to == B { (&mut self.b, A) } else { (&mut self.a, B) };
            self.wire.push((from, bytes.clone()));
            let from = SocketAddrV4::new(from, Tunnel::PORT);
            receiver.arrive(from, &bytes, &mut room, &mut |packet| match packet {
                Packet::Wire(to, bytes) => going.push_back((to, bytes.to_vec())),
                Packet::Plain(bytes) => self.heard.push(bytes.to_vec()),
            });
        }
    }

    /// Whether B's container hears something of these bytes from this address.
    fn passes(&mut self, from: SocketAddrV4, bytes: &[u8]) -> bool {
        let mut heard = false;
        self.b.arrive(from, bytes, &mut vec![0; 65536], &mut |packet| {
            heard |= matches!(packet, Packet::Plain(_));
        });
        heard
    }
}

/// The first packet waits for the handshake and is not lost.
///
/// Proves: CC-89, NI-9
#[test]
fn peers_hear_each_other_and_the_wire_has_none_of_their_words() {
    let mut pair = Pair::new();
    let said = datagram(A, B, WORDS);
    pair.say(&said);
    pair.say(&said);
    assert_eq!(pair.heard, [said.clone(), said]);
    let readable = |bytes: &[u8]| bytes.windows(WORDS.len()).any(|part| part == WORDS);
    assert!(pair.wire.len() >= 4 && !pair.wire.iter().any(|(_, bytes)| readable(bytes)));
    assert!(readable(&pair.heard[0]), "control: the words are found where they are");
    let longest = datagram(A, B, &vec![7; usize::from(Tunnel::MTU) - 20]);
    pair.say(&longest);
    assert_eq!(pair.heard.last(), Some(&longest));
    let on_the_wire = pair.wire.last().unwrap().1.len();
    assert_eq!(
        on_the_wire + 20 + 8,
        1500,
        "the longest packet fills an interface's longest one"
    );
}

/// Each denial follows a packet that passed.
///
/// Proves: CC-89, NI-9
#[test]
fn what_is_in_the_clear_forged_repeated_or_a_strangers_is_not_heard() {
    let mut pair = Pair::new();
    pair.say(&datagram(A, B, WORDS));
    assert_eq!(pair.heard.len(), 1, "control");
    let (_, last) = pair.wire.last().cloned().unwrap();
    let own = SocketAddrV4::new(A, Tunnel::PORT);
    assert!(!pair.passes(own, &last), "repeated");
    assert!(!pair.passes(own, &datagram(A, B, WORDS)), "in the clear");
    assert!(!pair.passes(SocketAddrV4::new(A, 40_000), &last), "another port");
    assert!(!pair.passes(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), Tunnel::PORT), &last));
    // A says that it is somebody else, and sends to somebody who is not B: both with its own good key.
    for wrong in [datagram(Ipv4Addr::new(10, 0, 0, 9), B, WORDS), datagram(A, B, WORDS)] {
        let mut altered = wrong;
        if altered.get(12..16) == Some(&A.octets()[..]) {
            pair.b = peers(&pair.folder, B, &[]);
            pair.say(&altered);
            assert_eq!(pair.heard.len(), 1, "no peer of B any more");
            continue;
        }
        // Routed to B by its address, with a forged source inside.
        altered[16..20].copy_from_slice(&B.octets());
        pair.say(&altered);
        assert_eq!(pair.heard.len(), 1, "a forged source");
    }
    let mut fresh = Pair::new();
    fresh.say(&datagram(A, Ipv4Addr::new(10, 0, 0, 9), WORDS));
    assert!(fresh.wire.is_empty(), "whoever is no peer is sent nothing");
}

/// Proves: CC-89, NI-9
#[test]
fn a_peer_without_a_key_is_sent_nothing_until_it_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = peers(&folder, A, &[B]);
    let sent = |a: &mut Peers| {
        let mut any = false;
        a.leave(&datagram(A, B, WORDS), &mut vec![0; 65536], &mut |_| any = true);
        any
    };
    assert!(!sent(&mut a));
    let _b = peers(&folder, B, &[A]);
    // It looks again only some time later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !sent(&mut a) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}
