//! Can this host run sealed workloads?

use super::{Exit, config::Config, run::print};
use crate::operator::message::{Answer, Ask, VpcLine};
use isolarium_dataplane::{Host, HostOptions, Reporter};
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use isolarium_runtime::local::{CheckOutcome, LocalConfig, probe_host};
use serde::Serialize;
use std::error::Error;
use std::path::Path;
use std::process::Command;

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// Workloads run, with less than the full promise.
    Reduced,
    /// No workload could run.
    Missing,
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    outcome: Outcome,
    /// What was found, and where it is not good, what to do.
    text: String,
}

impl Check {
    fn new(name: &str, outcome: CheckOutcome) -> Self {
        let (outcome, mut text) = match outcome {
            CheckOutcome::Good(text) => (Outcome::Ok, text),
            CheckOutcome::Reduced(text) => (Outcome::Reduced, text),
            CheckOutcome::Missing(text) => (Outcome::Missing, text),
        };
        if outcome != Outcome::Ok {
            text = format!("{text}. {}", advice(name));
        }
        Self {
            name: name.into(),
            outcome,
            text,
        }
    }

    fn line(&self) -> String {
        let mark = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Reduced => "reduced",
            Outcome::Missing => "MISSING",
        };
        format!("{mark:<8}{:<22}{}\n", self.name, self.text)
    }
}

/// What to do about a check that is not good.
fn advice(name: &str) -> &'static str {
    match name {
        "root" => "Start the command with sudo, or as a system service.",
        "OCI runtime" => "Install the package crun or runc, or set `runtime.oci` to another OCI runtime.",
        "control groups" => {
            "Mount control groups with the controllers cpu, memory and pids (kernel options `cgroup_enable=memory \
             swapaccount=1` where they are switched off)."
        }
        "overlay file system" => "Load it with `modprobe overlay`, or use a kernel built with CONFIG_OVERLAY_FS.",
        "user namespaces" => "Set `sysctl user.max_user_namespaces=1000` or more; the kernel needs CONFIG_USER_NS.",
        "system call filter" => "Use a kernel built with CONFIG_SECCOMP_FILTER.",
        "disk" => "Free space there, or set `data_dir` to a directory on a larger file system that root may write.",
        "a container" => {
            "Mend the lines above first; what remains is named here: file systems need id-mapped mounts (Linux 5.19 or \
             later on ext4, xfs or btrfs)."
        }
        "packet filter" => "Install the package nftables (1.0.6 or later).",
        "sealed network" => "Start as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; the kernel needs CONFIG_NET_NS.",
        "isolation report" => {
            "Use a kernel with CONFIG_CGROUP_BPF, and a cgroup2 hierarchy that can be mounted; without it reports name \
             fewer attempts."
        }
        _ => "Give `--listen` a free address of this host.",
    }
}

pub(super) fn doctor(config: &Config, local: LocalConfig, json: bool) -> anyhow::Result<Exit> {
    let checks = checks(config, local);
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&checks)?))?;
    } else {
        print(&checks.iter().map(Check::line).collect::<String>())?;
    }
    let runs = checks.iter().all(|check| check.outcome != Outcome::Missing);
    Ok(if runs { Exit::Success } else { Exit::Failure })
}

/// The running server's VPCs: does the kernel have what their records ask for?
pub(super) fn vpcs(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let all = match super::operator::asked(&config.data_dir, &Ask::Vpcs)? {
        Err(exit) => return Ok(exit),
        Ok(Answer::Vpcs { vpcs }) => vpcs,
        Ok(_) => {
            return Err(anyhow::anyhow!(
                "the server answered another question; is it another version?"
            ));
        }
    };
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&all.iter().map(vpc_lines).collect::<String>())?;
    }
    let same = all.iter().all(|vpc| vpc.differences.is_empty());
    Ok(if same { Exit::Success } else { Exit::Failure })
}

fn vpc_lines(vpc: &VpcLine) -> String {
    match vpc.differences.as_slice() {
        [] => format!("ok      {}\n", vpc.vpc_id),
        some => some
            .iter()
            .map(|one| format!("DIFFERS {} {one}\n", vpc.vpc_id))
            .collect(),
    }
}

