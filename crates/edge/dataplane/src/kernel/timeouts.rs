//! Time-outs of connections as objects of nftables. The JSON of `nft` 1.0.6 loses their values and cannot delete them.

use super::elements::INET;
use super::handle::Handle;
use super::netlink::{CREATE_NEW, Request, attribute};
use std::io;

const NFT_MSG_NEWOBJ: u16 = (10 << 8) | 18;
const NFT_MSG_DELOBJ: u16 = (10 << 8) | 20;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = NESTED | 4;
const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
const NFTA_CT_TIMEOUT_L3PROTO: u16 = 1;
const NFTA_CT_TIMEOUT_L4PROTO: u16 = 2;
const NFTA_CT_TIMEOUT_DATA: u16 = NESTED | 3;
const CTA_TIMEOUT_TCP_ESTABLISHED: u16 = 3;
const NFPROTO_IPV4: u16 = 2;
const TCP: u8 = 6;
const NESTED: u16 = 0x8000;

/// A time-out of established TCP connections over IPv4.
pub(super) struct Timeout {
    table: String,
    name: String,
    seconds: u32,
}

impl Timeout {
    pub(super) fn new(table: &str, name: &str, seconds: u32) -> Self {
        Self {
            table: table.into(),
            name: name.into(),
            seconds,
        }
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        let zero_ended = |text: &str| [text.as_bytes(), &[0]].concat();
        Request::new(kind, flags, &INET)
            .with(NFTA_OBJ_TABLE, &zero_ended(&self.table))
            .with(NFTA_OBJ_NAME, &zero_ended(&self.name))
            .with(NFTA_OBJ_TYPE, &NFT_OBJECT_CT_TIMEOUT.to_be_bytes())
    }
}

/// Makes time-outs; one that is there already is refused by the kernel.
pub(super) fn make(handle: &Handle, all: &[Timeout]) -> io::Result<()> {
    transact(handle, all, |one| {
        one.request(NFT_MSG_NEWOBJ, CREATE_NEW).nested(NFTA_OBJ_DATA, |data| {
            attribute(data, NFTA_CT_TIMEOUT_L3PROTO, |value| {
                value.extend_from_slice(&NFPROTO_IPV4.to_be_bytes())
            });
            attribute(data, NFTA_CT_TIMEOUT_L4PROTO, |value| value.push(TCP));
            attribute(data, NFTA_CT_TIMEOUT_DATA, |policy| {
                attribute(policy, CTA_TIMEOUT_TCP_ESTABLISHED, |value| {
                    value.extend_from_slice(&one.seconds.to_be_bytes())
                });
            });
        })
    })
}

/// Deletes time-outs that no rule names.
pub(super) fn delete(handle: &Handle, all: &[Timeout]) -> io::Result<()> {
    transact(handle, all, |one| one.request(NFT_MSG_DELOBJ, 0))
}

fn transact(handle: &Handle, all: &[Timeout], request: impl Fn(&Timeout) -> Request) -> io::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let mut socket = handle.netfilter()?;
    let generation = socket.generation()?;
    socket.transact(generation, all.iter().map(request).collect())
}
