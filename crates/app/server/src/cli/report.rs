//! The isolation report as a table or JSON.

use super::{Exit, Settings, run::print};
use crate::operator::message::{Answer, Ask, Report};
use anyhow::anyhow;
use isolarium_dataplane::Reporter;
use isolarium_model::sagemaker::flows::OwnerFlows;
use isolarium_model::sagemaker::network::{Sight, SightSource};
use std::fmt::Write;

pub(super) fn report(target: String, flows: bool, json: bool, settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let ask = if flows {
        Ask::Flows { target }
    } else {
        Ask::Report { target }
    };
    let text = match super::operator::asked(&config.data_dir, &ask)? {
        Err(exit) => return Ok(exit),
        Ok(Answer::Report { report }) if !flows => match json {
            true => pretty(&report)?,
            false => table(&report),
        },
        Ok(Answer::Flows { flows: found }) if flows => match json {
            true => pretty(&found)?,
            false => flow_table(&found),
        },
        Ok(_) => return Err(anyhow!("the server answered another question; is it another version?")),
    };
    print(&text)?;
    Ok(Exit::Success)
}

fn pretty(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn time(at: isolarium_model::Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
}

const FLOW_HEADS: [&str; 10] = [
    "TIME",
    "INTERFACE",
    "OF",
    "DIRECTION",
    "ACTION",
    "PROTOCOL",
    "SOURCE",
    "DESTINATION",
    "PACKETS",
    "DECIDED BY",
];

/// A row for each direction of a flow on each interface.
fn flow_table(found: &OwnerFlows) -> String {
    let mut rows = vec![FLOW_HEADS.map(str::to_owned)];
    for flow in &found.flows {
        let either = |is: bool, yes: &str, no: &str| if is { yes } else { no }.to_owned();
        rows.push([
            time(flow.first),
            flow.interface.to_string(),
            either(flow.transfer, "transfer", "container"),
            either(flow.egress, "egress", "ingress"),
            either(flow.accepted, "ACCEPT", "REJECT"),
            match flow.protocol {
                1 => "icmp".into(),
                6 => "tcp".into(),
                17 => "udp".into(),
                other => other.to_string(),
            },
            format!("{}:{}", flow.source, flow.source_port),
            format!("{}:{}", flow.destination, flow.destination_port),
            flow.packets.to_string(),
            either(flow.decided_by.is_empty(), "-", &flow.decided_by.join("; ")),
        ]);
    }
    let mut text = format!("{}\n", found.owner_arn);
    if rows.len() == 1 {
        text.push_str("no traffic in a VPC was seen\n");
        return text;
    }
    text.push_str(&aligned(&rows));
    if found.left_out > 0 {
        let _ = writeln!(text, "{} more flows were not kept", found.left_out);
    }
    text
}

/// Columns as wide as their widest cell.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0_usize; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
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
    let of = |source| report.workloads.iter().filter(move |one| one.sight.source == source);
    if rows.len() > 1 {
        text.push_str(&aligned(&rows));
    } else if of(SightSource::Ebpf).count() > 0 || report.workloads.is_empty() {
        let watched = of(SightSource::Ebpf).count();
        let _ = writeln!(text, "{watched} containers, no attempt to leave was seen");
    }
    text.push_str(&reductions(report));
    text
}

/// What the report cannot know, a sentence each.
fn reductions(report: &Report) -> String {
    let mut text = String::new();
    let count = |like: fn(&Sight) -> bool| report.workloads.iter().filter(|one| like(&one.sight)).count();
    let all = report.workloads.len();
    let blind = count(|sight| sight.source == SightSource::None);
    if blind > 0 {
        let _ = writeln!(
            text,
            "{blind} of {all} containers were not watched, so what they tried is not known; `isolarium doctor` says what \
             the host lacks. Their isolation is the same."
        );
    }
    let waiting = count(|sight| sight.source == SightSource::NotStarted);
    if waiting > 0 {
        let _ = writeln!(text, "{waiting} of {all} containers are not started");
    }
    if count(|sight| sight.source == SightSource::Ebpf && !sight.raw_sockets) > 0 {
        let _ = writeln!(
            text,
            "attempts to open raw and ICMP sockets were refused unseen: this host has no BPF LSM (lsm=...,bpf)"
        );
    }
    let left_out = report
        .workloads
        .iter()
        .fold(0_u64, |sum, one| sum.saturating_add(one.sight.left_out));
    if left_out > 0 {
        let _ = writeln!(
            text,
            "{left_out} more attempts are not listed: only the first {} kinds of each container are kept",
            Reporter::KINDS_MAX
        );
    }
    text
}

