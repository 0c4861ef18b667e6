mod crash;

use super::*;
use crate::database::Database;
use isolarium_model::AccountId;
use isolarium_model::s3::{ChecksumAlgorithm, ChecksumKind, Object, ObjectHeaders, Version, Versioning};
use proptest::prelude::*;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use tempfile::TempDir;

pub(super) struct Lab {
    pub(super) dir: TempDir,
    pub(super) store: ObjectStore,
}

pub(super) fn account() -> AccountId {
    "123456789012".parse().unwrap()
}

pub(super) fn bucket() -> BucketName {
    "data".parse().unwrap()
}

pub(super) fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn open(dir: &Path) -> ObjectStore {
    let database = Database::open(&dir.join("state.db"), &[SCHEMA]).unwrap();
    ObjectStore::open(dir, Arc::new(database)).unwrap()
}

pub(super) fn attributes() -> Attributes {
    Attributes {
        headers: ObjectHeaders::default(),
        tags: Vec::new(),
        owner: account(),
        now: Timestamp(1_700_000_000_000),
        condition: WriteCondition::None,
    }
}

fn put_into(store: &ObjectStore, name: &str, bytes: &[u8], attributes: Attributes) -> Result<Object, ObjectError> {
    let data = store.receive_all(&mut &bytes[..], &[], attributes.now, None)?;
    let put = Put {
        bucket: bucket(),
        key: key(name),
        data,
        etag: None,
        checksums: None,
        parts: Vec::new(),
        attributes,
    };
    store.put(put)
}

impl Lab {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        let region = "us-east-1".parse().unwrap();
        store
            .create_bucket(NewBucket {
                name: bucket(),
                owner: account(),
                region,
                now: Timestamp(1),
            })
            .unwrap();
        Self { dir, store }
    }

    fn reopen(&mut self) {
        self.store = open(self.dir.path());
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Object {
        put_into(&self.store, name, bytes, attributes()).unwrap()
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Vec<u8>, ObjectError> {
        let reading = self.store.open_object(&bucket(), &key(name), version)?;
        let (size, mut bytes) = (reading.object.size, Vec::new());
        reading.stretch(None, 0, size)?.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        Ok(bytes)
    }

    fn delete(&self, name: &str, version: Option<&str>) -> Deleted {
        let target = Target {
            key: key(name),
            version: version.map(str::to_owned),
            etag: None,
        };
        let mut done = self
            .store
            .delete(&bucket(), &[target], &account(), Timestamp(2))
            .unwrap();
        done.pop().unwrap().unwrap()
    }

    pub(super) fn plain(&self, name: &str) -> PathBuf {
        self.dir.path().join("buckets/data").join(name)
    }

    fn keys(&self, query: &ListingQuery) -> (Vec<String>, Vec<String>, Option<String>) {
        let page = self.store.list(&bucket(), query).unwrap();
        (
            page.objects.iter().map(|o| o.key.to_string()).collect(),
            page.prefixes,
            page.next,
        )
    }

    /// Files under a directory of the data directory, recursively.
    pub(super) fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.dir.path().join(below)];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path())
                } else {
                    found.push(entry.path())
                }
            }
        }
        found
    }
}

fn all(limit: usize) -> ListingQuery {
    ListingQuery {
        limit,
        ..ListingQuery::default()
    }
}

