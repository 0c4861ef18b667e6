//! Every question that S3 asks is one that AWS would ask, with every condition key that AWS has for it.

use super::*;
use crate::authorization::{Fault, Reference};
use std::collections::BTreeSet;

/// What a row's request is: the operation of the backend, and what is sent.
type Row = (
    &'static str,
    Method,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const ACCESS: [(&str, &str); 6] = [
    ("x-amz-acl", "private"),
    ("x-amz-grant-full-control", "id=1"),
    ("x-amz-grant-read", "id=1"),
    ("x-amz-grant-read-acp", "id=1"),
    ("x-amz-grant-write", "id=1"),
    ("x-amz-grant-write-acp", "id=1"),
];

const OBJECT_ACCESS: [(&str, &str); 7] = [
    ACCESS[0],
    ACCESS[1],
    ACCESS[2],
    ACCESS[3],
    ACCESS[4],
    ACCESS[5],
    ("x-amz-storage-class", "STANDARD"),
];

/// Everything that a request to write an object can say.
const WRITE: &[(&str, &str)] = &[
    ACCESS[0],
    ACCESS[1],
    ACCESS[2],
    ACCESS[3],
    ACCESS[4],
    ACCESS[5],
    ("if-match", "\"0\""),
    ("x-amz-metadata-directive", "COPY"),
    ("x-amz-object-annotation-directive", "COPY"),
    ("x-amz-object-lock-legal-hold", "OFF"),
    ("x-amz-object-lock-mode", "GOVERNANCE"),
    ("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00Z"),
    ("x-amz-server-side-encryption", "aws:kms"),
    (
        "x-amz-server-side-encryption-aws-kms-key-id",
        "arn:aws:kms:us-east-1:123456789012:key/k",
    ),
    ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ("x-amz-storage-class", "STANDARD"),
    ("x-amz-tagging", "team=red"),
    ("x-amz-website-redirect-location", "/elsewhere"),
];

const ENCRYPTION: &str = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256\
    </SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
const COPY: &[(&str, &str)] = &[("x-amz-copy-source", "/data/in/k"), ("x-amz-tagging-directive", "COPY")];
const TAGS: &str = "<Tagging><TagSet><Tag><Key>team</Key><Value>red</Value></Tag></TagSet></Tagging>";
const DELETE: &str = "<Delete><Object><Key>none</Key></Object></Delete>";
const BLOCK: &str = "<PublicAccessBlockConfiguration/>";
const OWNERSHIP: &str =
    "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>";
const VERSIONING: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const PARTS: &str =
    "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>";
const REGION: &str =
    "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
const LISTED: &str = "prefix=in/&delimiter=/&max-keys=5";

/// Where the product differs from the reference, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("s3:CreateBucket", "no aws:RequestTag/${TagKey}", NO_TAGS),
    ("s3:CreateBucket", "no aws:TagKeys", NO_TAGS),
    (
        "s3:CreateBucket",
        "no s3:x-amz-bucket-namespace",
        "buckets have one name space",
    ),
    (
        "s3:GetBucketObjectLockConfiguration",
        "key s3:x-amz-content-sha256",
        "the header is sent with every request, and AWS lists the key for all others",
    ),
    (
        "s3:ListBucketMultipartUploads",
        "no aws:ResourceTag/${TagKey}",
        NO_POINTS,
    ),
    (
        "s3:ListBucketMultipartUploads",
        "no s3:AccessPointNetworkOrigin",
        NO_POINTS,
    ),
    (
        "s3:ListBucketMultipartUploads",
        "no s3:AccessPointTag/${TagKey}",
        NO_POINTS,
    ),
    (
        "s3:ListBucketMultipartUploads",
        "no s3:DataAccessPointAccount",
        NO_POINTS,
    ),
    ("s3:ListBucketMultipartUploads", "no s3:DataAccessPointArn", NO_POINTS),
    ("s3:PutObject", "no s3:object-lock-event-hold", NO_LOCKS),
    ("s3:PutObject", "no s3:object-lock-event-hold-duration-days", NO_LOCKS),
    ("s3:PutObject", "no s3:object-lock-remaining-retention-days", NO_LOCKS),
    (
        "s3:PutReplicationConfiguration",
        "no s3:isReplicationPauseRequest",
        "replications are only ever deleted, of which there are none",
    ),
];
const NO_TAGS: &str = "tags of a bucket to be made are not read";
const NO_POINTS: &str = "there are no access points";
const NO_LOCKS: &str = "a write that asks for a lock is refused whatever it says of it";
/// Listed for half of the actions; there are no access grants.
const GRANTS: &str = "no s3:AccessGrantsInstanceArn";

