//! The place of one instance in a VPC: a subnet, two addresses, two interfaces with their permissions, made step by step
//! with the execution role's rights and committed at once (NET-66, VPC-4, VPC-10).

use super::key;
use crate::deps::{Deps, StepError};
use crate::transfer::{Actor, TransferError};
use isolarium_model::ec2::id::{AttachmentId, InterfaceId, InterfacePermissionId, SubnetId};
use isolarium_model::ec2::interface::{Grantee, Permission, Requester};
use isolarium_model::ec2::{self, ElasticIp, Holder, InterfacePermission, NetworkInterface, Subnet, Vpc};
use isolarium_model::sagemaker::{VpcAttachment, VpcPlace};
use isolarium_model::time::IdSource;
use isolarium_model::{Arn, Key, Scope, Timestamp, WorkloadId};
use isolarium_store::{Batch, Expect, StateStore, StoreError, Stored};
use std::collections::BTreeSet;

/// `RequesterId` of the interfaces of jobs and endpoints (NET-11).
pub(crate) const REQUESTER: &str = "amazon-sagemaker";
/// To whom the permission on an interface is given.
const SERVICE: &str = "sagemaker.amazonaws.com";
/// Addresses of one instance.
const ADDRESSES: u32 = 2;

/// Why an instance has no place in its VPC.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// For the owner of the job to mend: too few addresses, a right that the role lacks, a part that is gone.
    #[error("{0}")]
    Refused(String),
    /// Another writer was faster, or the host's trouble.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl From<StoreError> for PlaceError {
    fn from(error: StoreError) -> Self {
        Self::Step(error.into())
    }
}

impl From<TransferError> for PlaceError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Engine(cause) => Self::Step(StepError::Rights(cause)),
            readable => Self::Refused(readable.to_string()),
        }
    }
}

/// Who is to be placed.
pub(crate) struct Wanted<'a> {
    pub attachment: &'a VpcAttachment,
    pub isolated: bool,
    /// The job's own network, for an isolated container among several.
    pub peers: Option<isolarium_model::ec2::id::VpcId>,
    pub workload: &'a WorkloadId,
    /// The record of the job or endpoint.
    pub owner: &'a Key,
    pub owner_arn: &'a Arn,
    /// What the descriptions call the instance, such as `algo-1`.
    pub instance: &'a str,
}

/// The subnet with the most free addresses (D-16), the first one of those that tie. `None`: none has two.
pub(crate) fn roomiest<'a>(subnets: impl IntoIterator<Item = &'a Subnet>) -> Option<&'a Subnet> {
    let mut best: Option<&Subnet> = None;
    for subnet in subnets {
        if best.is_none_or(|best| subnet.available() > best.available()) {
            best = Some(subnet);
        }
    }
    best.filter(|best| best.available() >= ADDRESSES)
}