#[test]
fn an_object_is_a_plain_read_only_file_at_its_key() {
    let lab = Lab::new();
    let object = lab.put("train/part-0.csv", b"a,b\n");
    let mut md5 = Digests::new(&[]);
    md5.update(b"a,b\n");
    assert_eq!(object.etag, hex::encode(md5.finish().0));
    let path = lab.plain("train/part-0.csv");
    assert_eq!(std::fs::read(&path).unwrap(), b"a,b\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    assert!(lab.files("escape").is_empty(), "nothing stays on the move");
    lab.delete("train/part-0.csv", None);
    assert!(!path.exists());
    assert!(!lab.plain("train").exists(), "empty directories go away");
    assert!(matches!(lab.get("train/part-0.csv", None), Err(ObjectError::NoSuchKey)));
}

#[test]
fn an_overwrite_makes_a_new_inode_and_leaves_open_readers_alone() {
    let lab = Lab::new();
    lab.put("k", b"first");
    let inode = std::fs::metadata(lab.plain("k")).unwrap().ino();
    let reading = lab.store.open_object(&bucket(), &key("k"), None).unwrap();
    lab.put("k", b"second!");
    assert_ne!(std::fs::metadata(lab.plain("k")).unwrap().ino(), inode);
    let mut old = Vec::new();
    reading
        .stretch(None, 0, u64::MAX)
        .unwrap()
        .read_to_end(&mut old)
        .unwrap();
    assert_eq!(old, b"first");
    assert_eq!(lab.get("k", None).unwrap(), b"second!");
}

#[test]
fn a_key_and_a_key_below_it_live_side_by_side() {
    let lab = Lab::new();
    lab.put("x", b"file");
    lab.put("x/y", b"below");
    lab.put("a/b", b"below");
    lab.put("a", b"file");
    for (name, bytes) in [("x", "file"), ("x/y", "below"), ("a/b", "below"), ("a", "file")] {
        assert_eq!(lab.get(name, None).unwrap(), bytes.as_bytes(), "{name}");
    }
    lab.delete("x", None);
    assert_eq!(lab.get("x/y", None).unwrap(), b"below");
    lab.put("x/y", b"again");
    assert!(
        lab.plain("x/y").is_file(),
        "with the way clear the object moves to its key"
    );
    assert_eq!(lab.get("x/y", None).unwrap(), b"again");
    lab.delete("x/y", None);
    lab.delete("a", None);
    lab.delete("a/b", None);
    assert!(lab.files("escape").is_empty());
    assert!(lab.files("buckets").is_empty());
}

#[test]
fn versions_stay_readable_and_deletions_uncover_them() {
    let lab = Lab::new();
    let unversioned = lab.put("k", b"zero");
    assert_eq!(unversioned.version, "null");
    lab.store.set_versioning(&bucket(), Versioning::Enabled).unwrap();
    let one = lab.put("k", b"one");
    let two = lab.put("k", b"two");
    assert_eq!(lab.get("k", None).unwrap(), b"two");
    assert_eq!(std::fs::read(lab.plain("k")).unwrap(), b"two");
    assert_eq!(lab.get("k", Some(&one.version)).unwrap(), b"one");
    assert_eq!(lab.get("k", Some("null")).unwrap(), b"zero");

    let marker = lab.delete("k", None);
    assert!(marker.marker);
    assert!(matches!(lab.get("k", None), Err(ObjectError::IsDeleted { .. })));
    assert_eq!(lab.get("k", Some(&two.version)).unwrap(), b"two");
    assert!(!lab.plain("k").exists());
    let history = lab.store.list_versions(&bucket(), &all(10), None).unwrap();
    let kinds: Vec<bool> = history
        .versions
        .iter()
        .map(|v| matches!(v, Version::DeleteMarker { .. }))
        .collect();
    assert_eq!(kinds, [true, false, false, false]);

    assert!(lab.delete("k", marker.version.as_deref()).marker);
    assert_eq!(lab.get("k", None).unwrap(), b"two");
    assert!(lab.plain("k").is_file(), "uncovered versions return to their key");
    lab.delete("k", Some(&two.version));
    assert_eq!(lab.get("k", None).unwrap(), b"one");

    lab.store.set_versioning(&bucket(), Versioning::Suspended).unwrap();
    let null = lab.put("k", b"null again");
    assert_eq!(null.version, "null");
    assert_eq!(lab.get("k", Some(&one.version)).unwrap(), b"one");
    assert!(lab.store.delete_bucket(&bucket()).is_err());
    lab.delete("k", Some("null"));
    lab.delete("k", Some(&one.version));
    assert!(lab.files("escape").is_empty());
    lab.store.delete_bucket(&bucket()).unwrap();
    assert!(!lab.dir.path().join("buckets/data").exists());
}

#[test]
fn version_listings_page_inside_a_key() {
    let lab = Lab::new();
    lab.store.set_versioning(&bucket(), Versioning::Enabled).unwrap();
    for name in ["a", "b", "b", "b", "c/x", "c/y"] {
        lab.put(name, name.as_bytes());
    }
    let mut lines = 0;
    let (mut after, mut version): (Option<String>, Option<String>) = (None, None);
    let mut pages = 0;
    loop {
        let query = ListingQuery {
            after: after.clone(),
            limit: 2,
            delimiter: Some("/".into()),
            ..ListingQuery::default()
        };
        let page = lab.store.list_versions(&bucket(), &query, version.as_deref()).unwrap();
        lines += page.versions.len() + page.prefixes.len();
        pages += 1;
        match page.next {
            Some((next, id)) => (after, version) = (Some(next), id),
            None => break,
        }
    }
    assert_eq!((lines, pages), (5, 3));
}

#[test]
fn listings_page_by_key_with_prefix_and_delimiter() {
    let lab = Lab::new();
    for name in ["a", "b/1", "b/2", "b/c/3", "d", "é", "z/", "b0"] {
        lab.put(name, b"");
    }
    let (keys, prefixes, next) = lab.keys(&all(100));
    assert_eq!(keys, ["a", "b/1", "b/2", "b/c/3", "b0", "d", "z/", "é"]);
    assert!(prefixes.is_empty() && next.is_none());
    let slash = |after: Option<&str>, prefix: &str, limit| ListingQuery {
        prefix: prefix.into(),
        delimiter: Some("/".into()),
        after: after.map(str::to_owned),
        limit,
    };
    let (keys, prefixes, next) = lab.keys(&slash(None, "", 2));
    assert_eq!(
        (keys, prefixes, next.as_deref()),
        (vec!["a".into()], vec!["b/".to_owned()], Some("b/"))
    );
    let (keys, prefixes, next) = lab.keys(&slash(Some("b/"), "", 100));
    assert_eq!(
        (keys, prefixes, next),
        (vec!["b0".into(), "d".into(), "é".into()], vec!["z/".to_owned()], None)
    );
    let (keys, prefixes, _) = lab.keys(&slash(None, "b/", 100));
    assert_eq!(
        (keys, prefixes),
        (vec!["b/1".into(), "b/2".into()], vec!["b/c/".to_owned()])
    );
    assert_eq!(lab.keys(&slash(None, "nothing", 5)).0, Vec::<String>::new());
    // One row read per common prefix, however many keys it covers: the page after `b/` begins behind all of them.
    assert_eq!(lab.keys(&slash(Some("b/1"), "", 1)).1, ["b/"]);
}

#[test]
fn a_copy_shares_the_inode_and_outlives_its_source() {
    let lab = Lab::new();
    lab.put("from", b"shared bytes");
    let source = CopySource {
        bucket: bucket(),
        key: key("from"),
        version: None,
    };
    for to in ["to", "a/b/c", "..", "from"] {
        lab.store
            .copy(&source, &bucket(), &key(to), attributes(), (true, true))
            .unwrap();
    }
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(lab.plain("from")), inode(lab.plain("a/b/c")));
    assert_eq!(std::fs::metadata(lab.plain("to")).unwrap().nlink(), 4);
    lab.delete("from", None);
    for to in ["to", "a/b/c", ".."] {
        assert_eq!(lab.get(to, None).unwrap(), b"shared bytes", "{to}");
        lab.delete(to, None);
    }
    assert!(lab.files("escape").is_empty());
    assert!(lab.files("buckets").is_empty());
}

