use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn open() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    (dir, store)
}

/// Proves: IAM-67
#[test]
fn a_blob_gets_its_name_only_when_its_bytes_have_that_digest() {
    let (dir, store) = open();
    let right = digest(b"hello world");
    store
        .begin("01", "repo", NOW)
        .unwrap()
        .append(Some(0), b"hello ", NOW)
        .unwrap();
    let upload = store.upload("01", "repo").unwrap();
    assert!(matches!(
        upload.append(Some(3), b"x", NOW),
        Err(BlobError::Gap { at: 6 })
    ));
    assert_eq!(upload.append(Some(6), b"world", NOW).unwrap(), 11);
    assert!(
        matches!(store.commit("01", "other", &right), Err(BlobError::NoUpload)),
        "somebody else's upload"
    );
    assert_eq!(store.commit("01", "repo", &right).unwrap(), 11);
    assert_eq!(store.read(&right, 100).unwrap().unwrap(), b"hello world");
    assert_eq!(store.read(&right, 10).unwrap(), None, "above the bound");
    store
        .begin("02", "repo", NOW)
        .unwrap()
        .append(None, b"forged", NOW)
        .unwrap();
    assert!(matches!(
        store.commit("02", "repo", &right),
        Err(BlobError::Digest { .. })
    ));
    assert_eq!(store.read(&right, 100).unwrap().unwrap(), b"hello world");
    assert!(store.get(&digest(b"forged")).unwrap().is_none());
    assert_eq!(
        fs::read_dir(dir.path().join("uploads")).unwrap().count(),
        0,
        "nothing is left over"
    );
}

#[test]
fn abandoned_uploads_expire_and_do_not_survive_a_restart() {
    let (dir, store) = open();
    store.begin("01", "r", NOW).unwrap();
    store.begin("02", "r", NOW.after(Duration::from_secs(50))).unwrap();
    assert_eq!(
        store.expire(NOW.after(Duration::from_secs(61)), Duration::from_secs(60)),
        1
    );
    assert!(store.upload("01", "r").is_err());
    assert!(store.upload("02", "r").is_ok(), "control");
    drop(store);
    let store = BlobStore::open(dir.path()).unwrap();
    assert!(store.upload("02", "r").is_err());
    assert_eq!(fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn blobs_are_listed_by_age_and_removed() {
    let (_dir, store) = open();
    let blob = store.put("01", b"x", NOW).unwrap();
    assert_eq!(store.older_than(Timestamp(0)).unwrap(), []);
    assert_eq!(
        store.older_than(Timestamp(i64::MAX)).unwrap(),
        std::slice::from_ref(&blob)
    );
    store.remove(&blob).unwrap();
    store.remove(&blob).unwrap();
    assert!(store.get(&blob).unwrap().is_none());
}