/// Every check, in the order an operator would mend things. Leaves nothing behind.
fn checks(config: &Config, mut local: LocalConfig) -> Vec<Check> {
    // A data directory that does not exist yet is looked at where it would be.
    let place = config
        .data_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    local.data_dir = place.to_path_buf();
    let mut checks: Vec<Check> = probe_host(&local)
        .into_iter()
        .map(|check| Check::new(check.name, check.outcome))
        .collect();
    let folder = place.join(format!(".doctor-net-{}", std::process::id()));
    checks.push(Check::new("packet filter", packet_filter()));
    checks.push(Check::new("sealed network", sealed_network(&folder)));
    checks.push(Check::new("isolation report", isolation_report(&folder)));
    // Empty by now, or never made.
    let _ = std::fs::remove_dir_all(&folder);
    checks.push(Check::new("port", port(config)));
    checks
}

fn packet_filter() -> CheckOutcome {
    match Command::new("nft").arg("--version").output() {
        Ok(output) if output.status.success() => {
            CheckOutcome::Good(String::from_utf8_lossy(&output.stdout).trim().into())
        }
        Ok(output) => CheckOutcome::Missing(format!("nft --version ends with {}", output.status)),
        Err(error) => CheckOutcome::Missing(format!("nft cannot be run ({error}); install the package nftables")),
    }
}

/// A namespace with loopback alone, proven as for a workload.
fn sealed_network(folder: &Path) -> CheckOutcome {
    let host = Host::new(HostOptions {
        run_dir: folder.join("run"),
        host_netns: None,
    });
    let Ok(workload) = format!("w-{:017x}", std::process::id()).parse() else {
        return CheckOutcome::Missing("no workload id could be made".into());
    };
    let network = WorkloadNetwork {
        workload,
        reach: Reach::Nothing,
    };
    match host.seal(&network) {
        Ok(_sealed) => CheckOutcome::Good("can be made and proven".into()),
        Err(error) => CheckOutcome::Missing(chain(&error)),
    }
}

fn isolation_report(folder: &Path) -> CheckOutcome {
    let pins = folder.join("bpf");
    let outcome = match Reporter::open(&pins) {
        Ok(reporter) if !reporter.sees_raw_sockets() => CheckOutcome::Reduced(
            "eBPF programs can be loaded, but attempts to open raw and ICMP sockets are refused unseen: the BPF LSM is not \
             active (kernel option lsm=...,bpf)"
                .into(),
        ),
        Ok(_reporter) => CheckOutcome::Good("eBPF programs can be loaded".into()),
        Err(error) => CheckOutcome::Reduced(format!("{}; isolation itself is not affected", chain(&error))),
    };
    match Reporter::teardown(&pins) {
        Ok(()) => outcome,
        Err(error) => CheckOutcome::Reduced(format!("{} could not be removed: {error}", pins.display())),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn port(config: &Config) -> CheckOutcome {
    let at = config.listen;
    match std::net::TcpListener::bind(at) {
        Ok(_) => CheckOutcome::Good(format!("{at} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            CheckOutcome::Reduced(format!("{at} is in use: fine if a server is running, else set listen"))
        }
        Err(error) => CheckOutcome::Missing(format!("{at}: {error}; set listen to an address of this host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_stands_out_and_says_what_to_do() {
        let check = Check::new("root", CheckOutcome::Missing("run as root".into()));
        assert_eq!(
            check.line(),
            "MISSING root                  run as root. Start the command with sudo, or as a system service.\n"
        );
        assert!(
            Check::new("root", CheckOutcome::Good("yes".into()))
                .line()
                .starts_with("ok "),
            "control"
        );
    }

    #[test]
    fn every_check_has_its_own_advice() {
        let names = [
            "root",
            "OCI runtime",
            "control groups",
            "overlay file system",
            "user namespaces",
            "system call filter",
            "disk",
            "a container",
            "packet filter",
            "sealed network",
            "isolation report",
            "port",
        ];
        let all: std::collections::BTreeSet<&str> = names.into_iter().map(advice).collect();
        assert_eq!(all.len(), names.len());
    }

    #[test]
    fn a_vpc_that_differs_stands_out() {
        let line = |differences: &[&str]| {
            vpc_lines(&VpcLine {
                vpc_id: "vpc-1".into(),
                differences: differences.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(line(&[]), "ok      vpc-1\n");
        assert_eq!(
            line(&["add a", "delete b"]),
            "DIFFERS vpc-1 add a\nDIFFERS vpc-1 delete b\n"
        );
    }

    #[test]
    fn a_taken_port_is_seen() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config {
            listen: taken.local_addr().unwrap(),
            ..Config::default()
        };
        assert!(matches!(port(&config), CheckOutcome::Reduced(_)));
        config.listen.set_port(0);
        assert!(matches!(port(&config), CheckOutcome::Good(_)), "control");
    }
}