fn rows() -> Vec<Row> {
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    let key = "/data/in/k";
    let mut rows: Vec<Row> = vec![
        ("put_object", put.clone(), "/data/new", "x", WRITE),
        ("put_object", put.clone(), "/data/new", "x", &[("if-none-match", "*")]),
        ("get_object", get.clone(), key, "", &[]),
        ("get_object", get.clone(), "/data/in/k?versionId=null", "", &[]),
        ("head_object", Method::HEAD, key, "", &[]),
        ("copy_object", put.clone(), "/data/copy", "", COPY),
        (
            "delete_object",
            delete.clone(),
            "/data/none",
            "",
            &[("if-match", "\"0\"")],
        ),
        ("delete_object", delete.clone(), "/data/none?versionId=null", "", &[]),
        ("delete_objects", post.clone(), "/data?delete", DELETE, &[]),
        (
            "get_object_attributes",
            get.clone(),
            "/data/in/k?attributes",
            "",
            &[("x-amz-object-attributes", "ETag")],
        ),
        (
            "get_object_attributes",
            get.clone(),
            "/data/in/k?attributes&versionId=null",
            "",
            &[("x-amz-object-attributes", "ETag")],
        ),
        ("put_object_acl", put.clone(), "/data/in/k?acl", "", &OBJECT_ACCESS),
        (
            "put_object_acl",
            put.clone(),
            "/data/in/k?acl&versionId=null",
            "",
            &OBJECT_ACCESS,
        ),
        ("create_bucket", put.clone(), "/another", REGION, &ACCESS),
        (
            "create_bucket",
            put.clone(),
            "/another",
            "",
            &[("x-amz-object-ownership", "BucketOwnerEnforced")],
        ),
        ("delete_bucket", delete.clone(), "/data", "", &[]),
        ("head_bucket", Method::HEAD, "/data", "", &[]),
        ("list_buckets", get.clone(), "/", "", &[]),
        ("put_bucket_policy", put.clone(), "/data?policy", "{}", &[]),
        (
            "put_bucket_versioning",
            put.clone(),
            "/data?versioning",
            VERSIONING,
            &[],
        ),
        ("put_bucket_tagging", put.clone(), "/data?tagging", TAGS, &[]),
        (
            "put_public_access_block",
            put.clone(),
            "/data?publicAccessBlock",
            BLOCK,
            &[],
        ),
        (
            "put_bucket_encryption",
            put.clone(),
            "/data?encryption",
            ENCRYPTION,
            &[],
        ),
        ("put_bucket_acl", put.clone(), "/data?acl", "", &ACCESS),
        (
            "put_bucket_ownership_controls",
            put.clone(),
            "/data?ownershipControls",
            OWNERSHIP,
            &[],
        ),
        ("create_multipart_upload", post.clone(), "/data/m?uploads", "", WRITE),
        ("upload_part", put.clone(), "/data/m?partNumber=1&uploadId=u", "x", &[]),
        (
            "upload_part_copy",
            put.clone(),
            "/data/m?partNumber=1&uploadId=u",
            "",
            COPY,
        ),
        ("complete_multipart_upload", post, "/data/m?uploadId=u", PARTS, &[]),
        ("abort_multipart_upload", delete.clone(), "/data/m?uploadId=u", "", &[]),
        ("list_parts", get.clone(), "/data/m?uploadId=u", "", &[]),
    ];
    for (operation, target) in [
        ("get_object_tagging", "/data/in/k?tagging"),
        ("get_object_tagging", "/data/in/k?tagging&versionId=null"),
        ("get_object_acl", "/data/in/k?acl"),
        ("get_object_acl", "/data/in/k?acl&versionId=null"),
        ("get_bucket_location", "/data?location"),
        ("get_bucket_policy", "/data?policy"),
        ("get_bucket_policy_status", "/data?policyStatus"),
        ("get_bucket_versioning", "/data?versioning"),
        ("get_bucket_tagging", "/data?tagging"),
        ("get_public_access_block", "/data?publicAccessBlock"),
        ("get_bucket_acl", "/data?acl"),
        ("get_bucket_ownership_controls", "/data?ownershipControls"),
        ("list_objects", "/data?LISTED"),
        ("list_objects_v2", "/data?list-type=2&LISTED"),
        ("list_object_versions", "/data?versions&LISTED"),
        ("list_multipart_uploads", "/data?uploads"),
        ("get_bucket_cors", "/data?cors"),
        ("get_bucket_website", "/data?website"),
        ("get_bucket_lifecycle_configuration", "/data?lifecycle"),
        ("get_bucket_replication", "/data?replication"),
        ("get_bucket_encryption", "/data?encryption"),
        ("get_object_lock_configuration", "/data?object-lock"),
        ("get_bucket_accelerate_configuration", "/data?accelerate"),
        ("get_bucket_logging", "/data?logging"),
        ("get_bucket_notification_configuration", "/data?notification"),
        ("get_bucket_request_payment", "/data?requestPayment"),
    ] {
        rows.push((operation, get.clone(), target, "", &[]));
    }
    for (operation, target) in [
        ("put_object_tagging", "/data/in/k?tagging"),
        ("put_object_tagging", "/data/in/k?tagging&versionId=null"),
    ] {
        rows.push((operation, put.clone(), target, TAGS, &[]));
    }
    for (operation, target) in [
        ("delete_object_tagging", "/data/tagged?tagging"),
        ("delete_object_tagging", "/data/tagged-too?tagging&versionId=null"),
        ("delete_bucket_policy", "/data?policy"),
        ("delete_bucket_tagging", "/data?tagging"),
        ("delete_public_access_block", "/data?publicAccessBlock"),
        ("delete_bucket_cors", "/data?cors"),
        ("delete_bucket_website", "/data?website"),
        ("delete_bucket_lifecycle", "/data?lifecycle"),
        ("delete_bucket_replication", "/data?replication"),
        ("delete_bucket_encryption", "/data?encryption"),
        ("delete_bucket_ownership_controls", "/data?ownershipControls"),
    ] {
        rows.push((operation, delete.clone(), target, "", &[]));
    }
    rows
}