#[test]
fn a_version_copied_onto_its_own_key_is_a_version_of_its_own() {
    let lab = Lab::new();
    lab.store.set_versioning(&bucket(), Versioning::Enabled).unwrap();
    let one = lab.put("k", b"one");
    let two = lab.put("k", b"two");
    let source = CopySource {
        bucket: bucket(),
        key: key("k"),
        version: Some(one.version.clone()),
    };
    let three = lab
        .store
        .copy(&source, &bucket(), &key("k"), attributes(), (true, true))
        .unwrap();
    lab.delete("k", Some(&one.version));
    assert_eq!(lab.get("k", None).unwrap(), b"one");
    assert_eq!(lab.get("k", Some(&two.version)).unwrap(), b"two");
    lab.delete("k", Some(&three.version));
    assert_eq!(lab.get("k", None).unwrap(), b"two");
}

#[test]
fn conditional_writes_hold_against_a_crowd() {
    let lab = Lab::new();
    let absent = || Attributes {
        condition: WriteCondition::Absent,
        ..attributes()
    };
    let won: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8_u8)
            .map(|n| {
                let store = &lab.store;
                scope.spawn(move || usize::from(put_into(store, "lock", &[n], absent()).is_ok()))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
    let etag = lab.store.head(&bucket(), &key("lock"), None).unwrap().etag;
    let matching = |etag: &str| Attributes {
        condition: WriteCondition::Matches(etag.into()),
        ..attributes()
    };
    assert!(matches!(
        put_into(&lab.store, "lock", b"x", matching("0")),
        Err(ObjectError::PreconditionFailed)
    ));
    assert!(matches!(
        put_into(&lab.store, "none", b"x", matching("0")),
        Err(ObjectError::NoSuchKey)
    ));
    put_into(&lab.store, "lock", b"x", matching(&etag)).unwrap();
    assert_eq!(lab.get("lock", None).unwrap(), b"x");
}

#[test]
fn racing_overwrites_and_deletions_leave_index_and_file_in_step() {
    let lab = Lab::new();
    std::thread::scope(|scope| {
        for n in 0..4_u8 {
            let lab = &lab;
            scope.spawn(move || {
                for round in 0..12_u8 {
                    lab.put("hot", &vec![n; usize::from(n) * 1000 + usize::from(round)]);
                    if round % 4 == 3 {
                        lab.delete("hot", None);
                    }
                    match lab.get("hot", None) {
                        Ok(bytes) => assert!(bytes.windows(2).all(|pair| pair[0] == pair[1])),
                        Err(error) => assert!(matches!(error, ObjectError::NoSuchKey), "{error:?}"),
                    }
                }
            });
        }
    });
    lab.put("hot", b"end");
    assert_eq!(std::fs::read(lab.plain("hot")).unwrap(), b"end");
    assert!(lab.files("escape").is_empty());
}

#[test]
fn parts_join_in_order_with_composite_and_full_checksums() {
    let lab = Lab::new();
    for (kind, algorithm) in [
        (ChecksumKind::Composite, ChecksumAlgorithm::Sha256),
        (ChecksumKind::FullObject, ChecksumAlgorithm::Crc64Nvme),
    ] {
        let sum = Some((algorithm, kind));
        let id = lab
            .store
            .begin_upload(
                &bucket(),
                &key("big"),
                ObjectHeaders::default(),
                &vec![],
                &account(),
                "me",
                sum,
                None,
                Timestamp(1),
            )
            .unwrap();
        let mut parts = Vec::new();
        for (number, bytes) in [
            (1, vec![1_u8; 6000]),
            (2, vec![9; 10]),
            (2, vec![2; 6000]),
            (7, vec![3; 5]),
        ] {
            let data = lab
                .store
                .receive_all(&mut &bytes[..], &[algorithm], Timestamp(1), None)
                .unwrap();
            parts.retain(|part: &PartRef| part.number != number);
            let part = lab.store.put_part(&bucket(), &id, number, data, Timestamp(1)).unwrap();
            parts.push(PartRef {
                number,
                etag: part.etag,
                checksum: None,
            });
        }
        assert_eq!(
            lab.files("escape/kept").len(),
            3,
            "a replaced part leaves nothing behind"
        );
        let how = |parts: Vec<PartRef>, least| Completion {
            parts,
            condition: WriteCondition::None,
            checksum: None,
            size: Some(12_005),
            least,
            now: Timestamp(3),
        };
        let complete = |how| lab.store.complete(&bucket(), &id, how);
        let reversed = parts.iter().rev().cloned().collect();
        assert!(matches!(complete(how(reversed, 0)), Err(ObjectError::InvalidPartOrder)));
        assert!(matches!(
            complete(how(parts.clone(), 6001)),
            Err(ObjectError::PartTooSmall { number: 1, .. })
        ));
        let wrong = vec![PartRef {
            number: 1,
            etag: "00".into(),
            checksum: None,
        }];
        assert!(matches!(
            complete(how(wrong, 0)),
            Err(ObjectError::InvalidPart { number: 1 })
        ));
        let object = complete(how(parts, 6000)).unwrap();
        assert!(object.etag.ends_with("-3"));
        assert_eq!(
            object.parts.iter().map(|part| part.size).collect::<Vec<_>>(),
            [6000, 6000, 5]
        );
        let whole = [vec![1_u8; 6000], vec![2; 6000], vec![3; 5]].concat();
        let mut digests = Digests::new(&[algorithm]);
        digests.update(&whole);
        match kind {
            ChecksumKind::FullObject => assert_eq!(object.checksums, digests.finish().1),
            ChecksumKind::Composite => assert!(object.checksums[0].value.ends_with("=-3")),
        }
        assert_eq!(lab.get("big", None).unwrap(), whole);
        assert!(lab.files("escape").is_empty());
        assert!(matches!(
            lab.store.upload(&bucket(), &id),
            Err(ObjectError::NoSuchUpload)
        ));
    }
}

#[test]
fn an_aborted_upload_leaves_nothing() {
    let lab = Lab::new();
    let id = lab
        .store
        .begin_upload(
            &bucket(),
            &key("k"),
            ObjectHeaders::default(),
            &vec![],
            &account(),
            "me",
            None,
            None,
            Timestamp(1),
        )
        .unwrap();
    let data = lab
        .store
        .receive_all(&mut &b"part"[..], &[], Timestamp(1), None)
        .unwrap();
    lab.store.put_part(&bucket(), &id, 1, data, Timestamp(1)).unwrap();
    assert_eq!(
        lab.store.list_uploads(&bucket(), "k", None, 10).unwrap().uploads.len(),
        1
    );
    lab.store.abort(&bucket(), &id).unwrap();
    assert!(lab.files("escape").is_empty());
    assert!(
        lab.store
            .list_uploads(&bucket(), "", None, 10)
            .unwrap()
            .uploads
            .is_empty()
    );
}

#[test]
fn inputs_are_linked_not_copied_and_keep_their_bytes() {
    let lab = Lab::new();
    lab.put("in/a.csv", b"v1");
    lab.put("in/..", b"awkward");
    let staging = lab.dir.path().join("work");
    std::fs::create_dir(&staging).unwrap();
    lab.store
        .link_into(&bucket(), &key("in/a.csv"), None, &staging, "deep/a.csv")
        .unwrap();
    lab.store
        .link_into(&bucket(), &key("in/.."), None, &staging, "b")
        .unwrap();
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&staging.join("deep/a.csv")), inode(&lab.plain("in/a.csv")));
    // A container's user other than root reads it.
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&staging.join("deep")), mode(&staging.join("deep/a.csv"))),
        (0o755, 0o444)
    );
    lab.put("in/a.csv", b"v2 is longer");
    assert_eq!(std::fs::read(staging.join("deep/a.csv")).unwrap(), b"v1");
    assert_eq!(std::fs::read(staging.join("b")).unwrap(), b"awkward");
    for bad in ["../out", "a//b", "", "x/.", "/etc"] {
        let refused = lab.store.link_into(&bucket(), &key("in/a.csv"), None, &staging, bad);
        assert!(matches!(refused, Err(ObjectError::BadStagingPath)), "{bad}");
    }
    std::os::unix::fs::symlink("/tmp", staging.join("out")).unwrap();
    assert!(
        lab.store
            .link_into(&bucket(), &key("in/a.csv"), None, &staging, "out/x")
            .is_err()
    );
}

