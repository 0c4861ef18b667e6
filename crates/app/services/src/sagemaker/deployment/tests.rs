use super::*;
use serde_json::{Value, json};

/// A fleet with variants of these counts.
fn fleet(counts: &[u32]) -> Fleet {
    let variant = |count: &u32| {
        json!({
            "variant": {"name": "a", "model_name": "m", "instance_type": "ml.m5.large", "instance_count": count, "weight": 1.0},
            "model": {
                "container": {"image": "i", "environment": {}},
                "role_arn": "arn:aws:iam::123456789012:role/r",
                "network": serde_json::to_value(isolarium_model::sagemaker::JobNetwork::new(None, None)).unwrap(),
            },
            "current_weight": 1.0,
            "desired_weight": 1.0,
            "desired_count": count,
            "instances": [],
        })
    };
    let variants: Vec<Value> = counts.iter().map(variant).collect();
    serde_json::from_value(json!({"config_name": "c", "variants": variants, "started": 0})).unwrap()
}

fn asked(config: Value, counts: &[u32]) -> Result<Option<Takeover>, String> {
    let config: shapes::DeploymentConfig = serde_json::from_value(config).unwrap();
    kept(Some(&config)).map_err(|error| error.message)?;
    takeover(Some(&config), &fleet(counts), false).map_err(|error| error.message)
}

fn routed(routing: Value) -> Value {
    json!({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}})
}

fn percent(value: i64) -> Value {
    json!({"Type": "CAPACITY_PERCENT", "Value": value})
}

fn count(value: i64) -> Value {
    json!({"Type": "INSTANCE_COUNT", "Value": value})
}

/// Proves: SM-24
#[test]
fn policies_become_the_steps_that_they_name() {
    let shift = |shift: Shift| Ok(Some(Takeover::Shift(shift)));
    let canary = |size| routed(json!({"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size}));
    assert_eq!(asked(canary(percent(5)), &[4]), shift(Shift::canary(500, 60, 0)));
    assert_eq!(asked(canary(count(1)), &[4]), shift(Shift::canary(2500, 60, 0)));
    let linear = json!({"Type": "LINEAR", "WaitIntervalInSeconds": 5, "LinearStepSize": percent(30)});
    let mut whole = routed(linear);
    whole["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] = json!(7);
    whole["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = json!(600);
    assert_eq!(asked(whole, &[4]), shift(Shift::linear(3000, 5, 7).within(Some(600))));
    let thirds = json!({"Type": "LINEAR", "WaitIntervalInSeconds": 5, "LinearStepSize": count(1)});
    assert_eq!(
        asked(routed(thirds), &[3]),
        shift(Shift::linear(3334, 5, 0)),
        "three steps"
    );
    let at_once = |wait: i64| routed(json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": wait}));
    assert_eq!(asked(at_once(0), &[1]), Ok(None), "what happens anyway");
    assert_eq!(asked(at_once(3), &[1]), shift(Shift::at_once(3, 0)));
    let rolling = |size| json!({"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 9}});
    assert_eq!(asked(rolling(count(2)), &[5]), shift(Shift::rolling(3, 9)));
    assert_eq!(
        asked(rolling(percent(50)), &[3]),
        shift(Shift::rolling(3, 9)),
        "no batch is above half"
    );
    assert_eq!(asked(rolling(count(1)), &[1]), shift(Shift::rolling(1, 9)));
    assert_eq!(asked(rolling(percent(25)), &[4, 8]), shift(Shift::rolling(4, 9)));
}

/// Proves: SM-24
#[test]
fn policies_that_contradict_themselves_or_ask_for_too_much_are_refused() {
    let canary = |size| routed(json!({"Type": "CANARY", "WaitIntervalInSeconds": 0, "CanarySize": size}));
    let refused = |config: Value, counts: &[u32]| asked(config, counts).unwrap_err();
    assert_eq!(
        refused(canary(percent(51)), &[4]),
        "CanarySize must be from 1 to 50 percent of the capacity."
    );
    assert_eq!(
        refused(canary(count(2)), &[3]),
        "CanarySize must be from 1 to half of the 3 instances."
    );
    assert!(asked(canary(count(2)), &[4]).is_ok(), "control");
    let bare = routed(json!({"Type": "LINEAR", "WaitIntervalInSeconds": 0}));
    assert_eq!(
        refused(bare, &[1]),
        "LinearStepSize must be given with a TrafficRoutingConfiguration of type LINEAR."
    );
    let stray = routed(json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0, "CanarySize": percent(5)}));
    assert_eq!(
        refused(stray, &[1]),
        "CanarySize cannot be given with a TrafficRoutingConfiguration of type ALL_AT_ONCE."
    );
    let mut short = routed(json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 600}));
    short["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = json!(600);
    assert_eq!(
        refused(short, &[1]),
        "MaximumExecutionTimeoutInSeconds must be larger than the 600 seconds that the deployment waits."
    );
    let mut both = canary(percent(5));
    both["RollingUpdatePolicy"] = json!({"MaximumBatchSize": count(1), "WaitIntervalInSeconds": 0});
    assert!(refused(both, &[4]).starts_with("Only one of"));
    let mut alarmed = canary(percent(5));
    alarmed["AutoRollbackConfiguration"] = json!({"Alarms": [{"AlarmName": "a"}]});
    assert!(refused(alarmed, &[4]).contains("AutoRollbackConfiguration with alarms"));
}

/// Proves: AU-28
#[test]
fn steps_need_room_for_two_fleets() {
    let config = routed(json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 3}));
    let config: shapes::DeploymentConfig = serde_json::from_value(config).unwrap();
    let refused = takeover(Some(&config), &fleet(&[1]), true).unwrap_err();
    assert!(refused.message.contains("endpoints.updates"), "{refused:?}");
    assert!(takeover(Some(&config), &fleet(&[1]), false).is_ok(), "control");
    assert_eq!(takeover(None, &fleet(&[1]), true).unwrap(), None, "control");
}
