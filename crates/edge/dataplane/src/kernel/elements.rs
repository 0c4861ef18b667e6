//! Elements of plain sets and maps by netlink: what an interface adds to a VPC's table. `nft` would read the whole table
//! before it adds one element.

use super::handle::Handle;
use super::netlink::{Request, Socket, attribute};
use isolarium_netplan::ruleset::Table;
use isolarium_netplan::ruleset::change::Change;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

const NFT_MSG_NEWSETELEM: u16 = (10 << 8) | 12;
const NFT_MSG_GETSETELEM: u16 = (10 << 8) | 13;
const NFT_MSG_DELSETELEM: u16 = (10 << 8) | 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = NESTED | 3;
const NFTA_LIST_ELEM: u16 = NESTED | 1;
const NFTA_SET_ELEM_KEY: u16 = NESTED | 1;
const NFTA_SET_ELEM_DATA: u16 = NESTED | 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = NESTED | 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NESTED: u16 = 0x8000;
const GOTO: i32 = -4;
/// An interface's name in a set.
const IFNAME: usize = 16;
/// `NFPROTO_INET`, version 0, no resource.
pub(super) const INET: [u8; 4] = [1, 0, 0, 0];
/// More go through `nft`: a transaction is one message of a socket's buffer.
const MOST: usize = 512;
/// Elements of one message; its length has 16 bits.
const TOGETHER: usize = 128;

/// One element as netlink takes it.
struct Element {
    key: Vec<u8>,
    data: Option<Data>,
}

enum Data {
    Value(Vec<u8>),
    Goto(String),
}

/// What a transaction does, if it only adds and deletes elements of plain sets.
pub(super) struct Elements {
    parts: Vec<(bool, String, Vec<Element>)>,
}

impl Elements {
    /// `None`: the changes need more than this.
    pub(super) fn of(table: &Table, changes: &[Change]) -> Option<Self> {
        if changes.iter().map(Change::size).sum::<usize>() > MOST {
            return None;
        }
        let mut parts = Vec::new();
        for change in changes {
            let (adds, name, elements): (bool, &String, &BTreeSet<String>) = match change {
                Change::AddElements { set, elements } => (true, set, elements),
                Change::DeleteElements { set, elements } => (false, set, elements),
                _ => return None,
            };
            let set = table.sets.get(name).filter(|set| !set.interval)?;
            let all = elements
                .iter()
                .map(|text| element(&set.kind, set.data.as_deref(), text));
            parts.push((adds, name.clone(), all.collect::<Option<Vec<_>>>()?));
        }
        Some(Self { parts })
    }

    /// Carries them out in one transaction, unless somebody changed the rules since `generation`.
    pub(super) fn apply(&self, handle: &Handle, table: &str, generation: u32) -> io::Result<()> {
        let mut requests = Vec::new();
        for (adds, set, elements) in &self.parts {
            let (kind, flags) = if *adds {
                (NFT_MSG_NEWSETELEM, super::netlink::CREATE_NEW)
            } else {
                (NFT_MSG_DELSETELEM, 0)
            };
            for together in elements.chunks(TOGETHER) {
                requests.push(request(kind, flags, table, set, together, *adds));
            }
        }
        handle.netfilter()?.transact(generation, requests)
    }

    /// Whether the kernel shows what [`Self::apply`] was asked for.
    pub(super) fn stand(&self, handle: &Handle, table: &str) -> io::Result<bool> {
        let mut socket = handle.netfilter()?;
        for (adds, set, elements) in &self.parts {
            for element in elements {
                if holds(&mut socket, table, set, element)? != *adds {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn holds(socket: &mut Socket, table: &str, set: &str, element: &Element) -> io::Result<bool> {
    let one = std::slice::from_ref(element);
    match socket.get(request(NFT_MSG_GETSETELEM, 0, table, set, one, false)) {
        Ok(_) => Ok(true),
        Err(error) if super::netlink::errno(&error) == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn zero_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn request(kind: u16, flags: u16, table: &str, set: &str, elements: &[Element], with_data: bool) -> Request {
    Request::new(kind, flags, &INET)
        .with(NFTA_SET_ELEM_LIST_TABLE, &zero_ended(table))
        .with(NFTA_SET_ELEM_LIST_SET, &zero_ended(set))
        .nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for element in elements {
                attribute(list, NFTA_LIST_ELEM, |one| {
                    attribute(one, NFTA_SET_ELEM_KEY, |key| {
                        attribute(key, NFTA_DATA_VALUE, |value| value.extend_from_slice(&element.key));
                    });
                    if let Some(data) = element.data.as_ref().filter(|_| with_data) {
                        attribute(one, NFTA_SET_ELEM_DATA, |at| data.write(at));
                    }
                });
            }
        })
}

impl Data {
    fn write(&self, at: &mut Vec<u8>) {
        match self {
            Self::Value(bytes) => attribute(at, NFTA_DATA_VALUE, |value| value.extend_from_slice(bytes)),
            Self::Goto(chain) => attribute(at, NFTA_DATA_VERDICT, |verdict| {
                attribute(verdict, NFTA_VERDICT_CODE, |code| {
                    code.extend_from_slice(&GOTO.to_be_bytes())
                });
                attribute(verdict, NFTA_VERDICT_CHAIN, |name| name.extend(zero_ended(chain)));
            }),
        }
    }
}

fn element(kind: &str, data: Option<&str>, text: &str) -> Option<Element> {
    let (key, led) = match (data, text.split_once(" : ")) {
        (None, None) => (text, None),
        (Some(data), Some((key, led))) => (key, Some((data, led))),
        _ => return None,
    };
    let mut bytes = Vec::new();
    let (mut kinds, mut parts) = (kind.split(" . "), key.split(" . "));
    loop {
        match (kinds.next(), parts.next()) {
            (None, None) => break,
            (kind, part) => bytes.extend(cell(kind?, part?)?),
        }
    }
    let data = match led {
        None => None,
        Some(("verdict", led)) => Some(Data::Goto(led.strip_prefix("goto ")?.into())),
        Some((kind, led)) => Some(Data::Value(cell(kind, led)?)),
    };
    Some(Element { key: bytes, data })
}

/// One part of a key, padded to whole words as the kernel joins them.
fn cell(kind: &str, text: &str) -> Option<Vec<u8>> {
    match kind {
        "ipv4_addr" => text.parse::<Ipv4Addr>().ok().map(|address| address.octets().to_vec()),
        "ifname" if text.len() < IFNAME && !text.ends_with('*') => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(IFNAME, 0);
            Some(bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
