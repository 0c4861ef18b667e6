//! `DeploymentConfig`: how an update moves the traffic to its new fleet (SM-24).

use super::check::refuse;
use super::shapes;
use isolarium_model::sagemaker::takeover::{Shift, Takeover, WHOLE};
use isolarium_model::sagemaker::{Fleet, VariantFleet};
use isolarium_wire::ApiError;

/// The configuration as it is kept for `LastDeploymentConfig` (SM-74).
pub(super) fn kept(config: Option<&shapes::DeploymentConfig>) -> Result<Option<serde_json::Value>, ApiError> {
    if let Some(config) = config {
        checked(config)?;
    }
    config.map(serde_json::to_value).transpose().map_err(ApiError::internal)
}

/// What holds of a configuration for whatever fleet.
fn checked(config: &shapes::DeploymentConfig) -> Result<(), ApiError> {
    let alarms = config.auto_rollback_configuration.as_ref();
    let alarms = alarms.and_then(|auto| auto.alarms.as_ref());
    refuse(&[(
        alarms.is_some_and(|alarms| !alarms.is_empty()),
        "AutoRollbackConfiguration with alarms",
    )])?;
    if config.blue_green_update_policy.is_some() && config.rolling_update_policy.is_some() {
        return Err(ApiError::validation(
            "Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be given.",
        ));
    }
    let routing = config.blue_green_update_policy.as_ref();
    let Some(routing) = routing.map(|policy| &policy.traffic_routing_configuration) else {
        return Ok(());
    };
    let (canary, linear) = match routing.r#type {
        shapes::TrafficRoutingConfigType::AllAtOnce => (false, false),
        shapes::TrafficRoutingConfigType::Canary => (true, false),
        shapes::TrafficRoutingConfigType::Linear => (false, true),
    };
    for (name, given, belongs) in [
        ("CanarySize", routing.canary_size.is_some(), canary),
        ("LinearStepSize", routing.linear_step_size.is_some(), linear),
    ] {
        if given != belongs {
            let verb = if belongs { "must" } else { "cannot" };
            return Err(ApiError::validation(format!(
                "{name} {verb} be given with a TrafficRoutingConfiguration of type {}.",
                routing.r#type.as_str()
            )));
        }
    }
    Ok(())
}

/// How the fleet takes over, by a configuration that [`kept`] has checked; `None`: all at once, without waits. `in_place`:
/// the operator keeps no room for two fleets (AU-28).
pub(super) fn takeover(
    config: Option<&shapes::DeploymentConfig>,
    fleet: &Fleet,
    in_place: bool,
) -> Result<Option<Takeover>, ApiError> {
    let Some(config) = config else { return Ok(None) };
    let shift = match (&config.blue_green_update_policy, &config.rolling_update_policy) {
        (Some(policy), _) => blue_green(policy, fleet)?,
        (None, Some(policy)) => rolling(policy, fleet)?,
        (None, None) => return Ok(None),
    };
    if shift.is_plain() {
        return Ok(None);
    }
    if in_place {
        return Err(ApiError::validation(
            "This engine updates endpoints in place (endpoints.updates): a DeploymentConfig with steps, waits or a time \
             limit needs room for two fleets.",
        ));
    }
    Ok(Some(Takeover::Shift(shift)))
}

fn blue_green(policy: &shapes::BlueGreenUpdatePolicy, fleet: &Fleet) -> Result<Shift, ApiError> {
    let routing = &policy.traffic_routing_configuration;
    let (wait, termination) = (
        seconds(routing.wait_interval_in_seconds),
        seconds(policy.termination_wait_in_seconds.unwrap_or(0)),
    );
    let shift = match routing.r#type {
        shapes::TrafficRoutingConfigType::AllAtOnce => Shift::at_once(wait, termination),
        shapes::TrafficRoutingConfigType::Canary => {
            let first = share("CanarySize", routing.canary_size.as_ref(), fleet, 1)?;
            Shift::canary(first, wait, termination)
        }
        shapes::TrafficRoutingConfigType::Linear => {
            let step = share("LinearStepSize", routing.linear_step_size.as_ref(), fleet, 10)?;
            Shift::linear(step, wait, termination)
        }
    };
    limited(shift, policy.maximum_execution_timeout_in_seconds)
}

