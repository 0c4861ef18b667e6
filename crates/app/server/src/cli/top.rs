//! What runs and what waits, as a table or JSON.

use super::report::{aligned, printable};
use super::{Exit, Settings, run::print};
use crate::operator::message::{Answer, Ask};
use anyhow::anyhow;
use isolarium_model::Timestamp;
use isolarium_reconcile::scheduler::{Holder, Usage};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Time between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// Clears the screen and goes to its first place.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn top(once: bool, json: bool, settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let live = !once && !json && std::io::stdout().is_terminal();
    loop {
        let usage = match super::operator::asked(&config.data_dir, &Ask::Usage)? {
            Err(exit) => return Ok(exit),
            Ok(Answer::Usage { usage }) => usage,
            Ok(_) => return Err(anyhow!("the server answered another question; is it another version?")),
        };
        if json {
            print(&format!("{}\n", serde_json::to_string_pretty(&usage)?))?;
            return Ok(Exit::Success);
        }
        let text = table(&usage, Timestamp(jiff::Timestamp::now().as_millisecond()));
        if !live {
            print(&text)?;
            return Ok(Exit::Success);
        }
        print(&format!("{CLEAR}{text}"))?;
        std::thread::sleep(AGAIN);
    }
}

const HEADS: [&str; 8] = [
    "STATE",
    "KIND",
    "NAME",
    "ACCOUNT",
    "TYPE",
    "INSTANCES",
    "VCPUS",
    "MEMORY MIB",
];

fn table(usage: &Usage, now: Timestamp) -> String {
    let of = |held: u64, capacity: Option<u64>| match capacity {
        Some(capacity) => format!("{held} of {capacity}"),
        None => format!("{held}, no limit"),
    };
    let mut text = format!(
        "vCPUs {}   memory MiB {}   running {}   waiting {}\n",
        of(usage.vcpus, usage.capacity_vcpus),
        of(usage.memory_mib, usage.capacity_memory_mib),
        usage.running.len(),
        usage.waiting.len(),
    );
    let mut rows = vec![HEADS.map(str::to_owned)];
    for holder in usage.running.iter().chain(&usage.waiting) {
        rows.push(row(holder, now));
    }
    if rows.len() > 1 {
        let _ = write!(text, "\n{}", aligned(&rows));
    }
    text
}

fn row(holder: &Holder, now: Timestamp) -> [String; 8] {
    let state = match holder.since {
        None => "running".to_owned(),
        Some(since) => format!("waits {} s", now.since(Timestamp(since)).as_secs()),
    };
    [
        state,
        holder.kind.clone(),
        printable(&holder.name),
        holder.account.clone(),
        holder.instance_type.clone(),
        holder.instances.to_string(),
        holder.vcpus.to_string(),
        holder.memory_mib.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str, since: Option<i64>) -> Holder {
        Holder {
            kind: "training_job".into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            name: name.into(),
            instance_type: "ml.m5.large".into(),
            instances: 1,
            vcpus: 2,
            memory_mib: 8192,
            since,
        }
    }

    #[test]
    fn what_runs_stands_above_what_waits() {
        let usage = Usage {
            vcpus: 2,
            memory_mib: 8192,
            capacity_vcpus: Some(2),
            capacity_memory_mib: None,
            running: vec![holder("first", None)],
            waiting: vec![holder("second", Some(1000))],
        };
        let text = table(&usage, Timestamp(8000));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "vCPUs 2 of 2   memory MiB 8192, no limit   running 1   waiting 1"
        );
        assert!(
            lines[3].starts_with("running") && lines[3].contains(" first "),
            "{text}"
        );
        assert!(
            lines[4].starts_with("waits 7 s") && lines[4].contains(" second "),
            "{text}"
        );
        let nothing = Usage {
            running: vec![],
            waiting: vec![],
            ..usage
        };
        assert_eq!(table(&nothing, Timestamp(0)).lines().count(), 1);
    }
}
