//! The maps' bytes, laid out as in `bpf/egress.bpf.c`.

use super::{Question, RawAttempt};
use std::net::{IpAddr, Ipv6Addr};

/// Size of `struct attempt_key`: cgroup 8, address 16, comm 16, port 2, protocol 1, padding 5.
pub(super) const ATTEMPT_KEY: usize = 48;
/// Size of `struct attempt`: count 8, first 8, last 8, pid 4, padding 4.
pub(super) const ATTEMPT: usize = 32;
/// Size of `struct question_key`: cgroup 8, hash 8, comm 16, kind 2, padding 6.
pub(super) const QUESTION_KEY: usize = 40;
/// Size of `struct question`: attempt 32, address 16, length 4, name 256, padding 4.
pub(super) const QUESTION: usize = 312;

const PROTO_UDP: u8 = 17;
const DNS: u16 = 53;

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|offset| from.get(at + offset).copied().unwrap_or(0))
}

fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes(from, at))
}

fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes(from, at))
}

/// Both keys begin with the cgroup.
pub(super) fn cgroup_of(key: &[u8]) -> u64 {
    u64_at(key, 0)
}

fn process_name(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    // Chosen by the container: control characters would reach an operator's terminal.
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default())
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

pub(super) fn attempt(key: &[u8; ATTEMPT_KEY], value: &[u8; ATTEMPT], boot: u64) -> RawAttempt {
    let [protocol] = bytes(key, 42);
    RawAttempt {
        first_unix_nanos: boot.saturating_add(u64_at(value, 8)),
        last_unix_nanos: boot.saturating_add(u64_at(value, 16)),
        count: u64_at(value, 0),
        pid: u32_at(value, 24),
        process: process_name(&bytes(key, 24)),
        protocol,
        address: address(bytes(key, 8)),
        port: u16::from_ne_bytes(bytes(key, 40)),
        question: None,
    }
}

pub(super) fn question(key: &[u8; QUESTION_KEY], value: &[u8; QUESTION], boot: u64) -> RawAttempt {
    let length = usize::try_from(u32_at(value, 48)).unwrap_or(0);
    let wire = value.get(52..52 + length.min(255)).unwrap_or_default();
    RawAttempt {
        first_unix_nanos: boot.saturating_add(u64_at(value, 8)),
        last_unix_nanos: boot.saturating_add(u64_at(value, 16)),
        count: u64_at(value, 0),
        pid: u32_at(value, 24),
        process: process_name(&bytes(key, 16)),
        protocol: PROTO_UDP,
        address: address(bytes(value, 32)),
        port: DNS,
        question: Some(Question {
            name: dotted(wire),
            kind: u16::from_ne_bytes(bytes(key, 32)),
        }),
    }
}

/// Labels as text. The bytes are the container's choice, so everything but plain characters is escaped.
fn dotted(mut wire: &[u8]) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = wire.split_first() {
        let (label, rest) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                b'!'..=b'~' => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        wire = rest;
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_shown_without_control_characters() {
        assert_eq!(dotted(b"\x03www\x07example\x03com"), "www.example.com");
        assert_eq!(dotted(b"\x04a.\x1b["), "a\\.\\027[");
        assert_eq!(
            dotted(b"\x3fshort"),
            "short",
            "a label that promises more than there is"
        );
        assert_eq!(dotted(b""), ".");
        assert_eq!(process_name(b"\x1b[2Jpython3\0\0\0\0\0"), "?[2Jpython3");
    }
}
