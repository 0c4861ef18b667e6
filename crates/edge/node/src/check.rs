//! Strict checks of what arrives on the socket. The other half parses what users send; a bug there must not become a
//! path or a limit that the privileged half acts on.

use isolarium_model::AccountId;
use isolarium_model::sagemaker::network::MAX_PEERS;
use isolarium_netplan::intent::Reach;
use isolarium_runtime::executor::{LaunchSpec, Mount, VolumeSpec};
use rustix::fs::FileType;
use std::collections::HashSet;
use std::os::fd::OwnedFd;

/// Why a request was refused before anything privileged looked at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("{0} is not a plain name")]
    Name(&'static str),
    #[error("mount target {0:?} is not an absolute path without dots")]
    Target(String),
    #[error("mount source {0:?} is not a relative path without dots")]
    Source(String),
    #[error("{what} is {value}, allowed are {least} to {most}")]
    Limit {
        what: &'static str,
        value: u64,
        least: u64,
        most: u64,
    },
    #[error("{0} holds a NUL or newline")]
    Text(&'static str),
    #[error("{0} is too long")]
    TooLong(&'static str),
    #[error("the network is another workload's")]
    Network,
    #[error("a workload cannot be started beside itself, nor beside one of a network of peers")]
    Beside,
    #[error("the peers of an encrypted workload are not others, each once")]
    Tunnel,
    #[error("a container cannot be its own volume")]
    Volume,
    #[error("the descriptor is not a regular file")]
    Descriptor,
    #[error("the credentials file may hold a key of the profile default, one for each other account, and nothing else")]
    Credentials,
}

/// One path component: no slash, no dots alone, printable, at most 64 bytes.
///
/// # Errors
/// `Name` when it is not.
pub fn component(what: &'static str, text: &str) -> Result<(), BadRequest> {
    let plain = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text != "."
        && text != "..";
    if plain { Ok(()) } else { Err(BadRequest::Name(what)) }
}

/// A relative path of non-empty components without `.` and `..`.
///
/// # Errors
/// `Source` when it is not.
pub fn relative(text: &str) -> Result<(), BadRequest> {
    let good = !text.is_empty() && text.len() <= 4096 && text.split('/').all(inner);
    if good {
        Ok(())
    } else {
        Err(BadRequest::Source(text.into()))
    }
}

fn inner(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.bytes().any(|b| b == 0 || b == b'\n')
}

fn absolute(text: &str) -> Result<(), BadRequest> {
    let good = text.len() <= 4096 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(inner));
    if good {
        Ok(())
    } else {
        Err(BadRequest::Target(text.into()))
    }
}

fn limit(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), BadRequest> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(BadRequest::Limit {
            what,
            value,
            least,
            most,
        })
    }
}

fn text(what: &'static str, text: &str, longest: usize) -> Result<(), BadRequest> {
    if text.len() > longest {
        return Err(BadRequest::TooLong(what));
    }
    if text.bytes().any(|b| b == 0) {
        Err(BadRequest::Text(what))
    } else {
        Ok(())
    }
}

/// A passed descriptor that reads or writes a file: nothing else ends by itself, and the archive process that gets it
/// would wait for ever.
///
/// # Errors
/// `Descriptor` for pipes, sockets, devices, directories and what cannot be looked at.
pub fn regular_file(descriptor: &OwnedFd) -> Result<(), BadRequest> {
    match rustix::fs::fstat(descriptor) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(()),
        _ => Err(BadRequest::Descriptor),
    }
}

/// A credentials file as the engine writes it: profiles, each with a key id and a secret, the first one `default`, the
/// others named by an account's id. Whoever started the engine gets this file, and such files can name programs to run
/// (`credential_process`).
///
/// # Errors
/// `Credentials` when there is anything else in it.
pub fn credentials(text: &str) -> Result<(), BadRequest> {
    let plain = |value: &str, also: &[u8]| {
        (16..=128).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    let value = |line: &str, key: &str, also: &[u8]| {
        let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(" = "));
        value.is_some_and(|value| plain(value, also))
    };
    let of_account = |line: &str| {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        name.is_some_and(|name| name.parse::<AccountId>().is_ok())
    };
    let mut known = HashSet::new();
    let mut lines = text.strip_suffix('\n').ok_or(BadRequest::Credentials)?.split('\n');
    while let Some(profile) = lines.next() {
        let named = if known.is_empty() {
            profile == "[default]"
        } else {
            of_account(profile)
        };
        let (id, secret) = lines.next().zip(lines.next()).ok_or(BadRequest::Credentials)?;
        let keyed = value(id, "aws_access_key_id", b"") && value(secret, "aws_secret_access_key", b"/+=");
        if !named || !keyed || !known.insert(profile) {
            return Err(BadRequest::Credentials);
        }
    }
    Ok(())
}

