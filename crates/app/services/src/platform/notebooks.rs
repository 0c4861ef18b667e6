//! Notebook instances: what the operator offers, and under which host names they are opened (SM-46, SM-47).

use isolarium_model::{AccountId, Region, Scope};

/// Domain of notebooks' host names, as AWS has it.
const DOMAIN: &str = "sagemaker.aws";

/// What the operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotebookSettings {
    /// The image that every notebook instance runs, of the engine's own registry; `None`: there are none.
    pub image: Option<String>,
    /// How browsers reach the engine, where AWS's names do not lead to it.
    pub origin: Option<NotebookOrigin>,
    /// The account whose notebooks' names stand alone in host names; those of others have their account's id behind them.
    pub account: AccountId,
}

/// Scheme, domain and port of the URLs that are handed out: `http://localhost:4599`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotebookOrigin {
    pub secure: bool,
    /// In lower case.
    pub domain: String,
    pub port: Option<u16>,
}

/// The text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is http:// or https://, a host name and perhaps a port, and nothing else")]
pub struct BadOrigin;

impl std::str::FromStr for NotebookOrigin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(BadOrigin),
        };
        let (domain, port) = match rest.split_once(':') {
            None => (rest, None),
            Some((domain, port)) => (domain, Some(port.parse().map_err(|_| BadOrigin)?)),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
        };
        // An IPv4 address has no names below it.
        let named = domain.bytes().any(|byte| byte.is_ascii_alphabetic());
        if !named || domain.len() > 150 || !domain.split('.').all(label) {
            return Err(BadOrigin);
        }
        Ok(Self {
            secure,
            domain: domain.to_ascii_lowercase(),
            port,
        })
    }
}

impl Default for NotebookSettings {
    #[expect(clippy::expect_used, reason = "a constant")]
    fn default() -> Self {
        Self {
            image: None,
            origin: None,
            account: "123456789012".parse().expect("twelve digits"),
        }
    }
}

impl NotebookSettings {
    /// The host under which an instance is opened, with a port where it needs one: what Describe shows as `Url`.
    pub fn host(&self, scope: &Scope, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        let name = if scope.account == self.account {
            name
        } else {
            format!("{name}.{}", scope.account)
        };
        let (domain, port) = match &self.origin {
            None => (DOMAIN, None),
            Some(origin) => (origin.domain.as_str(), origin.port),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{name}.notebook.{}.{domain}{port}", scope.region)
    }

    /// The URL that opens an instance with a token.
    pub fn url(&self, scope: &Scope, name: &str, token: &str) -> String {
        let secure = self.origin.as_ref().is_none_or(|origin| origin.secure);
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{}?authToken={token}", self.host(scope, name))
    }

    /// The instance that a host name, without port, stands for: where it would be, and its name in lower case. Whether there
    /// is one is not known.
    pub fn named(&self, host: &str) -> Option<(Scope, String)> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let own = self.origin.as_ref().map(|origin| origin.domain.as_str());
        let domains = [Some(DOMAIN), own];
        let mut heads = domains.into_iter().flatten();
        let head = heads.find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'))?;
        let (whose, region) = head.rsplit_once(".notebook.")?;
        let region: Region = region.parse().ok()?;
        let (name, account) = match whose.split_once('.') {
            None => (whose, self.account.clone()),
            // The account's own notebooks have one name alone: two would be two origins for one session.
            Some((name, account)) => (name, account.parse().ok().filter(|account| *account != self.account)?),
        };
        let plain = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        plain.then(|| (Scope { account, region }, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(account: &str) -> Scope {
        Scope {
            account: account.parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        }
    }

    /// Proves: SM-46, SM-47
    #[test]
    fn a_host_name_leads_back_to_its_instance() {
        let plain = NotebookSettings::default();
        let own = NotebookSettings {
            origin: Some("http://LocalHost:4599".parse().unwrap()),
            ..NotebookSettings::default()
        };
        assert_eq!(
            plain.url(&scope("123456789012"), "Lab-1", "t"),
            "https://lab-1.notebook.us-east-1.sagemaker.aws?authToken=t"
        );
        assert_eq!(
            own.url(&scope("210987654321"), "lab", "t"),
            "http://lab.210987654321.notebook.us-east-1.localhost:4599?authToken=t"
        );
        for settings in [&plain, &own] {
            for account in ["123456789012", "210987654321"] {
                let host = settings.host(&scope(account), "lab");
                let host = host.split(':').next().unwrap();
                assert_eq!(settings.named(host), Some((scope(account), "lab".into())), "{host}");
            }
        }
        assert!(own.named("lab.notebook.us-east-1.sagemaker.aws").is_some());
        for other in [
            "lab.notebook.us-east-1.localhost",
            "notebook.us-east-1.sagemaker.aws",
            "lab.123456789012.notebook.us-east-1.sagemaker.aws",
            "a.b.210987654321.notebook.us-east-1.sagemaker.aws",
            "lab.notebook.us-east-1.sagemaker.aws.example",
            "lab.notebook.us-east-1xsagemaker.aws",
            "-x.notebook.us-east-1.sagemaker.aws",
            "sagemaker.aws",
            "api.sagemaker.us-east-1.amazonaws.com",
        ] {
            assert_eq!(plain.named(other), None, "{other}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_name_and_a_port() {
        for bad in [
            "localhost:4599",
            "ftp://x",
            "http://",
            "http://127.0.0.1:4599",
            "http://x/",
            "http://x:port",
            "http://a..b",
            "http://user@x",
        ] {
            assert_eq!(bad.parse::<NotebookOrigin>(), Err(BadOrigin), "{bad}");
        }
        let good: NotebookOrigin = "https://lab.example.com".parse().unwrap();
        assert_eq!((good.secure, good.port), (true, None));
    }
}
