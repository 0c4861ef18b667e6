//! Flow logs on a store in memory.

use super::*;
use crate::ecr::fixture::{Fixture, refusal};
use isolarium_wire::Document;

const ROLE: &str = "arn:aws:iam::123456789012:role/flows";

fn call<O>(fixture: &Fixture, service: &str, operation: &str, input: &str) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_str(input).unwrap();
    fixture.call(service, operation, input)
}

/// An account with a VPC, a role that flow logs may assume, and one that they may not.
fn furnished() -> (Fixture, String) {
    let fixture = Fixture::new();
    let made: shapes::CreateVpcResult = call(&fixture, "ec2", "CreateVpc", r#"{"CidrBlock":"10.0.0.0/16"}"#).unwrap();
    for (name, service) in [("flows", FLOW_LOGS_SERVICE), ("other", "sagemaker.amazonaws.com")] {
        let trust = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Service":"{service}"}},"Action":"sts:AssumeRole"}}]}}"#
        );
        let input = format!(r#"{{"RoleName":"{name}","AssumeRolePolicyDocument":{trust:?}}}"#);
        call::<Document>(&fixture, "iam", "CreateRole", &input).unwrap();
    }
    (fixture, made.vpc.unwrap().vpc_id.unwrap())
}

fn create(fixture: &Fixture, vpc: &str, rest: &str) -> Result<shapes::CreateFlowLogsResult, ApiError> {
    let input = format!(r#"{{"ResourceIds":["{vpc}"],"ResourceType":"VPC"{rest}}}"#);
    call(fixture, "ec2", "CreateFlowLogs", &input)
}

fn to_group(rest: &str) -> String {
    format!(r#","TrafficType":"ALL","LogGroupName":"flows","DeliverLogsPermissionArn":"{ROLE}"{rest}"#)
}

/// Proves: NET-55, NET-84
#[test]
fn a_flow_log_is_made_once_and_shown_as_it_was_asked_for() {
    let (fixture, vpc) = furnished();
    let made = create(&fixture, &vpc, &to_group("")).unwrap();
    let id = made.flow_log_ids.unwrap().remove(0);
    let show = |filter: &str| {
        let all: shapes::DescribeFlowLogsResult = call(&fixture, "ec2", "DescribeFlowLogs", filter).unwrap();
        all.flow_logs.unwrap()
    };
    let log = show(&format!(r#"{{"FlowLogIds":["{id}"]}}"#)).remove(0);
    assert_eq!(log.max_aggregation_interval, Some(600));
    assert_eq!(log.log_format, Some(Format::default().to_string()));
    assert_eq!(
        (log.flow_log_status.as_deref(), log.resource_id.as_ref()),
        (Some("ACTIVE"), Some(&vpc))
    );
    assert_eq!(log.deliver_logs_permission_arn.as_deref(), Some(ROLE));
    assert_eq!(
        refusal(create(&fixture, &vpc, &to_group(""))),
        (
            "FlowLogAlreadyExists".into(),
            "Error. There is an existing Flow Log with the same configuration and log destination.".into()
        )
    );
    let bucket = r#","TrafficType":"REJECT","LogDestinationType":"s3","LogDestination":"arn:aws:s3:::logs/flows/","MaxAggregationInterval":60,
        "LogFormat":"${version} ${vpc-id}"#;
    create(&fixture, &vpc, &format!("{bucket}\"")).expect("control: another destination");
    let log = show(r#"{"Filter":[{"Name":"log-destination-type","Values":["s3"]}]}"#).remove(0);
    assert_eq!(log.log_destination.as_deref(), Some("arn:aws:s3:::logs/flows"));
    assert_eq!(log.max_aggregation_interval, Some(60));
    assert_eq!(log.log_format.as_deref(), Some("${version} ${vpc-id}"));
    let delete = |id: &str| {
        let input = format!(r#"{{"FlowLogIds":["{id}"]}}"#);
        call::<shapes::DeleteFlowLogsResult>(&fixture, "ec2", "DeleteFlowLogs", &input)
    };
    delete(&id).unwrap();
    assert_eq!(refusal(delete(&id)).0, "InvalidFlowLogId.NotFound");
    assert_eq!(show("{}").len(), 1);
}

/// Proves: NET-55
#[test]
fn what_cannot_be_delivered_or_written_is_refused() {
    let (mut fixture, vpc) = furnished();
    fixture.platform.missing_buckets.push("gone".into());
    let logs = r#","TrafficType":"ALL","LogGroupName":"flows""#;
    let role = |name: &str| format!(r#","DeliverLogsPermissionArn":"arn:aws:iam::123456789012:role/{name}""#);
    let s3 = r#","TrafficType":"ALL","LogDestinationType":"s3""#;
    let cases = [
        (
            format!(r#","LogGroupName":"flows"{}"#, role("flows")),
            "MissingParameter",
        ),
        (logs.to_owned(), "InvalidParameter"),
        (format!("{logs}{}", role("other")), "InvalidParameter"),
        (format!("{logs}{}", role("absent")), "InvalidParameter"),
        (format!(r#"{logs},"DeliverLogsPermissionArn":"me""#), "InvalidParameter"),
        (format!(r#","TrafficType":"ALL"{}"#, role("flows")), "InvalidParameter"),
        (
            format!(
                r#","TrafficType":"ALL","LogDestination":"arn:aws:logs:eu-west-1:123456789012:log-group:f"{}"#,
                role("flows")
            ),
            "InvalidParameter",
        ),
        (to_group(r#","MaxAggregationInterval":61"#), "InvalidParameter"),
        (to_group(r#","LogFormat":"${colour}""#), "InvalidParameter"),
        (to_group(r#","LogFormat":"${version} ${version}""#), "InvalidParameter"),
        (s3.to_owned(), "InvalidParameter"),
        (format!(r#"{s3},"LogDestination":"logs""#), "InvalidParameter"),
        (
            format!(r#"{s3},"LogDestination":"arn:aws:s3:::logs/AWSLogs/""#),
            "InvalidParameter",
        ),
        (
            format!(r#"{s3},"LogDestination":"arn:aws:s3:::logs"{}"#, role("flows")),
            "InvalidParameter",
        ),
        (
            format!(r#"{s3},"LogDestination":"arn:aws:s3:::logs","DestinationOptions":{{"FileFormat":"parquet"}}"#),
            "UnsupportedOperation",
        ),
        (
            r#","TrafficType":"ALL","LogDestinationType":"kinesis-data-firehose","LogDestination":"x""#.to_owned(),
            "UnsupportedOperation",
        ),
    ];
    for (rest, code) in cases {
        assert_eq!(refusal(create(&fixture, &vpc, &rest)).0, code, "{rest}");
    }
    assert_eq!(
        refusal(create(&fixture, "vpc-00000000000000000", &to_group(""))).0,
        "InvalidVpcID.NotFound"
    );
    let gone = create(&fixture, &vpc, &format!(r#"{s3},"LogDestination":"arn:aws:s3:::gone""#)).unwrap();
    let failed = gone.unsuccessful.unwrap().remove(0);
    assert_eq!(failed.resource_id.as_ref(), Some(&vpc));
    assert_eq!(
        failed.error.unwrap().message.as_deref(),
        Some("LogDestination: gone does not exist.")
    );
    let all: shapes::DescribeFlowLogsResult = call(&fixture, "ec2", "DescribeFlowLogs", "{}").unwrap();
    assert_eq!(all.flow_logs, Some(Vec::new()), "nothing was made");
    create(&fixture, &vpc, &to_group("")).expect("control");
}
