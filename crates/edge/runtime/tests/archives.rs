//! Archives made by strangers, in and out. Needs root and busybox-static.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use common::{Entry, Lab, blob, digest, tar};
use flate2::Compression;
use flate2::write::GzEncoder;
use isolarium_model::WorkloadId;
use isolarium_runtime::executor::{ExecutorError, LaunchSpec, Mount, PackFormat};
use isolarium_runtime::local::{DISK_IDS, LocalConfig, LocalRuntime};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpack(lab: &Lab, entries: &[Entry<'_>]) -> Result<PathBuf, ExecutorError> {
    let bytes = tar(entries);
    lab.runtime.unpack_layer(blob(&bytes), &digest(&bytes))?;
    Ok(lab.dir.path().join("layers").join(digest(&bytes).hex()))
}

fn layers(lab: &Lab) -> usize {
    std::fs::read_dir(lab.dir.path().join("layers")).unwrap().count()
}

#[test]
fn hostile_layers_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let before = layers(&lab);
    let cases: Vec<(&str, Vec<Entry<'_>>)> = vec![
        ("an absolute path", vec![Entry::File("/etc/cron.d/x", 0o644, b"x")]),
        ("a path upwards", vec![Entry::File("../x", 0o644, b"x")]),
        (
            "a path upwards in the middle",
            vec![Entry::File("a/../../x", 0o644, b"x")],
        ),
        (
            "a file through a link outside",
            vec![Entry::Link("out", "/tmp"), Entry::File("out/x", 0o644, b"x")],
        ),
        (
            "a file through a link inside",
            vec![
                Entry::Dir("d/", 0o755),
                Entry::Link("in", "d"),
                Entry::File("in/x", 0o644, b"x"),
            ],
        ),
        (
            "a directory through a link",
            vec![Entry::Link("out", ".."), Entry::Dir("out/x/", 0o755)],
        ),
        ("a hard link outside", vec![Entry::Hard("h", "../../../etc/passwd")]),
        ("an absolute hard link", vec![Entry::Hard("h", "/etc/passwd")]),
        (
            "a hard link to a link",
            vec![Entry::Link("l", "/etc/passwd"), Entry::Hard("h", "l")],
        ),
        (
            "a hard link through a link",
            vec![Entry::Link("l", "/etc"), Entry::Hard("h", "l/passwd")],
        ),
        ("a device", vec![Entry::Device("null")]),
        ("an owner outside the range", vec![Entry::Owned("f", 70_000, b"x")]),
        (
            "a file in place of a directory",
            vec![Entry::Dir("d/", 0o755), Entry::File("d", 0o644, b"x")],
        ),
        (
            "a path through a file",
            vec![Entry::File("f", 0o644, b"x"), Entry::File("f/x", 0o644, b"x")],
        ),
        ("a whiteout of nothing", vec![Entry::File(".wh.", 0o644, b"")]),
        ("a whiteout upwards", vec![Entry::File(".wh...", 0o644, b"")]),
    ];
    for (what, entries) in cases {
        let refused = unpack(&lab, &entries);
        assert!(matches!(refused, Err(ExecutorError::Refused(_))), "{what}: {refused:?}");
        assert_eq!(layers(&lab), before, "{what} left something");
    }
    assert!(
        !PathBuf::from("/etc/cron.d/x").exists()
            && !lab.dir.path().join("x").exists()
            && !lab.dir.path().join("layers/x").exists()
    );
    // Control: the same kinds of entries, staying inside, unpack.
    let good = unpack(
        &lab,
        &[
            Entry::Dir("./", 0o755),
            Entry::Dir("./d/", 0o755),
            Entry::File("d/f", 0o640, b"text"),
            Entry::Link("l", "/etc/passwd"),
            Entry::Hard("h", "d/f"),
            Entry::Owned("o", 65_535, b"x"),
            Entry::File("made/on/the/way", 0o4755, b"y"),
        ],
    )
    .unwrap();
    assert_eq!(common::file_bytes(&good.join("h")), b"text");
    let mode_and_owner = |name: &str| {
        let found = std::fs::symlink_metadata(good.join(name)).unwrap();
        (found.mode() & 0o7777, found.uid() - DISK_IDS)
    };
    assert_eq!(mode_and_owner("d/f"), (0o640, 0));
    assert_eq!(mode_and_owner("o"), (0o644, 65_535));
    assert_eq!(mode_and_owner("made/on/the/way"), (0o4755, 0));
    assert_eq!(std::fs::metadata(good.join("d/f")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(std::fs::metadata(good.join("d")).unwrap().mtime(), 1_600_000_000);
}

#[test]
fn broken_and_wrong_layers_are_refused() {
    let lab = Lab::new();
    let bytes = tar(&[Entry::File("f", 0o644, &[7; 5000])]);
    let before = layers(&lab);
    for (what, blob_bytes, id) in [
        ("another digest", bytes.clone(), digest(b"something else")),
        (
            "the digest of the compressed bytes",
            gzip(&bytes),
            digest(&gzip(&bytes)),
        ),
        ("a cut-off tar", bytes[..3000].to_vec(), digest(&bytes[..3000])),
        ("a cut-off gzip", gzip(&bytes)[..60].to_vec(), digest(&bytes)),
        (
            "noise",
            (0..100_000_u32).flat_map(u32::to_le_bytes).collect(),
            digest(b"noise"),
        ),
        (
            "gzip that is none",
            b"\x1f\x8bnot gzip at all".to_vec(),
            digest(b"none"),
        ),
        (
            "zstd that is none",
            b"\x28\xb5\x2f\xfdnot zstd at all".to_vec(),
            digest(b"none"),
        ),
    ] {
        let refused = lab.runtime.unpack_layer(blob(&blob_bytes), &id);
        assert!(matches!(refused, Err(ExecutorError::Refused(_))), "{what}: {refused:?}");
    }
    assert_eq!(layers(&lab), before);
    lab.runtime.unpack_layer(blob(&gzip(&bytes)), &digest(&bytes)).unwrap();
    lab.runtime.unpack_layer(blob(&bytes), &digest(&bytes)).unwrap();
    let without_its_bytes = lab.runtime.unpack_layer(blob(b"another's layer"), &digest(&bytes));
    assert!(
        matches!(without_its_bytes, Err(ExecutorError::Refused(_))),
        "knowing a layer's digest is not having it: {without_its_bytes:?}"
    );
    assert_eq!(layers(&lab), before + 1, "control: the right digest unpacks, and once");
}

#[test]
fn zstd_layers_with_several_frames_unpack() {
    let lab = Lab::new();
    let bytes = tar(&[
        Entry::File("f", 0o644, &[7; 5000]),
        Entry::File("g", 0o644, b"second frame"),
    ]);
    let mut packed = Vec::new();
    for part in bytes.chunks(4000) {
        packed.extend(ruzstd::encoding::compress_to_vec(
            part,
            ruzstd::encoding::CompressionLevel::Fastest,
        ));
        // A skippable frame, as chunked images have them.
        packed.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    }
    lab.runtime.unpack_layer(blob(&packed), &digest(&bytes)).unwrap();
    let layer = lab.dir.path().join("layers").join(digest(&bytes).hex());
    assert_eq!(common::file_bytes(&layer.join("g")), b"second frame");
    assert_eq!(common::file_bytes(&layer.join("f")), [7; 5000]);
}

fn stacked(lab: &Lab, script: &str, upper: &[Entry<'_>]) -> LaunchSpec {
    let bytes = tar(upper);
    lab.runtime.unpack_layer(blob(&bytes), &digest(&bytes)).unwrap();
    let mut spec = lab.spec(script);
    spec.layers.push(digest(&bytes));
    spec
}

#[test]
fn whiteouts_hide_what_lower_layers_have() {
    let lab = Lab::new();
    let spec = stacked(
        &lab,
        "ls -A /data /etc /kept; cat /data/new",
        &[
            Entry::Dir("data/", 0o755),
            Entry::File("data/old", 0o644, b"old"),
            Entry::Dir("kept/", 0o755),
            Entry::File("kept/a", 0o644, b"a"),
        ],
    );
    let (_, lines) = lab.run_spec(&spec);
    assert!(
        lines.contains(&"old".into()) && lines.contains(&"group".into()),
        "control: without the third layer both are there: {lines:?}"
    );
    let mut third = stacked(
        &lab,
        "ls -A /data; ls -A /etc; ls -A /kept; ls -A /again",
        &[
            Entry::Dir("data/", 0o755),
            Entry::File("data/.wh..wh..opq", 0o644, b""),
            Entry::File("data/new", 0o644, b"new"),
            Entry::Dir("etc/", 0o755),
            Entry::File("etc/.wh.group", 0o644, b""),
            Entry::Dir("kept/", 0o755),
            Entry::File("kept/b", 0o644, b"b"),
            Entry::File(".wh.again", 0o644, b""),
            Entry::Dir("again/", 0o755),
        ],
    );
    third.layers.insert(1, spec.layers[1].clone());
    let (_, lines) = lab.run_spec(&third);
    assert_eq!(lines, ["new", "hostname", "hosts", "passwd", "resolv.conf", "a", "b"]);
}

fn prepared(lab: &Lab) -> WorkloadId {
    let workload = common::new_id();
    lab.runtime.prepare(&workload).unwrap();
    workload
}

#[test]
fn a_model_archive_is_unpacked_for_the_container_and_a_hostile_one_is_refused() {
    let lab = Lab::new();
    let mut spec = lab.spec(
        "cat /opt/ml/model/a/weights; stat -c '%u %a' /opt/ml/model/a/weights /opt/ml/model/private; touch /opt/ml/model/x || echo refused",
    );
    lab.runtime.prepare(&spec.workload).unwrap();
    let hostile = gzip(&tar(&[
        Entry::Link("out", "/"),
        Entry::File("out/etc/evil", 0o644, b"x"),
    ]));
    assert!(matches!(
        lab.runtime.unpack_archive(blob(&hostile), &spec.workload, "evil", None),
        Err(ExecutorError::Refused(_))
    ));
    assert!(!PathBuf::from("/etc/evil").exists());
    let good = gzip(&tar(&[
        Entry::Owned("a/weights", 4_000_000_000, b"numbers\n"),
        Entry::Link("latest", "a/weights"),
        Entry::File("private", 0o4600, b""),
    ]));
    // An archive that does not end: nobody writes to the pipe. The control is the same call on one that does, below.
    let (never_ends, _open) = rustix::pipe::pipe().unwrap();
    let limit = Some(std::time::Duration::from_millis(300));
    let late = lab.runtime.unpack_archive(never_ends, &spec.workload, "late", limit);
    assert!(matches!(late, Err(ExecutorError::Refused(why)) if why == "it took longer than 0.3 seconds"));
    lab.runtime
        .unpack_archive(
            blob(&good),
            &spec.workload,
            "model",
            Some(std::time::Duration::from_secs(60)),
        )
        .unwrap();
    spec.mounts = vec![Mount::Scratch {
        name: "model".into(),
        target: "/opt/ml/model".into(),
        read_only: true,
    }];
    let (_, lines) = lab.run_spec(&spec);
    assert!(
        lines.starts_with(&["numbers".into(), "0 644".into(), "0 644".into()]) && lines.contains(&"refused".into()),
        "{lines:?}"
    );
}

/// Archives that never end: nobody writes to the pipe, or reads from it. Controls are the tests beside this one, where the
/// same calls end well.
#[test]
fn an_archive_that_never_ends_is_given_up_and_leaves_nothing() {
    let lab = Lab::new();
    let hasty = LocalRuntime::open(LocalConfig {
        archive_timeout: std::time::Duration::from_millis(300),
        ..lab.config.clone()
    })
    .unwrap();
    let gave_up = |outcome: Result<(), ExecutorError>| {
        assert!(
            matches!(&outcome, Err(ExecutorError::Refused(why)) if why == "it took longer than 0.3 seconds"),
            "{outcome:?}"
        );
    };
    let (never_ends, _open) = rustix::pipe::pipe().unwrap();
    let layers = || std::fs::read_dir(lab.dir.path().join("layers")).unwrap().count();
    let before = layers();
    gave_up(hasty.unpack_layer(never_ends, &common::digest(b"another layer")));
    assert_eq!(layers(), before);
    // The bytes of a layer that is there already are read as well.
    let (never_ends, _open) = rustix::pipe::pipe().unwrap();
    gave_up(hasty.unpack_layer(never_ends, &lab.layer));

    let workload = prepared(&lab);
    let (never_ends, _open) = rustix::pipe::pipe().unwrap();
    let patient = Some(std::time::Duration::from_secs(3600));
    gave_up(hasty.unpack_archive(never_ends, &workload, "model", patient));

    let folder = lab
        .dir
        .path()
        .join("work")
        .join(workload.as_str())
        .join("scratch/model");
    std::fs::write(folder.join("weights"), vec![7; 1 << 20]).unwrap();
    let (_nobody_reads, out) = rustix::pipe::pipe().unwrap();
    gave_up(hasty.pack(&workload, "model", PackFormat::Tar, out).map(drop));
    lab.runtime.remove(&workload).unwrap();
}

fn packed(lab: &Lab, workload: &WorkloadId, format: PackFormat) -> (u64, u64, Vec<(String, Vec<u8>)>) {
    let mut file = tempfile::tempfile().unwrap();
    let done = lab
        .runtime
        .pack(workload, "model", format, file.try_clone().unwrap().into())
        .unwrap();
    file.rewind().unwrap();
    let reader: Box<dyn Read> = match format {
        PackFormat::Tar => Box::new(file),
        PackFormat::TarGz => Box::new(flate2::read::GzDecoder::new(file)),
    };
    let mut archive = tar::Archive::new(reader);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some(link) = entry.link_name().unwrap() {
            bytes = format!("-> {}", link.display()).into();
        }
        found.push((name, bytes));
    }
    (done.entries, done.bytes, found)
}

/// Proves: CC-37
#[test]
fn packing_takes_what_is_inside_and_follows_no_link_out() {
    let lab = Lab::new();
    let mut spec = lab.spec(
        "cd /opt/ml/model; mkdir deep; echo weights > deep/w; ln -s deep/w inside; ln -s ../deep/w deep/again; ln -s /etc/passwd absolute; \
         ln -s ../../../etc/passwd upwards; mkfifo pipe; chmod 000 deep/w; echo plain > plain",
    );
    spec.mounts = vec![Lab::scratch("model", "/opt/ml/model")];
    lab.run_spec(&spec);
    let expected = [
        ("deep", ""),
        ("deep/again", "-> ../deep/w"),
        ("deep/w", "weights\n"),
        ("inside", "-> deep/w"),
        ("plain", "plain\n"),
    ];
    for format in [PackFormat::Tar, PackFormat::TarGz] {
        let (entries, bytes, found) = packed(&lab, &spec.workload, format);
        let found: Vec<(&str, String)> = found
            .iter()
            .map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes).into()))
            .collect();
        let expected: Vec<(&str, String)> = expected
            .iter()
            .map(|(name, text)| (*name, (*text).to_owned()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!((entries, bytes), (4, 14));
    }
}

/// A hole costs its author nothing and would be written out as zeros. A small one, packed by the same call, is the control.
///
/// Proves: CC-37
#[test]
fn a_file_with_a_hole_larger_than_the_disk_is_refused_at_once() {
    let lab = Lab::new();
    let workload = prepared(&lab);
    assert_eq!(packed(&lab, &workload, PackFormat::Tar), (0, 0, vec![]));
    let path = lab.dir.path().join(format!("work/{workload}/scratch/model/hole"));
    let file = std::fs::File::create(path).unwrap();
    file.set_len(1 << 20).unwrap();
    let (entries, bytes, _) = packed(&lab, &workload, PackFormat::Tar);
    assert_eq!((entries, bytes), (1, 1 << 20));
    let disk = rustix::fs::statvfs(lab.dir.path()).unwrap();
    file.set_len((disk.f_bavail * disk.f_frsize).min((1 << 40) - 1))
        .unwrap();
    let out = tempfile::tempfile().unwrap();
    let refused = lab
        .runtime
        .pack(&workload, "model", PackFormat::Tar, out.try_clone().unwrap().into());
    assert!(matches!(refused, Err(ExecutorError::Refused(_))), "{refused:?}");
    assert!(out.metadata().unwrap().len() < 1 << 20, "nothing was written for it");
}

#[test]
fn an_empty_or_missing_directory_packs_as_an_empty_archive() {
    let lab = Lab::new();
    let workload = prepared(&lab);
    assert_eq!(packed(&lab, &workload, PackFormat::TarGz), (0, 0, vec![]));
    let unknown = lab.runtime.pack(
        &common::new_id(),
        "model",
        PackFormat::Tar,
        tempfile::tempfile().unwrap().into(),
    );
    assert!(matches!(unknown, Err(ExecutorError::Unknown)), "{unknown:?}");
    lab.runtime.remove(&workload).unwrap();
}

#[test]
fn what_was_packed_unpacks_to_the_same() {
    let lab = Lab::new();
    let workload = prepared(&lab);
    let name = format!("{}/deeper", "long-name-".repeat(20));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    builder.append_data(&mut header, &name, &b"inside"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    lab.runtime
        .unpack_archive(blob(&bytes), &workload, "model", None)
        .unwrap();
    let mut file = tempfile::tempfile().unwrap();
    lab.runtime
        .pack(&workload, "model", PackFormat::TarGz, file.try_clone().unwrap().into())
        .unwrap();
    file.rewind().unwrap();
    lab.runtime
        .unpack_archive(file.into(), &workload, "copy", None)
        .unwrap();
    assert_eq!(
        lab.runtime.read_file(&workload, "copy", &name, 100).unwrap().unwrap(),
        b"inside"
    );
    lab.runtime.remove(&workload).unwrap();
}

#[test]
fn reading_a_file_follows_no_link_and_opens_no_pipe() {
    let lab = Lab::new();
    let mut spec = lab.spec(
        "cd /opt/ml/output; echo 'it broke' > failure; ln -s /etc/passwd link; mkfifo pipe; mkdir dir; ln -s / root; ln -s failure near; ln -s dir/.. up",
    );
    spec.mounts = vec![Lab::scratch("output", "/opt/ml/output")];
    lab.run_spec(&spec);
    let read = |path: &str, max| lab.runtime.read_file(&spec.workload, "output", path, max).unwrap();
    for path in [
        "link",
        "pipe",
        "dir",
        "root/etc/passwd",
        "near",
        "up/failure",
        "absent",
        "failure/x",
        "../output/failure",
    ] {
        assert_eq!(read(path, 100), None, "{path}");
    }
    assert_eq!(
        read("failure", 100).unwrap(),
        b"it broke\n",
        "control: the file itself is read"
    );
    assert_eq!(read("failure", 2).unwrap(), b"it");
    assert_eq!(
        lab.runtime.read_file(&spec.workload, "nosuch", "failure", 10).unwrap(),
        None
    );
}

#[test]
fn the_same_layer_unpacked_by_many_at_once_appears_once_and_whole() {
    let lab = Lab::new();
    let bytes = tar(&[Entry::File("f", 0o644, &[1; 100_000])]);
    let before = layers(&lab);
    let runtime = &lab.runtime;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let bytes = &bytes;
            scope.spawn(move || runtime.unpack_layer(blob(bytes), &digest(bytes)).unwrap());
        }
    });
    assert_eq!(layers(&lab), before + 1);
}

