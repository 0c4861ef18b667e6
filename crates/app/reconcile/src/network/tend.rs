//! One look at all VPCs: bring what changed to the host, take away what is gone, and tell the records what the host
//! really has (NET-72, NET-85).

use super::records::{self, VpcRecords};
use super::{Look, NetworkError, key, needs_host, place};
use crate::deps::{Deps, Next, StepError};
use isolarium_model::ec2::flow_log::FlowLogResource;
use isolarium_model::ec2::gateway::{NatEvent, NatFailure};
use isolarium_model::ec2::id::{EndpointId, InterfaceId, NatGatewayId, VpcId};
use isolarium_model::ec2::{
    ElasticIp, EndpointState, FlowLog, Holder, NatGateway, NatState, NetworkInterface, Vpc, VpcEndpoint,
};
use isolarium_model::{Key, Record, Scope};
use isolarium_store::{Batch, Expect, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Brings VPCs in line: those whose records changed, and from time to time all of them. Trouble with one VPC does not keep
/// the others waiting; it is tried again.
pub(crate) fn step(deps: &Deps) -> Result<Next, StepError> {
    let (networks, period) = (&deps.networks, deps.settings.gc_interval);
    let (troubled, whole) = match networks.look(deps.now(), period) {
        Look::Everything => {
            let begun = deps.now();
            (everything(deps)?, Some(begun))
        }
        Look::These(changed) => {
            let looked = these(deps, &changed);
            if looked.is_err() {
                changed.iter().for_each(|(kind, key)| networks.note(kind, key));
            }
            (looked?, None)
        }
    };
    let due = networks.looked(whole, period, troubled.host);
    let retry = deps.now().after(deps.settings.retry);
    let again = troubled.vpcs || troubled.host;
    Ok(Next::At(if again { retry } else { due }))
}

/// What the next step is to look at again.
#[derive(Default)]
struct Troubled {
    /// VPCs that are not in line; they are noted as changed.
    vpcs: bool,
    /// The host has something that nobody wants.
    host: bool,
}

impl Troubled {
    fn note(&mut self, deps: &Deps, scope: &Scope, vpc: VpcId, error: &dyn std::error::Error) {
        tracing::warn!(%vpc, cause = crate::driver::chain(error), "a VPC is not in line with its records; trying again");
        deps.networks.note(Vpc::KIND, &key(scope, vpc));
        self.vpcs = true;
    }

    fn left(&mut self, vpc: VpcId, error: &NetworkError) {
        tracing::warn!(%vpc, cause = crate::driver::chain(error), "a VPC could not be taken off the host; trying again");
        self.host = true;
    }
}

/// The VPCs of records that changed. Reads nothing of other VPCs, and does not ask the host what it has.
fn these(deps: &Deps, changed: &BTreeSet<(&'static str, Key)>) -> Result<Troubled, StepError> {
    let (networks, mut troubled) = (&deps.networks, Troubled::default());
    let mut vpcs = BTreeSet::new();
    for (kind, key) in changed {
        // Whoever takes a part away writes the VPC's record too (vpc-generation).
        if let Some(vpc) = records::home(&*deps.store, kind, key)? {
            vpcs.insert((key.scope.clone(), vpc));
        }
    }
    for (scope, vpc) in vpcs {
        let hosted = networks.known(vpc).is_some();
        match records::of_vpc(&*deps.store, &scope, vpc)? {
            Some(read) => {
                if let Err(error) = one(deps, &scope, &read, hosted) {
                    troubled.note(deps, &scope, vpc, &error);
                }
            }
            None if hosted => {
                if let Err(error) = take_off(deps, vpc) {
                    troubled.left(vpc, &error);
                }
            }
            None => {}
        }
        // The owner's groups and ACLs count in the networks of isolated jobs too (D-24).
        for network in networks.peers_of(vpc) {
            if let Err(error) = networks.ensure_peers(&network) {
                troubled.note(deps, &scope, vpc, &error);
            }
        }
    }
    Ok(troubled)
}

/// All VPCs and what the host has of them.
fn everything(deps: &Deps) -> Result<Troubled, StepError> {
    let (networks, mut troubled) = (&deps.networks, Troubled::default());
    let seen = networks.host.list_vpcs().map_err(StepError::Executor)?;
    let on_host: BTreeMap<VpcId, BTreeSet<InterfaceId>> =
        seen.into_iter().map(|one| (one.vpc, one.interfaces)).collect();
    let all = records::every_vpc(&*deps.store)?;
    for (scope, read) in &all {
        let vpc = read.parts.vpc.id;
        networks.release_ended_programs(scope, &read.parts)?;
        let hosted = on_host.get(&vpc);
        let found = match hosted.is_none() && networks.known(vpc).is_some() {
            true => {
                tracing::warn!(%vpc, "the host has lost a VPC; bringing it again");
                networks.again(scope, vpc).map(|_| ()).map_err(StepError::from)
            }
            false => Ok(()),
        };
        let brought = found
            .and_then(|()| one(deps, scope, read, hosted.is_some()))
            .and_then(|()| left_behind(deps, scope, vpc, hosted));
        if let Err(error) = brought {
            troubled.note(deps, scope, vpc, &error);
        }
    }
    let mut wanted: BTreeSet<VpcId> = all.iter().map(|(_, read)| read.parts.vpc.id).collect();
    for network in super::peers::all(&*deps.store)? {
        wanted.insert(network.id);
        // A job brings its network itself, before its first container.
        if on_host.contains_key(&network.id)
            && let Err(error) = networks.ensure_peers(&network)
        {
            troubled.left(network.id, &error);
        }
    }
    if let Err(error) = networks.let_peers_talk() {
        tracing::warn!(
            cause = crate::driver::chain(&error),
            "the containers of jobs may not reach each other"
        );
        troubled.host = true;
    }
    for vpc in on_host.keys().filter(|vpc| !wanted.contains(vpc)) {
        if let Err(error) = take_off(deps, *vpc) {
            troubled.left(*vpc, &error);
        }
    }
    Ok(troubled)
}

fn take_off(deps: &Deps, vpc: VpcId) -> Result<(), NetworkError> {
    deps.networks.remove(vpc)?;
    tracing::info!(%vpc, "a VPC was taken off the host");
    Ok(())
}

/// One VPC as its records were just read.
fn one(deps: &Deps, scope: &Scope, read: &VpcRecords, hosted: bool) -> Result<(), StepError> {
    // What is in line is left alone. What is not is read anew under the VPC's lock: a job that starts may have brought a
    // newer plan meanwhile.
    if (hosted || needs_host(&read.parts)) && !deps.networks.is_in_line(read) {
        deps.networks.ensure(scope, read.parts.vpc.id)?;
    }
    tell(deps, scope, read)
}

/// Transfer namespaces whose job is gone: the engine was killed between the two.
fn left_behind(
    deps: &Deps,
    scope: &Scope,
    vpc: VpcId,
    hosted: Option<&BTreeSet<InterfaceId>>,
) -> Result<(), StepError> {
    for interface in hosted.into_iter().flatten() {
        let stored = deps.store.get::<NetworkInterface>(&key(scope, interface))?;
        let held = stored.is_some_and(|one| matches!(one.record.holder, Holder::Transfer(_) | Holder::Program));
        if !held {
            deps.networks.detach(vpc, *interface)?;
        }
    }
    Ok(())
}

/// The host has what `read` asked for, or more of it: states follow.
fn tell(deps: &Deps, scope: &Scope, read: &VpcRecords) -> Result<(), StepError> {
    let standing = deps.networks.known(read.parts.vpc.id);
    for nat in read.parts.nat_gateways.values() {
        let on_host = standing
            .as_ref()
            .is_some_and(|vpc| vpc.nat_gateways.contains_key(&nat.id));
        match nat.state {
            NatState::Pending if read.parts.internet_gateway.is_none() => {
                let failure = NatFailure {
                    code: "Gateway.NotAttached".into(),
                    message: format!("Network {} has no Internet gateway attached", nat.vpc),
                };
                end(deps, scope, nat.id, NatEvent::Refused, Some(&failure))?;
            }
            NatState::Pending if on_host => serve(deps, scope, nat.id)?,
            NatState::Deleting if !on_host => end(deps, scope, nat.id, NatEvent::Removed, None)?,
            NatState::Pending | NatState::Deleting | NatState::Available | NatState::Failed | NatState::Deleted => {}
        }
    }
    for endpoint in read.parts.endpoints.values() {
        let is_gateway = endpoint.route_tables().is_some();
        let on_host = standing
            .as_ref()
            .is_some_and(|vpc| vpc.interface_endpoints.contains_key(&endpoint.id));
        match endpoint.state {
            // One without subnets asks nothing of the host.
            EndpointState::Pending
                if is_gateway || on_host || endpoint.interfaces().is_some_and(BTreeMap::is_empty) =>
            {
                deps.update::<VpcEndpoint>(&key(scope, endpoint.id), |endpoint, batch| {
                    if endpoint.state != EndpointState::Pending {
                        return Ok(None);
                    }
                    endpoint.state = EndpointState::Available;
                    Ok(Some(batch))
                })?;
            }
            EndpointState::Deleting if !on_host => remove_endpoint(deps, scope, endpoint.id)?,
            EndpointState::Pending | EndpointState::Available | EndpointState::Deleting | EndpointState::Deleted => {}
        }
    }
    Ok(())
}

/// The host serves the endpoint no more: its record goes, and its interfaces with their addresses in the same commit.
fn remove_endpoint(deps: &Deps, scope: &Scope, endpoint: EndpointId) -> Result<(), StepError> {
    let at = key(scope, endpoint);
    loop {
        let Some(stored) = deps.store.get::<VpcEndpoint>(&at)? else {
            return Ok(());
        };
        if stored.record.state != EndpointState::Deleting {
            return Ok(());
        }
        let held = stored.record.interfaces().cloned().unwrap_or_default();
        let (subnets, interfaces) = (held.keys().copied().collect(), held.values().copied().collect());
        let mut batch = Batch::default().delete::<VpcEndpoint>(&at, Expect::At(stored.revision));
        for interface in held.values() {
            let interface_at = key(scope, interface);
            if let Some(interface) = deps.store.get::<NetworkInterface>(&interface_at)? {
                batch = batch.delete::<NetworkInterface>(&interface_at, Expect::At(interface.revision));
            }
            let about = FlowLogResource::Interface(*interface);
            for log in deps.store.parts::<FlowLog>(scope, &[stored.record.vpc.to_string()])? {
                if log.record.about == about {
                    batch = batch.delete::<FlowLog>(&log.key, Expect::At(log.revision));
                }
            }
        }
        batch = place::give_back(&*deps.store, scope, &subnets, &interfaces, batch)?;
        batch = place::touch(&*deps.store, scope, stored.record.vpc, batch)?;
        match deps.store.commit(batch) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kernel has the gateway.
fn serve(deps: &Deps, scope: &Scope, nat: NatGatewayId) -> Result<(), StepError> {
    deps.update::<NatGateway>(&key(scope, nat), |nat, batch| {
        if nat.state != NatState::Pending {
            return Ok(None);
        }
        nat.state = nat.state.next(NatEvent::Applied)?;
        Ok(Some(batch))
    })?;
    Ok(())
}

/// The gateway is over: its interface and its Elastic IP are given back in the same commit.
fn end(
    deps: &Deps,
    scope: &Scope,
    nat: NatGatewayId,
    event: NatEvent,
    failure: Option<&NatFailure>,
) -> Result<(), StepError> {
    let at = key(scope, nat);
    loop {
        let Some(mut stored) = deps.store.get::<NatGateway>(&at)? else {
            return Ok(());
        };
        // Somebody was faster.
        let Ok(state) = stored.record.state.next(event) else {
            return Ok(());
        };
        let gateway = &mut stored.record;
        gateway.state = state;
        gateway.failure = failure.cloned().or(gateway.failure.take());
        if !state.holds() {
            gateway.ended = Some(deps.now());
        }
        let interfaces = BTreeSet::from([gateway.interface]);
        let mut batch = Batch::default().put(&at, Expect::At(stored.revision), gateway)?;
        let interface_at = key(scope, gateway.interface);
        if let Some(interface) = deps.store.get::<NetworkInterface>(&interface_at)? {
            batch = batch.delete::<NetworkInterface>(&interface_at, Expect::At(interface.revision));
            let subnets = BTreeSet::from([interface.record.subnet]);
            batch = place::give_back(&*deps.store, scope, &subnets, &interfaces, batch)?;
        }
        let ip_at = key(scope, gateway.allocation);
        if let Some(mut ip) = deps.store.get::<ElasticIp>(&ip_at)?
            && ip
                .record
                .association
                .is_some_and(|held| interfaces.contains(&held.interface))
        {
            ip.record.association = None;
            batch = batch.put(&ip_at, Expect::At(ip.revision), &ip.record)?;
        }
        batch = place::touch(&*deps.store, scope, gateway.vpc, batch)?;
        match deps.store.commit(batch) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
