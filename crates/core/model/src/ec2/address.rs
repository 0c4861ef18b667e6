//! Addresses: which ones a subnet may give, and which one it gives next.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Routes into this range are refused (NET-27).
pub const LINK_LOCAL_SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 168, 0), 22);

/// Addresses of every subnet that nobody gets: the network's, the router's, the resolver's, a spare one and the last
/// (NET-3).
pub const RESERVED: u32 = 5;

/// The address `n` after the first one of a block.
pub fn nth(block: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block.network()).saturating_add(n))
}

/// Whether an interface may hold `address`: five addresses of every subnet are reserved (NET-3, NET-4).
pub fn assignable(block: Ipv4Net, address: Ipv4Addr) -> bool {
    block.contains(&address) && address > nth(block, 3) && address < block.broadcast()
}

/// How many addresses a subnet has to give: 251 for a /24, 11 for a /28 (NET-3).
pub fn capacity(block: Ipv4Net) -> u32 {
    let all = u32::from(block.broadcast()).saturating_sub(u32::from(block.network()));
    all.saturating_add(1).saturating_sub(RESERVED)
}

/// A free address of a subnet (NET-4): the first one that is not `taken`, from the place that `chance` picks, so that an
/// address just given back is not the next one given. `None` when all are taken.
pub fn free_address(block: Ipv4Net, chance: u64, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let usable = capacity(block);
    let start = u32::try_from(chance % u64::from(usable.max(1))).unwrap_or(0);
    (start..usable)
        .chain(0..start)
        .map(|step| nth(block, 4 + step))
        .find(|address| !taken(*address))
}

/// Whether two blocks share an address.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The hardware address of an interface: locally administered, and it follows from the primary address.
pub fn hardware(primary: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = primary.octets();
    [0x06, 0x6a, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn block(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    /// Proves: NET-3
    #[test]
    fn five_addresses_of_a_subnet_are_nobodys() {
        for (net, free) in [("10.0.1.0/24", 251), ("10.0.0.0/28", 11), ("10.0.0.0/16", 65_531)] {
            let net = block(net);
            assert_eq!(capacity(net), free, "{net}");
            let mut given = BTreeSet::new();
            while let Some(address) = free_address(net, 7, |address| given.contains(&address)) {
                assert!(assignable(net, address), "{address}");
                given.insert(address);
                if net.prefix_len() == 16 && given.len() > 300 {
                    break; // enough of a large one
                }
            }
            if net.prefix_len() > 16 {
                assert_eq!(
                    u32::try_from(given.len()).unwrap(),
                    free,
                    "control: every other address is given"
                );
                let all: BTreeSet<_> = net.hosts().filter(|address| assignable(net, *address)).collect();
                assert_eq!(given, all);
            }
        }
        for reserved in [0, 1, 2, 3, 255] {
            assert!(!assignable(block("10.0.1.0/24"), nth(block("10.0.1.0/24"), reserved)));
        }
        assert!(
            assignable(block("10.0.1.0/24"), nth(block("10.0.1.0/24"), 4)),
            "control"
        );
    }

    /// Proves: NET-4
    #[test]
    fn a_free_address_is_found_from_everywhere_and_none_when_all_are_taken() {
        let net = block("10.0.0.16/28");
        let last = Ipv4Addr::new(10, 0, 0, 22);
        for chance in [0, 1, 10, 11, 12, u64::MAX] {
            assert_eq!(
                free_address(net, chance, |address| address != last),
                Some(last),
                "{chance}"
            );
            assert_eq!(free_address(net, chance, |_| true), None);
        }
        assert_ne!(
            free_address(net, 0, |_| false),
            free_address(net, 1, |_| false),
            "chance picks the place"
        );
    }
}
