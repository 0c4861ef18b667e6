//! A workload and its network for a new training job: an id, and an address where the container has a way out.

use super::stored;
use crate::Ctx;
use isolarium_model::sagemaker::{AddressLease, Attachment, Placement, Reach, TrainingJob};
use isolarium_model::{Key, WorkloadId};
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;

/// Addresses tried before the network counts as full.
const TRIES: usize = 256;

/// A new workload without a network of its own yet.
pub(super) fn workload(ctx: &Ctx<'_>) -> Result<WorkloadId, ApiError> {
    format!("w-{}", ctx.ids.hex(17)).parse().map_err(ApiError::internal)
}

/// Commits a new job with the address it holds, if it needs one: both or neither. The store's check that the address
/// has no holder makes two holders impossible.
pub(super) fn create_job(
    ctx: &Ctx<'_>,
    key: &Key,
    job: &mut TrainingJob,
    taken: impl Fn() -> ApiError,
) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let mut batch = Batch::default();
        if job.spec.network.container == Reach::ServiceNetwork {
            batch = lease(ctx, key, job, batch)?;
        }
        match ctx.store.commit(batch.put(key, Expect::Absent, job).map_err(stored)?) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { kind, .. }) if kind == <AddressLease as isolarium_model::Record>::KIND => {}
            Err(StoreError::Conflict { .. }) => return Err(taken()),
            Err(error) => return Err(stored(error)),
        }
    }
    Err(full(ctx))
}

fn lease(ctx: &Ctx<'_>, key: &Key, job: &mut TrainingJob, batch: Batch) -> Result<Batch, ApiError> {
    let network = ctx.platform.settings().platform_network;
    let chance = u64::from_str_radix(&ctx.ids.hex(15), 16).map_err(ApiError::internal)?;
    let address = AddressLease::candidate(network, chance).ok_or_else(|| full(ctx))?;
    let workload = job.run.placement.workload.clone();
    let lease = AddressLease {
        workload: workload.clone(),
        owner_arn: job.arn.to_string(),
        owner: key.clone(),
        leased: job.created,
    };
    let attachment = Attachment::ServiceNetwork {
        address,
        credentials_token: ctx.ids.hex(32),
    };
    job.run.placement = Placement { workload, attachment };
    let lease_key = AddressLease::key(address).map_err(ApiError::internal)?;
    batch.put(&lease_key, Expect::Absent, &lease).map_err(stored)
}

fn full(ctx: &Ctx<'_>) -> ApiError {
    let network = ctx.platform.settings().platform_network;
    ApiError::client(
        "ResourceLimitExceeded",
        format!(
            "The platform network {network} has no free address. End jobs or endpoints, or configure a larger network."
        ),
    )
}
