//! Makes a case smaller for as long as it keeps a property.

use super::Case;
use serde_json::Value;

/// The smallest case that leaving out parts of this one leads to, while `keeps` holds.
pub fn shrink(case: &Case, keeps: &dyn Fn(&Case) -> bool) -> Case {
    let Ok(mut best) = serde_json::to_value(case) else {
        return case.clone();
    };
    let read = |value: &Value| serde_json::from_value::<Case>(value.clone()).ok();
    // A case keeps who asks for what.
    let asked = ["family", "caller", "action", "resource"].map(|key| best.get(key).cloned());
    let still_asks = |value: &Value| {
        let keys = ["family", "caller", "action", "resource"];
        keys.iter()
            .zip(&asked)
            .all(|(key, asked)| value.get(key) == asked.as_ref())
    };
    while let Some(smaller) = without_one(&best)
        .into_iter()
        .filter(still_asks)
        .find(|smaller| read(smaller).is_some_and(|case| keeps(&case)))
    {
        best = smaller;
    }
    read(&best).unwrap_or_else(|| case.clone())
}

/// Every value that lacks one element or member of this one, at any depth.
fn without_one(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Array(list) => {
            for at in 0..list.len() {
                let mut rest = list.clone();
                rest.remove(at);
                found.push(Value::Array(rest));
            }
            for (at, inner) in list.iter().enumerate() {
                for smaller in without_one(inner) {
                    let replaced = |(nth, old): (usize, &Value)| if nth == at { smaller.clone() } else { old.clone() };
                    found.push(list.iter().enumerate().map(replaced).collect());
                }
            }
        }
        Value::Object(members) => {
            for key in members.keys() {
                let mut rest = members.clone();
                rest.remove(key);
                found.push(Value::Object(rest));
            }
            for (key, inner) in members {
                for smaller in without_one(inner) {
                    let mut changed = members.clone();
                    changed.insert(key.clone(), smaller);
                    found.push(Value::Object(changed));
                }
            }
        }
        _ => {}
    }
    found
}
