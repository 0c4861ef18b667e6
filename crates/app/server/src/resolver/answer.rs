//! What to answer to one DNS message: pure, from bytes to bytes.

use super::endpoints::EndpointNames;
use super::private::{self, Private, VpcNames};
use crate::names;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::Ipv4Net;
use isolarium_model::Region;
use std::sync::Arc;

/// Bytes that fit into a UDP answer when the client said nothing else.
const CLASSIC_UDP: usize = 512;
/// The largest UDP message taken and given: below every usual path's limit.
const OWN_PAYLOAD: u16 = 1232;
/// How long clients may keep the engine's own answers, seconds.
const TTL: u32 = 60;

/// The names that the engine answers itself.
#[derive(Clone, Debug)]
pub struct Zone {
    pub regions: Vec<Region>,
    pub services: Ipv4Net,
    pub s3_prefix_list: Ipv4Net,
    /// The own names of interface endpoints.
    pub endpoints: Arc<EndpointNames>,
    /// The VPC that asks; `None` in the platform network.
    pub vpc: Option<VpcNames>,
}

/// A question that was understood.
#[derive(Clone, Debug)]
pub struct Asked {
    message: Message,
}

/// What to do with a message.
#[derive(Debug)]
pub enum Answer {
    /// Send this.
    Reply(Vec<u8>),
    /// Not ours: ask the uplink's name servers.
    Forward(Asked),
    /// It is no question at all.
    Silence,
}

/// Decides. `at` is the Availability Zone of whoever asks.
pub fn answer(zone: &Zone, at: Option<&str>, bytes: &[u8]) -> Answer {
    let Ok(message) = Message::from_vec(bytes) else {
        return match bytes {
            // Answer only what claims to be a question, or two servers could talk for ever.
            [high, low, flags, ..] if bytes.len() >= 12 && flags & 0x80 == 0 => {
                let id = u16::from_be_bytes([*high, *low]);
                encode(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
            }
            _ => Answer::Silence,
        };
    };
    if message.metadata.message_type != MessageType::Query {
        return Answer::Silence;
    }
    let asked = Asked { message };
    let failed = |code| encode(&asked.response(code));
    if asked.message.metadata.op_code != OpCode::Query {
        return failed(ResponseCode::NotImp);
    }
    if asked.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return failed(ResponseCode::BADVERS);
    }
    let [question] = asked.message.queries.as_slice() else {
        return failed(ResponseCode::FormErr);
    };
    if question.query_class() != DNSClass::IN {
        return failed(ResponseCode::Refused);
    }
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return failed(ResponseCode::Refused);
    }
    let name = question.name().to_ascii();
    if let Some(private) = zone.vpc.as_ref().and_then(|vpc| private::lookup(vpc, at, &name)) {
        return private_answer(&asked, question, private);
    }
    if let Some(own) = zone.endpoints.lookup(&private::plain(&name), at) {
        return private_answer(&asked, question, Private::Endpoint(own));
    }
    let Some(meaning) = names::meaning(&name) else {
        // Nobody else is asked for a client that wants only what is known here.
        return if asked.message.metadata.recursion_desired {
            Answer::Forward(asked)
        } else {
            failed(ResponseCode::Refused)
        };
    };
    use names::HostMeaning as H;
    let served = match &meaning {
        H::Service { region, .. } | H::S3 { region } | H::S3Bucket { region, .. } => {
            region.as_ref().is_none_or(|region| zone.regions.contains(region))
        }
        H::Registry { region, .. } | H::Notebook { region } => zone.regions.contains(region),
    };
    if !served {
        return failed(ResponseCode::NXDomain);
    }
    let mut response = asked.response(ResponseCode::NoError);
    if matches!(question.query_type(), RecordType::A | RecordType::ANY) {
        let home = zone.vpc.as_ref().map(|vpc| &vpc.region);
        let address = names::address_seen_from(home, &meaning, zone.services, zone.s3_prefix_list);
        response.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(address))));
    }
    encode(&response)
}

/// NET-42, NET-44, NET-51.
fn private_answer(asked: &Asked, question: &Query, private: Private) -> Answer {
    let kind = question.query_type();
    let is_a = matches!(kind, RecordType::A | RecordType::ANY);
    let data: Vec<RData> = match private {
        Private::Missing => return encode(&asked.response(ResponseCode::NXDomain)),
        Private::Endpoint(all) if all.is_empty() => return encode(&asked.response(ResponseCode::NXDomain)),
        Private::Endpoint(all) if is_a => all.into_iter().map(|address| RData::A(A(address))).collect(),
        Private::Address(address) if is_a => vec![RData::A(A(address))],
        Private::Name(name) if matches!(kind, RecordType::PTR | RecordType::ANY) => {
            let name = Name::from_ascii(name).ok();
            name.map(|name| RData::PTR(PTR(name))).into_iter().collect()
        }
        Private::Address(_) | Private::Name(_) | Private::Endpoint(_) => Vec::new(),
    };
    let mut response = asked.response(ResponseCode::NoError);
    response.metadata.authoritative = true;
    for data in data {
        response.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
    }
    encode(&response)
}

fn encode(message: &Message) -> Answer {
    message.to_vec().map_or(Answer::Silence, Answer::Reply)
}

impl Asked {
    fn response(&self, code: ResponseCode) -> Message {
        let mut response = Message::response(self.message.metadata.id, self.message.metadata.op_code);
        response.metadata.recursion_desired = self.message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.response_code = code;
        response.add_queries(self.message.queries.iter().cloned());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(OWN_PAYLOAD);
            response.set_edns(edns);
        }
        response
    }

    fn bytes(&self, code: ResponseCode) -> Option<Vec<u8>> {
        self.response(code).to_vec().ok()
    }

    /// Nobody up there answered.
    pub fn server_failure(&self) -> Option<Vec<u8>> {
        self.bytes(ResponseCode::ServFail)
    }

    /// There is nobody up there: said at once, so that no client waits.
    pub fn no_such_name(&self) -> Option<Vec<u8>> {
        self.bytes(ResponseCode::NXDomain)
    }

    /// The answer is too large for UDP: the client asks again by TCP.
    pub fn truncated(&self) -> Option<Vec<u8>> {
        let mut response = self.response(ResponseCode::NoError);
        response.metadata.truncation = true;
        response.to_vec().ok()
    }

    /// The largest UDP answer the client takes.
    pub fn payload_limit(&self) -> usize {
        self.message
            .edns
            .as_ref()
            .map_or(CLASSIC_UDP, |edns| usize::from(edns.max_payload().min(OWN_PAYLOAD)))
    }

    /// The client's message id.
    pub fn id(&self) -> u16 {
        self.message.metadata.id
    }

    /// Whether `bytes` answers this question under `id`.
    pub fn is_answered_by(&self, bytes: &[u8], id: u16) -> bool {
        let same = |a: &Query, b: &Query| a.name() == b.name() && a.query_type() == b.query_type();
        Message::from_vec(bytes).is_ok_and(|reply| {
            reply.metadata.message_type == MessageType::Response
                && reply.metadata.id == id
                && matches!((reply.queries.as_slice(), self.message.queries.as_slice()), ([a], [b]) if same(a, b))
        })
    }
}