#[test]
fn links_beyond_the_inodes_limit_go_to_one_copy() {
    let lab = Lab::new();
    lab.put("k", b"popular");
    let staging = lab.dir.path().join("work");
    std::fs::create_dir(&staging).unwrap();
    let mut full = None;
    for n in 0..70_000 {
        if let Err(error) = std::fs::hard_link(lab.plain("k"), staging.join(format!("l{n}"))) {
            assert_eq!(error.raw_os_error(), Some(libc_mlink()));
            full = Some(n);
            break;
        }
    }
    let full = full.expect("this test needs a file system with at most 70,000 links to a file, such as ext4");
    assert!(full > 60_000);
    for name in ["one", "two"] {
        lab.store.link_into(&bucket(), &key("k"), None, &staging, name).unwrap();
    }
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_ne!(inode(&staging.join("one")), inode(&staging.join("l0")));
    assert_eq!(inode(&staging.join("one")), inode(&staging.join("two")));
    assert_eq!(inode(&staging.join("one")), inode(&lab.plain("k")));
    assert_eq!(std::fs::read(staging.join("two")).unwrap(), b"popular");
    assert_eq!(lab.get("k", None).unwrap(), b"popular");
}

fn libc_mlink() -> i32 {
    rustix::io::Errno::MLINK.raw_os_error()
}

