use super::*;
use crate::ApiError;
use crate::catalog::service::{Kind, Structure};
use http::Request as HttpRequest;
use indexmap::IndexMap;

mod errors;
mod hostile;
mod round_trip;

const LIMIT: usize = 1 << 20;

/// A request with these headers, split.
fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = HttpRequest::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn json_head(target: &str) -> Parts {
    head(
        "POST",
        "/",
        &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)],
    )
}

fn form_head() -> Parts {
    head(
        "POST",
        "/",
        &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
    )
}

fn cbor_head(operation: &str) -> Parts {
    let path = format!("/service/GraniteServiceVersion20100801/operation/{operation}");
    head(
        "POST",
        &path,
        &[("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")],
    )
}

fn decoded(head: &Parts, signing_name: Option<&str>, body: &[u8]) -> Result<Request, ApiError> {
    decode(&Dialect::of(head, signing_name), head, body, LIMIT)
}

fn input(head: &Parts, signing_name: Option<&str>, body: &str) -> serde_json::Value {
    serde_json::to_value(decoded(head, signing_name, body.as_bytes()).unwrap().input).unwrap()
}

fn map(json: serde_json::Value) -> Document {
    serde_json::from_value(json).unwrap()
}

fn answered(call: &Call, output: serde_json::Value) -> (Response<Bytes>, String) {
    let answer = encode(call, &Ok(map(output)), "id-1");
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    (answer, text)
}

