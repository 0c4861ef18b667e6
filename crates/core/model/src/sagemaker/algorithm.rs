//! Algorithms: a training image with the rules of its use, and perhaps how its models serve (SM-42..44).

use super::model_package::Inference;
use super::training_job::MetricDefinition;
use super::{Echo, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What values a hyperparameter takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ParameterKind {
    /// Whole numbers, both bounds included; `None`: all.
    Integer { range: Option<(i64, i64)> },
    /// Finite numbers, both bounds included; `None`: all.
    Continuous { range: Option<(f64, f64)> },
    /// One of these; empty: any.
    Categorical { values: BTreeSet<String> },
    /// Any text.
    FreeText,
}

/// A hyperparameter that an algorithm knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub kind: ParameterKind,
    /// Whether tuning jobs may search it.
    pub tunable: bool,
    pub required: bool,
    /// What a job gets that does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

impl Parameter {
    /// Whether a value is one that the parameter takes.
    pub fn takes(&self, value: &str) -> bool {
        match &self.kind {
            ParameterKind::Integer { range } => value
                .trim()
                .parse::<i64>()
                .is_ok_and(|number| range.is_none_or(|(min, max)| (min..=max).contains(&number))),
            ParameterKind::Continuous { range } => value
                .trim()
                .parse::<f64>()
                .is_ok_and(|number| number.is_finite() && range.is_none_or(|(min, max)| (min..=max).contains(&number))),
            ParameterKind::Categorical { values } => values.is_empty() || values.contains(value),
            ParameterKind::FreeText => true,
        }
    }
}

/// An input channel that an algorithm knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRule {
    pub required: bool,
    /// Empty: any.
    pub content_types: BTreeSet<String>,
    /// `None` and `Gzip`; empty: any.
    pub compression_types: BTreeSet<String>,
    /// `File`, `Pipe`, `FastFile`.
    pub input_modes: BTreeSet<String>,
}

/// The rules by which training jobs use an algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRules {
    /// The image to run, by its digest where the algorithm names one.
    pub image: String,
    /// By name. `None`: the algorithm takes whatever it is given.
    pub parameters: Option<BTreeMap<String, Parameter>>,
    pub instance_types: BTreeSet<String>,
    /// Whether a job may have several instances.
    pub distributed: bool,
    pub metrics: Vec<MetricDefinition>,
    /// By name.
    pub channels: BTreeMap<String, ChannelRule>,
    /// What tuning jobs may aim at, as `(Type, MetricName)`; empty: any of the metrics.
    pub objectives: BTreeSet<(String, String)>,
}

/// A channel of a job, as the rules see it.
#[derive(Clone, Debug)]
pub struct GivenChannel {
    pub name: String,
    pub content_type: Option<String>,
    /// `None` or `Gzip`.
    pub compression_type: String,
    pub input_mode: String,
}

/// What a job asks of an algorithm.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub parameters: BTreeMap<String, String>,
    /// Hyperparameters whose values a tuning job chooses.
    pub tuned: BTreeSet<String>,
    pub channels: Vec<GivenChannel>,
    pub instance_type: String,
    pub instances: usize,
}

impl TrainingRules {
    /// The hyperparameters of a job, with defaults for those that it does not name (SM-44).
    ///
    /// # Errors
    /// The first rule that the job breaks, as a sentence for the caller.
    pub fn apply(&self, given: &Given) -> Result<BTreeMap<String, String>, String> {
        self.check_resources(given)?;
        self.check_channels(&given.channels)?;
        let mut all = given.parameters.clone();
        let Some(known) = &self.parameters else {
            return Ok(all);
        };
        for (name, value) in &given.parameters {
            let parameter = known
                .get(name)
                .ok_or_else(|| format!("The hyperparameter \"{name}\" is not supported by the algorithm."))?;
            if !parameter.takes(value) {
                return Err(format!(
                    "The value \"{value}\" of the hyperparameter \"{name}\" is not one that the algorithm supports."
                ));
            }
        }
        for name in &given.tuned {
            if !known.get(name).is_some_and(|parameter| parameter.tunable) {
                return Err(format!(
                    "The hyperparameter \"{name}\" of the algorithm cannot be tuned."
                ));
            }
        }
        for (name, parameter) in known {
            if all.contains_key(name) || given.tuned.contains(name) {
                continue;
            }
            match &parameter.default {
                Some(value) => {
                    all.insert(name.clone(), value.clone());
                }
                None if parameter.required => {
                    return Err(format!("The hyperparameter \"{name}\" is required by the algorithm."));
                }
                None => {}
            }
        }
        Ok(all)
    }

    fn check_resources(&self, given: &Given) -> Result<(), String> {
        if !self.instance_types.contains(&given.instance_type) {
            return Err(format!(
                "The instance type {} is not supported by the algorithm.",
                given.instance_type
            ));
        }
        if given.instances > 1 && !self.distributed {
            return Err("The algorithm does not support distributed training: InstanceCount must be 1.".into());
        }
        Ok(())
    }