/// Peers are others than the container itself, each once.
fn tunnel(spec: &LaunchSpec) -> Result<(), BadRequest> {
    let Some(tunnel) = &spec.tunnel else { return Ok(()) };
    limit("peers", tunnel.peers.len() as u64, 1, MAX_PEERS as u64)?;
    let mut addresses: HashSet<_> = HashSet::from([tunnel.own]);
    let mut workloads = HashSet::from([&spec.workload]);
    let all_differ = tunnel
        .peers
        .iter()
        .all(|(address, workload)| addresses.insert(*address) && workloads.insert(workload));
    // The interface is that of a workload's own namespace: one beside another has what that one has.
    if all_differ && spec.beside.is_none() {
        Ok(())
    } else {
        Err(BadRequest::Tunnel)
    }
}

/// Checks an encrypted volume that is to be made.
///
/// # Errors
/// The rule it breaks.
pub fn volume(volume: &VolumeSpec) -> Result<(), BadRequest> {
    limit("volume bytes", volume.bytes, 1 << 24, 1 << 45)
}

/// Checks a whole launch spec.
///
/// # Errors
/// The first rule it breaks.
pub fn launch(spec: &LaunchSpec) -> Result<(), BadRequest> {
    if spec.network.workload != *spec.beside.as_ref().unwrap_or(&spec.workload) {
        return Err(BadRequest::Network);
    }
    let peers = matches!(spec.network.reach, Reach::Peers { .. });
    if spec
        .beside
        .as_ref()
        .is_some_and(|beside| peers || *beside == spec.workload)
    {
        return Err(BadRequest::Beside);
    }
    tunnel(spec)?;
    component("host name", &spec.hostname)?;
    text("owner ARN", &spec.owner_arn, 2048)?;
    limit("layers", spec.layers.len() as u64, 1, 127)?;
    limit("arguments", spec.process.argv.len() as u64, 1, 4096)?;
    limit("environment entries", spec.process.env.len() as u64, 0, 4096)?;
    for argument in &spec.process.argv {
        text("argument", argument, 128 << 10)?;
    }
    for (name, value) in &spec.process.env {
        text("environment name", name, 4096)?;
        text("environment value", value, 128 << 10)?;
        if name.is_empty() || name.contains('=') {
            return Err(BadRequest::Name("environment name"));
        }
    }
    text("user", &spec.process.user, 256)?;
    if spec.process.cwd != "/" {
        absolute(&spec.process.cwd)?;
    }
    limit("hosts", spec.hosts.len() as u64, 0, 1024)?;
    for name in spec.hosts.iter().flat_map(|(_, names)| names) {
        component("host alias", name)?;
    }
    limit("mounts", spec.mounts.len() as u64, 0, 128)?;
    for mount in &spec.mounts {
        match mount {
            Mount::Input { source, target } | Mount::Copied { source, target } => {
                relative(source)?;
                absolute(target)?;
            }
            Mount::Scratch { name, target, .. } => {
                component("scratch directory", name)?;
                absolute(target)?;
            }
            Mount::Volume { volume, target } => {
                if *volume == spec.workload {
                    return Err(BadRequest::Volume);
                }
                absolute(target)?;
            }
        }
    }
    // Which of them there are is looked up in files that are root's.
    limit("devices", spec.devices.len() as u64, 0, 64)?;
    for name in &spec.devices {
        text("device", name, 512)?;
    }
    limit("cpu_millis", spec.limits.cpu_millis, 10, 4_096_000)?;
    limit("memory_bytes", spec.limits.memory_bytes, 4 << 20, 1 << 46)?;
    limit("pids", spec.limits.pids, 1, 1 << 22)?;
    limit("shm_bytes", spec.limits.shm_bytes, 0, 1 << 46)?;
    limit("overlay_bytes", spec.limits.overlay_bytes, 4096, 1 << 46)
}

#[cfg(test)]
mod tests;
