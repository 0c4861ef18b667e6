//! Records of EC2's network: one type per noun of the Query API (NET-83).
//!
//! A record's key is its id in the scope of its account and region ([`key`]). References between records are ids.
//! Three rules keep several writers (the API and the reconciler) from contradicting each other, all of them by the
//! store's check of revisions:
//!
//! - INVARIANT (vpc-generation): whoever creates or deletes a part of a VPC, or changes which part refers to which, writes
//!   the [`Vpc`] record in the same batch, at the revision read, with its `generation` one higher.
//! - INVARIANT (subnet-addresses): a private address is taken in the [`Subnet`] record that it lies in, in the same batch
//!   as the record of the interface that holds it. So it has one holder, and a subnet with holders is not deleted.
//! - INVARIANT (public-address): a public address is taken by a [`PublicAddress`] record that must be absent before.

pub mod account;
pub mod address;
pub mod dhcp;
pub mod elastic_ip;
pub mod endpoint;
pub mod endpoint_service;
pub mod flow_format;
pub mod flow_log;
pub mod gateway;
pub mod group;
pub mod id;
pub mod interface;
pub mod nacl;
pub mod parts;
pub mod prefix_list;
pub mod route_table;
pub mod subnet;
pub mod token;
pub mod traffic;
pub mod vpc;
pub mod zone;

pub use account::AccountAttributes;
pub use dhcp::DhcpOptions;
pub use elastic_ip::{ElasticIp, PublicAddress};
pub use endpoint::{EndpointKind, EndpointState, VpcEndpoint};
pub use endpoint_service::EndpointService;
pub use flow_log::FlowLog;
pub use gateway::{InternetGateway, NatEvent, NatGateway, NatState};
pub use group::SecurityGroup;
pub use interface::{Holder, InterfacePermission, NetworkInterface, Requester};
pub use nacl::NetworkAcl;
pub use parts::Parts;
pub use route_table::{RouteState, RouteTable, RouteTarget};
pub use subnet::{AddressFault, Subnet};
pub use token::ClientToken;
pub use vpc::Vpc;

use crate::{Arn, Key, Record, Scope};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Tags of a resource, by key. At most 50.
pub type Tags = BTreeMap<String, String>;

/// Most tags one resource may carry.
pub const MAX_TAGS: usize = 50;

/// The key of a resource: its id in its account and region.
pub fn key(scope: &Scope, id: impl Display) -> Key {
    Key::exact(scope, &id.to_string())
}

/// What every noun of EC2 has: an id, a type name, tags and mostly a VPC.
pub trait Resource: Record {
    /// The name in `ResourceType` of tags and in ARNs, such as `security-group`.
    const TYPE: &'static str;

    /// The id as text.
    fn id_text(&self) -> String;

    /// Its tags (NET-82).
    fn tags(&self) -> &Tags;

    /// Its tags, to change them.
    fn tags_mut(&mut self) -> &mut Tags;

    /// The VPC it belongs to, where it belongs to one.
    fn vpc_id(&self) -> Option<id::VpcId>;

    /// The ARN that IAM is asked about.
    fn arn(&self, scope: &Scope) -> Arn {
        arn(scope, Self::TYPE, &self.id_text())
    }
}

/// The ARN of an EC2 resource of a type such as `vpc`.
pub fn arn(scope: &Scope, resource_type: &str, id: &str) -> Arn {
    Arn::regional("ec2", scope, &format!("{resource_type}/{id}"))
}

/// Implements [`Record`] and [`Resource`] for a noun with the fields `id`, `created` and `tags`. It is a part of its VPC,
/// unless `part of` says of what.
macro_rules! resource {
    ($noun:ident, $kind:literal, $type:literal, |$this:pat_param| $vpc:expr, status |$with:pat_param| $status:expr) => {
        crate::ec2::resource!(
            $noun, $kind, $type, |$this| $vpc, status |$with| $status,
            part of |one| crate::ec2::Resource::vpc_id(one)
        );
    };
    ($noun:ident, $kind:literal, $type:literal, |$this:pat_param| $vpc:expr, status |$with:pat_param| $status:expr,
     part of |$part:pat_param| $whole:expr) => {
        impl crate::Record for $noun {
            const KIND: &'static str = $kind;

            fn facets(&self) -> crate::record::Facets {
                let $with = self;
                crate::record::Facets {
                    status: ($status).to_string(),
                    ..crate::record::Facets::unchanging(self.id.to_string(), self.created)
                }
            }

            fn part_of(&self) -> Option<String> {
                let $part = self;
                ($whole).map(|whole| whole.to_string())
            }
        }

        impl crate::ec2::Resource for $noun {
            const TYPE: &'static str = $type;

            fn id_text(&self) -> String {
                self.id.to_string()
            }

            fn tags(&self) -> &crate::ec2::Tags {
                &self.tags
            }

            fn tags_mut(&mut self) -> &mut crate::ec2::Tags {
                &mut self.tags
            }

            fn vpc_id(&self) -> Option<crate::ec2::id::VpcId> {
                let $this = self;
                $vpc
            }
        }
    };
}
pub(crate) use resource;
