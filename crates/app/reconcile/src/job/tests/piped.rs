//! Channels in Pipe mode: the tests open the pipes as a container would.

use super::several::{three, workloads};
use super::*;
use isolarium_batch::record_io;
use isolarium_model::sagemaker::training_job::PipeInput;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

fn piped(channel: &mut Channel, input: PipeInput) {
    channel.mode = InputMode::Pipe(input);
}

/// A running job with one channel.
fn lab(input: PipeInput, edit: impl FnOnce(&mut Channel)) -> Lab {
    Lab::new(true, |job| {
        piped(&mut job.spec.channels[0], input);
        edit(&mut job.spec.channels[0]);
    })
}

fn pipe(lab: &Lab, workload: &WorkloadId, epoch: u64) -> PathBuf {
    let work = lab.world.directory.path().join(workload.as_str());
    work.join(format!("input/data/train_{epoch}"))
}

/// Reads an epoch to its end.
fn epoch(lab: &Lab, number: u64) -> Vec<u8> {
    std::fs::read(pipe(lab, &lab.workload, number)).unwrap()
}

/// Waits for what a thread of the engine does.
fn eventually(what: &str, mut seen: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !seen() {
        assert!(Instant::now() < until, "{what}");
        thread::yield_now();
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

/// Proves: CC-16, CC-18, CC-25
#[test]
fn epochs_follow_each_other_and_a_reader_may_leave_early() {
    let mut lab = lab(PipeInput::default(), |_| {});
    lab.world.put_object("s3://data/train/b.csv", b"3,4");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    lab.world.put_object("s3://data/train/c.bin", &large);
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let config = lab.world.container(&lab.workload).input["config/inputdataconfig.json"].clone();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["train"]["TrainingInputMode"], "Pipe");
    assert_eq!(config["train"]["RecordWrapperType"], "None");
    let whole = [b"1,23,4", &large[..]].concat();
    assert!(epoch(&lab, 0) == whole);
    // The next one is there already; whoever has enough of it goes on to the one after that.
    let mut begin = [0; 6];
    File::open(pipe(&lab, &lab.workload, 1))
        .unwrap()
        .read_exact(&mut begin)
        .unwrap();
    assert_eq!(&begin, b"1,23,4");
    eventually("the second epoch does not end", || {
        !pipe(&lab, &lab.workload, 1).exists()
    });
    assert!(epoch(&lab, 2) == whole);
    eventually("the third epoch does not end", || {
        !pipe(&lab, &lab.workload, 2).exists()
    });
    assert!(!pipe(&lab, &lab.workload, 0).exists());
    assert!(pipe(&lab, &lab.workload, 3).exists());
    lab.world.exit(&lab.workload, 0);
    assert_eq!(lab.run().secondary, SecondaryStatus::Completed);
    assert!(!lab.world.directory.path().join(lab.workload.as_str()).exists());
}

/// Proves: CC-26
#[test]
fn objects_are_decompressed_and_framed_on_the_way() {
    let input = PipeInput {
        gzip: true,
        record_io: true,
        attributes: None,
    };
    let mut lab = lab(input, |_| {});
    // Marks at multiples of four, where a record is cut.
    let marked = [
        &record_io::record(b"inner").unwrap()[..],
        &record_io::record(b"").unwrap(),
        b"tail",
    ]
    .concat();
    let texts: [&[u8]; 4] = [b"one", b"", &marked, &[7; 700_001]];
    for (number, text) in texts.iter().enumerate() {
        lab.world
            .put_object(&format!("s3://data/train/{number}.gz"), &gzip(text));
    }
    // Several members are one file.
    lab.world
        .put_object("s3://data/train/a.csv", &[gzip(b"first"), gzip(b"second")].concat());
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let mut wanted: Vec<u8> = texts.iter().flat_map(|text| record_io::record(text).unwrap()).collect();
    wanted.extend(record_io::record(b"firstsecond").unwrap());
    assert!(epoch(&lab, 0) == wanted);
    assert!(epoch(&lab, 1) == wanted);
}

/// Proves: CC-27
#[test]
fn an_augmented_manifest_sends_its_attributes() {
    let input = PipeInput {
        gzip: false,
        record_io: true,
        attributes: Some(vec!["image-ref".into(), "is-a-cat".into()]),
    };
    let mut lab = lab(input, |channel| {
        channel.uri = "s3://data/list.jsonl".parse().unwrap();
        channel.data_type = S3DataType::ManifestFile;
    });
    lab.world.put_object("s3://data/1.jpg", b"cat");
    lab.world.put_object("s3://data/2.jpg", b"dog!");
    let lines = "{\"image-ref\": \"s3://data/1.jpg\", \"is-a-cat\": 1}\n\n{\"is-a-cat\":0,\"x\":2,\"image-ref\":\"s3://data/2.jpg\"}";
    lab.world.put_object("s3://data/list.jsonl", lines.as_bytes());
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let wanted = [b"cat".as_slice(), b"1", b"dog!", b"0"].map(|text| record_io::record(text).unwrap());
    assert_eq!(epoch(&lab, 0), wanted.concat());
}

/// Proves: CC-25, CC-28
#[test]
fn instances_share_what_is_shuffled_anew_in_every_epoch() {
    let mut lab = three(true, |job| {
        piped(&mut job.spec.channels[0], PipeInput::default());
        job.spec.channels[0].distribution = Distribution::ShardedByS3Key;
        job.spec.channels[0].shuffle_seed = Some(11);
    });
    for number in 0..26_u8 {
        lab.world
            .put_object(&format!("s3://data/train/more/{number}"), &[b'A' + number]);
    }
    lab.world.put_object("s3://data/train/a.csv", b"a");
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let workloads = workloads(&lab);
    let read = |number: u64| -> Vec<String> {
        let one = |workload| std::fs::read_to_string(pipe(&lab, workload, number)).unwrap();
        workloads.iter().map(one).collect()
    };
    let (first, second) = (read(0), read(1));
    for shares in [&first, &second] {
        let all: BTreeSet<char> = shares.concat().chars().collect();
        assert_eq!((all.len(), shares.concat().len()), (30, 30), "{shares:?}");
        assert!(shares.iter().all(|share| share.len() == 10), "{shares:?}");
    }
    assert_ne!(first, second);
    let sorted = |text: &String| text.chars().collect::<BTreeSet<_>>();
    assert_ne!(
        sorted(&first[0]),
        sorted(&second[0]),
        "what an instance gets changes too"
    );
}

/// Proves: CC-25, CC-30
#[test]
fn what_cannot_be_read_ends_the_job_and_never_looks_like_the_end_of_the_data() {
    let mut lab = lab(PipeInput::default(), |_| {});
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    // Control: it is read.
    assert_eq!(epoch(&lab, 0), b"1,2");
    lab.world.fail("open", "denied:no s3:GetObject");
    let path = pipe(&lab, &lab.workload, 1);
    let reader = thread::spawn(move || std::fs::read(path).unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    let done = loop {
        let job = lab.run();
        if job.secondary != SecondaryStatus::Training {
            break job;
        }
        assert!(
            !reader.is_finished(),
            "the reader saw an end before its container was ended"
        );
        assert!(Instant::now() < until, "the job goes on without its data");
        lab.world.clock.advance(Duration::from_secs(1));
    };
    assert_eq!(done.secondary, SecondaryStatus::Failed);
    let reason = done.failure_reason.unwrap().to_string();
    assert_eq!(reason, "ClientError: Data download failed:no s3:GetObject");
    assert_eq!(reader.join().unwrap(), b"");
}

/// Proves: CC-30
#[test]
fn data_that_are_not_what_the_channel_says_fail_the_job() {
    let labelled = PipeInput {
        attributes: Some(vec!["label".into()]),
        ..PipeInput::default()
    };
    let packed = PipeInput {
        gzip: true,
        ..PipeInput::default()
    };
    for (input, wanted) in [
        (
            labelled,
            "ClientError: Data download failed:Line 1 of the augmented manifest \"s3://data/train/a.csv\" cannot be used",
        ),
        (
            packed,
            "ClientError: Data download failed:\"s3://data/train/a.csv\" cannot be decompressed",
        ),
    ] {
        let mut lab = lab(input, |channel| channel.uri = "s3://data/train/a.csv".parse().unwrap());
        assert_eq!(lab.run().secondary, SecondaryStatus::Training);
        let reader = File::open(pipe(&lab, &lab.workload, 0)).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while lab.run().secondary == SecondaryStatus::Training {
            assert!(Instant::now() < until, "the job goes on without its data");
            lab.world.clock.advance(Duration::from_secs(1));
        }
        let reason = lab.job().failure_reason.unwrap().to_string();
        assert!(reason.starts_with(wanted), "{reason}");
        drop(reader);
    }
}

/// Proves: CC-25
#[test]
fn a_restarted_engine_serves_on_or_fails_the_job_whose_epoch_it_cut() {
    let mut lab = lab(PipeInput::default(), |_| {});
    let large = vec![7; 4 << 20];
    lab.world.put_object("s3://data/train/large", &large);
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let whole = epoch(&lab, 0);
    eventually("the first epoch does not end", || {
        !pipe(&lab, &lab.workload, 0).exists()
    });
    lab.restart();
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    assert!(epoch(&lab, 1) == whole, "between two epochs nothing is lost");
    eventually("the second epoch does not end", || {
        !pipe(&lab, &lab.workload, 1).exists()
    });
    // Within one, the reader cannot know that there would have been more.
    let mut reader = File::open(pipe(&lab, &lab.workload, 2)).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    lab.restart();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < whole.len() - 10);
    lab.world.exit(&lab.workload, 0);
    let done = lab.run();
    assert_eq!(done.secondary, SecondaryStatus::Failed);
    let reason = done.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("InternalServerError: Data download failed:The engine was restarted while epoch 2"),
        "{reason}"
    );
}

/// Proves: CC-25, CC-34
#[test]
fn a_stopped_job_leaves_no_thread_behind() {
    let mut lab = lab(PipeInput::default(), |_| {});
    lab.world.put_object("s3://data/train/large", &vec![7; 4 << 20]);
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let mut reader = File::open(pipe(&lab, &lab.workload, 0)).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    lab.ask_to_stop();
    assert_eq!(lab.run().secondary, SecondaryStatus::Stopped);
    // The job's end waited for the thread's, and with it the pipe's last writer went.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 4 << 20);
}
