//! Metrics from log lines (CC-38, CC-39).

use isolarium_model::Timestamp;
use isolarium_model::sagemaker::metric_pattern::MetricPattern;
use isolarium_model::sagemaker::training_job::{MetricDefinition, MetricValue};
use std::collections::BTreeMap;

/// Searches lines and keeps the last value per metric.
#[derive(Default)]
pub struct MetricScanner {
    patterns: Vec<(String, MetricPattern)>,
    last: BTreeMap<String, MetricValue>,
    /// Values of the piece of output that is being read.
    fresh: Vec<(String, MetricValue)>,
}

impl MetricScanner {
    /// A scanner for a job's definitions; patterns that cannot be used, which creation refuses, are left out.
    pub fn new(definitions: &[MetricDefinition]) -> Self {
        let patterns = definitions
            .iter()
            .filter_map(|definition| Some((definition.name.clone(), MetricPattern::compile(&definition.regex)?)))
            .collect();
        Self {
            patterns,
            last: BTreeMap::new(),
            fresh: Vec::new(),
        }
    }

    /// Searches one line.
    pub fn line(&mut self, time: Timestamp, line: &str) {
        for (name, pattern) in &self.patterns {
            if let Some(value) = pattern.value(line) {
                let value = MetricValue { value, time };
                self.fresh.push((name.clone(), value.clone()));
                self.last.insert(name.clone(), value);
            }
        }
    }

    /// Every value that was found since the last call.
    pub fn take_fresh(&mut self) -> Vec<(String, MetricValue)> {
        std::mem::take(&mut self.fresh)
    }

    /// The last value of every metric that appeared.
    pub fn last(&self) -> &BTreeMap<String, MetricValue> {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn scan(regex: &str, lines: &[&str]) -> Option<f64> {
        let mut scanner = MetricScanner::new(&[MetricDefinition {
            name: "m".into(),
            regex: regex.into(),
        }]);
        for line in lines {
            scanner.line(Timestamp(5), line);
        }
        scanner.last().get("m").map(|value| value.value)
    }

    /// Proves: CC-38, CC-39
    #[test]
    fn the_last_number_in_the_first_group_counts() {
        assert_eq!(
            scan("Loss = (.*?);", &["Loss = 0.5;", "noise", "Loss = 0.25; more"]),
            Some(0.25)
        );
        assert_eq!(
            scan("Loss = (.*?);", &["Loss = 0.5;", "Loss = nan;", "Loss = abc;"]),
            Some(0.5)
        );
        assert_eq!(scan("acc:([0-9.]+)", &["nothing here"]), None);
        assert_eq!(scan("acc", &["acc"]), None, "a pattern without a group has no value");
        assert_eq!(
            scan("(?<=acc=)([0-9.]+)", &["acc=0.75"]),
            Some(0.75),
            "look-around works"
        );
        assert_eq!(scan("e=([-+0-9.eE]+)", &["e=-1.5e-3"]), Some(-0.0015));
    }

    /// Proves: CC-38
    #[test]
    fn a_pattern_that_backtracks_cannot_stall_the_engine() {
        let line = "a".repeat(50_000);
        let start = Instant::now();
        assert_eq!(scan("(?=x)?(a+)+$b", &[&line]), None);
        assert_eq!(scan("(a*)*b", &[&line]), None);
        assert_eq!(scan(r"(a+)+(?=\1c)(x)", &[&line]), None);
        assert!(start.elapsed() < Duration::from_secs(20), "bounded, even unoptimised");
    }
}
