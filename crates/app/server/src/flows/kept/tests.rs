use super::*;
use isolarium_netplan::flowlog::Counts;
use isolarium_netplan::reach::Direction;

const MINUTE: Duration = Duration::from_secs(60);

fn log() -> FlowLogId {
    FlowLogId::of(1)
}

fn reading(now: i64, flows: u32) -> Reading {
    let record = |n: u32| FlowRecord {
        interface: InterfaceId::of(1),
        subnet: SubnetId::of(1),
        direction: Direction::Egress,
        accepted: true,
        source: "10.0.0.5".parse().unwrap(),
        destination: std::net::Ipv4Addr::from(n),
        packet_source: "10.0.0.5".parse().unwrap(),
        packet_destination: "10.0.0.6".parse().unwrap(),
        source_port: 1,
        destination_port: 2,
        protocol: 6,
        counts: Counts { packets: 1, bytes: 1 },
        tcp_flags: None,
        first: Timestamp(now),
        last: Timestamp(now),
        path: None,
    };
    Reading {
        now: Timestamp(now),
        minute: MINUTE,
        records: (0..flows).map(record).collect(),
        lost: false,
        interfaces: [(InterfaceId::of(1), SubnetId::of(1))].into(),
        next: u64::try_from(now).unwrap(),
        owed: Vec::new(),
    }
}

fn owed(reading: &str) -> Owed {
    let scope = isolarium_model::Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    Owed {
        key: Key::exact(&scope, "arn"),
        owner_arn: "arn".into(),
        flows: Vec::new(),
        reading: reading.into(),
    }
}

/// Proves: NET-56
#[test]
fn a_journal_comes_back_as_it_was_however_its_last_line_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows/vpc-1.log");
    let mut kept = Kept::open(&path).unwrap();
    kept.read(Reading {
        owed: vec![owed("one")],
        ..reading(10_000, 3)
    })
    .unwrap();
    assert_eq!(Kept::open(&path).unwrap().whole, kept.whole);
    assert_eq!(Kept::open(&path).unwrap().owed(), [owed("one")]);
    kept.paid().unwrap();
    kept.read(reading(61_000, 2)).unwrap();
    kept.delivered(log(), Timestamp(60_000)).unwrap();
    kept.forget(vec![log()], MINUTE).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let again = Kept::open(&path).unwrap();
    assert_eq!((&again.whole, again.owed()), (&kept.whole, [].as_slice()));
    assert_eq!(again.journal().next, 61_000);
    // Killed over the next line, wherever.
    let before = kept.whole.clone();
    kept.read(reading(70_000, 1)).unwrap();
    let longer = std::fs::read(&path).unwrap();
    for length in whole.len()..longer.len() {
        std::fs::write(&path, &longer[..length]).unwrap();
        let mut again = Kept::open(&path).unwrap();
        assert_eq!(again.whole, before);
        if length % 97 == 0 {
            again.read(reading(70_000, 1)).unwrap();
            assert_eq!(
                Kept::open(&path).unwrap().whole,
                kept.whole,
                "what follows half a line is whole"
            );
        }
    }
    std::fs::write(&path, b"what is this\n").unwrap();
    assert!(Kept::open(&path).is_err(), "a file of somebody else's is left alone");
}

#[test]
fn what_is_written_grows_with_what_is_new_and_the_file_with_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vpc-1.log");
    let mut kept = Kept::open(&path).unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    // An hour's traffic waits; a quiet round adds a line about nothing.
    kept.read(reading(10_000, 20_000)).unwrap();
    let before = length();
    assert!(before > SMALL, "control: {before} bytes");
    kept.read(reading(15_000, 0)).unwrap();
    assert!(length() - before < 1000, "{}", length() - before);
    // Everything is delivered: the file is written anew.
    kept.read(reading(130_000, 1)).unwrap();
    kept.delivered(log(), Timestamp(120_000)).unwrap();
    kept.forget(vec![log()], MINUTE).unwrap();
    assert!(length() < 10_000, "{}", length());
    let again = Kept::open(&path).unwrap();
    assert_eq!(again.whole, kept.whole);
    kept.read(reading(135_000, 2)).unwrap();
    assert_eq!(Kept::open(&path).unwrap().whole, kept.whole, "appended behind it");
}
