//! What has to be done now and then: expired logs, abandoned uploads, blobs that no image has.

use super::stores::Stores;
use isolarium_model::time::Clock;
use isolarium_store::AuditTrail;
use std::sync::Arc;
use std::time::Duration;

/// Time between rounds.
const ROUND: Duration = Duration::from_secs(600);
/// Time between two looks at the audit trail's end.
const INDEX: Duration = Duration::from_secs(15);
/// Looks until old files are looked for.
const PRUNE_EVERY: u64 = 240;
/// An upload that nobody went on with for this long is given up.
const IDLE_UPLOAD: Duration = Duration::from_secs(3600);

/// Goes round for ever.
pub async fn keep(stores: Stores, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let (stores, clock) = (stores.clone(), clock.clone());
        // A round that failed is tried again; a panic in one must not end the next.
        if let Err(error) = tokio::task::spawn_blocking(move || round(&stores, clock.as_ref())).await {
            tracing::error!(%error, "housekeeping failed");
        }
    }
}

/// Keeps the audit trail's index near its end, and removes what is past its retention.
pub async fn keep_trail(trail: Arc<AuditTrail>, retention: Duration) {
    let mut rounds = 0_u64;
    loop {
        tokio::time::sleep(INDEX).await;
        rounds = rounds.wrapping_add(1);
        let (trail, prune) = (trail.clone(), rounds.is_multiple_of(PRUNE_EVERY));
        let kept = tokio::task::spawn_blocking(move || {
            trail.index_new()?;
            if prune { trail.prune(retention) } else { Ok(0) }
        });
        match kept.await {
            Ok(Ok(0)) => {}
            Ok(Ok(files)) => tracing::info!(files, "audit files past their retention are gone"),
            Ok(Err(error)) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the audit trail could not be kept"
            ),
            Err(error) => tracing::error!(%error, "keeping the audit trail failed"),
        }
    }
}

fn round(stores: &Stores, clock: &dyn Clock) {
    let now = clock.now();
    match stores.logs.prune(now) {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(bytes, "logs past their retention are gone"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "old logs could not be removed"
        ),
    }
    match isolarium_services::featurestore::housekeeping::sweep(stores.state.as_ref(), now) {
        Ok(0) => {}
        Ok(records) => tracing::info!(records, "feature records that expired or lost their group are gone"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "old feature records could not be removed"
        ),
    }
    match isolarium_services::sagemaker::notebook_session::sweep(stores.state.as_ref(), now) {
        Ok(0) => {}
        Ok(sessions) => tracing::info!(
            sessions,
            "links and sessions of notebook instances that are over are gone"
        ),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "old sessions of notebook instances could not be removed"
        ),
    }
    match stores.metrics.prune(now) {
        Ok(0) => {}
        Ok(points) => tracing::info!(points, "old metrics are folded or gone"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "old metrics could not be folded"
        ),
    }
    match isolarium_services::kms::housekeeping::sweep(stores.state.as_ref(), now) {
        Ok(0) => {}
        Ok(keys) => tracing::info!(keys, "keys whose deletion was due are gone"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "keys whose deletion is due could not be removed"
        ),
    }
    let abandoned = stores.registry.blobs.expire(now, IDLE_UPLOAD);
    if abandoned > 0 {
        tracing::info!(abandoned, "image uploads that nobody went on with are gone");
    }
    match stores.registry.collect_garbage(stores.state.as_ref(), now) {
        Ok(0) => {}
        Ok(blobs) => tracing::info!(blobs, "image blobs without an image are gone"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "unused image blobs could not be removed"
        ),
    }
}
