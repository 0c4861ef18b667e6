//! What an uplink through the host changes there, and how it is changed back.

use super::{HostError, system};
use crate::kernel::handle::Handle;
use crate::kernel::{nft, sysctl};
use isolarium_netplan::{Tag, ruleset};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Settings that the host's plan changes.
const CHANGED: [&str; 1] = ["net/ipv4/ip_forward"];

/// Writes down the host's settings before the first change; a record that exists is older and right.
pub(super) fn remember(record: &Path, host: &Handle) -> Result<(), HostError> {
    if record.exists() {
        return Ok(());
    }
    let failed = || system("the host's settings cannot be written down");
    let before: io::Result<BTreeMap<&str, String>> = host
        .run(|| {
            CHANGED
                .into_iter()
                .map(|path| Ok((path, sysctl::read(path)?)))
                .collect()
        })
        .map_err(failed())?;
    let text = serde_json::to_vec(&before.map_err(failed())?)
        .map_err(io::Error::other)
        .map_err(failed())?;
    let new = record.with_extension("new");
    let write = || {
        if let Some(folder) = record.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = fs::File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, record)
    };
    write().map_err(failed())
}

/// Removes our table from the host and restores its settings; without a record nothing was changed. The interface goes
/// with its other end.
pub(super) fn undo(record: &Path, host: &Handle, tag: &Tag) -> Result<(), HostError> {
    let text = match fs::read(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(system(record.display().to_string()))?,
    };
    let before: BTreeMap<String, String> = serde_json::from_slice(&text)
        .map_err(io::Error::other)
        .map_err(system(record.display().to_string()))?;
    let table = tag.host_table();
    let undone = host.run(|| {
        for (path, value) in before.iter().filter(|(path, _)| CHANGED.contains(&path.as_str())) {
            sysctl::write(path, value)?;
        }
        // Last, so that nothing is forwarded without it.
        match nft::list(Some(&table))? {
            Some(_) => nft::load(&ruleset::transaction(vec![ruleset::delete_command(&table)])),
            None => Ok(()),
        }
    });
    undone
        .and_then(|done| done)
        .map_err(system("the host's settings cannot be restored"))?;
    fs::remove_file(record).map_err(system(record.display().to_string()))
}
