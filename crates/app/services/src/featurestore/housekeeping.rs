//! Takes away what nobody sees any more: expired records, and records of groups that are gone.

use isolarium_model::sagemaker::{FeatureGroup, FeatureRecord, FeatureRemains};
use isolarium_model::{Scope, Timestamp};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, Query, StateStore, StoreError};
use std::collections::BTreeSet;
use std::time::Duration;

/// Records removed in one commit.
const ROUND: usize = 500;
/// A write that found the group still there has long ended by then.
const SETTLED: Duration = Duration::from_secs(60);

/// Removes what can go; returns the number of records that went.
///
/// # Errors
/// When the store fails; what is left goes the next time.
pub fn sweep(store: &dyn StateStore, now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0_u64;
    for remains in store.all::<FeatureRemains>()? {
        if now.since(remains.record.deleted) < SETTLED {
            continue;
        }
        let scope = remains.key.scope.clone();
        let query = Query {
            name_prefix: Some(format!("{}/", remains.record.generation)),
            limit: ROUND,
            ..Query::all(&scope)
        };
        let (removed, left) = remove_all(store, &query)?;
        gone = gone.saturating_add(removed);
        // What was written meanwhile is found by these remains the next time, and by nothing else.
        if left == Left::Nothing {
            store.commit(Batch::default().delete::<FeatureRemains>(&remains.key, Expect::Any))?;
        }
    }
    let scopes: BTreeSet<Scope> = store
        .all::<FeatureGroup>()?
        .into_iter()
        .map(|group| group.key.scope)
        .collect();
    for scope in scopes {
        let query = Query {
            sort_by: SortBy::Created,
            // The column holds the time of expiry, and the bound is exclusive.
            created_before: Some(Timestamp(now.0.saturating_add(1))),
            limit: ROUND,
            ..Query::all(&scope)
        };
        gone = gone.saturating_add(remove_all(store, &query)?.0);
    }
    Ok(gone)
}

/// What a query still finds after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
}

/// Removes the records that a query finds, page by page. One that was written meanwhile ends the sweep: it may have been
/// written anew.
fn remove_all(store: &dyn StateStore, query: &Query) -> Result<(u64, Left), StoreError> {
    let mut gone = 0_u64;
    loop {
        let page = store.query::<FeatureRecord>(query)?;
        if page.rows.is_empty() {
            return Ok((gone, Left::Nothing));
        }
        let batch = page.rows.iter().fold(Batch::default(), |batch, row| {
            batch.delete::<FeatureRecord>(&row.key, Expect::At(row.revision))
        });
        match store.commit(batch) {
            Ok(_) => gone = gone.saturating_add(u64::try_from(page.rows.len()).unwrap_or(u64::MAX)),
            Err(StoreError::Conflict { .. }) => return Ok((gone, Left::Something)),
            Err(error) => return Err(error),
        }
    }
}
