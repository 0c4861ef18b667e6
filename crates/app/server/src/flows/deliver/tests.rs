use super::*;
use flate2::read::GzDecoder;
use isolarium_model::ec2::flow_log::FlowLogDestination;
use isolarium_netplan::id::{FlowLogId, VpcId};
use std::io::Read;

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn log() -> FlowLog {
    FlowLog {
        id: FlowLogId::of(7),
        vpc: VpcId::of(1),
        about: FlowLogResource::Vpc(VpcId::of(1)),
        traffic: TrafficType::All,
        destination: FlowLogDestination::S3 {
            bucket: "logs".into(),
            prefix: String::new(),
            per_hour: false,
            hive: false,
        },
        interval: 60,
        format: Format::default().to_string(),
        error: None,
        created: Timestamp(0),
        tags: Default::default(),
    }
}

/// Proves: NET-55
#[test]
fn a_flow_log_tells_of_its_resources_interfaces_and_of_no_other() {
    let (subnet, interface) = (SubnetId::of, InterfaceId::of);
    let told = |about| {
        let all = [(1, 11), (1, 12), (2, 21)];
        let own = |(of, one): &(u128, u128)| concerns(about, subnet(*of), interface(*one));
        all.into_iter().filter(own).map(|(_, one)| one).collect::<Vec<_>>()
    };
    assert_eq!(told(FlowLogResource::Vpc(VpcId::of(1))), [11, 12, 21]);
    assert_eq!(told(FlowLogResource::Subnet(subnet(1))), [11, 12]);
    assert_eq!(told(FlowLogResource::Interface(interface(12))), [12]);
}

/// Proves: NET-56
#[test]
fn files_are_named_by_account_region_flow_log_and_time() {
    let until = Timestamp(1_700_000_040_000);
    let key = |prefix: &str, per_hour, hive| object_key(&scope(), &log(), until, prefix, per_hour, hive);
    let plain = key("", false, false);
    let (folder, name) = plain.rsplit_once('/').unwrap();
    assert_eq!(folder, "AWSLogs/123456789012/vpcflowlogs/us-east-1/2023/11/14");
    let start = format!(
        "123456789012_vpcflowlogs_us-east-1_{}_20231114T2214Z_",
        FlowLogId::of(7)
    );
    let hash = name.strip_prefix(&start).unwrap().strip_suffix(".log.gz").unwrap();
    assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert_eq!(
        plain,
        key("", false, false),
        "a repeated delivery writes the same object"
    );
    assert!(key("a/b", true, false).starts_with("a/b/AWSLogs/123456789012/vpcflowlogs/us-east-1/2023/11/14/22/"));
    assert!(key("", true, true).starts_with(
        "AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=us-east-1/year=2023/month=11/day=14/hour=22/"
    ));
}

/// Proves: NET-56
#[test]
fn a_file_begins_with_the_names_of_its_fields() {
    let format: Format = "${srcaddr} ${action}".parse().unwrap();
    let line = |text: &str| (Timestamp(0), text.to_owned());
    let told: Told = [(
        InterfaceId::of(1),
        vec![line("10.0.0.5 ACCEPT"), line("10.0.0.6 REJECT")],
    )]
    .into();
    let bytes = file(&format, &told).unwrap();
    let mut text = String::new();
    GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "srcaddr action\n10.0.0.5 ACCEPT\n10.0.0.6 REJECT\n");
}
