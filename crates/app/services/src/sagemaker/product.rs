//! The operator's import of a product: an algorithm or model package becomes one of the marketplace, whose jobs and models
//! must be isolated (D-13).

use super::{shapes, stored};
use isolarium_model::sagemaker::algorithm::Algorithm;
use isolarium_model::sagemaker::model_package::ModelPackage;
use isolarium_model::{Arn, Key, Record, Scope};
use isolarium_store::{Batch, Expect, StateStore, StoreError};
use isolarium_wire::ApiError;

/// Makes the algorithm or model package with this ARN, or `algorithm/NAME` or `model-package/NAME` of `home`, the product with
/// this id. What was made of it before stays as it is.
///
/// # Errors
/// When there is no such algorithm or package, the id is none, or the store fails.
pub fn import_product(store: &dyn StateStore, home: &Scope, target: &str, product_id: &str) -> Result<Arn, ApiError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = product_id.as_bytes();
    if bytes.len() > 256 || !bytes.iter().all(|byte| plain(*byte)) || !edge(bytes.first()) || !edge(bytes.last()) {
        return Err(ApiError::validation(format!("\"{product_id}\" is not a product id.")));
    }
    let unknown = || {
        ApiError::validation(format!(
            "\"{target}\" is neither algorithm/NAME nor model-package/NAME, nor the ARN of one that exists."
        ))
    };
    let (scope, resource) = match target.parse::<Arn>() {
        Ok(arn) if arn.service() == "sagemaker" => {
            let (account, region) = (arn.account().ok_or_else(unknown)?, arn.region().ok_or_else(unknown)?);
            (Scope { account, region }, arn.resource().to_owned())
        }
        Ok(_) => return Err(unknown()),
        Err(_) => (home.clone(), target.to_owned()),
    };
    match resource.split_once('/') {
        Some(("algorithm", name)) => change::<Algorithm>(store, &Algorithm::key(&scope, name), &|one| {
            one.product_id = Some(product_id.into());
            for container in one.inference.iter_mut().flat_map(|inference| &mut inference.containers) {
                container.product_id = Some(product_id.into());
            }
            tell(&mut one.echo, product_id)?;
            Ok(one.arn.clone())
        })?
        .ok_or_else(unknown),
        Some(("model-package", name)) => change::<ModelPackage>(store, &ModelPackage::key(&scope, name), &|one| {
            for container in &mut one.inference.containers {
                container.product_id = Some(product_id.into());
            }
            tell(&mut one.echo, product_id)?;
            Ok(one.arn.clone())
        })?
        .ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

/// Descriptions show the id in every container (SM-42).
fn tell(echo: &mut isolarium_model::sagemaker::Echo, product_id: &str) -> Result<(), ApiError> {
    let shown: Option<shapes::InferenceSpecification> = super::kept(echo, "InferenceSpecification")?;
    let Some(mut shown) = shown else { return Ok(()) };
    for container in &mut shown.containers {
        container.product_id = Some(product_id.into());
    }
    super::keep(echo, "InferenceSpecification", Some(&shown))
}

fn change<R: Record>(
    store: &dyn StateStore,
    key: &Key,
    change: &dyn Fn(&mut R) -> Result<Arn, ApiError>,
) -> Result<Option<Arn>, ApiError> {
    loop {
        let Some(mut found) = store.get::<R>(key).map_err(stored)? else {
            return Ok(None);
        };
        let arn = change(&mut found.record)?;
        let batch = Batch::default()
            .put(key, Expect::At(found.revision), &found.record)
            .map_err(stored)?;
        match store.commit(batch) {
            Ok(_) => return Ok(Some(arn)),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(stored(error)),
        }
    }
}
