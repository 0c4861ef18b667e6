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
    assert_eq!((error.line, error.message.as_str()), (4, "unknown element Wrong"));
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
