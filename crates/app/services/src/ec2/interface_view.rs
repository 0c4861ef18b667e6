//! Network interfaces as answers have them (NET-10..12).

use super::elastic_ip::by_interface;
use super::noun::every;
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::address::hardware;
use isolarium_model::ec2::id::{GroupId, InterfaceId, VpcId};
use isolarium_model::ec2::{ElasticIp, NetworkInterface, SecurityGroup, Vpc};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

operation!(
    "DescribeNetworkInterfaces",
    DescribeNetworkInterfacesRequest -> DescribeNetworkInterfacesResult,
    describe
);

/// What an interface's view needs beside the interface, read once for all of them.
pub(super) struct Known {
    scope: Scope,
    groups: BTreeMap<GroupId, String>,
    /// VPCs whose interfaces have names.
    named: BTreeSet<VpcId>,
    public: BTreeMap<(InterfaceId, Ipv4Addr), ElasticIp>,
}

impl Known {
    pub(super) fn read(ctx: &Ctx<'_>) -> Result<Self, ApiError> {
        let groups = every::<SecurityGroup>(ctx)?.into_iter().map(|found| found.record);
        let vpcs = every::<Vpc>(ctx)?.into_iter().map(|found| found.record);
        Ok(Self {
            scope: ctx.caller.scope.clone(),
            groups: groups.map(|group| (group.id, group.name)).collect(),
            named: vpcs.filter(|vpc| vpc.dns_support).map(|vpc| vpc.id).collect(),
            public: by_interface(ctx)?,
        })
    }

    /// `ip-10-0-0-5.ec2.internal`, `ip-10-0-0-5.eu-west-1.compute.internal` (NET-51).
    fn private_name(&self, interface: &NetworkInterface, address: Ipv4Addr) -> Option<String> {
        let [a, b, c, d] = address.octets();
        let domain = match self.scope.region.as_str() {
            "us-east-1" => "ec2.internal".to_owned(),
            region => format!("{region}.compute.internal"),
        };
        let named = self.named.contains(&interface.vpc);
        named.then(|| format!("ip-{a}-{b}-{c}-{d}.{domain}"))
    }

    fn association(
        &self,
        interface: &NetworkInterface,
        address: Ipv4Addr,
    ) -> Option<shapes::NetworkInterfaceAssociation> {
        let ip = self.public.get(&(interface.id, address))?;
        let with = ip.association?;
        Some(shapes::NetworkInterfaceAssociation {
            allocation_id: Some(ip.id.to_string()),
            association_id: Some(with.id.to_string()),
            ip_owner_id: Some(self.scope.account.to_string()),
            public_ip: Some(ip.address.to_string()),
            ..Default::default()
        })
    }

    fn group(&self, id: &GroupId) -> shapes::GroupIdentifier {
        shapes::GroupIdentifier {
            group_id: Some(id.to_string()),
            group_name: self.groups.get(id).cloned(),
        }
    }

    fn attachment(&self, interface: &NetworkInterface) -> Option<shapes::NetworkInterfaceAttachment> {
        let attachment = interface.attachment.as_ref()?;
        let service = interface.requester.is_some();
        Some(shapes::NetworkInterfaceAttachment {
            attach_time: Some(attachment.attached.0),
            attachment_id: Some(attachment.id.to_string()),
            delete_on_termination: Some(false),
            device_index: Some(attachment.device.into()),
            instance_owner_id: Some(if service {
                "amazon-aws".into()
            } else {
                self.scope.account.to_string()
            }),
            status: Some("attached".into()),
            ..Default::default()
        })
    }

    /// An interface as answers have it.
    pub(super) fn view(&self, interface: &NetworkInterface) -> shapes::NetworkInterface {
        let addresses = interface
            .addresses()
            .map(|address| shapes::NetworkInterfacePrivateIpAddress {
                association: self.association(interface, address),
                primary: Some(address == interface.primary),
                private_dns_name: self.private_name(interface, address),
                private_ip_address: Some(address.to_string()),
            });
        let tags = tags::shown(&interface.tags).unwrap_or_default();
        shapes::NetworkInterface {
            association: self.association(interface, interface.primary),
            attachment: self.attachment(interface),
            availability_zone: Some(interface.zone.name.clone()),
            availability_zone_id: Some(interface.zone.id.clone()),
            description: Some(interface.description.clone()),
            groups: Some(interface.groups.iter().map(|id| self.group(id)).collect()),
            interface_type: Some(interface.interface_type().into()),
            mac_address: Some(mac(interface.primary)),
            network_interface_id: Some(interface.id.to_string()),
            owner_id: Some(self.scope.account.to_string()),
            private_dns_name: self.private_name(interface, interface.primary),
            private_ip_address: Some(interface.primary.to_string()),
            private_ip_addresses: Some(addresses.collect()),
            requester_id: interface.requester.as_ref().map(|requester| requester.id.clone()),
            requester_managed: Some(interface.requester.is_some()),
            source_dest_check: Some(interface.source_dest_check),
            status: Some(match interface.attachment {
                Some(_) => shapes::NetworkInterfaceStatus::InUse,
                None => shapes::NetworkInterfaceStatus::Available,
            }),
            subnet_id: Some(interface.subnet.to_string()),
            tag_set: Some(tags),
            vpc_id: Some(interface.vpc.to_string()),
            ..Default::default()
        }
    }
}

