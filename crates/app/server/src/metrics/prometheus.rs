//! The text that Prometheus reads (exposition format 0.0.4).

use super::Collector;
use super::tally::{BOUNDS, Counts};
use isolarium_model::Key;
use isolarium_store::{StateStore, StoreError};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What there is to tell.
pub struct Exposition {
    pub collector: Arc<Collector>,
    pub store: Arc<dyn StateStore>,
    pub data_dir: PathBuf,
}

/// Reads a count of a variant.
type Counter = fn(&Counts) -> u64;

const COUNTERS: [(&str, &str, Counter); 4] = [
    (
        "isolarium_invocations_total",
        "Invocations that a variant was picked for.",
        |c| c.invocations,
    ),
    (
        "isolarium_invocation_model_errors_total",
        "Invocations whose model did not answer with success.",
        |c| c.model_errors,
    ),
    (
        "isolarium_invocation_4xx_total",
        "Invocations whose model answered with a status of 400 to 499.",
        |c| c.model_4xx,
    ),
    (
        "isolarium_invocation_5xx_total",
        "Invocations whose model answered with a status of 500 or more.",
        |c| c.model_5xx,
    ),
];

impl Exposition {
    /// The text of this moment. Blocks.
    ///
    /// # Errors
    /// When records cannot be counted.
    pub fn text(&self) -> Result<String, StoreError> {
        let mut out = String::new();
        head(
            &mut out,
            "isolarium_info",
            "gauge",
            "Always 1; the label has the version.",
        );
        line(
            &mut out,
            "isolarium_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            "1",
        );
        let counts = self.store.counts()?;
        let text = "Records of the engine by kind and status: jobs, endpoints, VPCs and every other noun.";
        head(&mut out, "isolarium_records", "gauge", text);
        for (kind, status, count) in counts {
            let labels = [("kind", kind.as_str()), ("status", status.as_str())];
            line(&mut out, "isolarium_records", &labels, &count.to_string());
        }
        self.invocations(&mut out);
        self.disk(&mut out);
        Ok(out)
    }

    fn invocations(&self, out: &mut String) {
        let totals = self.collector.totals();
        for (name, text, count) in COUNTERS {
            head(out, name, "counter", text);
            for (key, endpoint, variant, counts) in &totals {
                line(out, name, &labels(key, endpoint, variant), &count(counts).to_string());
            }
        }
        let name = "isolarium_model_latency_seconds";
        head(out, name, "histogram", "How long models took to answer.");
        for (key, endpoint, variant, counts) in &totals {
            let labels = labels(key, endpoint, variant);
            let bounds = BOUNDS.iter().map(|bound| seconds(*bound).to_string());
            let mut below = 0_u64;
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts.histogram) {
                below = below.saturating_add(count);
                let with = [labels.as_slice(), &[("le", bound.as_str())]].concat();
                line(out, &format!("{name}_bucket"), &with, &below.to_string());
            }
            let sum = counts.model.map_or(0.0, |model| model.sum / 1e6);
            line(out, &format!("{name}_sum"), &labels, &sum.to_string());
            line(out, &format!("{name}_count"), &labels, &below.to_string());
        }
    }

    fn disk(&self, out: &mut String) {
        let size = |name: &str| std::fs::metadata(self.data_dir.join(name)).map_or(0, |found| found.len());
        head(
            out,
            "isolarium_store_bytes",
            "gauge",
            "Size of the records' database with its write-ahead log.",
        );
        let both = size("state.db").saturating_add(size("state.db-wal"));
        line(out, "isolarium_store_bytes", &[], &both.to_string());
        let Ok(disk) = rustix::fs::statvfs(&self.data_dir) else {
            return;
        };
        head(
            out,
            "isolarium_disk_bytes",
            "gauge",
            "The file system of the data directory.",
        );
        for (state, blocks) in [("size", disk.f_blocks), ("free", disk.f_bavail)] {
            let bytes = blocks.saturating_mul(disk.f_frsize);
            line(out, "isolarium_disk_bytes", &[("state", state)], &bytes.to_string());
        }
    }
}

fn labels<'a>(key: &'a Key, endpoint: &'a str, variant: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("account", key.scope.account.as_str()),
        ("region", key.scope.region.as_str()),
        ("endpoint", endpoint),
        ("variant", variant),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    let mut shown = Vec::new();
    for (label, text) in labels {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        shown.push(format!("{label}=\"{text}\""));
    }
    let _ = match shown.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{}}} {value}", shown.join(",")),
    };
}
