//! Where a client wants to go, and whether that is a service of this engine.

use super::refusals::Reason;
use crate::names::{self, HostMeaning};
use http::Uri;
use http::uri::Authority;
use isolarium_model::Region;

/// Longest name that is told of, as DNS has it.
const LONGEST: usize = 255;

/// A name of a service of this engine, in lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target(pub String);

/// Of a CONNECT: a name of a served service in a served region, port 443.
pub(super) fn of_connect(uri: &Uri, regions: &[Region]) -> Result<Target, Reason> {
    // The form of CONNECT's target is an authority and nothing else.
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Reason::Malformed);
    }
    let authority = uri.authority().ok_or(Reason::Malformed)?;
    let (name, _) = served(authority, regions)?;
    match authority.port_u16() {
        Some(443) => Ok(name),
        Some(_) => Err(Reason::Port),
        None => Err(Reason::Malformed),
    }
}

/// Of a request with a whole URL: S3 alone, which has names for HTTP, port 80. What is secret goes through a tunnel.
pub(super) fn of_plain(uri: &Uri, regions: &[Region]) -> Result<Target, Reason> {
    let authority = uri.authority().ok_or(Reason::Malformed)?;
    let (name, meaning) = served(authority, regions)?;
    if uri.scheme_str() != Some("http") {
        return Err(Reason::Malformed);
    }
    if !matches!(meaning, HostMeaning::S3 { .. } | HostMeaning::S3Bucket { .. }) {
        return Err(Reason::Plain);
    }
    match (authority.port(), authority.port_u16()) {
        (None, _) | (_, Some(80)) => Ok(name),
        _ => Err(Reason::Port),
    }
}

fn served(authority: &Authority, regions: &[Region]) -> Result<(Target, HostMeaning), Reason> {
    // Who reads `a@b` one way must not meet somebody who reads it another way.
    if authority.as_str().contains('@') {
        return Err(Reason::Malformed);
    }
    let host = authority.host();
    if is_address(host) {
        return Err(Reason::Address);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let meaning = names::meaning(&name).ok_or(Reason::Name)?;
    let region = match &meaning {
        HostMeaning::Service { region, .. } | HostMeaning::S3 { region } | HostMeaning::S3Bucket { region, .. } => {
            region.as_ref()
        }
        HostMeaning::Registry { region, .. } | HostMeaning::Notebook { region } => Some(region),
    };
    match region.is_none_or(|region| regions.contains(region)) {
        true => Ok((Target(name), meaning)),
        false => Err(Reason::Name),
    }
}

/// An address in any spelling that some resolver takes: no name of a service ends in a number.
fn is_address(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let number = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    host.starts_with('[')
        || last.bytes().all(|byte| byte.is_ascii_digit())
        || number.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A target as it may be shown: no control characters, no credentials, cut.
pub(super) fn shown(uri: &Uri) -> String {
    let text = uri.authority().map_or_else(|| uri.path(), Authority::as_str);
    let text = text.rsplit('@').next().unwrap_or_default();
    let plain = |c: char| match c {
        c if c.is_ascii_graphic() => c,
        _ => '?',
    };
    text.chars().take(LONGEST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Vec<Region> {
        vec!["us-east-1".parse().unwrap()]
    }

    fn connect(text: &str) -> Result<String, Reason> {
        let authority: Authority = text.parse().map_err(|_| Reason::Malformed)?;
        let uri = Uri::builder()
            .authority(authority)
            .build()
            .map_err(|_| Reason::Malformed)?;
        of_connect(&uri, &regions()).map(|target| target.0)
    }

    #[test]
    fn tunnels_lead_to_the_engines_services_and_nowhere_else() {
        for name in [
            "api.sagemaker.us-east-1.amazonaws.com",
            "runtime.sagemaker.us-east-1.amazonaws.com",
            "sts.us-east-1.amazonaws.com",
            "sts.amazonaws.com",
            "iam.amazonaws.com",
            "data.s3.us-east-1.amazonaws.com",
            "sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        ] {
            assert_eq!(connect(&format!("{name}:443")).as_deref(), Ok(name));
        }
        assert_eq!(
            connect("STS.us-east-1.amazonaws.com.:443").as_deref(),
            Ok("sts.us-east-1.amazonaws.com")
        );
        for (target, reason) in [
            ("pypi.org:443", Reason::Name),
            ("sns.us-east-1.amazonaws.com:443", Reason::Name),
            ("sts.eu-west-1.amazonaws.com:443", Reason::Name),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com:443", Reason::Name),
            ("sts.us-east-1.amazonaws.com.evil.example:443", Reason::Name),
            ("amazonaws.com:443", Reason::Name),
            ("localhost:443", Reason::Name),
            ("203.0.113.10:443", Reason::Address),
            ("0x7f.1:443", Reason::Address),
            ("0x7f000001:443", Reason::Address),
            ("2130706433:443", Reason::Address),
            ("[::1]:443", Reason::Address),
            ("sts.us-east-1.amazonaws.com:22", Reason::Port),
            ("sts.us-east-1.amazonaws.com:80", Reason::Port),
            ("sts.us-east-1.amazonaws.com", Reason::Malformed),
            ("sts.us-east-1.amazonaws.com@evil.example:443", Reason::Malformed),
            ("user:word@sts.us-east-1.amazonaws.com:443", Reason::Malformed),
        ] {
            assert_eq!(connect(target), Err(reason), "{target}");
        }
    }

    #[test]
    fn plain_requests_are_s3s_alone() {
        let plain = |text: &str| of_plain(&text.parse().unwrap(), &regions()).map(|target| target.0);
        let bucket = "data.s3.us-east-1.amazonaws.com";
        assert_eq!(plain(&format!("http://{bucket}/key?x=1")).as_deref(), Ok(bucket));
        assert_eq!(plain(&format!("http://{bucket}:80/key")).as_deref(), Ok(bucket));
        for (url, reason) in [
            ("http://sts.us-east-1.amazonaws.com/", Reason::Plain),
            ("http://data.s3.us-east-1.amazonaws.com:4599/", Reason::Port),
            ("https://data.s3.us-east-1.amazonaws.com/", Reason::Malformed),
            ("http://169.254.169.254/latest/meta-data", Reason::Address),
            ("http://example.com/", Reason::Name),
            ("/latest", Reason::Malformed),
        ] {
            assert_eq!(plain(url), Err(reason), "{url}");
        }
        let uri: Uri = "http://user:word@example.com:8080/secret".parse().unwrap();
        assert_eq!(shown(&uri), "example.com:8080");
    }
}
