//! Takes away the keys whose deletion is due, and with them every way to read what they encrypted.

use isolarium_model::Timestamp;
use isolarium_model::kms::{KmsAlias, KmsKey};
use isolarium_store::{Batch, Expect, StateStore, StoreError};

/// Removes keys past their deletion with their aliases; returns how many went.
///
/// # Errors
/// When the store fails; what is left goes the next time.
pub fn sweep(store: &dyn StateStore, now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0_u64;
    for key in store.all::<KmsKey>()? {
        if !key.record.is_gone(now) {
            continue;
        }
        let mut batch = Batch::default().delete::<KmsKey>(&key.key, Expect::At(key.revision));
        for alias in super::aliases_of(store, &key.key.scope, &key.record.id)? {
            batch = batch.delete::<KmsAlias>(&KmsAlias::key(&key.key.scope, &alias.name), Expect::Any);
        }
        match store.commit(batch) {
            Ok(_) => gone = gone.saturating_add(1),
            // Somebody changed it meanwhile: the next round looks again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}
