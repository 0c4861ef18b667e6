use super::*;
use isolarium_store::blobs::digest;
use std::collections::BTreeMap;
use std::fs;

/// A registry in memory that checks what it is given.
#[derive(Default)]
struct Memory {
    blobs: BTreeMap<Sha256Digest, Vec<u8>>,
    manifests: Vec<(Option<String>, Sha256Digest, String)>,
}

impl ImageSink for Memory {
    fn has_blob(&mut self, digest: &Sha256Digest) -> Result<bool, SinkError> {
        Ok(self.blobs.contains_key(digest))
    }

    fn put_blob(&mut self, wanted: &Sha256Digest, size: u64, content: &mut (dyn Read + Send)) -> Result<(), SinkError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        if digest(&bytes) != *wanted || u64::try_from(bytes.len()).unwrap() != size {
            return Err(SinkError::Refused {
                status: 400,
                text: "DIGEST_INVALID".into(),
            });
        }
        self.blobs.insert(wanted.clone(), bytes);
        Ok(())
    }

    fn put_manifest(&mut self, tag: Option<&str>, name: &Sha256Digest, _: &str, text: &[u8]) -> Result<(), SinkError> {
        let (manifest, _) = Manifest::parse(text, None).unwrap();
        for reference in manifest.references() {
            let known =
                self.blobs.contains_key(&reference) || self.manifests.iter().any(|(_, name, _)| *name == reference);
            assert!(known, "{reference} comes before what refers to it");
        }
        self.manifests.push((
            tag.map(Into::into),
            name.clone(),
            String::from_utf8(text.to_vec()).unwrap(),
        ));
        Ok(())
    }
}

fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into()
}

fn write_blob(root: &Path, bytes: &[u8]) -> Value {
    let folder = root.join("blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(digest(bytes).hex()), bytes).unwrap();
    json!({"mediaType": "", "digest": digest(bytes), "size": bytes.len()})
}

fn write_image(root: &Path, layer: &[u8], architecture: &str) -> Value {
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": write_blob(root, &config(&[layer], architecture)), "layers": [write_blob(root, layer)]});
    let mut entry = write_blob(root, manifest.to_string().as_bytes());
    entry["mediaType"] = OCI_MANIFEST.into();
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    entry
}

fn write_index(root: &Path, entries: &[Value]) {
    fs::write(root.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    fs::write(
        root.join("index.json"),
        json!({"schemaVersion": 2, "manifests": entries}).to_string(),
    )
    .unwrap();
}

fn tar_of(folder: &Path, to: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(to).unwrap());
    tar.append_dir_all("", folder).unwrap();
    tar.finish().unwrap();
}

#[test]
fn an_oci_layout_is_imported_as_folder_and_as_tar_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layout");
    let entry = write_image(&root, b"layer", "amd64");
    write_index(&root, std::slice::from_ref(&entry));
    let archive = dir.path().join("image.tar");
    tar_of(&root, &archive);
    for path in [&root, &archive] {
        let mut sink = Memory::default();
        let name = import(path, "v1", &mut sink).unwrap();
        assert_eq!(entry["digest"], name.as_str());
        assert_eq!(
            (sink.manifests[0].0.as_deref(), &sink.manifests[0].1),
            (Some("v1"), &name)
        );
        assert_eq!(sink.blobs.len(), 2);
        let again = import(path, "v2", &mut sink).unwrap();
        assert_eq!(
            (again, sink.blobs.len(), sink.manifests.len()),
            (name, 2, 2),
            "what is there is not sent again"
        );
    }
}

/// Proves: CC-1
#[test]
fn an_index_is_imported_with_all_its_variants() {
    let dir = tempfile::tempdir().unwrap();
    let variants = [
        write_image(dir.path(), b"one", "amd64"),
        write_image(dir.path(), b"two", "arm64"),
    ];
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": variants});
    let mut entry = write_blob(dir.path(), index.to_string().as_bytes());
    entry["mediaType"] = OCI_INDEX.into();
    write_index(dir.path(), &[entry]);
    let mut sink = Memory::default();
    import(dir.path(), "v1", &mut sink).unwrap();
    let tags: Vec<_> = sink.manifests.iter().map(|(tag, ..)| tag.as_deref()).collect();
    assert_eq!(tags, [None, None, Some("v1")]);
    write_index(dir.path(), &variants);
    assert!(matches!(
        import(dir.path(), "v1", &mut sink),
        Err(ImageError::Several(2))
    ));
}

#[test]
fn a_docker_archive_gets_a_manifest_and_its_linked_layers_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two): (&[u8], &[u8]) = (b"first layer", b"second layer");
    let config = config(&[one, two], "amd64");
    let path = dir.path().join("docker.tar");
    let write = |layers: [&[u8]; 2]| {
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(bytes.len()).unwrap());
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        add("aaa.tar", layers[0]);
        add("bbb/layer.tar", layers[1]);
        add("config.json", &config);
        let manifest =
            json!([{"Config": "config.json", "RepoTags": ["x:y"], "Layers": ["ccc/layer.tar", "bbb/layer.tar"]}]);
        add("manifest.json", manifest.to_string().as_bytes());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "ccc/layer.tar", "../aaa.tar").unwrap();
        tar.finish().unwrap();
    };
    write([one, two]);
    let mut sink = Memory::default();
    import(&path, "v1", &mut sink).unwrap();
    let text: Value = serde_json::from_str(&sink.manifests[0].2).unwrap();
    assert_eq!(text["layers"][0]["digest"], digest(one).as_str());
    assert_eq!(text["config"]["digest"], digest(&config).as_str());
    write([one, b"another layer"]);
    let refused = import(&path, "v1", &mut Memory::default());
    assert!(
        matches!(refused, Err(ImageError::Digest { ref name, .. }) if name == "bbb/layer.tar"),
        "{refused:?}"
    );
}

