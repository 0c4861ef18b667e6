//! Packets made by hand, for asking a router about exactly one packet.

use isolarium_netplan::reach::Traffic;
use std::net::Ipv4Addr;

/// A packet's addresses, what it carries, and whose probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Transport with ports or type and code.
    pub traffic: Traffic,
    /// Number of the probe, below 2^16.
    pub probe: u32,
    /// It answers a probe.
    pub answer: bool,
}

const ANSWERED: u32 = 0x4000_0000;
/// Tells probes from everything else that a namespace sends.
const MARK: u32 = 0x2b1d_0000;

fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let pair = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
            total += u32::from(u16::from_be_bytes(pair));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or_default()
}

impl Packet {
    /// The answer that the receiver of this packet gives, if there is one.
    pub fn reply(&self) -> Option<Self> {
        Some(Self {
            source: self.destination,
            destination: self.source,
            traffic: self.traffic.reply()?,
            probe: self.probe,
            answer: true,
        })
    }

    /// The bytes from the IP header on; the kernel fills in the header's checksum.
    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, mut body, checksum_at) = match self.traffic {
            Traffic::Tcp { from, to } => {
                let (sequence, acknowledged, flags) = if self.answer {
                    (1, (MARK | self.probe).wrapping_add(1), 0x12)
                } else {
                    (MARK | self.probe, 0, 0x02)
                };
                let mut body = [from.to_be_bytes(), to.to_be_bytes()].concat();
                body.extend(sequence.to_be_bytes());
                body.extend(acknowledged.to_be_bytes());
                body.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                (6, body, 16)
            }
            Traffic::Udp { from, to } => {
                let mut body = [from.to_be_bytes(), to.to_be_bytes(), 12_u16.to_be_bytes(), [0, 0]].concat();
                body.extend(self.payload().to_be_bytes());
                (17, body, 6)
            }
            Traffic::Icmp { kind, code } => {
                let id = u16::try_from(self.probe & 0xffff).unwrap_or_default();
                let mut body = vec![kind, code, 0, 0];
                body.extend(id.to_be_bytes());
                body.extend([0, 1]);
                body.extend(self.payload().to_be_bytes());
                (1, body, 2)
            }
        };
        let length = u16::try_from(body.len()).unwrap_or_default();
        let mut pseudo = [self.source.octets(), self.destination.octets()].concat();
        pseudo.extend([0, protocol]);
        pseudo.extend(length.to_be_bytes());
        let checksum = if protocol == 1 {
            sum(&[&body])
        } else {
            sum(&[&pseudo, &body])
        };
        if let Some(place) = body.get_mut(checksum_at..checksum_at + 2) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
        let mut all = vec![0x45, 0];
        all.extend((length + 20).to_be_bytes());
        all.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        all.extend(self.source.octets());
        all.extend(self.destination.octets());
        all.extend(body);
        all
    }

    /// The same with a loose source route: whoever the packet is addressed to is asked to send it on to `then`.
    pub fn source_routed(&self, then: Ipv4Addr) -> Vec<u8> {
        const LOOSE_SOURCE_ROUTE: u8 = 0x83;
        let mut all = self.bytes();
        let body = all.split_off(20);
        all.extend([LOOSE_SOURCE_ROUTE, 7, 4]);
        all.extend(then.octets());
        // End of options.
        all.push(0);
        all.extend(body);
        let length = u16::try_from(all.len()).unwrap_or_default();
        for (place, byte) in all.iter_mut().skip(2).zip(length.to_be_bytes()) {
            *place = byte;
        }
        if let Some(version_and_header) = all.first_mut() {
            *version_and_header = 0x47;
        }
        all
    }

    /// What a UDP probe or its answer carries.
    pub fn payload(&self) -> u32 {
        MARK | self.probe | if self.answer { ANSWERED } else { 0 }
    }

    /// Reads a packet from its IP header on. `None`: it is no probe and no answer to one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<u32> { Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        let half = |at: usize| -> Option<u16> { Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)) };
        if *bytes.first()? >> 4 != 4 {
            return None;
        }
        let body = usize::from(*bytes.first()? & 15) * 4;
        let ports = || Some((half(body)?, half(body + 2)?));
        let (traffic, carried) = match *bytes.get(9)? {
            6 => {
                let (from, to) = ports()?;
                let carried = match *bytes.get(body + 13)? & 0x17 {
                    0x02 => word(body + 4)?,
                    0x12 => word(body + 8)?.wrapping_sub(1) | ANSWERED,
                    _ => return None,
                };
                (Traffic::Tcp { from, to }, carried)
            }
            17 => {
                let (from, to) = ports()?;
                (Traffic::Udp { from, to }, word(body + 8)?)
            }
            1 => {
                let (kind, code) = (*bytes.get(body)?, *bytes.get(body + 1)?);
                (Traffic::Icmp { kind, code }, word(body + 8)?)
            }
            _ => return None,
        };
        if (carried & !ANSWERED) & 0xffff_0000 != MARK {
            return None;
        }
        Some(Self {
            source: word(12)?.into(),
            destination: word(16)?.into(),
            traffic,
            probe: carried & 0xffff,
            answer: carried & ANSWERED != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_and_its_answer_are_read_as_they_were_written() {
        let traffics = [
            Traffic::Tcp { from: 40000, to: 80 },
            Traffic::Udp { from: 50, to: 53 },
            Traffic::Icmp { kind: 8, code: 0 },
        ];
        for traffic in traffics {
            let packet = Packet {
                source: Ipv4Addr::new(10, 0, 0, 1),
                destination: Ipv4Addr::new(10, 0, 0, 2),
                traffic,
                probe: 517,
                answer: false,
            };
            assert_eq!(Packet::parse(&packet.bytes()), Some(packet));
            let reply = packet.reply().unwrap();
            assert_eq!(Packet::parse(&reply.bytes()), Some(reply));
        }
        assert_eq!(Packet::parse(&[0x45; 60]), None);
    }
}
