use super::*;

fn identity(text: &str) -> Result<Document, MalformedPolicy> {
    Document::parse(text, DocumentKind::Identity)
}

fn message(text: &str, kind: DocumentKind) -> String {
    Document::parse(text, kind).unwrap_err().message
}

const STATEMENT: &str = r#"{"Effect":"Allow","Action":"s3:*","Resource":"*"}"#;

/// Proves: IAM-1
#[test]
fn both_spellings_of_every_list_are_read() {
    for text in [
        format!(r#"{{"Statement":{STATEMENT}}}"#),
        format!(r#"{{"Version":"2012-10-17","Id":"x","Statement":[{STATEMENT}]}}"#),
        format!(r#"{{"Statement":[{STATEMENT}],"Version":"2008-10-17"}}"#),
        r#"{"Statement":{"Sid":"","Effect":"Deny","NotAction":["s3:*","ec2:*"],"NotResource":["*"],
            "Condition":{"Bool":{"aws:SecureTransport":[true,"false"]},"NumericLessThan":{"aws:EpochTime":5}}}}"#
            .to_owned(),
    ] {
        assert!(identity(&text).is_ok(), "{text}: {:?}", identity(&text));
    }
}

/// Proves: IAM-1, IAM-3, VPC-25, BT-8
#[test]
fn malformed_documents_are_refused_with_their_place() {
    let concatenated = format!(r#"{{"Statement":[{STATEMENT}]}} {{"Statement":[{STATEMENT}]}}"#);
    assert!(
        identity(&format!(r#"{{"Statement":[{STATEMENT}]}}"#)).is_ok(),
        "control"
    );
    let truncated = r#"{ "Effect": "Allow", "Action": [ "ec2:CreateNetworkInterface", "ec2:DescribeSecurityGroups""#;
    for bad in [
        "",
        "[]",
        "null",
        "{}",
        truncated,
        &concatenated,
        r#"{"Statement":[]}"#,
        r#"{"Statement":[{}]}"#,
        r#"{"Statement":"x"}"#,
        r#"{"Version":"2020-01-01","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
        r#"{"statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"allow","Action":"*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","NotAction":"s3:*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Resource":"*"}}"#,
        r#"{"Statement":{"Action":"*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":["s3:*",["ec2:*"]],"Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":5,"Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"GetObject","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"s*:GetObject","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"s3:Get:Object","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:*:::x"}}"#,
        r#"{"Statement":{"Sid":"a b","Effect":"Allow","Action":"*","Resource":"*"}}"#,
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:sns:x:${aws:PrincipalAccount}:y"}}"#,
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"${aws:x}"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*:*","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"s3:","Resource":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"bucket/*"}}"#,
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:x"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Strange":{"aws:x":"a"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NullIfExists":{"aws:x":"true"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAll:Bool":{"aws:x":"true"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericEquals":{"aws:x":"a"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:x":"10.0/8"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a:x":"true","A:X":"true"}}}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:x":null}}}}"#,
        r#"{"Statement":[{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},
            {"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    ] {
        let error = identity(bad).expect_err(bad);
        assert!(error.line >= 1, "{bad}: {error}");
        assert!(!error.message.is_empty(), "{bad}");
    }
    let error = identity("{\n \"Statement\": {\n  \"Effect\": \"Allow\",\n  \"Wrong\": 1\n }\n}").unwrap_err();
    assert_eq!((error.line, error.column), (4, 3));
    assert_eq!(
        error.to_string(),
        "Syntax errors in policy. (unknown element Wrong, line 4, column 3)"
    );
}

/// Proves: IAM-1, IAM-3, IAM-4
#[test]
fn faults_have_awss_words() {
    let identity = |inner: &str| format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow",{inner}}}}}"#);
    for (inner, words) in [
        (
            r#""Action":"s3:*","Resource":"*","Extra":1"#,
            "Syntax errors in policy.",
        ),
        (r#""Resource":"*""#, "Policy statement must contain actions."),
        (
            r#""Action":[],"Resource":"*""#,
            "Policy statement must contain actions.",
        ),
        (r#""Action":"s3:*""#, "Policy statement must contain resources."),
        (
            r#""Action":"s3:*","Resource":[]"#,
            "Policy statement must contain resources.",
        ),
        (
            r#""Action":"s3:*","Resource":"*","Principal":"*""#,
            "Policy document should not specify a principal.",
        ),
        (
            r#""Action":"invalid","Resource":"*""#,
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (r#""Action":"a a:ListBucket","Resource":"*""#, "Vendor a a is not valid"),
        (
            r#""Action":"s3:List:Bucket","Resource":"*""#,
            "Actions/Condition can contain only one colon.",
        ),
        (
            r#""Action":"s3:*","Resource":"invalid resource""#,
            r#"Resource invalid resource must be in ARN format or "*"."#,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:b:cadfsdf""#,
            r#"Partition "b" is not valid for resource "arn:b:cadfsdf:*:*:*"."#,
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws""#,
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3::example_bucket""#,
            "The policy failed legacy parsing",
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:s3:eu-west-1::bucket""#,
            "Resource arn:aws:s3:eu-west-1::bucket can not contain region information.",
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:iam:eu-west-1::role/x""#,
            "IAM resource arn:aws:iam:eu-west-1::role/x cannot contain region information.",
        ),
        (
            r#""Action":"s3:*","Resource":"arn:aws:iam:::example_bucket""#,
            "IAM resource path must either be \"*\" or start with user/, federated-user/, role/, group/, \
             instance-profile/, mfa/, server-certificate/, policy/, sms-mfa/, saml-provider/, oidc-provider/, report/, \
             access-report/.",
        ),
    ] {
        assert_eq!(message(&identity(inner), DocumentKind::Identity), words, "{inner}");
    }
    for (text, kind, words) in [
        ("{", DocumentKind::Identity, "Syntax errors in policy."),
        ("{", DocumentKind::Trust, "This policy contains invalid Json"),
        (
            "{",
            DocumentKind::Resource,
            "Policies must be valid JSON and the first byte must be '{'",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}"#,
            DocumentKind::Trust,
            "Missing required field Principal",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#,
            DocumentKind::Resource,
            "Missing required field Principal",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"x"},"Action":"s3:*","Resource":"*"}}"#,
            DocumentKind::Resource,
            "Invalid principal in policy",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"x"},"Action":"sts:AssumeRole"}}"#,
            DocumentKind::Trust,
            r#"Invalid principal in policy: "AWS":"x""#,
        ),
        (
            r#"{"Statement":{"Effect":"Allow","NotPrincipal":"*","Action":"sts:AssumeRole"}}"#,
            DocumentKind::Trust,
            "Has prohibited field NotPrincipal",
        ),
    ] {
        assert_eq!(message(text, kind), words, "{text}");
    }
}