#[test]
fn hostile_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layout");
    let entry = write_image(&root, b"layer", "amd64");
    write_index(&root, std::slice::from_ref(&entry));
    let attempt = |path: &Path| import(path, "v1", &mut Memory::default());
    attempt(&root).expect("control: the layout is good as it is");
    let blob = |bytes: &[u8]| root.join("blobs/sha256").join(digest(bytes).hex());
    // Other bytes of the same length under a layer's name.
    fs::write(blob(b"layer"), b"LAYER").unwrap();
    assert!(matches!(attempt(&root), Err(ImageError::Digest { .. })));
    // A link to a file outside of the layout.
    fs::remove_file(blob(b"layer")).unwrap();
    fs::write(dir.path().join("outside"), b"layer").unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), blob(b"layer")).unwrap();
    assert!(matches!(attempt(&root), Err(ImageError::Missing(_))));
    // Another size than the manifest says.
    fs::remove_file(blob(b"layer")).unwrap();
    fs::write(blob(b"layer"), b"layer and more").unwrap();
    assert!(matches!(attempt(&root), Err(ImageError::TooLong(_))));
    // A manifest that is not what its descriptor says.
    fs::write(blob(b"layer"), b"layer").unwrap();
    let manifest = root
        .join("blobs/sha256")
        .join(entry["digest"].as_str().unwrap().trim_start_matches("sha256:"));
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, [good.as_slice(), b" "].concat()).unwrap();
    assert!(matches!(attempt(&root), Err(ImageError::Digest { .. })));
    fs::write(&manifest, good).unwrap();
    attempt(&root).expect("control: mended");
    // An index without end, and no archive at all.
    let sparse = fs::File::create(root.join("index.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(matches!(attempt(&root), Err(ImageError::TooLong(_))));
    let plain = dir.path().join("plain");
    fs::write(&plain, b"not a tar").unwrap();
    assert!(attempt(&plain).is_err());
    // A docker archive whose layer names point outside.
    for name in ["../outside", "/etc/passwd", "layer.tar/../../outside"] {
        let path = dir.path().join("docker");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), config(&[b"layer"], "amd64")).unwrap();
        let manifest = json!([{"Config": "config.json", "Layers": [name]}]);
        fs::write(path.join("manifest.json"), manifest.to_string()).unwrap();
        assert!(matches!(attempt(&path), Err(ImageError::Missing(_))), "{name}");
    }
}

#[test]
fn a_folder_is_packed_the_same_way_every_time_with_links_owners_and_modes() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("rootfs");
    fs::create_dir_all(root.join("opt/program")).unwrap();
    fs::write(root.join("opt/program/train"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("opt/program/train"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(root.join("opt/program/train"), root.join("opt/program/serve")).unwrap();
    std::os::unix::fs::symlink("/opt/program", root.join("program")).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let options = PackOptions {
        entrypoint: vec!["/opt/program/train".into()],
        env: vec!["A=1".into()],
        user: Some("1000".into()),
        ..Default::default()
    };
    let mut sink = Memory::default();
    let (name, left_out) = pack(&root, "v1", &options, dir.path(), &mut sink).unwrap();
    assert_eq!(left_out, [std::path::PathBuf::from("socket")]);
    let (again, _) = pack(&root, "v1", &options, dir.path(), &mut sink).unwrap();
    assert_eq!((again, sink.blobs.len()), (name, 2));
    let manifest: Value = serde_json::from_str(&sink.manifests[0].2).unwrap();
    let part = |pointer: &str| {
        let name = manifest
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .parse::<Sha256Digest>()
            .unwrap();
        sink.blobs[&name].clone()
    };
    let config: ImageConfig = serde_json::from_slice(&part("/config/digest")).unwrap();
    let run = config.config.unwrap();
    assert_eq!(
        (run.entrypoint, run.cmd, run.user),
        (Some(options.entrypoint), None, Some("1000".into()))
    );
    assert_eq!(config.rootfs.diff_ids, [digest(&part("/layers/0/digest"))]);
    let layer = part("/layers/0/digest");
    let mut tar = tar::Archive::new(layer.as_slice());
    let found: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let name = entry.path().unwrap().display().to_string();
            (name.trim_end_matches('/').to_owned(), entry.header().entry_type(), link)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("opt".to_owned(), tar::EntryType::Directory, None),
            ("opt/program".into(), tar::EntryType::Directory, None),
            ("opt/program/serve".into(), tar::EntryType::Regular, None),
            (
                "opt/program/train".into(),
                tar::EntryType::Link,
                Some("opt/program/serve".into())
            ),
            ("program".into(), tar::EntryType::Symlink, Some("/opt/program".into())),
        ]
    );
}
