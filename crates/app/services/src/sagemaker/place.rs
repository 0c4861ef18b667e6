//! Workloads and their networks for a new training or processing job: ids, and addresses where the containers have a way out.

use super::stored;
use crate::Ctx;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::sagemaker::training_job::JobRun;
use isolarium_model::sagemaker::{AddressLease, Attachment, JobNetwork, Placement, ProcessingJob, Reach, TrainingJob};
use isolarium_model::{Arn, Key, Record, Timestamp, WorkloadId};
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Addresses tried before the network counts as full.
const TRIES: usize = 256;

/// A job whose instances get their places when it is created.
pub(super) trait PlacedJob: Record {
    fn arn(&self) -> &Arn;
    fn created(&self) -> Timestamp;
    fn network(&self) -> &JobNetwork;
    fn run(&mut self) -> &mut JobRun;
}

macro_rules! placed_job {
    ($($job:ty),*) => {$(
        impl PlacedJob for $job {
            fn arn(&self) -> &Arn {
                &self.arn
            }
            fn created(&self) -> Timestamp {
                self.created
            }
            fn network(&self) -> &JobNetwork {
                &self.spec.network
            }
            fn run(&mut self) -> &mut JobRun {
                &mut self.run
            }
        }
    )*};
}

placed_job!(TrainingJob, ProcessingJob);

/// New workloads for the instances of a job, without addresses of the platform network or of a VPC yet: those in a VPC get
/// theirs when they start (D-17), those in the platform network with the record of the job ([`create_job`]).
pub(super) fn placements(ctx: &Ctx<'_>, network: &JobNetwork, instances: usize) -> Result<Vec<Placement>, ApiError> {
    let mut all = Vec::new();
    let mut peers: Option<VpcId> = None;
    for number in 0..instances {
        let workload = workload(ctx)?;
        // The job's own network is called after its first workload, whose number nobody else has.
        if instances > 1 && network.isolated() {
            peers.get_or_insert(VpcId::of(workload.number()));
        }
        let attachment = match (network.vpc(), peers) {
            (Some(_), peers) => Attachment::Unattached {
                isolated: network.isolated(),
                peers,
            },
            (None, Some(peers)) => Attachment::peer(peers, &workload, number)
                .ok_or_else(|| ApiError::validation(format!("InstanceCount {instances} is too high.")))?,
            (None, None) => Attachment::Isolated,
        };
        all.push(Placement { workload, attachment });
    }
    Ok(all)
}

/// A new workload without a network of its own yet.
fn workload(ctx: &Ctx<'_>) -> Result<WorkloadId, ApiError> {
    format!("w-{}", ctx.ids.hex(17)).parse().map_err(ApiError::internal)
}

/// Commits a new job with the address it holds, if it needs one: both or neither. The store's check that the address
/// has no holder makes two holders impossible.
pub(super) fn create_job<J: PlacedJob>(
    ctx: &Ctx<'_>,
    key: &Key,
    job: &mut J,
    taken: impl Fn() -> ApiError,
) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let mut batch = Batch::default();
        if job.network().container == Reach::ServiceNetwork {
            let mut taken = BTreeSet::new();
            for number in 0..job.run().instances() {
                batch = lease(ctx, key, job, number, &mut taken, batch)?;
            }
        }
        match ctx.store.commit(batch.put(key, Expect::Absent, job).map_err(stored)?) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { kind, .. }) if kind == AddressLease::KIND => {}
            Err(StoreError::Conflict { .. }) => return Err(taken()),
            Err(error) => return Err(stored(error)),
        }
    }
    Err(full(ctx))
}

fn lease<J: PlacedJob>(
    ctx: &Ctx<'_>,
    key: &Key,
    job: &mut J,
    number: usize,
    taken: &mut BTreeSet<Ipv4Addr>,
    batch: Batch,
) -> Result<Batch, ApiError> {
    let network = ctx.platform.settings().platform_network;
    let mut fresh = None;
    for _ in 0..TRIES {
        let chance = u64::from_str_radix(&ctx.ids.hex(15), 16).map_err(ApiError::internal)?;
        let address = AddressLease::candidate(network, chance).ok_or_else(|| full(ctx))?;
        if taken.insert(address) {
            fresh = Some(address);
            break;
        }
    }
    let address = fresh.ok_or_else(|| full(ctx))?;
    let (arn, created) = (job.arn().to_string(), job.created());
    let placement = job.run().placement_mut(number);
    let placement =
        placement.ok_or_else(|| ApiError::internal(std::io::Error::other("an instance without a place")))?;
    let lease = AddressLease {
        workload: placement.workload.clone(),
        owner_arn: arn,
        owner: key.clone(),
        leased: created,
    };
    placement.attachment = Attachment::ServiceNetwork {
        address,
        credentials_token: ctx.ids.hex(32),
    };
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