/// Names come from inside the container: nothing in them may steer the operator's terminal.
pub(super) fn printable(text: &str) -> String {
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

    const WATCHED: Sight = Sight {
        source: SightSource::Ebpf,
        raw_sockets: true,
        left_out: 0,
    };

    /// Silence about a container that nobody watched would read as innocence.
    #[test]
    fn what_the_report_cannot_know_is_said() {
        let of = |sight, attempts: bool| {
            let mut report = one("python3");
            report.workloads[0].sight = sight;
            if !attempts {
                report.workloads[0].attempts.clear();
            }
            table(&report)
        };
        let none_seen = "no attempt to leave was seen";
        assert!(
            of(WATCHED, false).ends_with("1 containers, no attempt to leave was seen\n"),
            "control"
        );
        let blind = of(Sight::default(), false);
        assert!(
            !blind.contains(none_seen) && blind.contains("1 of 1 containers were not watched"),
            "{blind}"
        );
        let without_lsm = Sight {
            raw_sockets: false,
            ..WATCHED
        };
        let text = of(without_lsm, false);
        assert!(
            text.contains(none_seen) && text.contains("raw and ICMP sockets"),
            "{text}"
        );
        assert!(!of(WATCHED, true).contains("raw and ICMP"), "control");
        let flooded = Sight {
            left_out: 1489,
            ..WATCHED
        };
        let text = of(flooded, true);
        assert!(
            text.contains("python3") && text.contains("1489 more attempts are not listed"),
            "{text}"
        );
        let json = pretty(&one("python3")).unwrap();
        assert!(
            json.contains("\"source\": \"ebpf\"") && json.contains("\"left_out\": 0"),
            "{json}"
        );
    }

    fn one(process: &str) -> Report {
        Report {
            owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/j".into(),
            workloads: vec![WorkloadReport {
                workload: "w-00000000000000001".into(),
                sight: WATCHED,
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
    fn traffic_is_a_row_with_the_rules_that_decided() {
        let mut found = OwnerFlows {
            owner_arn: "arn".into(),
            began: Timestamp(0),
            flows: Vec::new(),
            left_out: 3,
            reading: None,
        };
        assert!(flow_table(&found).contains("no traffic in a VPC was seen"));
        found.flows.push(isolarium_model::sagemaker::flows::OwnerFlow {
            interface: "eni-0123456789abcdef0".parse().unwrap(),
            transfer: false,
            egress: true,
            accepted: false,
            protocol: 6,
            source: "10.0.1.5".parse().unwrap(),
            source_port: 40000,
            destination: "203.0.113.9".parse().unwrap(),
            destination_port: 443,
            packets: 3,
            bytes: 180,
            first: Timestamp(0),
            last: Timestamp(1),
            decided_by: vec!["no outbound rule of sg-0123456789abcdef0".into()],
        });
        let text = flow_table(&found);
        let row = text.lines().nth(2).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells[1..9],
            [
                "eni-0123456789abcdef0",
                "container",
                "egress",
                "REJECT",
                "tcp",
                "10.0.1.5:40000",
                "203.0.113.9:443",
                "3"
            ]
        );
        assert!(row.ends_with("no outbound rule of sg-0123456789abcdef0"), "{row}");
        assert!(text.ends_with("3 more flows were not kept\n"));
    }

    #[test]
    fn a_process_name_cannot_steer_the_terminal() {
        assert!(!table(&one("\x1b[2Jx\n")).contains('\x1b'));
    }
}
