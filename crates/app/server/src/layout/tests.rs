use super::*;

#[test]
fn a_second_process_cannot_open_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Layout::open(dir.path()).unwrap();
    assert!(matches!(Layout::open(dir.path()), Err(LayoutError::Locked(_))));
    assert!(dir.path().join("run/serve.pid").exists());
    drop(first);
    assert!(!dir.path().join("run/serve.pid").exists());
    assert!(
        Layout::open(dir.path()).is_ok(),
        "control: the lock went with its owner"
    );
}

#[test]
fn a_newer_layout_and_a_foreign_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Layout::open(dir.path()).unwrap());
    fs::write(dir.path().join("VERSION"), "2\n").unwrap();
    assert!(matches!(
        Layout::open(dir.path()),
        Err(LayoutError::Newer { found: 2, .. })
    ));
    fs::write(dir.path().join("VERSION"), "hello\n").unwrap();
    assert!(matches!(Layout::open(dir.path()), Err(LayoutError::NotOurs(_))));
}

#[test]
fn files_are_written_whole_with_their_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    write_whole(&path, b"one", 0o600).unwrap();
    write_whole(&path, b"two", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

/// A link under the temporary file's name is replaced and not written through; the file that does appear is the control.
///
/// Proves: ISO-17
#[test]
fn a_planted_link_does_not_lead_the_writer_to_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, victim) = (dir.path().join("node.pid"), dir.path().join("victim"));
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join(".node.pid.new")).unwrap();
    write_whole(&path, b"1\n", 0o644).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read(&path).unwrap(), b"1\n");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn credentials_that_a_shell_would_run_are_not_read() {
    for bad in ["$(id)", "`id`", "a;b", "a b", "'"] {
        let written = |id, secret| profile_text(DEFAULT_PROFILE, id, secret);
        assert!(
            read_credentials(&written("AKIAEXAMPLE", "secret"), DEFAULT_PROFILE).is_some(),
            "control"
        );
        assert_eq!(
            read_credentials(&written("AKIAEXAMPLE", bad), DEFAULT_PROFILE),
            None,
            "{bad}"
        );
        assert_eq!(
            read_credentials(&written(bad, "secret"), DEFAULT_PROFILE),
            None,
            "{bad}"
        );
    }
}

#[test]
fn credentials_are_read_as_written_each_profile_for_itself() {
    let (mine, theirs) = (
        profile_text(DEFAULT_PROFILE, "AKIAEXAMPLE", "secret/+="),
        profile_text("210987654321", "AKIAOTHER", "theirs"),
    );
    for text in [format!("{mine}{theirs}"), format!("{theirs}{mine}")] {
        let read = |profile| read_credentials(&text, profile);
        assert_eq!(read(DEFAULT_PROFILE), Some(("AKIAEXAMPLE".into(), "secret/+=".into())));
        assert_eq!(read("210987654321"), Some(("AKIAOTHER".into(), "theirs".into())));
        assert_eq!(read("21098765432"), None);
    }
    assert_eq!(read_credentials(&theirs, DEFAULT_PROFILE), None);
}
