//! AWS's authorization reference, `models/authorization.json.gz`, and what is wrong with a question by it.

pub(crate) mod input;
mod tests;
mod through;

use flate2::read::GzDecoder;
use isolarium_policy::Question;
use regex::Regex;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

#[derive(Deserialize)]
pub(crate) struct Reference {
    /// Condition keys that every service has, with their types.
    global: BTreeMap<String, String>,
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    actions: BTreeMap<String, Action>,
    resources: BTreeMap<String, Resource>,
    keys: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(crate) struct Action {
    #[serde(default)]
    resources: BTreeMap<String, Concerned>,
    #[serde(default)]
    pub(crate) keys: Vec<String>,
}

/// A resource type that an action can be about.
#[derive(Deserialize)]
struct Concerned {
    #[serde(default)]
    required: bool,
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Resource {
    arn: String,
    #[serde(default)]
    keys: Vec<String>,
}

impl Reference {
    pub(crate) fn load() -> Self {
        let packed = include_bytes!("../../../../models/authorization.json.gz");
        let mut text = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn service(&self, action: &str) -> Option<&Service> {
        self.services.get(action.split_once(':')?.0)
    }

    /// An action such as `iam:PassRole`.
    pub(crate) fn action(&self, action: &str) -> Option<&Action> {
        self.service(action)?.actions.get(action.split_once(':')?.1)
    }

    /// The resource types of the action whose ARN format a text has; more than one where formats overlap.
    fn types_of(&self, action: &str, arn: &str) -> Vec<&str> {
        let (Some(service), Some(known)) = (self.service(action), self.action(action)) else {
            return Vec::new();
        };
        let kinds = known.resources.keys().map(String::as_str);
        kinds
            .filter(|kind| {
                service
                    .resources
                    .get(*kind)
                    .is_some_and(|one| has_format(arn, &one.arn))
            })
            .collect()
    }

    /// The resource types that every request of the action is about.
    pub(crate) fn required(&self, action: &str) -> BTreeSet<&str> {
        let concerned = self.action(action).into_iter().flat_map(|known| &known.resources);
        concerned
            .filter(|(_, one)| one.required)
            .map(|(kind, _)| kind.as_str())
            .collect()
    }

    /// What AWS would not ask like this: an unknown action, a resource of another kind, a foreign condition key.
    pub(crate) fn faults(&self, question: &Question) -> Vec<Fault> {
        let action = question.action.as_str();
        let (Some(service), Some(known)) = (self.service(action), self.action(action)) else {
            return vec![Fault::new(action, "unknown action")];
        };
        let mut faults = Vec::new();
        let kinds = self.types_of(action, &question.resource);
        let fits = if question.resource == "*" {
            known.resources.values().all(|one| !one.required)
        } else {
            !kinds.is_empty()
        };
        if !fits {
            faults.push(Fault::new(action, &format!("resource {}", question.resource)));
        }
        let mut listed: Vec<&String> = known.keys.iter().collect();
        for kind in kinds {
            listed.extend(known.resources.get(kind).into_iter().flat_map(|one| &one.keys));
            listed.extend(service.resources.get(kind).into_iter().flat_map(|one| &one.keys));
        }
        for key in question.context.keys() {
            let by_service = listed.iter().any(|one| is_key(key, one));
            // Tag keys are global by their name only: a service has to list them.
            let by_all = !key.contains("tag") && self.global.keys().any(|one| is_key(key, one));
            if !by_service && !by_all {
                faults.push(Fault::new(action, &format!("key {key}")));
            }
            let types = service.keys.iter().chain(&self.global);
            let mut types = types.filter(|(one, _)| is_key(key, one)).map(|(_, kind)| kind.as_str());
            let values = question.context.get(key).into_iter().flatten();
            if types
                .next()
                .is_some_and(|kind| !values.into_iter().all(|value| is_of(kind, value)))
            {
                faults.push(Fault::new(action, &format!("type of {key}")));
            }
        }
        faults
    }

    /// Listed keys of an action that none of the questions about it has.
    pub(crate) fn unsupplied(&self, action: &str, questions: &[Question]) -> Vec<Fault> {
        let about = || questions.iter().filter(|question| question.action == action);
        let keys = self.action(action).into_iter().flat_map(|known| &known.keys);
        keys.filter(|key| !about().any(|question| question.context.keys().any(|given| is_key(given, key))))
            .map(|key| Fault::new(action, &format!("no {key}")))
            .collect()
    }

    /// Required resource types of an action that none of the questions is about.
    pub(crate) fn unasked(&self, action: &str, questions: &[Question]) -> Vec<Fault> {
        let about = questions.iter().filter(|question| question.action == action);
        let asked: BTreeSet<&str> = about
            .flat_map(|question| self.types_of(action, &question.resource))
            .collect();
        let missing = self.required(action);
        let missing = missing.difference(&asked);
        missing
            .map(|kind| Fault::new(action, &format!("not about {kind}")))
            .collect()
    }
}

/// Something that AWS's reference does not say of an action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) action: String,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(action: &str, what: &str) -> Self {
        Self {
            action: action.into(),
            what: what.into(),
        }
    }
}

/// Whether a key of a request, in small letters, is the one that the reference writes, such as `aws:RequestTag/${TagKey}`,
/// `s3:ExistingObjectTag/<key>` or, for global ones, `aws:PrincipalTag/tag-key`.
fn is_key(given: &str, written: &str) -> bool {
    let written = written.to_ascii_lowercase();
    let named = || {
        ["/tag-key", "/<key>"]
            .iter()
            .find_map(|name| written.find(name))
            .map(|at| at + 1)
    };
    match written.find("${").or_else(named) {
        Some(at) => given.starts_with(&written[..at]),
        None => given == written,
    }
}

/// Whether a value has the type that the reference gives its key.
fn is_of(kind: &str, value: &str) -> bool {
    match kind {
        "Bool" | "Boolean" | "ArrayOfBool" => matches!(value, "true" | "false"),
        "Numeric" => value.parse::<f64>().is_ok(),
        "ARN" | "ArrayOfARN" => value.parse::<isolarium_model::Arn>().is_ok(),
        _ => true,
    }
}

/// Whether an ARN has a format such as `arn:${Partition}:iam::${Account}:role/${RoleNameWithPath}`.
fn has_format(arn: &str, format: &str) -> bool {
    let variable = Regex::new(r"\$\{(\w+)\}").unwrap();
    let mut pattern = String::from("^");
    let mut end = 0;
    for found in variable.captures_iter(format) {
        let whole = found.get(0).unwrap();
        pattern.push_str(&regex::escape(&format[end..whole.start()]));
        pattern.push_str(match &found[1] {
            "Partition" => "aws",
            "Region" => "[a-z]+-[a-z]+-[0-9]",
            "Account" => "[0-9]{12}|aws",
            name if name.ends_with("WithPath") => "[^:]+",
            "ObjectName" | "RepositoryName" => "[^:]+",
            // AWS asks about a log group as about its streams without a name.
            "LogGroupName" if whole.end() == format.len() => "[^:*]+(?::log-stream:)?",
            "LogGroupName" | "LogStreamName" => "[^:*]+",
            _ => "[^:/]+",
        });
        end = whole.end();
    }
    pattern.push_str(&regex::escape(&format[end..]));
    pattern.push('$');
    let pattern = pattern.replace("[0-9]{12}|aws", "(?:[0-9]{12}|aws)");
    Regex::new(&pattern).unwrap().is_match(arn)
}
