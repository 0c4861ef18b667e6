//! What a job's or model's containers and transfers may reach (style rule 2), and the addresses they get.

use crate::ec2::id::{GroupId, InterfaceId, SubnetId, VpcId};
use crate::record::Facets;
use crate::{AccountId, Key, Record, Region, Scope, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::failure::FirstBlocked;

/// The network of user code and of the step that moves its data; settled where the request enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNetwork {
    /// The container.
    pub container: Reach,
    /// Downloads and uploads by the platform.
    pub transfer: Reach,
}

/// What one actor may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// `EnableNetworkIsolation`: loopback alone (NI-6, NI-11).
    Nothing,
    /// The platform's own network (NI-1).
    ServiceNetwork,
    /// What the caller's VPC allows (NI-5).
    Vpc(VpcAttachment),
}

/// A `VpcConfig` whose parts were found when it was given (NET-60..63).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcAttachment {
    /// The VPC of all subnets and groups.
    pub vpc: VpcId,
    /// 1 to 16, in the request's order.
    pub subnets: Vec<SubnetId>,
    /// 1 to 5, in the request's order.
    pub groups: Vec<GroupId>,
}

impl JobNetwork {
    /// From `EnableNetworkIsolation`, absent means false (NI-4), and `VpcConfig`. Transfers stay outside the isolation
    /// (NI-12), but leave from the caller's subnets where there are any (NI-17, NI-18).
    pub fn new(isolated: Option<bool>, vpc: Option<VpcAttachment>) -> Self {
        let transfer = vpc.map_or(Reach::ServiceNetwork, Reach::Vpc);
        let container = if isolated.unwrap_or(false) {
            Reach::Nothing
        } else {
            transfer.clone()
        };
        Self { container, transfer }
    }

    /// What `EnableNetworkIsolation` reads in Describe: always a boolean (SM-18).
    pub fn isolated(&self) -> bool {
        matches!(self.container, Reach::Nothing)
    }

    /// What `VpcConfig` reads in Describe.
    pub fn vpc(&self) -> Option<&VpcAttachment> {
        match &self.transfer {
            Reach::Vpc(attachment) => Some(attachment),
            Reach::Nothing | Reach::ServiceNetwork => None,
        }
    }
}

/// One container's identity and network, kept from before its launch until after its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub workload: WorkloadId,
    pub attachment: Attachment,
}

/// How one container is attached. Only a container with a way out has an address and a path to credentials (CC-84).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "attachment", rename_all = "snake_case")]
pub enum Attachment {
    /// Loopback alone.
    Isolated,
    /// One interface in the platform network.
    ServiceNetwork {
        /// Held by an [`AddressLease`] of the same workload.
        address: Ipv4Addr,
        /// The unguessable part of the credentials path below 169.254.170.2 (CC-80, CC-82): 32 hexadecimal digits.
        credentials_token: String,
    },
    /// To be attached to a VPC: its interfaces are made when it starts (NET-66).
    Unattached {
        /// Nothing beyond its job, whatever the VPC (D-24).
        isolated: bool,
        /// The job's own network, where the container is to be isolated among others of its job (NI-9).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peers: Option<VpcId>,
    },
    /// Isolated among the other containers of its job: one interface in a network that holds these alone (NI-9).
    Peers {
        /// The job's network. Its router is one like a VPC's; no record has this id.
        network: VpcId,
        interface: InterfaceId,
        /// The same in every job.
        address: Ipv4Addr,
    },
    /// Two interfaces in one subnet (NET-66, VPC-10).
    Vpc(VpcPlace),
}

/// The place of one instance in a VPC: two addresses of one subnet (D-16), each an interface record of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcPlace {
    pub vpc: VpcId,
    pub subnet: SubnetId,
    /// The container's interface. Where `credentials_token` is `None` the container is isolated: the address is reserved
    /// and configured nowhere (NET-69).
    pub container: InterfaceId,
    /// The primary private address of [`Self::container`].
    pub address: Ipv4Addr,
    /// The interface of the platform's downloads and uploads.
    pub transfer: InterfaceId,
    /// The primary private address of [`Self::transfer`].
    pub transfer_address: Ipv4Addr,
    /// As in [`Attachment::ServiceNetwork`]; none when the container is isolated (CC-84).
    pub credentials_token: Option<String>,
    /// The network of an isolated job with several instances, in which the container has [`Self::address`] after all, and
    /// in which the security groups count (D-24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<VpcId>,
}

