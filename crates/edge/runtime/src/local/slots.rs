//! Which range of ids a workload has: one file per range in use, made exclusively, so that two launches never share
//! one, whoever dies in between.

use crate::local::place::{SLOTS, absent_is_fine};
use isolarium_model::WorkloadId;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Takes a free range for `workload`.
///
/// # Errors
/// `StorageFull` when all are in use.
pub fn take(folder: &Path, workload: &WorkloadId) -> io::Result<u32> {
    for slot in 0..SLOTS {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(folder.join(slot.to_string()))
        {
            Ok(mut file) => {
                file.write_all(workload.as_str().as_bytes())?;
                return Ok(slot);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::StorageFull.into())
}

/// Gives one range back.
pub fn release(folder: &Path, slot: u32) -> io::Result<()> {
    absent_is_fine(fs::remove_file(folder.join(slot.to_string())))
}

/// Gives back the ranges of workloads for which `is_dead` says that no process of theirs is left. A file without a
/// readable owner was made by a process that died in between.
pub fn release_where(folder: &Path, mut is_dead: impl FnMut(&WorkloadId) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let owner = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
        if owner.as_ref().is_none_or(&mut is_dead) {
            absent_is_fine(fs::remove_file(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workloads_share_a_range_and_a_released_one_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let id = |n: u32| format!("w-{n:017x}").parse::<WorkloadId>().unwrap();
        let slots: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let folder = folder.path();
                    scope.spawn(move || {
                        (0..50)
                            .map(|n| take(folder, &id(thread * 50 + n)).unwrap())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 400);
        release_where(folder.path(), |owner| *owner == id(7)).unwrap();
        let freed = slots[7];
        assert_eq!(take(folder.path(), &id(999)).unwrap(), freed);
        release(folder.path(), freed).unwrap();
        release(folder.path(), freed).unwrap();
    }
}
