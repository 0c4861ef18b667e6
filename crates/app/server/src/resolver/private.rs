//! The private names of a VPC (NET-44, NET-51): pure, from a name to what it is.

use super::endpoints::{Addresses, nearest};
use ipnet::Ipv4Net;
use isolarium_model::Region;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What the resolver of a VPC knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcNames {
    pub region: Region,
    pub blocks: Vec<Ipv4Net>,
    /// `enableDnsSupport` and `enableDnsHostnames`: EC2 gives private names when both are true.
    pub hostnames: bool,
    /// Private addresses of the VPC's interfaces.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Default names of services that lead to interface endpoints of this VPC.
    pub endpoints: Vec<PrivateZone>,
}

/// Default names of a service that an interface endpoint takes over for one VPC (NET-44).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateZone {
    /// In lower case; a leading `*.` stands for any labels.
    pub names: Vec<String>,
    /// Known in the zones where the endpoint has an interface alone (NET-45, D-10).
    pub zonal: bool,
    /// Where they lead.
    pub addresses: Addresses,
}

impl PrivateZone {
    fn holds(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }

    fn seen_from(&self, at: Option<&str>) -> Private {
        let here = at.is_some_and(|at| self.addresses.contains_key(at));
        if self.zonal && !here {
            return Private::Missing;
        }
        Private::Endpoint(nearest(&self.addresses, at))
    }
}

/// Whether a name in lower case is one of a pattern's: the same, or anything before the dot of a leading `*.`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.strip_suffix(end).is_some_and(|rest| !rest.is_empty()),
        None => pattern == name,
    }
}

/// A name as it is compared: in lower case, without a final dot.
pub fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// What a private name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Private {
    /// The address of an interface.
    Address(Ipv4Addr),
    /// The addresses of an interface endpoint, the nearest first; none: nobody has the name.
    Endpoint(Vec<Ipv4Addr>),
    /// The name of an interface, without a final dot.
    Name(String),
    /// It would be the VPC's, and nothing has it. Nobody outside can know better.
    Missing,
}

/// Reverse names of addresses that nobody outside can tell anything about (RFC 6303, RFC 7793).
const NOT_PUBLIC: [Ipv4Net; 6] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// The name that EC2 gives a private address, without a final dot.
pub fn name_of(address: Ipv4Addr, region: &Region) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}.{}", suffix(region))
}

/// `ec2.internal` in us-east-1, the region's elsewhere.
pub fn suffix(region: &Region) -> String {
    if region.as_str() == "us-east-1" {
        "ec2.internal".into()
    } else {
        format!("{region}.compute.internal")
    }
}

/// What a name (any case, a final dot allowed) is in a VPC, seen from the Availability Zone `at`; `None`: it is no private name.
pub fn lookup(vpc: &VpcNames, at: Option<&str>, name: &str) -> Option<Private> {
    let name = plain(name);
    if let Some(zone) = vpc.endpoints.iter().find(|zone| zone.holds(&name)) {
        return Some(zone.seen_from(at));
    }
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        return reverse(vpc, digits);
    }
    let is_private = ["ec2.internal", "compute.internal"].iter().any(|suffix| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !is_private {
        return None;
    }
    let host = name
        .strip_suffix(&suffix(&vpc.region))
        .and_then(|rest| rest.strip_suffix('.'));
    let held = host
        .and_then(address_in)
        .filter(|address| vpc.hostnames && vpc.addresses.contains(address));
    Some(held.map_or(Private::Missing, Private::Address))
}

/// `ip-10-0-0-5`, in exactly the spelling of [`name_of`].
fn address_in(host: &str) -> Option<Ipv4Addr> {
    let mut parts = host.strip_prefix("ip-")?.split('-');
    let mut octet = || {
        let text = parts.next()?;
        let number: u8 = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    };
    let address = Ipv4Addr::new(octet()?, octet()?, octet()?, octet()?);
    parts.next().is_none().then_some(address)
}

