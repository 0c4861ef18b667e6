//! Can this host run sealed workloads?

use super::{Exit, config::Config, run::print};
use serde::Serialize;

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    /// Works, with less than everything.
    Warn,
    /// No workload could run.
    Fail,
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub name: String,
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when nothing needs doing.
    pub remedy: String,
}

impl Check {
    fn new(name: &str, outcome: Outcome, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

pub(super) fn doctor(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let checks = checks(config);
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&checks)?))?;
    } else {
        print(&checks.iter().map(line).collect::<String>())?;
    }
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

fn line(check: &Check) -> String {
    let mark = match check.outcome {
        Outcome::Ok => "ok  ",
        Outcome::Warn => "warn",
        Outcome::Fail => "FAIL",
    };
    let remedy = if check.remedy.is_empty() {
        String::new()
    } else {
        format!(" -> {}", check.remedy)
    };
    format!("{mark}  {:<18} {}{remedy}\n", check.name, check.found)
}

/// Every check, in the order an operator would mend things.
fn checks(config: &Config) -> Vec<Check> {
    vec![
        privilege(rustix::process::geteuid().is_root()),
        disk(config),
        port(config),
    ]
}

fn privilege(root: bool) -> Check {
    if root {
        Check::new("privilege", Outcome::Ok, "running as root", "")
    } else {
        Check::new(
            "privilege",
            Outcome::Fail,
            "not root: namespaces, mounts and cgroups cannot be made",
            "run as root",
        )
    }
}

const GIB: u64 = 1 << 30;

fn disk(config: &Config) -> Check {
    let existing = config
        .data_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(std::path::Path::new("/"));
    let place = existing.display();
    match rustix::fs::statvfs(existing) {
        Err(error) => Check::new(
            "disk",
            Outcome::Fail,
            format!("{place}: {error}"),
            "check the path of data_dir",
        ),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{:.1} GiB free at {place}", free as f64 / GIB as f64);
            if free < GIB / 4 {
                Check::new("disk", Outcome::Fail, text, "free at least 256 MiB or move data_dir")
            } else if free < 10 * GIB {
                Check::new(
                    "disk",
                    Outcome::Warn,
                    text,
                    "images and models need room; 10 GiB is a start",
                )
            } else {
                Check::new("disk", Outcome::Ok, text, "")
            }
        }
    }
}

fn port(config: &Config) -> Check {
    let at = config.listen;
    match std::net::TcpListener::bind(at) {
        Ok(_) => Check::new("port", Outcome::Ok, format!("{at} is free"), ""),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::new(
            "port",
            Outcome::Warn,
            format!("{at} is in use"),
            "fine if a server is running; else set listen",
        ),
        Err(error) => Check::new(
            "port",
            Outcome::Fail,
            format!("{at}: {error}"),
            "set listen to an address of this host",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_says_what_to_do() {
        let check = privilege(false);
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(line(&check).starts_with("FAIL  privilege") && line(&check).contains("-> run as root"));
        assert_eq!(privilege(true).outcome, Outcome::Ok, "control");
    }

    #[test]
    fn a_taken_port_is_seen() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config {
            listen: taken.local_addr().unwrap(),
            ..Config::default()
        };
        assert_eq!(port(&config).outcome, Outcome::Warn);
        config.listen.set_port(0);
        assert_eq!(port(&config).outcome, Outcome::Ok, "control");
    }
}
