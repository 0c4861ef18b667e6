//! Left-overs: workloads, work directories and addresses that no record wants. They appear when the engine was killed
//! between a decision and its clean-up.

use crate::deps::{Deps, StepError};
use crate::job;
use crate::logs;
use crate::network::place;
use isolarium_model::WorkloadId;
use isolarium_model::ec2::{Holder, NetworkInterface};
use isolarium_model::sagemaker::{AddressLease, Endpoint, NotebookInstance, ProcessingJob, TrainingJob, TransformJob};
use isolarium_runtime::executor::ExecutorError;
use isolarium_store::{Batch, Expect, StateStore, StoreError, Stored};
use std::collections::BTreeSet;
use std::io;

/// Removes everything unwanted. The host is looked at first and the records second: a workload's id is in its record
/// before anything of it is on the host, so nothing that is about to be wanted can be taken for a left-over.
pub(crate) fn sweep(deps: &Deps) -> Result<usize, StepError> {
    let mut found: BTreeSet<WorkloadId> = deps
        .executor
        .observe()
        .map_err(StepError::Executor)?
        .into_iter()
        .map(|seen| seen.workload)
        .collect();
    found.extend(deps.work.workloads().map_err(disk)?);
    let sources = deps.transfer.log_sources().unwrap_or_else(|error| {
        tracing::warn!(%error, "log positions cannot be listed");
        Vec::new()
    });
    let leases: Vec<Stored<AddressLease>> = deps.store.all()?;
    // A workload that was launched after the look at the host is ended too before its address becomes free.
    found.extend(leases.iter().map(|lease| lease.record.workload.clone()));
    let interfaces: Vec<Stored<NetworkInterface>> = deps.store.all()?;
    found.extend(interfaces.iter().filter_map(|one| workload_of(&one.record).cloned()));
    let wanted = wanted(&*deps.store)?;
    let mut removed = 0;
    let mut stuck = BTreeSet::new();
    for workload in found.difference(&wanted) {
        match deps.executor.remove(workload) {
            Ok(()) | Err(ExecutorError::Unknown) => removed += 1,
            Err(error) => {
                tracing::warn!(%workload, %error, "a left-over workload could not be removed; trying again later");
                stuck.insert(workload.clone());
                continue;
            }
        }
        deps.seen.forget(workload);
        tracing::info!(%workload, "removed a left-over workload");
    }
    let held = |workload: &WorkloadId| wanted.contains(workload) || stuck.contains(workload);
    logs::sweep(deps, &sources, &held);
    let mut free: Vec<_> = leases.iter().filter(|lease| !held(&lease.record.workload)).collect();
    if !free.is_empty() {
        // Before an address has another holder. While the host cannot, none gets one, and the rest is swept.
        if let Err(error) = deps.networks.let_peers_talk() {
            tracing::warn!(
                cause = crate::driver::chain(&error),
                "addresses of left-over workloads stay taken for now"
            );
            free.clear();
        }
    }
    for lease in free {
        let batch = Batch::default().delete::<AddressLease>(&lease.key, Expect::At(lease.revision));
        match deps.store.commit(batch) {
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for interface in &interfaces {
        // The record is older than the look at the wanted ones: whoever makes interfaces commits both together.
        if workload_of(&interface.record).is_some_and(|workload| !held(workload)) {
            let record = &interface.record;
            if let Err(error) = deps.networks.detach(record.vpc, record.id) {
                tracing::warn!(interface = %record.id, %error, "a left-over interface stays for now");
                continue;
            }
            place::release(&*deps.store, &interface.key.scope, &BTreeSet::from([record.id]))?;
            tracing::info!(interface = %record.id, "removed a left-over interface");
        }
    }
    Ok(removed)
}

/// The workload for which the platform made an interface.
fn workload_of(interface: &NetworkInterface) -> Option<&WorkloadId> {
    match &interface.holder {
        Holder::Container(workload) | Holder::Isolated(workload) | Holder::Transfer(workload) => Some(workload),
        Holder::Nobody | Holder::Program | Holder::Nat(_) | Holder::Endpoint(_) => None,
    }
}

/// Workloads of jobs that have not ended, of endpoints and notebook instances that exist, and volumes of the latter.
fn wanted(store: &dyn StateStore) -> Result<BTreeSet<WorkloadId>, StepError> {
    let mut wanted = BTreeSet::new();
    for (_, run) in job::runs::<TrainingJob>(store)?
        .into_iter()
        .chain(job::runs::<ProcessingJob>(store)?)
    {
        wanted.extend(run.placements().map(|placement| placement.workload.clone()));
    }
    for job in store.all::<TransformJob>()? {
        if !job.record.status.is_final() {
            wanted.extend(job.record.placements().map(|placement| placement.workload.clone()));
        }
    }
    for notebook in store.all::<NotebookInstance>()? {
        wanted.extend(notebook.record.workloads().cloned());
    }
    for endpoint in store.all::<Endpoint>()? {
        wanted.extend(endpoint.record.placements().map(|placement| placement.workload));
    }
    Ok(wanted)
}

fn disk(error: io::Error) -> StepError {
    StepError::Executor(ExecutorError::Host(format!(
        "the work directory cannot be read: {error}"
    )))
}