fn reverse(vpc: &VpcNames, digits: &str) -> Option<Private> {
    let mut labels = digits.rsplit('.');
    let mut octets = [0_u8; 4];
    let mut given = 0_u8;
    for octet in &mut octets {
        let Some(label) = labels.next() else { break };
        *octet = label.parse().ok()?;
        given += 8;
    }
    let address = Ipv4Addr::from(octets);
    let asked = Ipv4Net::new(address, given).ok()?;
    let own = vpc.blocks.iter().chain(&NOT_PUBLIC).any(|block| block.contains(&asked));
    if !own {
        return None;
    }
    let whole = given == 32 && labels.next().is_none();
    let held = whole && vpc.hostnames && vpc.addresses.contains(&address);
    Some(if held {
        Private::Name(name_of(address, &vpc.region))
    } else {
        Private::Missing
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vpc(region: &str) -> VpcNames {
        VpcNames {
            region: region.parse().unwrap(),
            blocks: vec!["10.0.0.0/16".parse().unwrap(), "203.0.113.0/24".parse().unwrap()],
            hostnames: true,
            addresses: ["10.0.0.5", "203.0.113.9"].map(|one| one.parse().unwrap()).into(),
            endpoints: Vec::new(),
        }
    }

    /// Proves: NET-51
    #[test]
    fn interfaces_have_names_by_their_address_and_region() {
        let held = |text: &str| Some(Private::Address(text.parse().unwrap()));
        for (region, name, want) in [
            ("us-east-1", "ip-10-0-0-5.ec2.internal", held("10.0.0.5")),
            ("us-east-1", "IP-10-0-0-5.EC2.Internal.", held("10.0.0.5")),
            ("us-east-1", "ip-203-0-113-9.ec2.internal", held("203.0.113.9")),
            ("us-east-1", "ip-10-0-0-6.ec2.internal", Some(Private::Missing)),
            ("us-east-1", "ip-010-0-0-5.ec2.internal", Some(Private::Missing)),
            ("us-east-1", "ip-10-0-0-5-6.ec2.internal", Some(Private::Missing)),
            ("us-east-1", "ip-10-0-0.ec2.internal", Some(Private::Missing)),
            (
                "us-east-1",
                "ip-10-0-0-5.us-east-1.compute.internal",
                Some(Private::Missing),
            ),
            ("us-east-1", "x.ip-10-0-0-5.ec2.internal", Some(Private::Missing)),
            ("us-east-1", "ec2.internal", Some(Private::Missing)),
            ("us-east-1", "notec2.internal", None),
            ("us-east-1", "example.org", None),
            ("eu-west-1", "ip-10-0-0-5.eu-west-1.compute.internal", held("10.0.0.5")),
            (
                "eu-west-1",
                "ip-10-0-0-5.us-east-1.compute.internal",
                Some(Private::Missing),
            ),
            ("eu-west-1", "ip-10-0-0-5.ec2.internal", Some(Private::Missing)),
        ] {
            assert_eq!(lookup(&vpc(region), None, name), want, "{region} {name}");
        }
    }

    /// Proves: NET-51
    #[test]
    fn without_host_names_no_private_name_is_known_and_nobody_outside_is_asked() {
        let mut silent = vpc("us-east-1");
        assert!(
            matches!(
                lookup(&silent, None, "ip-10-0-0-5.ec2.internal"),
                Some(Private::Address(_))
            ),
            "control"
        );
        silent.hostnames = false;
        for name in ["ip-10-0-0-5.ec2.internal", "5.0.0.10.in-addr.arpa"] {
            assert_eq!(lookup(&silent, None, name), Some(Private::Missing), "{name}");
        }
    }

    #[test]
    fn addresses_have_names_and_foreign_private_addresses_have_none() {
        for (name, want) in [
            (
                "5.0.0.10.in-addr.arpa.",
                Some(Private::Name("ip-10-0-0-5.ec2.internal".into())),
            ),
            (
                "9.113.0.203.in-addr.arpa",
                Some(Private::Name("ip-203-0-113-9.ec2.internal".into())),
            ),
            ("6.0.0.10.in-addr.arpa", Some(Private::Missing)),
            ("1.1.168.192.in-addr.arpa", Some(Private::Missing)),
            ("10.in-addr.arpa", Some(Private::Missing)),
            ("x.5.0.0.10.in-addr.arpa", Some(Private::Missing)),
            ("8.8.8.8.in-addr.arpa", None),
            ("300.0.0.10.in-addr.arpa", None),
        ] {
            assert_eq!(lookup(&vpc("us-east-1"), None, name), want, "{name}");
        }
    }

    /// Proves: NET-44, NET-45, D-1, D-10, PL-9, PL-10, PL-19
    #[test]
    fn default_names_lead_to_the_endpoint_and_runtimes_only_in_its_own_zones() {
        let address = |n: u8| Ipv4Addr::new(10, 0, n, 5);
        let zone = |names: &[&str], zonal| PrivateZone {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            zonal,
            addresses: [("us-east-1a", 1), ("us-east-1b", 2)]
                .map(|(zone, n)| (zone.to_owned(), vec![address(n)]))
                .into(),
        };
        let mut vpc = vpc("us-east-1");
        let (api, runtime) = (
            "api.sagemaker.us-east-1.amazonaws.com",
            "runtime.sagemaker.us-east-1.amazonaws.com",
        );
        let s3 = ["s3.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com"];
        vpc.endpoints = vec![zone(&[api], false), zone(&[runtime], true), zone(&s3, false)];
        let seen = |name: &str, at: &str| lookup(&vpc, Some(at), name);
        let both = |order: [u8; 2]| Some(Private::Endpoint(order.map(address).to_vec()));
        assert_eq!(
            seen("API.SageMaker.us-east-1.amazonaws.com.", "us-east-1b"),
            both([2, 1])
        );
        assert_eq!(seen(api, "us-east-1c"), both([1, 2]), "the API is known in every zone");
        assert_eq!(seen(runtime, "us-east-1a"), both([1, 2]));
        assert_eq!(
            seen(runtime, "us-east-1c"),
            Some(Private::Missing),
            "the runtime is not"
        );
        assert_eq!(lookup(&vpc, None, runtime), Some(Private::Missing));
        assert_eq!(seen("a.b.s3.us-east-1.amazonaws.com", "us-east-1a"), both([1, 2]));
        for other in [
            "x.api.sagemaker.us-east-1.amazonaws.com",
            "api.sagemaker.us-west-2.amazonaws.com",
            "api.sagemaker.us-east-1.amazon.com",
            ".s3.us-east-1.amazonaws.com.evil",
        ] {
            assert_eq!(seen(other, "us-east-1a"), None, "{other}");
        }
    }

    proptest! {
        /// Names lead to the address that they are made of, in every region, and to nothing while nobody has it.
        #[test]
        fn a_name_and_its_address_belong_together(bits: u32, region in "[a-z]{2}-[a-z]{4,9}-[1-9]") {
            let (address, region) = (Ipv4Addr::from(bits), region.parse::<Region>().unwrap());
            let mut vpc = VpcNames { region: region.clone(), addresses: BTreeSet::from([address]), ..vpc("us-east-1") };
            let name = name_of(address, &region);
            prop_assert_eq!(lookup(&vpc, None, &name), Some(Private::Address(address)));
            vpc.addresses.clear();
            prop_assert_eq!(lookup(&vpc, None, &name), Some(Private::Missing));
        }

        /// Whatever is asked, nothing panics, and nothing but an interface's address is told.
        #[test]
        fn only_addresses_of_interfaces_are_told(name in "[ip0-9.a-z-]{0,40}(\\.ec2\\.internal|\\.in-addr\\.arpa|)") {
            let vpc = vpc("us-east-1");
            match lookup(&vpc, None, &name) {
                Some(Private::Address(address)) => prop_assert!(vpc.addresses.contains(&address)),
                Some(Private::Name(told)) => prop_assert!(vpc.addresses.iter().any(|one| name_of(*one, &vpc.region) == told)),
                Some(Private::Endpoint(told)) => prop_assert!(false, "there is no endpoint, but {told:?}"),
                Some(Private::Missing) | None => {}
            }
        }
    }
}
