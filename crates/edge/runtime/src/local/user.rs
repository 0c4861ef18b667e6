//! The image's user, looked up in the image's own files (CC-3).

use crate::sys::open_in_root;
use rustix::fs::{FileType, OFlags};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Most of a passwd or group file that is read, bytes.
const LONGEST: u64 = 1 << 20;

/// A container's user as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// Home directory, where the passwd file names one.
    pub home: Option<String>,
}

/// Why a user cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    #[error("user {0:?} is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    NoGroup(String),
    #[error("user and group ids in a container go from 0 to 65535, not {0}")]
    Range(u32),
}

/// Resolves `""`, `name`, `uid`, `name:group`, `uid:gid` and mixtures, with the image's files as texts.
///
/// # Errors
/// Names that the files do not have, numbers outside the container's range.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, BadUser> {
    let (who, team) = user.split_once(':').map_or((user, None), |(who, team)| {
        (who, Some(team).filter(|text| !text.is_empty()))
    });
    let who = if who.is_empty() { "0" } else { who };
    let number: Option<u32> = who.parse().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| match number {
            Some(uid) => fields.get(2).and_then(|field| field.parse().ok()) == Some(uid),
            None => fields.first() == Some(&who),
        });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at).copied());
    let uid = match (number, field(2).and_then(|text| text.parse().ok())) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => return Err(BadUser::NoUser(who.into())),
    };
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid_of = |fields: &Vec<&str>| fields.get(2).and_then(|text| text.parse::<u32>().ok());
    let gid = match team.map(|team| (team, team.parse::<u32>().ok())) {
        Some((_, Some(gid))) => gid,
        Some((name, None)) => groups()
            .find(|fields| fields.first() == Some(&name))
            .as_ref()
            .and_then(gid_of)
            .ok_or_else(|| BadUser::NoGroup(name.into()))?,
        None => field(3).and_then(|text| text.parse().ok()).unwrap_or(0),
    };
    // As Docker: the groups of the user's name count only when the request names no group.
    let mut additional_gids: Vec<u32> = match (team, field(0)) {
        (None, Some(name)) => groups()
            .filter(|fields| {
                fields
                    .get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == name))
            })
            .filter_map(|fields| gid_of(&fields))
            .collect(),
        _ => Vec::new(),
    };
    additional_gids.sort_unstable();
    additional_gids.dedup();
    if let Some(bad) = [uid, gid].iter().chain(&additional_gids).find(|id| **id > 65_535) {
        return Err(BadUser::Range(*bad));
    }
    let home = field(5).filter(|home| home.starts_with('/')).map(str::to_owned);
    Ok(User {
        uid,
        gid,
        additional_gids,
        home,
    })
}

/// Reads a small file of the image. Absent, special and over-long files count as empty: their content is the image
/// maker's, and nothing outside `root` can be named by it.
pub fn image_file(root: &OwnedFd, path: &str) -> String {
    let read = || -> io::Result<String> {
        // O_NONBLOCK: a FIFO must not hold the launch up.
        let file = open_in_root(root.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests;
