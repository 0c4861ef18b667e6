//! Identifiers of EC2's resources.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

/// What an id names.
pub trait Kind {
    /// What stands before the digits, the dash included.
    const PREFIX: &'static str;
}

/// A prefix and 17 lower-case hexadecimal digits (NET-80). Ids of different kinds are different types.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "K: Kind")]
pub struct Id<K>(u128, PhantomData<fn() -> K>);

/// The text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id here is {0} and 17 lower-case hexadecimal digits")]
pub struct BadId(pub &'static str);

impl<K: Kind> FromStr for Id<K> {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let digits = text.strip_prefix(K::PREFIX).ok_or(BadId(K::PREFIX))?;
        let good = digits.len() == 17 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| good);
        number.map(|number| Self(number, PhantomData)).ok_or(BadId(K::PREFIX))
    }
}

impl<K: Kind> TryFrom<String> for Id<K> {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl<K: Kind> From<Id<K>> for String {
    fn from(id: Id<K>) -> Self {
        id.to_string()
    }
}

impl<K> Id<K> {
    /// The id of a number: its lower 68 bits.
    pub fn of(number: u128) -> Self {
        Self(number & ((1 << 68) - 1), PhantomData)
    }

    /// The 17 digits alone.
    pub fn digits(&self) -> String {
        format!("{:017x}", self.0)
    }

    /// The digits as a number of 68 bits.
    pub fn number(self) -> u128 {
        self.0
    }
}

// Written out, because derived ones would ask the same of `K`, of which there is no value.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Id<K> {}

impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Id<K> {}

impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:017x}", K::PREFIX, self.0)
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! kinds {
    ($($kind:ident $id:ident $prefix:literal $what:literal;)+) => {$(
        #[doc = concat!("Kind of ids of ", $what, ".")]
        pub enum $kind {}
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
        }
        #[doc = concat!("Id of ", $what, ".")]
        pub type $id = Id<$kind>;
    )+};
}

kinds! {
    VpcKind VpcId "vpc-" "a VPC";
    SubnetKind SubnetId "subnet-" "a subnet";
    AclKind AclId "acl-" "a network ACL";
    GroupKind GroupId "sg-" "a security group";
    PrefixListKind PrefixListId "pl-" "a prefix list";
    RouteTableKind RouteTableId "rtb-" "a route table";
    InternetGatewayKind InternetGatewayId "igw-" "an internet gateway";
    NatGatewayKind NatGatewayId "nat-" "a NAT gateway";
    InterfaceKind InterfaceId "eni-" "a network interface";
    EndpointKind EndpointId "vpce-" "a VPC endpoint";
    DhcpOptionsKind DhcpOptionsId "dopt-" "a set of DHCP options";
    FlowLogKind FlowLogId "fl-" "a flow log";
    AllocationKind AllocationId "eipalloc-" "an Elastic IP";
    GroupRuleKind GroupRuleId "sgr-" "a rule of a security group";
    CidrAssociationKind CidrAssociationId "vpc-cidr-assoc-" "a VPC's block";
    RouteTableAssociationKind RouteTableAssociationId "rtbassoc-" "a route table's association";
    AclAssociationKind AclAssociationId "aclassoc-" "a network ACL's association";
    EipAssociationKind EipAssociationId "eipassoc-" "an Elastic IP's association";
    AttachmentKind AttachmentId "eni-attach-" "a network interface's attachment";
    InterfacePermissionKind InterfacePermissionId "eni-perm-" "a permission on a network interface";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_its_own_kind_parses_and_prints_as_it_was() {
        for good in ["vpc-0123456789abcdef0", "vpc-fffffffffffffffff"] {
            assert_eq!(good.parse::<VpcId>().unwrap().to_string(), good);
        }
        let bad = [
            "",
            "vpc-",
            "subnet-0123456789abcdef0",
            "vpc-0123456789abcdef",
            "vpc-0123456789ABCDEF0",
            "vpc-+123456789abcdef0",
        ];
        for bad in bad {
            assert!(bad.parse::<VpcId>().is_err(), "{bad:?}");
        }
        let id = VpcId::of(7);
        assert_eq!(
            serde_json::from_str::<VpcId>(&serde_json::to_string(&id).unwrap()).unwrap(),
            id
        );
    }
}
