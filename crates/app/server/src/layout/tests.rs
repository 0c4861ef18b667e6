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

#[test]
fn credentials_are_read_as_written() {
    let text = credentials_text("AKIAEXAMPLE", "secret/+=");
    assert_eq!(
        read_credentials(&text),
        Some(("AKIAEXAMPLE".into(), "secret/+=".into()))
    );
    assert_eq!(
        read_credentials("[other]\naws_access_key_id = a\naws_secret_access_key = b\n"),
        None
    );
}