/// Proves: SM-1, SM-4
#[test]
fn json_requests_are_read_and_answered() {
    let head = json_head("SageMaker.CreateModel");
    let body = r#"{"ModelName":"m","EnableNetworkIsolation":true,"VpcConfig":null,"Tags":[{"Key":"k","Value":"v"}]}"#;
    let request = decoded(&head, Some("sagemaker"), body.as_bytes()).unwrap();
    assert_eq!(
        (request.call.service.name(), request.call.operation.name),
        ("sagemaker", "CreateModel")
    );
    let (answer, text) = answered(&request.call, serde_json::json!({"ModelArn": "arn"}));
    assert_eq!(
        (answer.status().as_u16(), text.as_str()),
        (200, r#"{"ModelArn":"arn"}"#)
    );
    assert_eq!(answer.headers()["x-amzn-requestid"], "id-1");
    assert_eq!(answer.headers()["content-type"], "application/x-amz-json-1.1");
    let describe = decoded(&json_head("SageMaker.DescribeModel"), None, br#"{"ModelName":"m"}"#).unwrap();
    let (_, text) = answered(
        &describe.call,
        serde_json::json!({"CreationTime": 1_732_188_000_007_i64, "ModelName": "m\"\n"}),
    );
    assert_eq!(text, r#"{"ModelName":"m\"\n","CreationTime":1732188000.007}"#);
    let delete = decoded(&json_head("SageMaker.DeleteModel"), None, br#"{"ModelName":"m"}"#).unwrap();
    assert_eq!(
        answered(&delete.call, serde_json::json!({})).1,
        "",
        "no output, no body"
    );
}

/// Proves: SM-5
#[test]
fn unknown_members_are_ignored() {
    let body = r#"{"ModelName":"m","Colour":{"Deep":[1]}}"#;
    assert_eq!(
        input(&json_head("SageMaker.CreateModel"), None, body),
        serde_json::json!({"ModelName": "m"})
    );
    let body = "Action=GetRole&Version=2010-05-08&RoleName=r&Colour.1.Deep=x";
    assert_eq!(
        input(&form_head(), Some("iam"), body),
        serde_json::json!({"RoleName": "r"})
    );
}

/// Proves: BT-1, SM-5
#[test]
fn a_transform_job_with_a_vpc_config_is_refused() {
    let job = |extra: &str| {
        format!(
            r#"{{"TransformJobName":"t","ModelName":"m","TransformInput":{{"DataSource":{{"S3DataSource":{{"S3DataType":
            "S3Prefix","S3Uri":"s3://b/i"}}}}}},"TransformOutput":{{"S3OutputPath":"s3://b/o"}},"TransformResources":
            {{"InstanceType":"ml.m5.large","InstanceCount":1}}{extra}}}"#
        )
    };
    let head = json_head("SageMaker.CreateTransformJob");
    assert!(
        decoded(&head, None, job("").as_bytes()).is_ok(),
        "control: the same job without VpcConfig"
    );
    assert!(
        decoded(&head, None, job(r#","VpcConfig":null"#).as_bytes()).is_ok(),
        "null is absent"
    );
    let refused = decoded(&head, None, job(r#","VpcConfig":{"Subnets":[]}"#).as_bytes()).unwrap_err();
    assert_eq!(refused.code, "ValidationException");
    assert!(refused.message.contains("VpcConfig"));
}

#[test]
fn query_requests_are_read_and_answered() {
    let body = "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D&Tags.member.2.Key=b\
                &Tags.member.2.Value=&Tags.member.1.Key=a+a&Tags.member.1.Value=%C3%A9&MaxSessionDuration=3600";
    let request = decoded(&form_head(), Some("iam"), body.as_bytes()).unwrap();
    assert_eq!(
        serde_json::to_value(&request.input).unwrap(),
        serde_json::json!({
            "RoleName": "r", "AssumeRolePolicyDocument": "{}", "MaxSessionDuration": 3600,
            "Tags": [{"Key": "a a", "Value": "é"}, {"Key": "b", "Value": ""}],
        })
    );
    let role = serde_json::json!({"Role": {"Path": "/", "RoleName": "<&>", "RoleId": "i", "Arn": "a",
        "CreateDate": 1_732_188_000_000_i64, "Tags": [{"Key": "k", "Value": "v"}]}});
    assert_eq!(
        answered(&request.call, role).1,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <CreateRoleResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateRoleResult><Role><Path>/</Path>\
         <RoleName>&lt;&amp;&gt;</RoleName><RoleId>i</RoleId><Arn>a</Arn><CreateDate>2024-11-21T11:20:00Z</CreateDate>\
         <Tags><member><Key>k</Key><Value>v</Value></member></Tags></Role></CreateRoleResult>\
         <ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></CreateRoleResponse>"
    );
    let get = head("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", &[]);
    assert_eq!(
        decoded(&get, Some("sts"), b"").unwrap().call.operation.name,
        "GetCallerIdentity"
    );
    let unsigned = decoded(&form_head(), None, b"Action=GetCallerIdentity&Version=2011-06-15").unwrap();
    assert_eq!(unsigned.call.service.name(), "sts");
}

#[test]
fn empty_lists_of_a_form_are_lists() {
    let body = "Action=CreateStack&Version=2010-05-15&StackName=s&Tags=&Parameters=";
    let expected = serde_json::json!({"StackName": "s", "Parameters": [], "Tags": []});
    assert_eq!(input(&form_head(), Some("cloudformation"), body), expected);
}

/// Proves: NET-80
#[test]
fn ec2_requests_are_read_and_answered() {
    let body = "Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=vpc-id&Filter.1.Value.1=a&Filter.1.Value.2=b&VpcId.1=v&DryRun=true";
    let request = decoded(&form_head(), Some("ec2"), body.as_bytes()).unwrap();
    assert_eq!(
        serde_json::to_value(&request.input).unwrap(),
        serde_json::json!({"Filters": [{"Name": "vpc-id", "Values": ["a", "b"]}], "VpcIds": ["v"], "DryRun": true})
    );
    let (_, text) = answered(
        &request.call,
        serde_json::json!({"Vpcs": [{"VpcId": "v", "IsDefault": false}]}),
    );
    assert!(text.contains(
        "<DescribeVpcsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\"><requestId>id-1</requestId><vpcSet><item>"
    ), "{text}");
    assert!(
        text.contains("<vpcId>v</vpcId>") && text.contains("<isDefault>false</isDefault>"),
        "{text}"
    );
}

/// Proves: SM-2
#[test]
fn invocations_are_read_from_the_head_alone() {
    let head = head(
        "POST",
        "/endpoints/my-endpoint/invocations",
        &[
            ("content-type", "text/csv"),
            ("x-amzn-sagemaker-custom-attributes", "a=b"),
            ("x-amzn-sagemaker-target-variant", "v"),
        ],
    );
    let dialect = Dialect::of(&head, Some("sagemaker"));
    assert!(dialect.streams_body());
    let request = decode(&dialect, &head, b"", LIMIT).unwrap();
    assert_eq!(
        serde_json::to_value(&request.input).unwrap(),
        serde_json::json!({"EndpointName": "my-endpoint", "ContentType": "text/csv", "CustomAttributes": "a=b", "TargetVariant": "v"})
    );
    let output =
        serde_json::json!({"ContentType": "text/csv", "InvokedProductionVariant": "v", "CustomAttributes": "x\ny"});
    let (answer, text) = answered(&request.call, output);
    assert_eq!(
        (answer.headers()["content-type"].as_bytes(), text.as_str()),
        (b"text/csv".as_slice(), "")
    );
    assert_eq!(answer.headers()["x-amzn-invoked-production-variant"], "v");
    assert!(
        !answer.headers().contains_key("x-amzn-sagemaker-custom-attributes"),
        "what cannot be a header is left out"
    );
    assert!(request.call.service.streams_output(request.call.operation));
}

#[test]
fn rest_requests_with_query_strings_and_bodies_are_read() {
    let head = head(
        "GET",
        "/FeatureGroup/g?RecordIdentifierValueAsString=a%20b&FeatureName=x&FeatureName=y",
        &[],
    );
    let expected = serde_json::json!({
        "FeatureGroupName": "g", "RecordIdentifierValueAsString": "a b", "FeatureNames": ["x", "y"],
    });
    assert_eq!(input(&head, Some("sagemaker"), ""), expected);
}

#[test]
fn cbor_requests_are_read_and_answered() {
    let mut body = Vec::new();
    cbor::write_plain(
        &map(serde_json::json!({"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1.5, "Unknown": [{}]}]})),
        &mut body,
    );
    let request = decoded(&cbor_head("PutMetricData"), Some("monitoring"), &body).unwrap();
    assert_eq!(
        serde_json::to_value(&request.input).unwrap(),
        serde_json::json!({"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1.5}]})
    );
    let answer = encode(&request.call, &Ok(map(serde_json::json!({}))), "id-1");
    assert!(answer.body().is_empty());
    assert_eq!(answer.headers()["smithy-protocol"], "rpc-v2-cbor");
}

#[test]
fn indefinite_lengths_and_tagged_times_of_cbor_are_read() {
    // {_ "AlarmName": (_ "a" "b")}, with a break; then a timestamp under tag 1 as integer, half and double.
    let body = b"\xbf\x69AlarmName\x7f\x61a\x61b\xff\xff";
    let request = decoded(&cbor_head("DescribeAlarmHistory"), None, body).unwrap();
    assert_eq!(
        serde_json::to_value(&request.input).unwrap(),
        serde_json::json!({"AlarmName": "ab"})
    );
    for time in [
        b"\xc1\x18\x64".as_slice(),
        b"\xc1\xf9\x56\x40",
        b"\xc1\xfb\x40\x59\0\0\0\0\0\0",
    ] {
        let body = [b"\xa1\x69StartDate".as_slice(), time].concat();
        let request = decoded(&cbor_head("DescribeAlarmHistory"), None, &body).unwrap();
        assert_eq!(
            request.input,
            Document::Map(IndexMap::from([("StartDate".into(), Document::Timestamp(100_000))]))
        );
    }
}

#[test]
fn gzip_bodies_are_unpacked_up_to_the_limit() {
    let pack = |bytes: &[u8]| {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let mut head = json_head("SageMaker.ListModels");
    head.headers
        .insert("content-encoding", HeaderValue::from_static("gzip"));
    assert!(decoded(&head, None, &pack(b"{}")).is_ok(), "control");
    assert_eq!(
        decoded(&head, None, &pack(&vec![b' '; LIMIT + 1])).unwrap_err().status,
        413
    );
    assert_eq!(decoded(&head, None, b"{}").unwrap_err().code, "SerializationException");
}

/// Proves: NET-80
#[test]
fn ec2_lists_of_structures_filters_and_empty_lists_are_read_and_answered() {
    let body = "Action=AuthorizeSecurityGroupIngress&Version=2016-11-15&GroupId=sg-1&DryRun=true&IpPermissions.1.IpProtocol=tcp\
        &IpPermissions.1.FromPort=22&IpPermissions.1.ToPort=22&IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0%2F8\
        &IpPermissions.1.IpRanges.1.Description=a+b&IpPermissions.2.IpProtocol=-1&IpPermissions.2.Groups.1.GroupId=sg-2\
        &TagSpecification.1.ResourceType=security-group-rule&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v";
    assert_eq!(
        input(&form_head(), Some("ec2"), body),
        serde_json::json!({"GroupId": "sg-1", "DryRun": true, "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "a b"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-2"}]},
        ], "TagSpecifications": [{"ResourceType": "security-group-rule", "Tags": [{"Key": "k", "Value": "v"}]}]})
    );
    let body = "Action=DescribeSecurityGroups&Version=2016-11-15&GroupId.1=sg-1&GroupId.2=sg-2&Filter.1.Name=vpc-id\
        &Filter.1.Value.1=vpc-1&Filter.1.Value.2=vpc-2&MaxResults=5";
    assert_eq!(
        input(&form_head(), Some("ec2"), body),
        serde_json::json!({"GroupIds": ["sg-1", "sg-2"], "MaxResults": 5,
            "Filters": [{"Name": "vpc-id", "Values": ["vpc-1", "vpc-2"]}]})
    );
    let request = decoded(&form_head(), Some("ec2"), body.as_bytes()).unwrap();
    let output = serde_json::json!({"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "<n>", "IpPermissionsEgress": [
        {"IpProtocol": "tcp", "FromPort": 1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}]});
    assert_eq!(
        answered(&request.call, output).1,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <DescribeSecurityGroupsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\"><requestId>id-1</requestId>\
         <securityGroupInfo><item><groupId>sg-1</groupId><ipPermissionsEgress><item><ipProtocol>tcp</ipProtocol>\
         <fromPort>1</fromPort><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item></ipPermissionsEgress>\
         <groupName>&lt;n&gt;</groupName></item></securityGroupInfo></DescribeSecurityGroupsResponse>"
    );
    // An empty list is an empty element: clients read a list from it, and would miss the member without it.
    let (_, text) = answered(&request.call, serde_json::json!({"SecurityGroups": []}));
    assert!(
        text.contains("<securityGroupInfo></securityGroupInfo>") || text.contains("<securityGroupInfo/>"),
        "{text}"
    );
}
