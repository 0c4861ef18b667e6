//! The proxy: what its clients need, and what it refused.

use super::report::{aligned, printable};
use super::run::{print, root_key};
use super::{Exit, Settings};
use crate::operator::message::{Answer, Ask};
use crate::proxy::refusals::Listed;
use anyhow::{anyhow, bail};
use isolarium_model::AccountId;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

pub(super) fn proxy(
    refusals: bool,
    json: bool,
    account: Option<&AccountId>,
    settings: &Settings,
) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let (proxy, listed) = match super::operator::asked(&config.data_dir, &Ask::Refusals)? {
        Err(exit) => return Ok(exit),
        Ok(Answer::Refusals { proxy, listed }) => (proxy, listed),
        Ok(_) => return Err(anyhow!("the server answered another question; is it another version?")),
    };
    let Some(proxy) = proxy else {
        bail!("the server is no proxy; start it with --proxy-listen 127.0.0.1:4600, or set proxy_listen");
    };
    let text = match (refusals, json) {
        (true, true) => format!("{}\n", serde_json::to_string_pretty(&listed)?),
        (true, false) => table(&listed),
        (false, _) => {
            let bundle = config.data_dir.join("ca/bundle.pem");
            let bundle = bundle.canonicalize().unwrap_or(bundle);
            let (id, secret) = root_key(&config, account)?;
            exports(proxy, &bundle, &id, &secret, config.default_region().as_str())
        }
    };
    print(&text)?;
    Ok(Exit::Success)
}

/// Both spellings of the proxy's variables: some programs know one alone.
fn exports(proxy: SocketAddr, bundle: &Path, id: &str, secret: &str, region: &str) -> String {
    // The shell evaluates this.
    let bundle = bundle.display().to_string().replace('\'', r"'\''");
    let mut text = String::new();
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        let _infallible = writeln!(text, "export {name}=http://{proxy}");
    }
    for name in ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let _infallible = writeln!(text, "export {name}='{bundle}'");
    }
    let _infallible = writeln!(
        text,
        "export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}\nexport AWS_DEFAULT_REGION={region}\n\
         unset AWS_SESSION_TOKEN AWS_PROFILE AWS_ENDPOINT_URL NO_PROXY no_proxy"
    );
    text
}

fn table(listed: &Listed) -> String {
    if listed.refusals.is_empty() {
        return "nothing was refused\n".into();
    }
    let mut rows = vec![["LAST", "TIMES", "TARGET", "REASON"].map(str::to_owned)];
    for one in &listed.refusals {
        let last = jiff::Timestamp::from_millisecond(one.last.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        rows.push([
            last.to_string(),
            one.count.to_string(),
            printable(&one.target),
            one.reason.text().to_owned(),
        ]);
    }
    let mut text = aligned(&rows);
    if listed.left_out > 0 {
        let _infallible = writeln!(text, "and {} to further targets", listed.left_out);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_bundles_path_as_it_is_whatever_it_holds() {
        let proxy = SocketAddr::from(([127, 0, 0, 1], 4600));
        let path = "/it's a $(false) \"path\"/bundle.pem";
        let text = exports(proxy, Path::new(path), "AKIA", "secret", "us-east-1");
        let script = format!("{text}printf '%s' \"$SSL_CERT_FILE $HTTPS_PROXY\"");
        let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let told = String::from_utf8(done.stdout).unwrap();
        assert_eq!(told, format!("{path} http://127.0.0.1:4600"));
    }
}
