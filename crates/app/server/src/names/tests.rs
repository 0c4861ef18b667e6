use super::*;

fn at(region: &str) -> Option<Region> {
    Some(region.parse().unwrap())
}

/// Proves: SM-2
#[test]
fn service_hosts_are_told_apart() {
    let service = |signing_name, region| HostMeaning::Service { signing_name, region };
    for (host, want) in [
        (
            "api.sagemaker.us-east-1.amazonaws.com",
            service("sagemaker", at("us-east-1")),
        ),
        (
            "API-FIPS.sagemaker.us-west-2.amazonaws.com",
            service("sagemaker", at("us-west-2")),
        ),
        (
            "runtime.sagemaker.eu-central-1.amazonaws.com.",
            service("sagemaker", at("eu-central-1")),
        ),
        (
            "api.sagemaker.cn-north-1.amazonaws.com.cn",
            service("sagemaker", at("cn-north-1")),
        ),
        (
            "featurestore-runtime.sagemaker-fips.us-east-1.amazonaws.com",
            service("sagemaker", at("us-east-1")),
        ),
        ("sts.amazonaws.com", service("sts", None)),
        ("sts.us-east-1.amazonaws.com", service("sts", at("us-east-1"))),
        ("iam.amazonaws.com", service("iam", None)),
        ("logs.us-east-1.amazonaws.com", service("logs", at("us-east-1"))),
        ("api.ecr.us-east-1.amazonaws.com", service("ecr", at("us-east-1"))),
        ("s3.amazonaws.com", HostMeaning::S3 { region: None }),
        (
            "s3.us-east-1.amazonaws.com",
            HostMeaning::S3 {
                region: at("us-east-1"),
            },
        ),
        (
            "s3.dualstack.us-east-1.amazonaws.com",
            HostMeaning::S3 {
                region: at("us-east-1"),
            },
        ),
        (
            "data.s3.us-east-1.amazonaws.com",
            HostMeaning::S3Bucket {
                bucket: "data".into(),
                region: at("us-east-1"),
            },
        ),
        (
            "s3-us-east-1.amazonaws.com",
            HostMeaning::S3 {
                region: at("us-east-1"),
            },
        ),
        (
            "packages.us-east-1.amazonaws.com.s3-us-east-1.amazonaws.com",
            HostMeaning::S3Bucket {
                bucket: "packages.us-east-1.amazonaws.com".into(),
                region: at("us-east-1"),
            },
        ),
        (
            "a.b.s3.amazonaws.com",
            HostMeaning::S3Bucket {
                bucket: "a.b".into(),
                region: None,
            },
        ),
        (
            "x.s3.y.s3.us-east-1.amazonaws.com",
            HostMeaning::S3Bucket {
                bucket: "x.s3.y".into(),
                region: at("us-east-1"),
            },
        ),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            HostMeaning::Registry {
                account: "123456789012".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
        ),
    ] {
        assert_eq!(meaning(host), Some(want), "{host}");
    }
}

#[test]
fn other_hosts_mean_nothing() {
    for host in [
        "",
        "localhost",
        "127.0.0.1",
        "amazonaws.com",
        ".amazonaws.com",
        "example.com",
        "sagemaker.us-east-1.amazonaws.com",
        "api.sagemaker.amazonaws.com.example.com",
        "12.dkr.ecr.us-east-1.amazonaws.com",
        "evil.amazonaws.com",
        "a/../b.s3.us-east-1.amazonaws.com",
    ] {
        assert_eq!(meaning(host), None, "{host}");
    }
}

#[test]
fn addresses_are_distinct_and_inside_their_ranges() {
    let services = "198.18.0.0/17".parse().unwrap();
    let s3: ipnet::Ipv4Net = "198.18.128.0/20".parse().unwrap();
    let all = addresses(services, s3);
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!(all.iter().all(|a| services.contains(a) || s3.contains(a)));
    let bucket = meaning("data.s3.us-east-1.amazonaws.com").unwrap();
    assert!(s3.contains(&address(&bucket, services, s3)));
}