/// Plans the place: asks for every right, picks the subnet and adds the records to a batch, which the caller commits with
/// the record of the job or endpoint. A conflict of that commit means that somebody else took an address: call again.
pub(crate) fn plan(
    deps: &Deps,
    actor: &Actor,
    wanted: &Wanted<'_>,
    batch: Batch,
) -> Result<(VpcPlace, Batch), PlaceError> {
    let scope = &actor.scope;
    let arn = |kind: &str, id: &dyn std::fmt::Display| ec2::arn(scope, kind, &id.to_string());
    let everything = Vec::new;
    for action in [
        "DescribeSubnets",
        "DescribeSecurityGroups",
        "DescribeVpcs",
        "DescribeDhcpOptions",
    ] {
        deps.transfer.may_at_ec2(actor, action, &everything())?;
    }
    let subnets = subnets(deps, scope, wanted.attachment)?;
    let Some(subnet) = roomiest(subnets.iter().map(|stored| &stored.record)) else {
        return Err(shortage(&subnets));
    };
    let mut subnet = subnets
        .iter()
        .find(|stored| stored.record.id == subnet.id)
        .cloned()
        .ok_or_else(|| shortage(&subnets))?;
    let groups: BTreeSet<_> = wanted.attachment.groups.iter().copied().collect();
    let vpc_key = key(scope, wanted.attachment.vpc);
    let vpc = deps.store.get::<Vpc>(&vpc_key)?;
    let mut vpc = vpc.ok_or_else(|| gone("vpc", &wanted.attachment.vpc))?;
    for group in &groups {
        let there = deps.store.get::<ec2::SecurityGroup>(&key(scope, group))?;
        there.ok_or_else(|| gone("security group", group))?;
    }
    let now = deps.now();
    let (mut batch, mut made) = (batch, Vec::new());
    for what in [Use::Container, Use::Transfer] {
        let interface = InterfaceId::of(number(deps)?);
        let mut about = vec![arn("subnet", &subnet.record.id), arn("network-interface", &"*")];
        about.extend(groups.iter().map(|group| arn("security-group", group)));
        deps.transfer.may_at_ec2(actor, "CreateNetworkInterface", &about)?;
        let chance = u64::try_from(number(deps)? & u128::from(u64::MAX)).unwrap_or(0);
        let taken = subnet.record.take(interface, None, chance);
        let address = taken.map_err(|_| shortage(&subnets))?;
        let record = NetworkInterface {
            id: interface,
            vpc: wanted.attachment.vpc,
            subnet: subnet.record.id,
            zone: subnet.record.zone.clone(),
            primary: address,
            secondary: BTreeSet::new(),
            groups: groups.clone(),
            description: describe(wanted, what),
            source_dest_check: true,
            requester: Some(Requester {
                id: REQUESTER.into(),
                owner: Some(wanted.owner.clone()),
                owner_arn: Some(wanted.owner_arn.to_string()),
            }),
            holder: match what {
                Use::Container if wanted.isolated => Holder::Isolated(wanted.workload.clone()),
                Use::Container => Holder::Container(wanted.workload.clone()),
                Use::Transfer => Holder::Transfer(wanted.workload.clone()),
            },
            attachment: None,
            created: now,
            tags: ec2::Tags::new(),
        };
        batch = batch.put(&key(scope, interface), Expect::Absent, &record)?;
        let about = [arn("network-interface", &interface)];
        deps.transfer
            .may_at_ec2(actor, "CreateNetworkInterfacePermission", &about)?;
        let permission = InterfacePermission {
            id: InterfacePermissionId::of(number(deps)?),
            interface,
            vpc: wanted.attachment.vpc,
            grantee: Grantee::Service(SERVICE.into()),
            permission: Permission::InstanceAttach,
            created: now,
            tags: ec2::Tags::new(),
        };
        batch = batch.put(&key(scope, permission.id), Expect::Absent, &permission)?;
        made.push((interface, address));
    }
    deps.transfer
        .may_at_ec2(actor, "DescribeNetworkInterfaces", &everything())?;
    vpc.record.generation = vpc.record.generation.saturating_add(1);
    batch = batch.put(&vpc_key, Expect::At(vpc.revision), &vpc.record)?;
    batch = batch.put(&subnet.key, Expect::At(subnet.revision), &subnet.record)?;
    let [(container, address), (transfer, transfer_address)] = made.as_slice() else {
        return Err(StepError::Identifier.into());
    };
    let place = VpcPlace {
        vpc: wanted.attachment.vpc,
        subnet: subnet.record.id,
        container: *container,
        address: *address,
        transfer: *transfer,
        transfer_address: *transfer_address,
        credentials_token: (!wanted.isolated).then(|| deps.ids.hex(32)),
        peers: wanted.peers,
    };
    Ok((place, batch))
}

/// What one of an instance's interfaces is for.
#[derive(Clone, Copy)]
enum Use {
    Container,
    Transfer,
}

/// NET-12: our own words, with the resource's ARN, but for notebook instances, which AWS's own are known of.
fn describe(wanted: &Wanted<'_>, what: Use) -> String {
    if wanted.owner_arn.resource().starts_with("notebook-instance/") && matches!(what, Use::Container) {
        return format!(
            "[Do not delete] Network Interface created to access resources in your VPC for SageMaker Notebook Instance {}",
            wanted.instance
        );
    }
    let what = match what {
        Use::Container => "Container",
        Use::Transfer => "Data transfer",
    };
    format!(
        "[Do not delete] {what} interface of {} of {}",
        wanted.instance, wanted.owner_arn
    )
}

fn subnets(deps: &Deps, scope: &Scope, attachment: &VpcAttachment) -> Result<Vec<Stored<Subnet>>, PlaceError> {
    let read = attachment.subnets.iter().map(|id| {
        let found = deps.store.get::<Subnet>(&key(scope, id))?;
        found.ok_or_else(|| gone("subnet", id))
    });
    read.collect()
}

/// A part that was there when the job was created.
fn gone(what: &str, id: &dyn std::fmt::Display) -> PlaceError {
    PlaceError::Refused(match what {
        "security group" => format!("The security group '{id}' does not exist"),
        _ => format!("The {what} ID '{id}' does not exist"),
    })
}

/// D-17.
fn shortage(subnets: &[Stored<Subnet>]) -> PlaceError {
    let free: Vec<String> = subnets
        .iter()
        .map(|stored| format!("{} has {}", stored.record.id, stored.record.available()))
        .collect();
    PlaceError::Refused(format!(
        "The specified subnets do not have enough free addresses to satisfy the request: every instance needs \
         {ADDRESSES} in one subnet, but {}.",
        free.join(", ")
    ))
}

