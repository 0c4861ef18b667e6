//! What the rules recorded of refused flows.

use crate::kernel::handle::Handle;
use crate::kernel::netlink::{Attributes, Request, errno};
use isolarium_model::Timestamp;
use isolarium_netplan::compile::vpc::{RECORDED, REFUSALS, TABLE};
use isolarium_netplan::flowlog::{Counts, Fate, Flow, Path, Refusal};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

const GET_ELEMENTS_AND_ZERO: u16 = (10 << 8) | 33;
const INET: [u8; 4] = [1, 0, 0, 0];
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_EXPR: u16 = 7;
const ELEMENT_EXPRS: u16 = 11;
const EXPR_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Refused flows with what was counted since the last time, and how many sets were full.
pub(super) fn read_and_zero(handle: &Handle, before: Timestamp, now: Timestamp) -> io::Result<(Vec<Flow>, u64)> {
    let mut flows = Vec::new();
    let mut full = 0;
    for (set, by) in REFUSALS
        .into_iter()
        .zip([Refusal::Egress, Refusal::Ingress, Refusal::Way])
    {
        let (found, elements) = one_set(handle, set)?;
        full += u64::from(elements >= usize::try_from(RECORDED).unwrap_or(usize::MAX));
        flows.extend(found.into_iter().map(|((protocol, path), forward)| Flow {
            protocol,
            path,
            forward,
            first: before.min(now),
            last: now,
            fate: Fate::Refused { by },
        }));
    }
    Ok((flows, full))
}

type Found = BTreeMap<(u8, Path), Counts>;

fn one_set(handle: &Handle, set: &str) -> io::Result<(Found, usize)> {
    let zero_ended = |text: &str| [text.as_bytes(), &[0]].concat();
    let request = Request::new(GET_ELEMENTS_AND_ZERO, 0, &INET)
        .with(SET_TABLE, &zero_ended(TABLE))
        .with(SET_NAME, &zero_ended(set));
    let messages = match handle.netfilter()?.dump(&request) {
        // The set comes with the first ruleset.
        Err(error) if errno(&error) == Some(libc::ENOENT) => Vec::new(),
        other => other?,
    };
    let mut found = Found::new();
    let mut elements = 0;
    for message in &messages {
        let list = message.attributes(4).find(SET_ELEMENTS).map(Attributes);
        for (_, element) in list.into_iter().flatten() {
            elements += 1;
            let element = Attributes(element);
            if let (Some(key), Some(counts)) = (key(element), counts(element)) {
                // Types of ICMP fall together, so do the checksums that stand where others have a port.
                let sum: &mut Counts = found.entry(key).or_default();
                sum.packets += counts.packets;
                sum.bytes += counts.bytes;
            }
        }
    }
    found.retain(|_, counts| counts.packets > 0);
    Ok((found, elements))
}

fn key(element: Attributes<'_>) -> Option<(u8, Path)> {
    let value = Attributes(element.find(ELEMENT_KEY)?).find(1)?;
    let word = |at: usize| -> Option<[u8; 4]> { value.get(at * 4..at * 4 + 4)?.try_into().ok() };
    let [protocol, ..] = word(2)?;
    let port = |at: usize| {
        let [high, low, ..] = word(at)?;
        Some(if matches!(protocol, 6 | 17) {
            u16::from_be_bytes([high, low])
        } else {
            0
        })
    };
    let path = Path {
        source: Ipv4Addr::from(word(0)?),
        destination: Ipv4Addr::from(word(1)?),
        source_port: port(3)?,
        destination_port: port(4)?,
    };
    Some((protocol, path))
}

fn counts(element: Attributes<'_>) -> Option<Counts> {
    let single = element.find(ELEMENT_EXPR);
    let first = || Some(Attributes(element.find(ELEMENT_EXPRS)?).next()?.1);
    let data = Attributes(Attributes(single.or_else(first)?).find(EXPR_DATA)?);
    let long = |kind: u16| Some(u64::from_be_bytes(data.find(kind)?.try_into().ok()?));
    Some(Counts {
        packets: long(COUNTER_PACKETS)?,
        bytes: long(COUNTER_BYTES)?,
    })
}
