//! The isolation report as a table or JSON.

use super::{Exit, Settings, run::print};
use crate::operator::message::{Answer, Ask, Report};
use anyhow::anyhow;
use std::fmt::Write;

pub(super) fn report(target: &str, json: bool, settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    match super::operator::asked(&config.data_dir, &Ask::Report { target: target.into() })? {
        Err(exit) => Ok(exit),
        Ok(Answer::Report { report }) => {
            let text = if json {
                format!("{}\n", serde_json::to_string_pretty(&report)?)
            } else {
                table(&report)
            };
            print(&text)?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(anyhow!("the server answered another question; is it another version?")),
    }
}

const HEADS: [&str; 9] = [
    "TIME",
    "LAST",
    "PROCESS",
    "PID",
    "PROTOCOL",
    "DESTINATION",
    "PORT",
    "DNS NAME",
    "COUNT",
];

/// The table people read: a row for each kind of attempt.
fn table(report: &Report) -> String {
    let time = |at: isolarium_model::Timestamp| {
        jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
    };
    let mut rows: Vec<[String; 9]> = vec![HEADS.map(str::to_owned)];
    for attempt in report.workloads.iter().flat_map(|workload| &workload.attempts) {
        rows.push([
            time(attempt.first),
            time(attempt.last),
            printable(&attempt.process),
            attempt.pid.to_string(),
            printable(&attempt.protocol),
            attempt.address.to_string(),
            attempt.port.to_string(),
            attempt.name.as_deref().map_or_else(|| "-".into(), printable),
            attempt.count.to_string(),
        ]);
    }
    let mut text = format!("{}\n", report.owner_arn);
    if rows.len() == 1 {
        let _ = writeln!(
            text,
            "{} containers, no attempt to leave was seen",
            report.workloads.len()
        );
        return text;
    }
    let mut widths = [0_usize; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// Names come from inside the container: nothing in them may steer the operator's terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::message::WorkloadReport;
    use isolarium_model::Timestamp;
    use isolarium_runtime::executor::BlockedAttempt;

    fn one(process: &str) -> Report {
        Report {
            owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/j".into(),
            workloads: vec![WorkloadReport {
                workload: "w-00000000000000001".into(),
                attempts: vec![BlockedAttempt {
                    first: Timestamp(0),
                    last: Timestamp(1500),
                    count: 3,
                    pid: 7,
                    process: process.into(),
                    protocol: "tcp".into(),
                    address: "203.0.113.10".parse().unwrap(),
                    port: 443,
                    name: None,
                }],
            }],
        }
    }

    #[test]
    fn the_table_names_process_destination_and_count() {
        let text = table(&one("python3"));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1].len(), 10, "DNS NAME is two words");
        assert_eq!(
            lines[2],
            [
                "1970-01-01T00:00:00.000Z",
                "1970-01-01T00:00:01.500Z",
                "python3",
                "7",
                "tcp",
                "203.0.113.10",
                "443",
                "-",
                "3"
            ]
        );
    }

    #[test]
    fn a_process_name_cannot_steer_the_terminal() {
        assert!(!table(&one("\x1b[2Jx\n")).contains('\x1b'));
    }
}
