use super::*;
use std::os::unix::fs::FileExt;

fn program(path: &Path) -> OciProgram {
    OciProgram::find(&OciChoice::Path(path.into())).unwrap()
}

/// Proves: CC-3
#[test]
fn a_copy_of_the_runtime_is_sealed_and_that_of_the_program_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crun");
    fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    let (found, sealed) = (program(&path), SealedProgram::default());
    let first = sealed.current(&found).unwrap();
    assert_eq!(fs::read(proc_path(&first)).unwrap(), fs::read(&path).unwrap());
    assert!(Arc::ptr_eq(&first, &sealed.current(&found).unwrap()));
    let opened = fs::OpenOptions::new().write(true).open(proc_path(&first)).unwrap();
    assert!(opened.write_at(b"x", 0).is_err() && opened.set_len(0).is_err());

    let version = found.version().unwrap();
    fs::copy("/bin/true", dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    let second = sealed.current(&found).unwrap();
    assert_eq!(fs::read(proc_path(&second)).unwrap(), fs::read("/bin/true").unwrap());
    assert_ne!(found.version().unwrap(), version);
    fs::remove_file(&path).unwrap();
    assert!(sealed.current(&found).is_none() && found.version().is_none());
}

/// Its interpreter would look for it by the name of a descriptor that is closed by then.
#[test]
fn a_script_in_place_of_the_runtime_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crun");
    fs::write(&path, "#!/bin/sh\nexec /usr/bin/crun \"$@\"\n").unwrap();
    assert!(SealedProgram::default().current(&program(&path)).is_none());
}
