//! The own names of interface endpoints (NET-42): they lead to private addresses, whoever inside asks for them.

use isolarium_model::Region;
use isolarium_model::ec2::endpoint_service::OwnName;
use isolarium_netplan::id::{EndpointId, VpcId};
use isolarium_netplan::intent::vpc::EndpointService;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock};

/// Addresses of an endpoint by Availability Zone.
pub type Addresses = BTreeMap<String, Vec<Ipv4Addr>>;

/// What names of an endpoint lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What it serves.
    pub service: EndpointService,
    /// Its region.
    pub region: Region,
    /// The eight characters in its names.
    pub suffix: String,
    /// Where it serves.
    pub addresses: Addresses,
}

/// Every endpoint that serves.
#[derive(Debug, Default)]
pub struct EndpointNames(RwLock<HashMap<EndpointId, (VpcId, Published)>>);

impl EndpointNames {
    /// These are a VPC's endpoints now, and no others.
    pub fn replace(&self, vpc: VpcId, all: Vec<(EndpointId, Published)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (of, _)| *of != vpc);
        known.extend(all.into_iter().map(|(id, one)| (id, (vpc, one))));
    }

    /// The addresses of a name in lower case and without a final dot, those of zone `at` first. `None`: it is no name of
    /// this kind. Empty: no endpoint has it.
    pub fn lookup(&self, name: &str, at: Option<&str>) -> Option<Vec<Ipv4Addr>> {
        if !name.ends_with(".vpce.amazonaws.com") {
            return None;
        }
        let found = OwnName::read(name).and_then(|asked| {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let (_, one) = known.get(&asked.endpoint)?;
            one.has(&asked).then(|| match &asked.zone {
                Some(zone) => one.addresses.get(zone).cloned().unwrap_or_default(),
                None => nearest(&one.addresses, at),
            })
        });
        Some(found.unwrap_or_default())
    }
}

impl Published {
    /// Whether a name of the right endpoint is one of its names (D-3: also without the eight characters).
    pub fn has(&self, name: &OwnName) -> bool {
        let zone = |zone: &String| self.addresses.contains_key(zone);
        name.service == self.service
            && name.region == self.region
            && name.suffix.as_ref().is_none_or(|suffix| *suffix == self.suffix)
            && name.zone.as_ref().is_none_or(zone)
    }
}

/// All addresses, those of zone `at` first (D-10).
pub fn nearest(addresses: &Addresses, at: Option<&str>) -> Vec<Ipv4Addr> {
    let near = at.and_then(|at| addresses.get(at)).into_iter().flatten();
    let far = addresses.iter().filter(|(zone, _)| Some(zone.as_str()) != at);
    near.chain(far.flat_map(|(_, all)| all)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, n, 5)
    }

    /// Proves: NET-42, D-3, D-10
    #[test]
    fn names_of_an_endpoint_lead_to_it_and_names_of_nobody_to_nothing() {
        let names = EndpointNames::default();
        let endpoint = EndpointId::of(7);
        let one = Published {
            service: EndpointService::SagemakerApi,
            region: "us-east-1".parse().unwrap(),
            suffix: "0123abcd".into(),
            addresses: [("us-east-1a", 1), ("us-east-1b", 2)]
                .map(|(zone, n)| (zone.to_owned(), vec![address(n)]))
                .into(),
        };
        names.replace(VpcId::of(1), vec![(endpoint, one)]);
        let of = |label: &str, base: &str, at: Option<&str>| {
            names.lookup(&format!("{endpoint}{label}.{base}.us-east-1.vpce.amazonaws.com"), at)
        };
        let all = |order: [u8; 2]| Some(order.map(address).to_vec());
        assert_eq!(of("-0123abcd", "api.sagemaker", None), all([1, 2]));
        assert_eq!(
            of("-0123abcd", "api.sagemaker", Some("us-east-1b")),
            all([2, 1]),
            "the same zone first"
        );
        assert_eq!(of("", "api.sagemaker", None), all([1, 2]), "the guide's bare label");
        assert_eq!(
            of("-0123abcd-us-east-1b", "api.sagemaker", None),
            Some(vec![address(2)])
        );
        for (label, base) in [
            ("-0123abce", "api.sagemaker"),
            ("-0123abcd-us-east-1c", "api.sagemaker"),
            ("-0123abcd", "runtime.sagemaker"),
            ("x", "api.sagemaker"),
        ] {
            assert_eq!(of(label, base, None), Some(Vec::new()), "{label} {base}");
        }
        assert_eq!(names.lookup("api.sagemaker.us-east-1.amazonaws.com", None), None);
        names.replace(VpcId::of(2), Vec::new());
        assert_eq!(
            of("-0123abcd", "api.sagemaker", None),
            all([1, 2]),
            "another VPC's change is no change"
        );
        names.replace(VpcId::of(1), Vec::new());
        assert_eq!(of("-0123abcd", "api.sagemaker", None), Some(Vec::new()));
    }
}