#[test]
fn restart_settles_what_a_crash_left_on_the_move() {
    let mut lab = Lab::new();
    lab.store.set_versioning(&bucket(), Versioning::Enabled).unwrap();
    let one = lab.put("dir/k", b"one");
    let two = lab.put("dir/k", b"two");
    let new = lab.dir.path().join("escape/new");
    let kept = lab.dir.path().join("escape/kept");
    // As after a crash between commit and settling: the current version is still on the move, the older one at the key.
    let name_of = |store: &ObjectStore, version: &str| -> String {
        store
            .database()
            .read(|db| {
                let sql = "SELECT file FROM s3_versions WHERE version = ?1";
                db.query_row(sql, [version], |row| row.get(0))
                    .map_err(ObjectError::from)
            })
            .unwrap()
    };
    let (file_one, file_two) = (name_of(&lab.store, &one.version), name_of(&lab.store, &two.version));
    std::fs::rename(lab.plain("dir/k"), new.join(&file_two)).unwrap();
    std::fs::rename(kept.join(&file_one), lab.plain("dir/k")).unwrap();
    std::fs::write(new.join("0123456789abcdef0123456789abcdef"), b"unacknowledged").unwrap();
    std::fs::create_dir_all(lab.dir.path().join("buckets/never-acknowledged/x")).unwrap();
    assert_eq!(lab.get("dir/k", None).unwrap(), b"two", "found on the move");
    assert_eq!(
        lab.get("dir/k", Some(&one.version)).unwrap(),
        b"one",
        "found at the key"
    );
    lab.reopen();
    assert_eq!(std::fs::read(lab.plain("dir/k")).unwrap(), b"two");
    assert_eq!(lab.get("dir/k", Some(&one.version)).unwrap(), b"one");
    assert!(lab.files("escape/new").is_empty());
    assert!(!lab.dir.path().join("buckets/never-acknowledged").exists());
}

