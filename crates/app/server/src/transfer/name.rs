//! Names as a program inside the VPC would look them up: the VPC's name servers are asked, from the interface's own
//! address, so that DNS settings, routes and groups have their say (VPC-21).

use super::patient::{dial, receive};
use super::{DialError, Inside};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use isolarium_reconcile::Cut;
use isolarium_reconcile::http::Patient;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DNS: u16 = 53;
/// Questions to each server before the next one is asked.
const TRIES: usize = 2;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum NameError {
    /// The VPC's DHCP options or attributes leave nobody to ask.
    #[error("the VPC has no name server")]
    NoServer,
    #[error("no name server of the VPC answered")]
    Silence,
    #[error("the name servers of the VPC do not know it")]
    Unknown,
    /// The host's own trouble.
    #[error("the name servers could not be asked")]
    Dial(#[source] DialError),
}

/// Addresses of `name`, in the order of the answer.
pub(super) fn look_up(
    inside: &dyn Inside,
    servers: &[Ipv4Addr],
    name: &str,
    id: u16,
    patience: Duration,
    cut: &Arc<Cut>,
) -> Result<Vec<Ipv4Addr>, NameError> {
    let question = question(name, id).ok_or(NameError::Unknown)?;
    let mut last = NameError::NoServer;
    for server in servers {
        let server = SocketAddrV4::new(*server, DNS);
        for _ in 0..TRIES {
            if cut.why().is_some() {
                return Err(NameError::Silence);
            }
            match by_udp(inside, server, &question, id, (patience, cut)) {
                Ok(Some(Heard::Addresses(found))) => return Ok(found),
                Ok(Some(Heard::Truncated)) => match by_tcp(inside, server, &question, id, (patience, cut)) {
                    Ok(Some(Heard::Addresses(found))) => return Ok(found),
                    Ok(_) => last = NameError::Silence,
                    Err(error) => last = refused(error),
                },
                Ok(Some(Heard::Nothing)) => return Err(NameError::Unknown),
                Ok(None) => last = NameError::Silence,
                Err(error) => last = refused(error),
            }
        }
    }
    Err(last)
}

fn refused(error: DialError) -> NameError {
    match error {
        DialError::NoPath(_) => NameError::Silence,
        away @ DialError::Host(_) => NameError::Dial(away),
    }
}

enum Heard {
    Addresses(Vec<Ipv4Addr>),
    /// The name does not exist, or has no address.
    Nothing,
    Truncated,
}

fn question(name: &str, id: u16) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).ok()?;
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().ok()
}

/// `None`: these bytes answer another question.
fn heard(bytes: &[u8], question: &[u8], id: u16) -> Option<Heard> {
    let (reply, asked) = (Message::from_vec(bytes).ok()?, Message::from_vec(question).ok()?);
    let ours = reply.metadata.message_type == MessageType::Response
        && reply.metadata.id == id
        && reply.queries.first().map(Query::name) == asked.queries.first().map(Query::name);
    if !ours {
        return None;
    }
    if reply.metadata.truncation {
        return Some(Heard::Truncated);
    }
    if !matches!(reply.metadata.response_code, ResponseCode::NoError) {
        return Some(Heard::Nothing);
    }
    let found: Vec<Ipv4Addr> = reply
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
        .collect();
    Some(if found.is_empty() {
        Heard::Nothing
    } else {
        Heard::Addresses(found)
    })
}

/// `None`: nobody answered in time.
fn by_udp(
    inside: &dyn Inside,
    server: SocketAddrV4,
    question: &[u8],
    id: u16,
    (patience, cut): (Duration, &Arc<Cut>),
) -> Result<Option<Heard>, DialError> {
    let socket = inside.udp(server)?;
    // The descriptor comes from another process.
    let ready = socket.set_nonblocking(false).and_then(|()| socket.send(question));
    if ready.is_err() {
        return Ok(None);
    }
    let until = Instant::now() + patience;
    let mut buffer = vec![0; 4096];
    // A few answers of somebody else do not hide the right one.
    for _ in 0..8 {
        let Ok(length) = receive(&socket, &mut buffer, until, cut) else {
            return Ok(None);
        };
        if let Some(heard) = heard(buffer.get(..length).unwrap_or_default(), question, id) {
            return Ok(Some(heard));
        }
    }
    Ok(None)
}

fn by_tcp(
    inside: &dyn Inside,
    server: SocketAddrV4,
    question: &[u8],
    id: u16,
    (patience, cut): (Duration, &Arc<Cut>),
) -> Result<Option<Heard>, DialError> {
    let until = Instant::now() + patience;
    let stream = dial(inside, server, patience, cut)?;
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = Patient::new(stream, patience, Arc::clone(cut))?;
        stream.until = Some(until);
        let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(question)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply)?;
        Ok(reply)
    };
    Ok(exchange().ok().and_then(|reply| heard(&reply, question, id)))
}
