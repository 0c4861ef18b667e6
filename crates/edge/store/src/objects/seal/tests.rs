use super::super::tests::{Lab, account, attributes, bucket, key};
use super::super::{Completion, CopySource, PartRef, Put, WriteCondition};
use super::*;
use isolarium_model::Timestamp;
use isolarium_model::s3::{Object, ObjectHeaders, Wrapping};
use std::fs::OpenOptions;
use std::path::PathBuf;

/// Not to be found anywhere on the disk.
const MARKER: &[u8] = b"the plain bytes of a secret object";

fn sealing(kms: bool) -> Sealing {
    let wrapping = if kms {
        Wrapping::Kms {
            key_arn: "arn:aws:kms:us-east-1:123456789012:key/k".parse().unwrap(),
            context: Default::default(),
            bucket_key: false,
        }
    } else {
        Wrapping::Managed
    };
    Sealing {
        key: DataKey::new([7; 32]),
        encryption: Encryption {
            wrapping,
            data_key: "sealed".into(),
            segments: Vec::new(),
        },
    }
}

/// Bytes that differ from place to place, with the marker all over them.
fn bytes(count: usize) -> Vec<u8> {
    let numbered = (0_u32..).flat_map(|number| [MARKER, &number.to_le_bytes()].concat());
    numbered.take(count).collect()
}

fn put(lab: &Lab, name: &str, bytes: &[u8], sealing: &Sealing) -> Object {
    let now = Timestamp(1);
    let data = lab.store.receive_all(&mut &bytes[..], &[], now, Some(sealing)).unwrap();
    let put = Put {
        bucket: bucket(),
        key: key(name),
        data,
        etag: None,
        checksums: None,
        parts: Vec::new(),
        attributes: attributes(),
    };
    lab.store.put(put).unwrap()
}

fn read(lab: &Lab, name: &str, key_bytes: [u8; 32], from: u64, length: u64) -> io::Result<Vec<u8>> {
    let reading = lab.store.open_object(&bucket(), &key(name), None).unwrap();
    let mut got = Vec::new();
    reading
        .stretch(Some(&DataKey::new(key_bytes)), from, length)
        .unwrap()
        .read_to_end(&mut got)
        .map(|_| got)
}

fn marked(lab: &Lab) -> Vec<PathBuf> {
    let all = ["buckets", "escape"].iter().flat_map(|below| lab.files(below));
    let database = lab.dir.path().join("state.db-wal");
    all.chain([database])
        .filter(|path| {
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(MARKER.len()).any(|window| window == MARKER)
        })
        .collect()
}

#[test]
fn what_is_sealed_comes_back_in_every_stretch_and_lies_nowhere_in_the_clear() {
    let lab = Lab::new();
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 77] {
        let plain = bytes(size);
        let object = put(&lab, "a/b", &plain, &sealing(true));
        assert_eq!(object.size, size as u64);
        let on_disk = std::fs::metadata(lab.plain("a/b")).unwrap().len();
        assert_eq!(on_disk, sealed_size(size as u64));
        let places = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, size];
        for from in places.into_iter().filter(|from| *from <= size) {
            for length in [0, 1, CHUNK, CHUNK + 9, size] {
                let got = read(&lab, "a/b", [7; 32], from as u64, length as u64).unwrap();
                assert!(got == plain[from..(from + length).min(size)], "{size} {from} {length}");
            }
        }
    }
    assert_eq!(marked(&lab), Vec::<PathBuf>::new());
    lab.put("open", &bytes(100));
    assert_eq!(
        marked(&lab),
        [lab.plain("open")],
        "control: an unsealed object is found"
    );
}

#[test]
fn an_etag_tells_of_bytes_under_no_key_of_the_key_store() {
    let lab = Lab::new();
    let plain = lab.put("plain", MARKER).etag;
    assert_eq!(put(&lab, "managed", MARKER, &sealing(false)).etag, plain);
    let (one, two) = (
        put(&lab, "k1", MARKER, &sealing(true)).etag,
        put(&lab, "k2", MARKER, &sealing(true)).etag,
    );
    assert!(one != plain && two != plain && one != two && one.len() == 32);
}

#[test]
fn a_changed_cut_or_moved_byte_and_another_key_are_noticed() {
    let lab = Lab::new();
    let plain = bytes(3 * CHUNK);
    put(&lab, "x", &plain, &sealing(true));
    let path = lab.plain("x");
    let good = std::fs::read(&path).unwrap();
    // The file's time is its identity: it is kept, as a thief of the disk would.
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let write = |changed: &[u8]| {
        let file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        (&file).write_all(changed).unwrap();
        file.set_modified(time).unwrap();
    };
    let all = plain.len() as u64;
    let mut flipped = good.clone();
    flipped[CHUNK + TAG + 5] ^= 1;
    let sealed = CHUNK + TAG;
    let swapped = [&good[sealed..2 * sealed], &good[..sealed], &good[2 * sealed..]].concat();
    let repeated = [&good[..sealed], &good[..sealed], &good[2 * sealed..]].concat();
    let cut = &good[..2 * sealed];
    for changed in [&flipped[..], &swapped, &repeated, cut] {
        write(changed);
        assert!(read(&lab, "x", [7; 32], 0, all).is_err());
    }
    write(&flipped);
    let untouched = read(&lab, "x", [7; 32], 0, CHUNK as u64).unwrap();
    assert!(untouched == plain[..CHUNK], "a range does not read the rest");
    write(&good);
    assert!(read(&lab, "x", [8; 32], 0, 1).is_err());
    assert!(
        read(&lab, "x", [7; 32], 0, all).unwrap() == plain,
        "control: as it was written"
    );
}