fn rolling(policy: &shapes::RollingUpdatePolicy, fleet: &Fleet) -> Result<Shift, ApiError> {
    if let Some(size) = &policy.rollback_maximum_batch_size {
        batch("RollbackMaximumBatchSize", size, fleet, 100)?;
    }
    let steps = batch("MaximumBatchSize", &policy.maximum_batch_size, fleet, 50)?;
    let shift = Shift::rolling(steps, seconds(policy.wait_interval_in_seconds));
    limited(shift, policy.maximum_execution_timeout_in_seconds)
}

/// A deployment that takes its whole time to wait could not end.
fn limited(shift: Shift, limit: Option<i64>) -> Result<Shift, ApiError> {
    let limit = limit.map(seconds);
    if limit.is_some_and(|limit| limit <= shift.waits()) {
        return Err(ApiError::validation(format!(
            "MaximumExecutionTimeoutInSeconds must be larger than the {} seconds that the deployment waits.",
            shift.waits()
        )));
    }
    Ok(shift.within(limit))
}

/// The part of the traffic that a size stands for, in ten-thousandths: from `least` percent to half.
fn share(name: &str, size: Option<&shapes::CapacitySize>, fleet: &Fleet, least: i64) -> Result<u32, ApiError> {
    let Some(size) = size else {
        return Err(ApiError::validation(format!("{name} must be given.")));
    };
    let percent = match size.r#type {
        shapes::CapacitySizeType::CapacityPercent => {
            if !(least..=50).contains(&size.value) {
                return Err(out_of_range(
                    name,
                    &format!("from {least} to 50 percent of the capacity"),
                ));
            }
            size.value.saturating_mul(i64::from(WHOLE) / 100)
        }
        shapes::CapacitySizeType::InstanceCount => {
            let all: i64 = fleet.variants.iter().map(|one| i64::from(one.desired_count)).sum();
            if size.value < 1 || size.value.saturating_mul(2) > all {
                return Err(out_of_range(name, &format!("from 1 to half of the {all} instances")));
            }
            // Rounded up: thirds are three steps, not four.
            size.value
                .saturating_mul(i64::from(WHOLE))
                .saturating_add(all.saturating_sub(1))
                .checked_div(all)
                .unwrap_or(0)
        }
    };
    Ok(u32::try_from(percent).unwrap_or(WHOLE).max(1))
}

/// The number of batches, none of which is larger than a size: from 5 to `most` percent of each variant, one instance at least.
fn batch(name: &str, size: &shapes::CapacitySize, fleet: &Fleet, most: i64) -> Result<u32, ApiError> {
    let count = |variant: &VariantFleet| i64::from(variant.desired_count);
    let of = |all: i64| match size.r#type {
        shapes::CapacitySizeType::CapacityPercent => (all.saturating_mul(size.value) / 100).max(1),
        shapes::CapacitySizeType::InstanceCount => size.value,
    };
    let largest = fleet.variants.iter().map(count).max().unwrap_or(1);
    let fits = match size.r#type {
        shapes::CapacitySizeType::CapacityPercent => (5..=most).contains(&size.value),
        shapes::CapacitySizeType::InstanceCount => (1..=largest).contains(&size.value),
    };
    if !fits {
        let text = format!("from 5 to {most} percent of the capacity, or from 1 to {largest} instances");
        return Err(out_of_range(name, &text));
    }
    let batches = |all: i64| {
        let one = of(all).max(1);
        all.saturating_add(one).saturating_sub(1).checked_div(one).unwrap_or(1)
    };
    let steps = fleet.variants.iter().map(|variant| batches(count(variant))).max();
    Ok(u32::try_from(steps.unwrap_or(1)).unwrap_or(1))
}

fn out_of_range(name: &str, range: &str) -> ApiError {
    ApiError::validation(format!("{name} must be {range}."))
}

fn seconds(given: i64) -> u64 {
    u64::try_from(given).unwrap_or(0)
}

#[cfg(test)]
mod tests;
