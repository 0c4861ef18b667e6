//! What the kernel of a VPC's router counted, before anybody asks whose traffic it was.

use crate::reach::Direction;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Everything counted since the reader's position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observations {
    /// Connections with packets since then, those that ended included.
    pub flows: Vec<Counted>,
    /// What rules or network ACLs refused since then.
    pub refused: Vec<Refused>,
    /// Something was counted and is not in here: the kernel dropped events, a set was full, or nobody listened for a while.
    /// The records of this time say `SKIPDATA`.
    pub lost: bool,
    /// The position to read from next time.
    pub next: u64,
}

/// One direction of a connection: addresses and ports as they are in the packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// 0 for protocols without ports.
    pub source_port: u16,
    pub destination_port: u16,
}

impl Tuple {
    /// The same the other way round.
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// Packets of one direction within one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub packets: u64,
    pub bytes: u64,
    /// FIN 1, SYN 2, RST 4 and, on answers to a SYN, ACK 16, of all packets together. `None`: not TCP, or not known.
    pub tcp_flags: Option<u8>,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// As the first packet entered the router.
    pub original: Tuple,
    /// As answers enter the router; where nothing is translated, `original` reversed.
    pub reply: Tuple,
    pub sent: Seen,
    pub answered: Seen,
    /// Unix time of the first and the last packet within this reading, seconds.
    pub first: i64,
    pub last: i64,
}

/// Packets of one tuple that were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Egress: by the sender's groups, its subnet's ACL, or for want of a way out. Ingress: by the receiver's side.
    pub direction: Direction,
    /// As the packet entered the router. ICMP has no ports: 0.
    pub tuple: Tuple,
    pub seen: Seen,
    /// Unix time of the first and the last packet within this reading, seconds.
    pub first: i64,
    pub last: i64,
}