#[test]
fn parts_are_joined_as_they_are_and_plain_ones_are_refused() {
    let lab = Lab::new();
    let sealing = sealing(true);
    let begin = || {
        let encryption = Some(sealing.encryption.clone());
        let (headers, now) = (ObjectHeaders::default(), Timestamp(1));
        lab.store
            .begin_upload(
                &bucket(),
                &key("big"),
                headers,
                &vec![],
                &account(),
                "me",
                None,
                encryption,
                now,
            )
            .unwrap()
    };
    let upload = begin();
    let pieces = [bytes(2 * CHUNK + 3), bytes(CHUNK), bytes(10)];
    let mut parts = Vec::new();
    for (number, piece) in (1_u16..).zip(&pieces) {
        for _ in 0..2 {
            let data = lab
                .store
                .receive_all(&mut &piece[..], &[], Timestamp(1), Some(&sealing));
            let part = lab
                .store
                .put_part(&bucket(), &upload, number, data.unwrap(), Timestamp(1));
            let etag = part.unwrap().etag;
            parts.retain(|known: &PartRef| known.number != number);
            parts.push(PartRef {
                number,
                etag,
                checksum: None,
            });
        }
    }
    let plain = lab
        .store
        .receive_all(&mut &b"plain"[..], &[], Timestamp(1), None)
        .unwrap();
    let refused = lab.store.put_part(&bucket(), &upload, 4, plain, Timestamp(1));
    assert!(matches!(refused, Err(ObjectError::Encrypted)));
    assert_eq!(marked(&lab), Vec::<PathBuf>::new(), "not even a part");
    let how = Completion {
        parts,
        condition: WriteCondition::None,
        checksum: None,
        size: None,
        least: 1,
        now: Timestamp(2),
    };
    let object = lab.store.complete(&bucket(), &upload, how).unwrap();
    let all = pieces.concat();
    assert_eq!((object.size, object.parts.len()), (all.len() as u64, 3));
    assert!(object.etag.ends_with("-3"));
    for (from, length) in [
        (0, all.len()),
        (2 * CHUNK, 20),
        (2 * CHUNK + 3, CHUNK + 10),
        (all.len() - 1, 1),
    ] {
        let got = read(&lab, "big", [7; 32], from as u64, length as u64).unwrap();
        assert!(got == all[from..(from + length).min(all.len())], "{from} {length}");
    }
    assert_eq!(marked(&lab), Vec::<PathBuf>::new());
}

#[test]
fn a_sealed_object_is_never_taken_for_a_plain_one() {
    let lab = Lab::new();
    put(&lab, "x", MARKER, &sealing(false));
    let open = || lab.store.open_object(&bucket(), &key("x"), None).unwrap();
    assert!(matches!(open().stretch(None, 0, 1), Err(ObjectError::Encrypted)));
    assert!(matches!(
        open().into_file(None, &lab.store, None),
        Err(ObjectError::Encrypted)
    ));
    let work = lab.dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let linked = lab.store.link_into(&bucket(), &key("x"), None, &work, "in");
    assert!(matches!(linked, Err(ObjectError::Encrypted)));
    let source = CopySource {
        bucket: bucket(),
        key: key("x"),
        version: None,
    };
    let copied = lab
        .store
        .copy(&source, &bucket(), &key("y"), attributes(), (true, true));
    assert!(matches!(copied, Err(ObjectError::Encrypted)));
    let mut plain = Vec::new();
    let mut file = open()
        .into_file(Some(&DataKey::new([7; 32])), &lab.store, None)
        .unwrap();
    file.read_to_end(&mut plain).unwrap();
    assert_eq!(plain, MARKER);
    assert_eq!(marked(&lab), Vec::<PathBuf>::new(), "the file has no name");
    let wrong = lab.store.copy_into(open(), Some(&DataKey::new([8; 32])), &work, "in/x");
    assert!(wrong.is_err() && !work.join("in/x").exists(), "nothing half done stays");
    lab.store
        .copy_into(open(), Some(&DataKey::new([7; 32])), &work, "in/x")
        .unwrap();
    assert_eq!(std::fs::read(work.join("in/x")).unwrap(), MARKER);
}
