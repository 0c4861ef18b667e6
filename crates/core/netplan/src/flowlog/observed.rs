//! What the kernel of a VPC's router counted, before anybody asks whose traffic it was.

use isolarium_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Packets and bytes (with IP headers) of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
}

/// Addresses and ports of one direction of a flow. Ports are 0 where the protocol has none; for ICMP both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Who refused a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Rules or ACL on the sender's side: REJECT on the sender's interface.
    Egress,
    /// Rules or ACL on the receiver's side: REJECT on the receiver's interface, and ACCEPT on the sender's, which let it go.
    Ingress,
    /// Nobody: rules and ACL let it go, and the gateway that the route names does not take it. ACCEPT on the sender's.
    Way,
}

/// What happened to a flow since it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fate {
    /// It passed the rules of both sides.
    Passed {
        /// The way of answers as they arrive at the router: source is whom the packets really reached, destination whom
        /// they really came from as the receiver saw it. It differs from the reverse of [`Flow::path`] where addresses were
        /// translated (NAT, public addresses).
        answers: Path,
        /// Answers, since it was last told.
        backward: Counts,
        /// Its first packet is among those told now.
        began: bool,
        /// How far a TCP connection has got; `None` for other protocols, and where it is not known.
        tcp: Option<Tcp>,
        /// It is over; nothing more will be told of it.
        ended: bool,
    },
    /// It did not pass.
    Refused { by: Refusal },
}

/// How far a TCP connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tcp {
    /// Nobody has answered the SYN.
    Opening,
    Open,
    /// Who began has sent a FIN, and who answered has not.
    ClosedForward,
    /// Who answered has sent a FIN, and who began has not.
    ClosedBackward,
    /// Both have.
    Closed,
    /// A RST ended it.
    Reset,
}

/// One flow through a VPC's router in one interval: the source of flow logs (NET-57). One flow is up to four records of a
/// flow log: two interfaces, two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// IANA number.
    pub protocol: u8,
    /// As the first packet was sent.
    pub path: Path,
    /// Packets along [`Self::path`] since it was last told. Never 0 for refused flows.
    pub forward: Counts,
    /// When the flow began, or when it was last told; no later than `last`.
    pub first: Timestamp,
    /// When its packets were last known to have arrived.
    pub last: Timestamp,
    pub fate: Fate,
}

/// What a reader of a VPC's flows is told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub flows: Vec<Flow>,
    /// What to ask from next time; asking from it says that everything before is kept by the caller.
    pub next: u64,
    /// Flows that happened and are in no answer, at least: a listener that was too slow, a full set, a node process that
    /// was restarted. Not 0 is SKIPDATA for every interface of the VPC.
    pub lost: u64,
}