/// The addresses of a job's own network, the same for every job: nothing leads from one to another (NI-9).
pub const PEER_BLOCK: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24);

/// The UDP port of encrypted traffic between instances. Rules that were made for AWS's own encryption allow it.
pub const ENCRYPTED_PORT: u16 = 500;

/// Most containers of a job's own network.
pub const MAX_PEERS: usize = 250;

impl Attachment {
    /// The place of an instance, counted from 0, in its job's own network. `None` beyond [`MAX_PEERS`].
    pub fn peer(network: VpcId, workload: &WorkloadId, instance: usize) -> Option<Self> {
        let offset = u32::try_from(instance).ok().filter(|_| instance < MAX_PEERS)?;
        // The first four addresses of a block are reserved, as in a subnet.
        let address = u32::from(PEER_BLOCK.network()).checked_add(4)?.checked_add(offset)?;
        Some(Self::Peers {
            network,
            interface: InterfaceId::of(workload.number()),
            address: Ipv4Addr::from(address),
        })
    }
}

impl VpcPlace {
    /// Both interfaces.
    pub fn interfaces(&self) -> BTreeSet<InterfaceId> {
        BTreeSet::from([self.container, self.transfer])
    }
}

impl Placement {
    /// The address in the platform network, where the container is in it.
    pub fn platform_address(&self) -> Option<Ipv4Addr> {
        match &self.attachment {
            Attachment::ServiceNetwork { address, .. } => Some(*address),
            Attachment::Isolated | Attachment::Unattached { .. } | Attachment::Vpc(_) | Attachment::Peers { .. } => {
                None
            }
        }
    }

    /// The address that the container has inside, whomever it may reach.
    pub fn inner_address(&self) -> Option<Ipv4Addr> {
        match &self.attachment {
            Attachment::Peers { address, .. } => Some(*address),
            Attachment::Vpc(place) if place.peers.is_some() => Some(place.address),
            _ => self.address(),
        }
    }

    /// The network that holds the containers of this one's job alone, where there is one (NI-9, D-24).
    pub fn peer_network(&self) -> Option<VpcId> {
        match &self.attachment {
            Attachment::Peers { network, .. } => Some(*network),
            Attachment::Vpc(place) => place.peers,
            Attachment::Unattached { peers, .. } => *peers,
            Attachment::Isolated | Attachment::ServiceNetwork { .. } => None,
        }
    }

    /// The container's own address, where it has a way out.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match &self.attachment {
            Attachment::ServiceNetwork { address, .. } => Some(*address),
            Attachment::Vpc(place) if place.credentials_token.is_some() => Some(place.address),
            Attachment::Isolated | Attachment::Unattached { .. } | Attachment::Vpc(_) | Attachment::Peers { .. } => {
                None
            }
        }
    }

    /// The place in a VPC, once there is one.
    pub fn vpc(&self) -> Option<&VpcPlace> {
        match &self.attachment {
            Attachment::Vpc(place) => Some(place),
            Attachment::Isolated
            | Attachment::ServiceNetwork { .. }
            | Attachment::Unattached { .. }
            | Attachment::Peers { .. } => None,
        }
    }

    /// Whether the container reaches nothing beyond the containers of its job.
    pub fn isolated(&self) -> bool {
        match &self.attachment {
            Attachment::Isolated | Attachment::Peers { .. } => true,
            Attachment::ServiceNetwork { .. } => false,
            Attachment::Unattached { isolated, .. } => *isolated,
            Attachment::Vpc(place) => place.credentials_token.is_none(),
        }
    }

    /// The value of `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`; none when isolated (CC-80, CC-83, CC-84).
    pub fn credentials_path(&self) -> Option<String> {
        let token = match &self.attachment {
            Attachment::ServiceNetwork { credentials_token, .. } => Some(credentials_token),
            Attachment::Vpc(place) => place.credentials_token.as_ref(),
            Attachment::Isolated | Attachment::Unattached { .. } | Attachment::Peers { .. } => None,
        };
        token.map(|token| format!("/v2/credentials/{token}"))
    }
}