/// Proves: IAM-8
#[test]
fn short_arns_are_completed_by_wildcards() {
    for good in [
        "arn:aws:sqs",
        "arn:aws:sqs:eu-west-1",
        "arn:aws:sagemaker:eu-west-1:*",
        "arn:aws:s3:*",
        "arn:aws:sagemaker:*:endpoint/e",
        "arn:*:s3:::b",
    ] {
        let text = format!(r#"{{"Statement":{{"Effect":"Allow","Action":"*","Resource":"{good}"}}}}"#);
        assert!(identity(&text).is_ok(), "{good}: {:?}", identity(&text));
    }
}

/// Proves: IAM-27
#[test]
fn statements_know_their_place() {
    let document =
        identity("{\"Statement\": [\n  {\"Effect\":\"Deny\",\"Action\":\"*\",\"Resource\":\"*\"}\n]}").unwrap();
    let place = |line, column| Position { line, column };
    assert_eq!(document.statements[0].span, (place(2, 3), place(2, 48)));
}

#[test]
fn a_document_names_the_keys_it_asks_for() {
    let text = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:UserName}",
        "Condition":{"StringLike":{"s3:prefix":"${aws:PrincipalTag/Team, 'x'}/*"},"Null":{"aws:SourceVpc":"true"}}}}"#;
    let keys = identity(text).unwrap().context_keys();
    let expected = ["aws:principaltag/team", "aws:sourcevpc", "aws:username", "s3:prefix"];
    assert_eq!(keys.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Proves: IAM-1, IAM-3, IAM-5
#[test]
fn each_kind_has_its_own_elements() {
    let with = |extra: &str, resource: &str| {
        format!(r#"{{"Statement":{{"Effect":"Allow",{extra}"Action":"sts:AssumeRole"{resource}}}}}"#)
    };
    let (principal, resource) = (r#""Principal":"*","#, r#","Resource":"*""#);
    let reads = |text: &str, kind| Document::parse(text, kind).is_ok();
    assert!(reads(&with("", resource), DocumentKind::Identity));
    assert!(!reads(&with(principal, resource), DocumentKind::Identity));
    assert!(reads(&with(principal, ""), DocumentKind::Trust));
    assert!(!reads(&with("", ""), DocumentKind::Trust));
    for kind in [DocumentKind::Resource, DocumentKind::Endpoint] {
        assert!(reads(&with(principal, resource), kind));
        assert!(!reads(&with("", resource), kind), "a principal is required");
        assert!(!reads(&with(principal, ""), kind), "a resource is required");
    }
    assert_eq!(
        message(&with(principal, resource), DocumentKind::Trust),
        "Has prohibited field Resource"
    );
    let other = with(principal, "").replace("sts:AssumeRole", "s3:GetObject");
    assert!(message(&other, DocumentKind::Trust).contains("only specify STS"));
    let everyone_but = with(r#""NotPrincipal":{"AWS":"111122223333"},"#, resource);
    assert!(reads(&everyone_but, DocumentKind::Resource));
    assert!(!reads(&everyone_but, DocumentKind::Endpoint));
}

/// Proves: IAM-4
#[test]
fn principals_are_whole_names() {
    let reads = |principal: &str| {
        let text = format!(r#"{{"Statement":{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}}}"#);
        Document::parse(&text, DocumentKind::Trust).is_ok()
    };
    for good in [
        r#""*""#,
        r#"{"AWS":"*"}"#,
        r#"{"AWS":["111122223333","arn:aws:iam::111122223333:root","arn:aws:iam::111122223333:user/a/b"]}"#,
        r#"{"AWS":"arn:aws:sts::111122223333:assumed-role/r/s"}"#,
        r#"{"AWS":"AROAEXAMPLEROLE00001","Service":["sagemaker.amazonaws.com"]}"#,
        r#"{"Federated":"cognito-identity.amazonaws.com"}"#,
    ] {
        assert!(reads(good), "{good}");
    }
    for bad in [
        r#""arn:aws:iam::111122223333:root""#,
        r#"{"AWS":"arn:aws:iam::111122223333:role/*"}"#,
        r#"{"AWS":"arn:aws:iam::*:root"}"#,
        r#"{"AWS":"1111"}"#,
        r#"{"AWS":"arn:aws:s3:::bucket"}"#,
        r#"{"Service":"*"}"#,
        r#"{"Nobody":"x"}"#,
        "{}",
        "[]",
    ] {
        assert!(!reads(bad), "{bad}");
    }
}

proptest::proptest! {
    /// Whatever is cut out of or put into a good document, reading it ends, and what is still read has a statement.
    #[test]
    fn damaged_documents_are_read_or_refused(at in 0usize..200, gone in 0usize..20, put in "[\\[\\]{}\",:a*$0-9]{0,6}") {
        let good = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":"arn:aws:s3:::${aws:username}","Condition":{"StringLike":{"aws:x":["a*"]}}}]}"#;
        let start = at.min(good.len());
        let end = (start + gone).min(good.len());
        let text = format!("{}{put}{}", &good[..start], &good[end..]);
        if let Ok(document) = identity(&text) {
            proptest::prop_assert!(!document.statements.is_empty());
        }
    }
}

#[test]
fn places_are_counted_from_one() {
    for (text, place) in [("", (1, 1)), ("{\n \"Version\": 1}", (2, 13))] {
        let fault = identity(text).unwrap_err();
        assert_eq!((fault.line, fault.column), place, "{text:?}: {fault}");
    }
}
