//! InvokeEndpointAsync: a request is accepted once its record is committed; the endpoint's loop does the rest (SM-55).

use super::Proxy;
use isolarium_model::sagemaker::async_inference::AsyncInvocation;
use isolarium_model::sagemaker::{Endpoint, S3Uri};
use isolarium_model::{Scope, Timestamp};
use isolarium_policy::Granted;
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::shapes::sagemaker_runtime::{InvokeEndpointAsyncInput, InvokeEndpointAsyncOutput};
use isolarium_wire::{ApiError, Document};
use std::sync::Arc;
use std::time::Duration;

/// How long a request may wait, unless it says; seconds.
const TTL: i64 = 6 * 3600;
/// How long its container may take, unless it says; seconds.
const TIMEOUT: i64 = 900;

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::client("ValidationError", text)
}

impl Proxy {
    /// Accepts one allowed request: what it returns survives the end of the engine.
    ///
    /// # Errors
    /// `ValidationError` for an endpoint that takes no such requests, and for addresses that are none.
    pub async fn accept(
        &self,
        scope: &Scope,
        granted: Granted<InvokeEndpointAsyncInput>,
        now: Timestamp,
    ) -> Result<Document, ApiError> {
        let (store, scope, request) = (Arc::clone(&self.store), scope.clone(), granted.into_inner());
        // The commit waits for the disk.
        let accepted = tokio::task::spawn_blocking(move || accept(&*store, &scope, request, now));
        accepted.await.map_err(ApiError::internal)?.map(Document::from)
    }
}

fn accept(
    store: &dyn StateStore,
    scope: &Scope,
    request: InvokeEndpointAsyncInput,
    now: Timestamp,
) -> Result<InvokeEndpointAsyncOutput, ApiError> {
    let name = &request.endpoint_name;
    let input = request.input_location.as_deref();
    let input = input.ok_or_else(|| refused("InputLocation must be given: requests with a body are not supported."))?;
    let input: S3Uri = input
        .parse()
        .map_err(|_| refused(format!("InputLocation \"{input}\" is not a valid S3 URI.")))?;
    if input.key.is_empty() {
        return Err(refused("InputLocation must name an object."));
    }
    let key = Endpoint::key(scope, name);
    let endpoint = serving(store, &key, name)?;
    let settings = endpoint.active.as_ref().and_then(|fleet| fleet.asynchronous.as_ref());
    let settings = settings.ok_or_else(|| {
        refused(format!(
            "Endpoint {name} of account {} has no AsyncInferenceConfig and does not support InvokeEndpointAsync.",
            scope.account
        ))
    })?;
    let id = crate::clock::request_id();
    let file = request.filename.clone().unwrap_or_else(|| format!("{id}.out"));
    let below = |uri: &S3Uri, name: &str| uri.join(name.trim_start_matches('/'));
    let output = match request.s3_output_path_extension.as_deref() {
        Some(extension) => below(&settings.output, &format!("{}/{file}", extension.trim_end_matches('/'))),
        None => below(&settings.output, &file),
    };
    let failure = settings.failure.as_ref();
    let failure = failure.map(|uri| below(uri, &format!("{id}-error.out")));
    let seconds = |given: Option<i64>, otherwise: i64| u64::try_from(given.unwrap_or(otherwise)).unwrap_or(0);
    let record = AsyncInvocation {
        inference_id: request.inference_id.clone().unwrap_or_else(|| id.clone()),
        id,
        endpoint: key.name.to_string(),
        endpoint_arn: endpoint.arn.clone(),
        input,
        output,
        failure,
        content_type: request.content_type,
        accept: request.accept,
        custom_attributes: request.custom_attributes,
        accepted: now,
        expires: now.after(Duration::from_secs(seconds(request.request_ttl_seconds, TTL))),
        timeout: seconds(request.invocation_timeout_seconds, TIMEOUT),
    };
    let own = record.key(scope);
    let batch = Batch::default().put(&own, Expect::Absent, &record);
    let batch = batch.map_err(ApiError::internal)?;
    store.commit(batch).map_err(ApiError::internal)?;
    // A deletion that began meanwhile may have looked for what waits before this was there.
    if let Err(error) = serving(store, &key, name) {
        let gone = Batch::default().delete::<AsyncInvocation>(&own, Expect::Any);
        store.commit(gone).map_err(ApiError::internal)?;
        return Err(error);
    }
    Ok(InvokeEndpointAsyncOutput {
        inference_id: Some(record.inference_id),
        output_location: Some(record.output.to_string()),
        failure_location: record.failure.map(|uri| uri.to_string()),
    })
}

/// The endpoint, if it serves (SM-56, SM-57).
fn serving(store: &dyn StateStore, key: &isolarium_model::Key, name: &str) -> Result<Endpoint, ApiError> {
    let found = store.get::<Endpoint>(key).map_err(ApiError::internal)?;
    match found {
        Some(found) if found.record.name == name && found.record.status.serves() => Ok(found.record),
        Some(found) if found.record.name == name => Err(super::out_of_service(key, name, found.record.status)),
        _ => Err(super::unknown(key, name)),
    }
}