/// Proves: NI-13
#[test]
fn the_process_that_reads_strangers_archives_can_do_nothing_else() {
    let lab = Lab::new();
    let workload = prepared(&lab);
    let noise: Vec<u8> = (0..2_000_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let model = tar(&[Entry::File("weights", 0o644, &noise)]);
    lab.runtime
        .unpack_archive(blob(&model), &workload, "model", None)
        .unwrap();
    let (read, write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| lab.runtime.pack(&workload, "model", PackFormat::Tar, write.into()));
        // It blocks on the full pipe: time to look at it. Other tests have such processes too.
        let root = |pid: u32| std::fs::read_link(format!("/proc/{pid}/root")).unwrap_or_default();
        let is_ours = |pid: &u32| root(*pid).ends_with(format!("{workload}/scratch/model"));
        let pid = loop {
            let confined = |pid: &u32| is_ours(pid) && status_of(*pid, "Seccomp").as_deref() == Some("2");
            if let Some(pid) = children().into_iter().find(confined) {
                break pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        assert_eq!(status_of(pid, "NoNewPrivs").unwrap(), "1");
        assert!(
            status_of(pid, "Uid").unwrap().starts_with(&DISK_IDS.to_string()),
            "an id that nobody else has"
        );
        // CHOWN, DAC_OVERRIDE, FOWNER and FSETID, inside its own user namespace.
        assert_eq!(status_of(pid, "CapEff").unwrap(), "000000000000001b");
        let link = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
        let own = pid.to_string();
        for namespace in ["ns/net", "ns/user", "ns/mnt", "ns/ipc", "ns/uts"] {
            assert_ne!(link(&own, namespace), link("self", namespace), "{namespace}");
        }
        let mut bytes = Vec::new();
        let mut read = read;
        read.read_to_end(&mut bytes).unwrap();
        assert_eq!(
            packing.join().unwrap().unwrap().bytes,
            noise.len() as u64,
            "control: meanwhile it did its work"
        );
    });
    lab.runtime.remove(&workload).unwrap();
}

fn status_of(pid: u32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
}

fn children() -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let text = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}