fn number(deps: &Deps) -> Result<u128, StepError> {
    number_of(&*deps.ids).ok_or(StepError::Identifier)
}

/// The number of a new id. `None`: the source gives none.
pub(super) fn number_of(ids: &dyn IdSource) -> Option<u128> {
    u128::from_str_radix(&ids.hex(17), 16).ok()
}

/// Shows the interfaces of a place as attached: they are, now.
pub(crate) fn attached(deps: &Deps, scope: &Scope, place: &VpcPlace) -> Result<(), StepError> {
    for interface in place.interfaces() {
        let now = deps.now();
        let id = AttachmentId::of(number(deps)?);
        deps.update::<NetworkInterface>(&key(scope, interface), |record, batch| {
            if record.attachment.is_some() {
                return Ok(None);
            }
            record.attachment = Some(attachment(id, now));
            Ok(Some(batch))
        })?;
    }
    Ok(())
}

pub(super) fn attachment(id: AttachmentId, attached: Timestamp) -> ec2::interface::Attachment {
    ec2::interface::Attachment {
        id,
        attached,
        device: 1,
    }
}

/// A workload that had this place is gone from the host: its interfaces go with it, in every end state (VPC-32). The role is
/// asked, so that the trail tells in whose name they went; what it may no longer do keeps nothing of the platform's in the
/// subnet.
pub(crate) fn removed(deps: &Deps, actor: &Actor, place: &VpcPlace) -> Result<(), StepError> {
    let interfaces = place.interfaces();
    for interface in &interfaces {
        if deps
            .store
            .get::<NetworkInterface>(&key(&actor.scope, interface))?
            .is_none()
        {
            continue;
        }
        let about = [ec2::arn(&actor.scope, "network-interface", &interface.to_string())];
        for action in ["DeleteNetworkInterfacePermission", "DeleteNetworkInterface"] {
            if let Err(error) = deps.transfer.may_at_ec2(actor, action, &about) {
                tracing::warn!(%interface, %error, "an interface is removed although the role may not");
            }
        }
    }
    release(&*deps.store, &actor.scope, &interfaces)?;
    Ok(())
}

/// Deletes interface records with their permissions and gives their addresses back, in one commit. Those that are gone
/// already are no error.
pub(crate) fn release(
    store: &dyn StateStore,
    scope: &Scope,
    interfaces: &BTreeSet<InterfaceId>,
) -> Result<(), StoreError> {
    loop {
        let mut batch = Batch::default();
        let (mut subnets, mut vpcs) = (BTreeSet::new(), BTreeSet::new());
        for interface in interfaces {
            let at = key(scope, interface);
            if let Some(stored) = store.get::<NetworkInterface>(&at)? {
                batch = batch.delete::<NetworkInterface>(&at, Expect::At(stored.revision));
                subnets.insert(stored.record.subnet);
                vpcs.insert(stored.record.vpc);
            }
        }
        if batch.changes.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
        for permission in store.parts::<InterfacePermission>(scope, &ids)? {
            batch = batch.delete::<InterfacePermission>(&permission.key, Expect::At(permission.revision));
        }
        // The account's own may have public addresses, which it keeps.
        for mut ip in store.parts::<ElasticIp>(scope, &ids)? {
            ip.record.association = None;
            batch = batch.put(&ip.key, Expect::At(ip.revision), &ip.record)?;
        }
        batch = give_back(store, scope, &subnets, interfaces, batch)?;
        for vpc in vpcs {
            batch = touch(store, scope, vpc, batch)?;
        }
        match store.commit(batch) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes the addresses of interfaces out of their subnets.
pub(super) fn give_back(
    store: &dyn StateStore,
    scope: &Scope,
    subnets: &BTreeSet<SubnetId>,
    interfaces: &BTreeSet<InterfaceId>,
    batch: Batch,
) -> Result<Batch, StoreError> {
    let mut batch = batch;
    for subnet in subnets {
        let at = key(scope, subnet);
        if let Some(mut stored) = store.get::<Subnet>(&at)? {
            for interface in interfaces {
                stored.record.release(*interface);
            }
            batch = batch.put(&at, Expect::At(stored.revision), &stored.record)?;
        }
    }
    Ok(batch)
}

/// INVARIANT (vpc-generation).
pub(super) fn touch(
    store: &dyn StateStore,
    scope: &Scope,
    vpc: isolarium_model::ec2::id::VpcId,
    batch: Batch,
) -> Result<Batch, StoreError> {
    let at = key(scope, vpc);
    match store.get::<Vpc>(&at)? {
        None => Ok(batch),
        Some(mut stored) => {
            stored.record.generation = stored.record.generation.saturating_add(1);
            batch.put(&at, Expect::At(stored.revision), &stored.record)
        }
    }
}