/// One address of the platform network, held by one workload. The store's "absent" check on its key makes two holders
/// impossible, whichever process allocates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressLease {
    pub workload: WorkloadId,
    /// ARN of the job or endpoint.
    pub owner_arn: String,
    /// Where the owner's record lies.
    pub owner: Key,
    pub leased: Timestamp,
}

impl Record for AddressLease {
    const KIND: &'static str = "platform.address";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.workload.to_string(), self.leased)
    }
}

/// The scope of records that belong to the host rather than to an account.
///
/// # Errors
/// Never in practice: the two texts are constants that parse.
pub fn platform_scope() -> Result<Scope, crate::account::BadScope> {
    Ok(Scope {
        account: "000000000000".parse::<AccountId>()?,
        region: "platform".parse::<Region>()?,
    })
}

impl AddressLease {
    /// The record's key: one per address, in the platform's scope.
    ///
    /// # Errors
    /// Never in practice, see [`platform_scope`].
    pub fn key(address: Ipv4Addr) -> Result<Key, crate::account::BadScope> {
        Ok(Key::exact(&platform_scope()?, &address.to_string()))
    }

    /// Addresses at the beginning of the platform network that stay with the platform: its own, the router's, the
    /// resolver's and one in reserve.
    pub const RESERVED: u32 = 4;

    /// Whether a workload may hold `address`: inside `network`, behind its first [`Self::RESERVED`] addresses and
    /// before its broadcast address. Whoever picks an address and whoever plans its network ask here.
    pub fn may_hold(network: ipnet::Ipv4Net, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).checked_sub(u32::from(network.network()));
        offset.is_some_and(|offset| offset >= Self::RESERVED) && address < network.broadcast()
    }

    /// The address that `chance` picks from those of `network` that workloads may hold. `None` when it has none.
    pub fn candidate(network: ipnet::Ipv4Net, chance: u64) -> Option<Ipv4Addr> {
        let first = u32::from(network.network()).checked_add(Self::RESERVED)?;
        let usable = u32::from(network.broadcast()).checked_sub(first).filter(|n| *n > 0)?;
        let offset = u32::try_from(chance % u64::from(usable)).ok()?;
        first.checked_add(offset).map(Ipv4Addr::from)
    }
}

/// One kind of attempt to leave that isolation stopped, as kept after its workload is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedDestination {
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
    /// Process id inside the container.
    pub pid: u32,
    pub process: String,
    pub protocol: String,
    pub address: IpAddr,
    pub port: u16,
    pub name: Option<String>,
}

impl BlockedDestination {
    /// The note that a FailureReason carries.
    pub fn note(&self) -> FirstBlocked {
        FirstBlocked {
            protocol: self.protocol.clone(),
            address: self.address,
            port: self.port,
            name: self.name.clone(),
        }
    }
}

/// The isolation report of one workload that has ended: what `isolarium report` shows once the workload is gone.
/// Its key is the workload id in the owner's scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationRecord {
    pub workload: WorkloadId,
    pub owner_arn: String,
    pub ended: Timestamp,
    /// Oldest first.
    pub attempts: Vec<BlockedDestination>,
    /// How much was seen; nothing in records of before it was kept.
    #[serde(default)]
    pub sight: Sight,
}

/// How much of a container's attempts to leave its isolation report can know: an empty report of a container that nobody
/// watched says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sight {
    /// What watched the container.
    pub source: SightSource,
    /// Whether attempts to open raw and ICMP sockets were seen too (the BPF LSM).
    pub raw_sockets: bool,
    /// Attempts of kinds beyond those that are kept of one container.
    pub left_out: u64,
}

