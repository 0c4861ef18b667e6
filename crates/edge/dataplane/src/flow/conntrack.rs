//! The connections that a namespace tracks.

use crate::kernel::handle::Handle;
use crate::kernel::netlink::{Attributes, Message, Request, number};
use isolarium_model::Timestamp;
use isolarium_netplan::flowlog::{Counts, Fate, Flow, Path, Tcp};
use isolarium_netplan::withdrawal::Connection;
use std::io;
use std::net::Ipv4Addr;

const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const CT_GET_AND_ZERO: u16 = (1 << 8) | 3;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_TIMESTAMP: u16 = 20;
const NESTED: u16 = 0x8000;
/// `AF_INET`, version 0, no resource.
const INET: [u8; 4] = [2, 0, 0, 0];

/// A connection as the kernel told it.
pub(super) struct Tracked {
    /// The kernel's number of it, not used twice at a time.
    pub(super) id: u32,
    protocol: u8,
    tcp: Option<Tcp>,
    path: Path,
    answers: Path,
    forward: Counts,
    backward: Counts,
    /// Nanoseconds since 1970.
    start: Option<u64>,
    stop: Option<u64>,
}

impl Tracked {
    pub(super) fn of(message: &Message) -> Option<Self> {
        let attributes = message.attributes(4);
        let (protocol, path) = tuple(attributes.find(CTA_TUPLE_ORIG)?)?;
        let (_, answers) = tuple(attributes.find(CTA_TUPLE_REPLY)?)?;
        let counts = |kind: u16| {
            let Some(both) = attributes.find(kind).map(Attributes) else {
                return Counts::default();
            };
            Counts {
                packets: both.find(1).and_then(long).unwrap_or_default(),
                bytes: both.find(2).and_then(long).unwrap_or_default(),
            }
        };
        let times = attributes.find(CTA_TIMESTAMP).map(Attributes);
        let time = |kind: u16| times.and_then(|times| times.find(kind)).and_then(long);
        Some(Self {
            id: attributes.find(CTA_ID).map_or(0, number),
            tcp: attributes.find(CTA_PROTOINFO).and_then(tcp),
            protocol,
            path,
            answers,
            forward: counts(CTA_COUNTERS_ORIG),
            backward: counts(CTA_COUNTERS_REPLY),
            start: time(1),
            stop: time(2),
        })
    }

    /// The flow since it was told at `before`. `None`: nothing happened since.
    pub(super) fn flow(&self, before: Timestamp, now: Timestamp, began: bool, ended: bool) -> Option<Flow> {
        if self.forward.packets == 0 && self.backward.packets == 0 {
            return None;
        }
        let at = |nanos: u64| Timestamp(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX));
        let last = self.stop.map_or(now, at);
        let first = self.start.map_or(before, at).max(before).min(last);
        Some(Flow {
            protocol: self.protocol,
            path: self.path,
            forward: self.forward,
            first,
            last,
            fate: Fate::Passed {
                answers: self.answers,
                backward: self.backward,
                began,
                tcp: self.tcp,
                ended,
            },
        })
    }
}

fn tcp(info: &[u8]) -> Option<Tcp> {
    const FLAG_CLOSED_FIRST: u8 = 0x20;
    let info = Attributes(Attributes(info).find(1)?);
    let closed_first = |kind: u16| {
        let flags = info.find(kind).and_then(|flags| flags.first());
        flags.is_some_and(|flags| flags & FLAG_CLOSED_FIRST != 0)
    };
    Some(match info.find(1)?.first()? {
        1 | 9 => Tcp::Opening,
        2 | 3 => Tcp::Open,
        4 | 5 if closed_first(5) => Tcp::ClosedBackward,
        4 | 5 if closed_first(4) => Tcp::ClosedForward,
        6 | 7 => Tcp::Closed,
        8 => Tcp::Reset,
        _ => return None,
    })
}

fn long(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn tuple(bytes: &[u8]) -> Option<(u8, Path)> {
    let both = Attributes(bytes);
    let (ip, proto) = (Attributes(both.find(1)?), Attributes(both.find(2)?));
    let address = |kind: u16| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.find(kind)?).ok()?));
    let port = |kind: u16| {
        let bytes = proto.find(kind).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
        bytes.map_or(0, u16::from_be_bytes)
    };
    let path = Path {
        source: address(1)?,
        destination: address(2)?,
        source_port: port(2),
        destination_port: port(3),
    };
    Some((*proto.find(1)?.first()?, path))
}

/// Every tracked connection with what it counted since the last time, and starts counting anew.
pub(super) fn read_and_zero(handle: &Handle) -> io::Result<Vec<Tracked>> {
    let messages = handle.netfilter()?.dump(&Request::new(CT_GET_AND_ZERO, 0, &INET))?;
    Ok(messages.iter().filter_map(Tracked::of).collect())
}

/// Forgets connections: their next packets are asked about like those of strangers.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn forget(handle: &Handle, chosen: &dyn Fn(&Connection) -> bool) -> io::Result<()> {
    let mut socket = handle.netfilter()?;
    let mut deletions = Vec::new();
    for message in socket.dump(&Request::new(CT_GET, 0, &INET))? {
        let Some(tracked) = Tracked::of(&message) else {
            continue;
        };
        let connection = Connection {
            protocol: tracked.protocol,
            path: tracked.path,
            answers: tracked.answers,
        };
        if !chosen(&connection) {
            continue;
        }
        let attributes = message.attributes(4);
        if let (Some(tuple), Some(id)) = (attributes.find(CTA_TUPLE_ORIG), attributes.find(CTA_ID)) {
            deletions.push(
                Request::new(CT_DELETE, 0, &INET)
                    .with(NESTED | CTA_TUPLE_ORIG, tuple)
                    .with(CTA_ID, id),
            );
        }
    }
    for (_, error) in socket.carry_out(&deletions)? {
        // It may have ended meanwhile.
        if crate::kernel::netlink::errno(&error) != Some(libc::ENOENT) {
            return Err(error);
        }
    }
    Ok(())
}
