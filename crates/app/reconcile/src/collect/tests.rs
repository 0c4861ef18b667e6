use super::*;
use std::io::{Read, Seek};

fn archive(folder: &Path, name: &str, entries: &[(&str, Option<&str>)]) -> PathBuf {
    let path = folder.join(name);
    let mut archive = tar::Builder::new(File::create(&path).unwrap());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match text {
            None => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, name, io::empty()).unwrap();
            }
            Some(text) => {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, name, text.as_bytes()).unwrap();
            }
        }
    }
    archive.into_inner().unwrap();
    path
}

/// Proves: CC-32
#[test]
fn a_merged_archive_has_each_name_once_and_unpacks_whatever_clashes() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("deep/{}", "x".repeat(180));
    let archives = [
        archive(
            folder.path(),
            "1",
            &[
                ("both", Some("one")),
                ("first", Some("1")),
                ("turns", None),
                ("turns/inside", Some("lost")),
                ("was", Some("a file")),
                (&long, Some("long")),
            ],
        ),
        archive(
            folder.path(),
            "2",
            &[
                ("both", Some("two")),
                ("turns", Some("a file now")),
                ("was", None),
                ("was/below", Some("b")),
            ],
        ),
    ];
    let mut into = tempfile::tempfile().unwrap();
    merge(&archives, into.try_clone().unwrap()).unwrap();
    into.rewind().unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(into)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.push((entry.path().unwrap().to_str().unwrap().to_owned(), text));
    }
    found.sort();
    let wanted = [
        ("both", "two"),
        (&long, "long"),
        ("first", "1"),
        ("turns", "a file now"),
        ("was", ""),
        ("was/below", "b"),
    ];
    assert_eq!(found, wanted.map(|(name, text)| (name.to_owned(), text.to_owned())));
}