impl Lab {
    /// Everything that IAM is asked about a request which says all that a request can say.
    async fn asks(&self, method: Method, target: &str, body: &str, headers: &[(&str, &str)]) -> Vec<Question> {
        self.front.gate.asked.lock().unwrap().clear();
        let mut request = Request::builder()
            .method(method)
            .uri(target.replace("LISTED", LISTED))
            .extension(TlsVersion("1.3"))
            .header("content-length", body.len())
            .header("authorization", "AWS4-HMAC-SHA256 Credential=a")
            .header("x-amz-date", "20231114T221310Z")
            .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
            .header("referer", "https://pages.example/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let answer = self.front.call(request, caller(role()), BodyCheck::Done).await;
        let asked = self.front.gate.asked.lock().unwrap().clone();
        assert!(!asked.is_empty(), "nothing is asked: {:?}", answer.body().bytes());
        asked
    }
}

/// The operations that the backend serves, as its methods are named.
fn served() -> BTreeSet<&'static str> {
    let methods = include_str!("../backend.rs").split("async fn ").skip(1);
    methods.filter_map(|rest| rest.split('(').next()).collect()
}

/// Proves: IAM-7, IAM-16, IAM-58
#[tokio::test]
async fn every_question_about_buckets_and_objects_is_one_that_aws_asks() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    for key in ["in/k", "tagged", "tagged-too"] {
        let target = format!("/data/{key}");
        let put = lab
            .send_with(root(), Method::PUT, &target, b"x", &[("x-amz-tagging", "team=red")])
            .await;
        assert_eq!(put.0, StatusCode::OK, "{}", put.1);
    }
    let reference = Reference::load();
    let mut asked: Vec<Question> = Vec::new();
    let mut faults = BTreeSet::new();
    let rows = rows();
    assert_eq!(
        rows.iter().map(|row| row.0).collect::<BTreeSet<_>>(),
        served(),
        "a row for every operation"
    );
    for (_, method, target, body, headers) in rows {
        let questions = lab.asks(method, target, body, headers).await;
        for question in &questions {
            assert_eq!(
                question.context.get("aws:resourceaccount"),
                Some(&vec!["123456789012".to_owned()])
            );
            assert_eq!(question.context["aws:referer"], ["https://pages.example/"]);
        }
        asked.extend(questions);
    }
    let actions: BTreeSet<&str> = asked.iter().map(|question| question.action.as_str()).collect();
    faults.extend(asked.iter().flat_map(|question| reference.faults(question)));
    for action in actions {
        faults.extend(reference.unasked(action, &asked));
        faults.extend(reference.unsupplied(action, &asked));
    }
    faults.retain(|fault| fault.what != GRANTS);
    let excepted: BTreeSet<Fault> = EXCEPTIONS
        .iter()
        .map(|(action, what, _)| Fault::new(action, what))
        .collect();
    assert_eq!(faults, excepted);
}