/// What an isolation report was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SightSource {
    /// Nothing: the host could not load the programs, or the container could not be asked about.
    #[default]
    None,
    /// The container has not been started.
    NotStarted,
    /// Programs at the container's control group.
    Ebpf,
}

impl Record for IsolationRecord {
    const KIND: &'static str = "platform.isolation";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.owner_arn.clone(), self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NI-4
    #[test]
    fn missing_isolation_means_false() {
        assert!(JobNetwork::new(Some(true), None).isolated());
        assert!(!JobNetwork::new(Some(false), None).isolated());
        assert!(!JobNetwork::new(None, None).isolated());
        assert_eq!(
            JobNetwork::new(Some(true), None).transfer,
            Reach::ServiceNetwork,
            "transfers stay outside"
        );
    }

    /// Proves: NI-17
    #[test]
    fn isolation_and_a_vpc_combine_and_transfers_leave_from_the_vpc() {
        let attachment = VpcAttachment {
            vpc: VpcId::of(1),
            subnets: vec![SubnetId::of(1)],
            groups: vec![GroupId::of(1)],
        };
        let both = JobNetwork::new(Some(true), Some(attachment.clone()));
        assert_eq!(both.container, Reach::Nothing);
        assert_eq!(both.vpc(), Some(&attachment));
        let open = JobNetwork::new(None, Some(attachment.clone()));
        assert_eq!(open.container, Reach::Vpc(attachment));
        assert_eq!(JobNetwork::new(None, None).vpc(), None);
        for network in [both, open, JobNetwork::new(Some(true), None)] {
            let text = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<JobNetwork>(&text).unwrap(), network);
        }
        let before = r#"{"container":"nothing","transfer":"service_network"}"#;
        assert_eq!(
            serde_json::from_str::<JobNetwork>(before).unwrap(),
            JobNetwork::new(Some(true), None),
            "records of earlier versions"
        );
    }

    #[test]
    fn exactly_the_addresses_that_workloads_may_hold_are_picked() {
        let network: ipnet::Ipv4Net = "100.64.0.0/28".parse().unwrap();
        let picked: std::collections::BTreeSet<_> = (0..50)
            .filter_map(|chance| AddressLease::candidate(network, chance))
            .collect();
        let all = (u32::from(network.network()) - 1..=u32::from(network.broadcast()) + 1).map(Ipv4Addr::from);
        let want = all
            .filter(|address| AddressLease::may_hold(network, *address))
            .collect();
        assert_eq!(picked, want);
        assert_eq!(
            picked.first(),
            Some(&Ipv4Addr::new(100, 64, 0, 4)),
            "the first four stay with the platform"
        );
        assert_eq!(
            picked.last(),
            Some(&Ipv4Addr::new(100, 64, 0, 14)),
            "and the broadcast address"
        );
        for full in ["100.64.0.0/30", "100.64.0.0/31", "255.255.255.252/30"] {
            assert_eq!(AddressLease::candidate(full.parse().unwrap(), 7), None, "{full}");
        }
        let odd = "255.255.255.0/24".parse().unwrap();
        assert!(AddressLease::may_hold(
            odd,
            AddressLease::candidate(odd, u64::MAX).unwrap()
        ));
    }

    /// Proves: CC-84
    #[test]
    fn an_isolated_container_has_neither_address_nor_credentials_path() {
        let workload: WorkloadId = "w-0123456789abcdef0".parse().unwrap();
        let isolated = Placement {
            workload: workload.clone(),
            attachment: Attachment::Isolated,
        };
        assert_eq!((isolated.address(), isolated.credentials_path()), (None, None));
        let open = Placement {
            workload,
            attachment: Attachment::ServiceNetwork {
                address: Ipv4Addr::new(100, 64, 0, 9),
                credentials_token: "ab".repeat(16),
            },
        };
        assert!(
            open.credentials_path().unwrap().ends_with(&"ab".repeat(16)),
            "control: the open one has both"
        );
        assert!(open.address().is_some());
    }
}