fn mac(primary: Ipv4Addr) -> String {
    hardware(primary).map(|byte| format!("{byte:02x}")).join(":")
}

/// Filters of DescribeNetworkInterfaces.
const FILTERS: &[&str] = &[
    "addresses.association.owner-id",
    "addresses.association.public-ip",
    "addresses.primary",
    "addresses.private-ip-address",
    "association.allocation-id",
    "association.association-id",
    "association.ip-owner-id",
    "association.public-dns-name",
    "association.public-ip",
    "attachment.attach-time",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.status",
    "availability-zone",
    "availability-zone-id",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "ipv6-addresses.ipv6-address",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "vpc-id",
];

/// What an interface has for a filter, by its view: the answer and the filter cannot differ.
fn values(view: shapes::NetworkInterface, filter: &str) -> Vec<String> {
    let boolean = |value: Option<bool>| value.map(|value| value.to_string());
    let addresses = view.private_ip_addresses.unwrap_or_default().into_iter();
    let groups = view.groups.unwrap_or_default().into_iter();
    let association = view.association.unwrap_or_default();
    let attachment = view.attachment.unwrap_or_default();
    let one = match filter {
        "addresses.association.owner-id" => {
            return addresses.filter_map(|one| one.association?.ip_owner_id).collect();
        }
        "addresses.association.public-ip" => {
            return addresses.filter_map(|one| one.association?.public_ip).collect();
        }
        "addresses.primary" => return addresses.filter_map(|one| boolean(one.primary)).collect(),
        "addresses.private-ip-address" => return addresses.filter_map(|one| one.private_ip_address).collect(),
        "group-id" => return groups.filter_map(|group| group.group_id).collect(),
        "group-name" => return groups.filter_map(|group| group.group_name).collect(),
        "association.allocation-id" => association.allocation_id,
        "association.association-id" => association.association_id,
        "association.ip-owner-id" => association.ip_owner_id,
        "association.public-ip" => association.public_ip,
        "attachment.attachment-id" => attachment.attachment_id,
        "attachment.delete-on-termination" => boolean(attachment.delete_on_termination),
        "attachment.device-index" => attachment.device_index.map(|index| index.to_string()),
        "attachment.instance-owner-id" => attachment.instance_owner_id,
        "attachment.status" => attachment.status,
        "availability-zone" => view.availability_zone,
        "availability-zone-id" => view.availability_zone_id,
        "description" => view.description,
        "interface-type" => view.interface_type,
        "mac-address" => view.mac_address,
        "network-interface-id" => view.network_interface_id,
        "owner-id" => view.owner_id,
        "private-dns-name" => view.private_dns_name,
        "private-ip-address" => view.private_ip_address,
        "requester-id" => view.requester_id,
        "requester-managed" => boolean(view.requester_managed),
        "source-dest-check" => boolean(view.source_dest_check),
        "status" => view.status.map(|status| status.to_string()),
        "subnet-id" => view.subnet_id,
        "vpc-id" => view.vpc_id,
        _ => None,
    };
    one.into_iter().collect()
}

fn describe(
    request: shapes::DescribeNetworkInterfacesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeNetworkInterfacesResult, ApiError> {
    let asked = Asked {
        ids: request.network_interface_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let known = Known::read(ctx)?;
    let (interfaces, next_token) = records(ctx, asked, FILTERS, |interface: &NetworkInterface, filter| {
        values(known.view(interface), filter)
    })?;
    Ok(shapes::DescribeNetworkInterfacesResult {
        network_interfaces: shown(interfaces.iter().map(|interface| known.view(interface)).collect()),
        next_token,
    })
}