fn awkward() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("x".to_owned()),
        Just("a".repeat(256)),
        Just("\0".to_owned()),
        Just("\n".to_owned()),
        "[a-z]{1,3}",
        "\\PC{1,8}",
    ];
    prop::collection::vec(piece, 1..5)
        .prop_map(|pieces| pieces.join("/"))
        .prop_filter("a key", |text| text.parse::<ObjectKey>().is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any keys: every one comes back with its own bytes, and no file appears outside the bucket and escape area.
    #[test]
    fn keys_never_leave_their_bucket_and_come_back_whole(names in prop::collection::btree_set(awkward(), 1..6)) {
        let lab = Lab::new();
        let beside = lab.dir.path().join("buckets/other");
        std::fs::create_dir(&beside).unwrap();
        for name in &names {
            lab.put(name, name.as_bytes());
        }
        for name in &names {
            prop_assert_eq!(lab.get(name, None).unwrap(), name.as_bytes());
        }
        let (listed, _, _) = lab.keys(&all(100));
        prop_assert_eq!(&listed, &names.iter().cloned().collect::<Vec<_>>());
        prop_assert!(lab.files("buckets/other").is_empty());
        let inside = lab.files("buckets/data").len() + lab.files("escape/kept").len();
        prop_assert_eq!(inside, names.len());
        let outside = lab.files(".").len() - inside;
        prop_assert!(outside <= 3, "only the database's files");
        for name in &names {
            lab.delete(name, None);
        }
        prop_assert!(lab.files("buckets").is_empty() && lab.files("escape").is_empty());
    }
}

/// A million keys page as fast as a thousand: the time of a page does not grow with the bucket.
#[test]
fn pages_cost_the_same_in_large_buckets() {
    let page_time = |keys: i64| {
        let lab = Lab::new();
        lab.store
            .database()
            .write(move |db| {
                let sql = "INSERT INTO s3_versions
                    (bucket, key, version, latest, marker, file, stamp, size, etag, modified, owner, more, tags)
                    SELECT 1, CAST(printf('p/%08d', value) AS BLOB), 'null', 1, 0, printf('f%d', value), 0, 1, 'e', 1,
                           '123456789012', '{}', '[]'
                    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ?1)
                          SELECT value FROM n)";
                db.execute(sql, [keys]).map_err(ObjectError::from)
            })
            .unwrap();
        let mut best = std::time::Duration::MAX;
        for _ in 0..5 {
            let query = ListingQuery {
                after: Some(format!("p/{:08}", keys / 2)),
                limit: 500,
                ..ListingQuery::default()
            };
            let begun = std::time::Instant::now();
            assert_eq!(lab.keys(&query).0.len(), 500.min(usize::try_from(keys / 2).unwrap()));
            best = best.min(begun.elapsed());
        }
        best
    };
    let (small, large) = (page_time(2_000), page_time(200_000));
    assert!(large < small * 8, "2,000 keys: {small:?}, 200,000 keys: {large:?}");
}