    fn check_channels(&self, channels: &[GivenChannel]) -> Result<(), String> {
        for channel in channels {
            let name = &channel.name;
            let rule = self
                .channels
                .get(name)
                .ok_or_else(|| format!("The channel \"{name}\" is not supported by the algorithm."))?;
            let allows = |list: &BTreeSet<String>, value: &str| list.is_empty() || list.contains(value);
            let refused = match &channel.content_type {
                Some(kind) if !allows(&rule.content_types, kind) => Some(("ContentType", kind)),
                _ if !allows(&rule.compression_types, &channel.compression_type) => {
                    Some(("CompressionType", &channel.compression_type))
                }
                _ if !allows(&rule.input_modes, &channel.input_mode) => Some(("input mode", &channel.input_mode)),
                _ => None,
            };
            if let Some((what, value)) = refused {
                return Err(format!(
                    "The {what} \"{value}\" of the channel \"{name}\" is not supported by the algorithm."
                ));
            }
        }
        let missing = self
            .channels
            .iter()
            .find(|(name, rule)| rule.required && !channels.iter().any(|channel| channel.name == **name));
        match missing {
            Some((name, _)) => Err(format!("The channel \"{name}\" is required by the algorithm.")),
            None => Ok(()),
        }
    }
}

/// An algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Algorithm {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    /// Of the marketplace: set by the operator's import alone (D-13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
    pub training: TrainingRules,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
    pub tags: Tags,
    /// The specifications as given.
    pub echo: Echo,
}

impl Record for Algorithm {
    const KIND: &'static str = "sagemaker.algorithm";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.name.clone(), self.created)
    }
}

impl Algorithm {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The algorithm's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "algorithm", name)
    }

    /// Whether it is a product of the marketplace, or its models are (D-13).
    pub fn is_product(&self) -> bool {
        self.product_id.is_some() || self.inference.as_ref().is_some_and(Inference::is_product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TrainingRules {
        let parameter = |kind, default: Option<&str>, required| Parameter {
            kind,
            tunable: true,
            required,
            default: default.map(String::from),
        };
        let numbers = ParameterKind::Integer { range: Some((1, 9)) };
        let rate = ParameterKind::Continuous {
            range: Some((0.0, 1.0)),
        };
        let text = |all: &[&str]| all.iter().map(|one| (*one).to_string()).collect::<BTreeSet<_>>();
        let mode = ParameterKind::Categorical {
            values: text(&["a", "b"]),
        };
        TrainingRules {
            image: "image".into(),
            parameters: Some(BTreeMap::from([
                ("depth".into(), parameter(numbers, None, true)),
                ("rate".into(), parameter(rate, Some("0.5"), false)),
                ("mode".into(), parameter(mode, None, false)),
            ])),
            instance_types: text(&["ml.m5.large"]),
            distributed: false,
            metrics: Vec::new(),
            channels: BTreeMap::from([(
                "train".into(),
                ChannelRule {
                    required: true,
                    content_types: text(&["text/csv"]),
                    compression_types: text(&["None"]),
                    input_modes: text(&["File"]),
                },
            )]),
            objectives: BTreeSet::new(),
        }
    }

    fn given() -> Given {
        Given {
            parameters: BTreeMap::from([("depth".into(), "3".into())]),
            tuned: BTreeSet::new(),
            channels: vec![GivenChannel {
                name: "train".into(),
                content_type: Some("text/csv".into()),
                compression_type: "None".into(),
                input_mode: "File".into(),
            }],
            instance_type: "ml.m5.large".into(),
            instances: 1,
        }
    }

    /// Proves: SM-44
    #[test]
    fn defaults_are_filled_in_and_every_broken_rule_is_told() {
        let all = rules().apply(&given()).unwrap();
        assert_eq!(
            all,
            BTreeMap::from([("depth".into(), "3".into()), ("rate".into(), "0.5".into())])
        );
        let broken = |edit: &dyn Fn(&mut Given)| {
            let mut given = given();
            edit(&mut given);
            rules().apply(&given).unwrap_err()
        };
        let set = |given: &mut Given, name: &str, value: &str| given.parameters.insert(name.into(), value.into());
        for (word, edit) in [
            (
                "\"deep\" is not supported",
                &(|g: &mut Given| drop(set(g, "deep", "1"))) as &dyn Fn(&mut Given),
            ),
            ("value \"10\"", &|g| drop(set(g, "depth", "10"))),
            ("value \"1.5\"", &|g| drop(set(g, "depth", "1.5"))),
            ("value \"NaN\"", &|g| drop(set(g, "rate", "NaN"))),
            ("value \"c\"", &|g| drop(set(g, "mode", "c"))),
            ("\"depth\" is required", &|g| g.parameters.clear()),
            ("cannot be tuned", &|g| g.tuned = BTreeSet::from(["deep".into()])),
            ("instance type ml.m5.xlarge", &|g| {
                g.instance_type = "ml.m5.xlarge".into()
            }),
            ("distributed", &|g| g.instances = 2),
            ("\"train\" is required", &|g| g.channels.clear()),
            ("channel \"test\"", &|g| g.channels[0].name = "test".into()),
            ("ContentType", &|g| {
                g.channels[0].content_type = Some("image/png".into())
            }),
            ("CompressionType", &|g| g.channels[0].compression_type = "Gzip".into()),
            ("input mode", &|g| g.channels[0].input_mode = "Pipe".into()),
        ] {
            let text = broken(edit);
            assert!(text.contains(word), "{word}: {text}");
        }
        let mut tuned = given();
        tuned.parameters.clear();
        tuned.tuned.insert("depth".into());
        assert!(
            rules().apply(&tuned).is_ok(),
            "control: the tuning job gives what is required"
        );
    }
}
