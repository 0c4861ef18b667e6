//! Removing a tree that a container or an archive filled. Its depth is theirs to choose, so neither the stack nor the
//! number of open files may grow with it: what lies deeper is moved up one level, until nothing is left.

use crate::local::place::absent_is_fine;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Removes `path` with everything below it. Absent is a success. No link is followed; a link at `path` itself goes.
/// Needs two open directories at a time and may be repeated after an error.
///
/// # Errors
/// What the file system answers.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return absent_is_fine(fs::remove_file(path)),
        Err(error) => return Err(error.into()),
    };
    let mut moved = 0;
    while empty_one_level(&top, flags, &mut moved)? {}
    absent_is_fine(fs::remove_dir(path))
}

/// Removes every entry of `top`; what its directories held is moved into it. `false` when there was none.
fn empty_one_level(top: &OwnedFd, flags: OFlags, moved: &mut u64) -> io::Result<bool> {
    let mut any = false;
    for entry in Dir::read_from(top)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        any = true;
        match unlinkat(top, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        match openat(top, name, flags, Mode::empty()) {
            Ok(child) => lift(&child, top, moved)?,
            // Replaced since: the next round sees what it is now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        }
        match unlinkat(top, name, AtFlags::REMOVEDIR) {
            // Filled again by somebody who still may: the next round.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(any)
}

/// Removes the files of `child` and moves its directories into `top`, under names that are free there.
fn lift(child: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    for entry in Dir::read_from(child)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(child, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            *moved += 1;
            match renameat_with(child, name, top, format!(".gone-{moved}"), RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Makes a chain of `depth` directories below `path`, with a file in each.
    fn dig(path: &Path, depth: usize) {
        let mut at = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&at, "d", Mode::from(0o755)).unwrap();
            at = openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let file = OFlags::CREATE | OFlags::WRONLY;
            drop(openat(&at, "f", file, Mode::from(0o600)).unwrap());
        }
    }

    /// The depth is far beyond what a thread's stack or its open files would carry; the file behind the link is the
    /// control that something would be lost if links were followed.
    ///
    /// Proves: NET-72
    #[test]
    fn a_tree_of_any_depth_is_removed_and_no_link_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, kept) = (folder.path().join("tree"), folder.path().join("kept"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "stays").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        fs::create_dir(tree.join(".gone-1")).unwrap();
        dig(&tree, 3000);
        let open = Dir::read_from(rustix::fs::open("/proc/self/fd", OFlags::DIRECTORY, Mode::empty()).unwrap());
        let open = open.unwrap().count() as u64;
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: Some(open + 200),
            ..before
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let removed = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn({
                let tree = tree.clone();
                move || remove_tree(&tree)
            })
            .unwrap()
            .join();
        setrlimit(Resource::Nofile, before).unwrap();
        removed.unwrap().unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "stays");
        remove_tree(&tree).unwrap();
    }
}