/// The value of a key is the request's own, and an upload's parts make no object.
///
/// Proves: IAM-16
#[tokio::test]
async fn a_write_says_how_it_is_to_be_kept_and_whether_it_makes_an_object() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    let put = lab.asks(Method::PUT, "/data/new", "x", WRITE).await;
    assert_eq!(put[0].context["s3:x-amz-server-side-encryption"], ["aws:kms"]);
    assert_eq!(put[0].context["s3:object-lock-mode"], ["GOVERNANCE"]);
    assert_eq!(put[0].context["s3:x-amz-grant-read"], ["id=1"]);
    let bare = lab.asks(Method::PUT, "/data/new", "x", &[]).await;
    assert!(!bare[0].context.contains_key("s3:x-amz-server-side-encryption"));
    for (method, target, headers, makes) in [
        (Method::PUT, "/data/new", &[][..], "true"),
        (Method::PUT, "/data/copy", COPY, "true"),
        (Method::POST, "/data/m?uploads", &[], "false"),
        (Method::PUT, "/data/m?partNumber=1&uploadId=u", &[], "false"),
        (Method::PUT, "/data/m?partNumber=1&uploadId=u", COPY, "false"),
    ] {
        let asked = lab.asks(method.clone(), target, "", headers).await;
        assert_eq!(
            asked[0].context["s3:objectcreationoperation"],
            [makes],
            "{method} {target}"
        );
    }
    let completed = lab.asks(Method::POST, "/data/m?uploadId=u", PARTS, &[]).await;
    assert_eq!(completed[0].context["s3:objectcreationoperation"], ["true"]);
}

/// A perimeter that denies whatever is not the caller's own lets the caller's own buckets be.
///
/// Proves: IAM-16
#[tokio::test]
async fn a_denial_of_other_accounts_resources_spares_ones_own() {
    let lab = Lab::ready().await;
    let perimeter = |own: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"s3:*","Resource":"*"}},
            {{"Effect":"Deny","Action":"*","Resource":"*","Condition":{{"StringNotEquals":{{"aws:ResourceAccount":"{own}"}}}}}}]}}"#
        );
        lab.policies.lock().unwrap().insert(ROLE.into(), text);
    };
    for (own, passes) in [("123456789012", true), ("999988887777", false)] {
        perimeter(own);
        for (method, target) in [(Method::GET, "/data/in/k"), (Method::GET, "/"), (Method::PUT, "/made")] {
            let status = lab.send(role(), method.clone(), target, b"").await.0;
            assert_eq!(
                status != StatusCode::FORBIDDEN,
                passes,
                "{own} {method} {target}: {status}"
            );
        }
    }
}
