//! Configuration: built-in defaults, then the file, then `ISOLARIUM_…` variables, then flags; later ones win.
//!
//! Every key is one row of [`keys::KEYS`]; `docs/configuration.md` is rendered from the same rows, and a test holds
//! both to the structs below.

mod capacity;
pub mod keys;
mod span;

#[cfg(test)]
mod tests;

use ipnet::Ipv4Net;
use isolarium_model::ecr::ImageReference;
use isolarium_model::sagemaker::{InstanceShape, InstanceTable};
use isolarium_model::{AccountId, Region};
use isolarium_netplan::intent::{HostNetwork, Uplink};
use isolarium_reconcile::settings::Updates;
use isolarium_services::ec2::{Ec2Settings, Quotas};
use isolarium_services::platform::notebooks::{NotebookOrigin, NotebookSettings};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use capacity::{CapacitySettings, Room};
pub use span::Span;

/// Everything an operator can set. The meaning of each key is its row in [`keys::KEYS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_listen: Option<SocketAddr>,
    pub account: AccountId,
    pub regions: Vec<Region>,
    pub uplink: UplinkSetting,
    pub instances: Vec<OwnInstance>,
    pub auth: Auth,
    pub tls: Tls,
    pub network: Network,
    pub ec2: Ec2,
    pub limits: Limits,
    pub capacity: CapacitySettings,
    pub invoke: Invoke,
    pub jobs: Jobs,
    pub endpoints: Endpoints,
    pub credentials: Credentials,
    pub audit: Audit,
    pub resolver: Resolver,
    pub flow_logs: FlowLogs,
    pub metrics: MetricsSettings,
    pub serve: Serve,
    pub runtime: Runtime,
    pub images: Images,
    pub notebooks: Notebooks,
    pub reconcile: Reconcile,
    pub log: Log,
}

/// What one instance type stands for here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnInstance {
    pub r#type: String,
    pub vcpus: u64,
    pub memory_mib: u64,
    #[serde(default)]
    pub accelerators: u64,
}

/// `"host"`, `"none"` or `{ netns = PATH }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UplinkSetting {
    Word(UplinkWord),
    Netns(UplinkNetns),
}

/// An uplink that needs no further word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkWord {
    Host,
    None,
}

/// An uplink in a named network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkNetns {
    pub netns: PathBuf,
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    pub unknown_keys: UnknownKeys,
    pub clock_skew: Span,
    pub s3_presigned_v2: bool,
}

/// What happens to a request signed with an access key that no account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownKeys {
    Reject,
    Root,
}

/// TLS towards containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub inject_ca: bool,
}

/// Address ranges the engine uses for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub platform: Ipv4Net,
    pub services: Ipv4Net,
    pub s3_prefix_list: Ipv4Net,
    pub uplink_links: Ipv4Net,
    pub elastic_ips: Ipv4Net,
    pub nat_idle_timeout: Span,
}

/// VPCs: what is there from the start, and how many of each noun an account may have (NET-6, NET-86).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ec2 {
    pub default_vpc: bool,
    pub zones: String,
    pub vpcs: usize,
    pub subnets_per_vpc: usize,
    pub routes_per_table: usize,
    pub gateway_endpoints: usize,
    pub interface_endpoints_per_vpc: usize,
    pub elastic_ips: usize,
    pub nat_gateways_per_zone: usize,
    pub notebook_endpoints: bool,
    pub runtime_zone_rule: bool,
}

impl Default for Ec2 {
    fn default() -> Self {
        let quotas = Quotas::default();
        Self {
            default_vpc: false,
            zones: "abc".into(),
            vpcs: quotas.vpcs,
            subnets_per_vpc: quotas.subnets_per_vpc,
            routes_per_table: quotas.routes_per_table,
            gateway_endpoints: quotas.gateway_endpoints,
            interface_endpoints_per_vpc: quotas.interface_endpoints_per_vpc,
            elastic_ips: quotas.elastic_ips,
            nat_gateways_per_zone: quotas.nat_gateways_per_zone,
            notebook_endpoints: false,
            runtime_zone_rule: true,
        }
    }
}

/// Sizes and waits of the front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub request_body: u64,
    pub invoke_body: u64,
    pub request_head: u64,
    pub head_timeout: Span,
    pub body_idle_timeout: Span,
    pub connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_instances: Option<u32>,
}

/// Invocation of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Invoke {
    pub timeout: Span,
    pub stream_timeout: Span,
    pub connect_timeout: Span,
    pub idle_connections: usize,
}

/// Training jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    pub stop_grace: Span,
    pub checkpoint_interval: Span,
}

/// Endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoints {
    pub ping_interval: Span,
    pub ping_timeout: Span,
    pub startup_timeout: Span,
    pub ping_failures: u32,
    pub restart_backoff: Span,
    pub restart_backoff_max: Span,
    pub drain: Span,
    pub stop_grace: Span,
    pub capture_interval: Span,
    /// What becomes of the old fleet while the new one of an update starts (AU-28).
    pub updates: Updates,
}

/// Credentials of execution roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    pub lifetime: Span,
    pub refresh_before: Span,
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    pub retention: Span,
    pub sync_interval: Span,
    pub queue_bytes: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            retention: Span::seconds(365 * 86_400),
            sync_interval: Span::seconds(1),
            queue_bytes: 16 << 20,
        }
    }
}

/// The platform's name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    pub upstream: Vec<SocketAddr>,
    pub timeout: Span,
}

/// Flow logs of VPCs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowLogs {
    pub read: Span,
    pub minute: Span,
}

impl Default for FlowLogs {
    fn default() -> Self {
        Self {
            read: Span::seconds(5),
            minute: Span::seconds(60),
        }
    }
}

/// The platform's own metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    pub interval: Span,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: None,
            interval: Span::seconds(60),
        }
    }
}

/// The serving process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<PathBuf>,
    pub drain: Span,
    pub user: String,
    pub threads: usize,
}

/// How containers are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci: Option<PathBuf>,
    pub pids: u64,
    pub overlay_bytes: u64,
    pub shm_percent: u64,
    pub archive_timeout: Span,
    pub cdi_folders: Vec<PathBuf>,
    pub accelerators: String,
}

/// Images the operator vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    pub managed_accounts: Vec<AccountId>,
    pub aliases: Vec<ImageAliasSetting>,
    pub unisolated: Vec<UnisolatedImage>,
}

/// Notebook instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notebooks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    pub command: Vec<String>,
    pub port: u16,
    pub lifecycle_timeout: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl Default for Notebooks {
    fn default() -> Self {
        Self {
            image: None,
            command: Vec::new(),
            port: 8888,
            lifecycle_timeout: Span::seconds(300),
            origin: None,
        }
    }
}

/// A local image that stands for managed ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageAliasSetting {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    pub repository: String,
    #[serde(default = "any_tag")]
    pub tag: String,
    pub image: String,
}

fn any_tag() -> String {
    "*".into()
}

/// A further repository of managed registries whose images cannot be isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnisolatedImage {
    pub family: String,
    pub repository: String,
}

/// The loops that bring jobs and endpoints to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    pub workers: usize,
    pub vpc_workers: usize,
    pub vpc_workers_per_account: usize,
    pub transfer_limit: Span,
    pub retry: Span,
    pub log_interval: Span,
    pub gc_interval: Span,
}

/// The operator's log on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    #[expect(clippy::expect_used, reason = "constants; a test builds the default")]
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/isolarium"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4599)),
            tls_listen: None,
            proxy_listen: None,
            account: "123456789012".parse().expect("twelve digits"),
            regions: vec!["us-east-1".parse().expect("a region")],
            uplink: UplinkSetting::Word(UplinkWord::Host),
            instances: Vec::new(),
            auth: Auth::default(),
            tls: Tls::default(),
            network: Network::default(),
            ec2: Ec2::default(),
            limits: Limits::default(),
            capacity: CapacitySettings::default(),
            invoke: Invoke::default(),
            jobs: Jobs::default(),
            endpoints: Endpoints::default(),
            credentials: Credentials::default(),
            audit: Audit::default(),
            resolver: Resolver::default(),
            flow_logs: FlowLogs::default(),
            metrics: MetricsSettings::default(),
            serve: Serve::default(),
            runtime: Runtime::default(),
            images: Images::default(),
            notebooks: Notebooks::default(),
            reconcile: Reconcile::default(),
            log: Log::default(),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            unknown_keys: UnknownKeys::Reject,
            clock_skew: Span::seconds(900),
            s3_presigned_v2: true,
        }
    }
}

#[expect(clippy::derivable_impls, reason = "every default of this file is written out")]
impl Default for Tls {
    fn default() -> Self {
        Self { inject_ca: false }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            platform: net([100, 64, 0, 0], 16),
            services: net([198, 18, 0, 0], 17),
            s3_prefix_list: net([198, 18, 128, 0], 20),
            uplink_links: net([169, 254, 64, 0], 18),
            elastic_ips: net([198, 19, 0, 0], 16),
            nat_idle_timeout: Span::seconds(u64::from(HostNetwork::NAT_IDLE)),
        }
    }
}

fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new(address.into(), prefix).unwrap_or_default()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body: 1024 * 1024,
            invoke_body: 6 * 1024 * 1024,
            request_head: 64 * 1024,
            head_timeout: Span::seconds(15),
            body_idle_timeout: Span::seconds(30),
            connections: 10_000,
            training_instances: None,
        }
    }
}

impl Default for Invoke {
    fn default() -> Self {
        Self {
            timeout: Span::seconds(60),
            stream_timeout: Span::seconds(480),
            connect_timeout: Span::millis(250),
            idle_connections: 64,
        }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            stop_grace: Span::seconds(120),
            checkpoint_interval: Span::seconds(60),
        }
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            ping_interval: Span::seconds(5),
            ping_timeout: Span::seconds(2),
            startup_timeout: Span::seconds(240),
            ping_failures: 3,
            restart_backoff: Span::seconds(1),
            restart_backoff_max: Span::seconds(60),
            drain: Span::seconds(60),
            stop_grace: Span::seconds(30),
            capture_interval: Span::seconds(60),
            updates: Updates::default(),
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            lifetime: Span::seconds(3600),
            refresh_before: Span::seconds(900),
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            upstream: Vec::new(),
            timeout: Span::seconds(2),
        }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            node: None,
            drain: Span::seconds(30),
            user: isolarium_node::confine::SERVICE_USER.into(),
            threads: 0,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            oci: None,
            pids: 16_384,
            overlay_bytes: 20 << 30,
            shm_percent: 50,
            archive_timeout: Span::seconds(3600),
            cdi_folders: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            accelerators: "nvidia.com/gpu".into(),
        }
    }
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            workers: 16,
            vpc_workers: 64,
            vpc_workers_per_account: 8,
            transfer_limit: Span::seconds(6 * 3600),
            retry: Span::millis(500),
            log_interval: Span::millis(100),
            gc_interval: Span::seconds(60),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: LogFormat::Text,
        }
    }
}

/// Why a configuration is refused. `Display` names the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Carries the line and column.
    #[error("the configuration file {path} is wrong:\n{source}")]
    File {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{origin} sets {key} to {value:?}: {reason}")]
    Override {
        origin: String,
        key: String,
        value: String,
        reason: String,
    },
    #[error("{origin} names the unknown key {key}; docs/configuration.md lists them all")]
    UnknownKey { origin: String, key: String },
    /// Keys that are each well formed, but not together.
    #[error("{0}")]
    Contradiction(String),
}

/// One setting from outside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it came from, as the operator knows it: `--listen` or `ISOLARIUM_LISTEN`.
    pub origin: String,
    /// Dotted key, such as `auth.unknown_keys`.
    pub key: String,
    /// TOML, or a bare text.
    pub value: String,
}

impl Config {
    /// Reads the layers. `file` must exist when it is named; `overrides` are applied in order, so the caller puts
    /// variables before flags.
    ///
    /// # Errors
    /// Unknown keys and wrong values, with the line or the origin, and settings that contradict each other.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.into(),
                    source,
                })?;
                let wrong = |source| ConfigError::File {
                    path: path.into(),
                    source: Box::new(source),
                };
                // Read as the typed value first: its errors carry the line.
                toml::from_str::<Self>(&text).map_err(wrong)?;
                toml::from_str(&text).map_err(wrong)?
            }
        };
        for setting in overrides {
            if !keys::is_known(&setting.key) {
                return Err(ConfigError::UnknownKey {
                    origin: setting.origin.clone(),
                    key: setting.key.clone(),
                });
            }
            let refused = |reason: String| ConfigError::Override {
                origin: setting.origin.clone(),
                key: setting.key.clone(),
                value: setting.value.clone(),
                reason,
            };
            // A bare word is a text; everything that reads as TOML is taken as it reads, when the key accepts it.
            let mut reason = String::new();
            let readings = [
                toml_value(&setting.value),
                Some(toml::Value::String(setting.value.clone())),
            ];
            let mut taken = None;
            for value in readings.into_iter().flatten() {
                let mut trial = table.clone();
                set(&mut trial, &setting.key, value);
                match trial.clone().try_into::<Self>() {
                    Ok(_) => {
                        taken = Some(trial);
                        break;
                    }
                    Err(error) => reason = error.message().to_owned(),
                }
            }
            table = taken.ok_or_else(|| refused(reason))?;
        }
        let config: Self = table.try_into().map_err(|source| ConfigError::File {
            path: file.map(Path::to_path_buf).unwrap_or_default(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let contradiction = |text: String| Err(ConfigError::Contradiction(text));
        let loopback = self.listen.ip().is_loopback() && self.tls_listen.is_none_or(|a| a.ip().is_loopback());
        if self.auth.unknown_keys == UnknownKeys::Root && !loopback {
            return contradiction(
                "auth.unknown_keys = \"root\" lets every caller in; it is accepted only when listen and tls_listen are \
                 loopback addresses"
                    .into(),
            );
        }
        if self.proxy_listen.is_some_and(|address| !address.ip().is_loopback()) {
            return contradiction(
                "proxy_listen takes whoever reaches it for a client of this machine and must be a loopback address, such as \
                 127.0.0.1:4600"
                    .into(),
            );
        }
        if self.metrics.listen.is_some_and(|address| !address.ip().is_loopback()) {
            return contradiction(
                "metrics.listen has no authentication and must be a loopback address, such as 127.0.0.1:9464".into(),
            );
        }
        for own in &self.instances {
            let name = &own.r#type;
            // The node refuses what lies outside.
            if !(1..=4096).contains(&own.vcpus) || !(64..=1 << 26).contains(&own.memory_mib) {
                return contradiction(format!(
                    "instances: {name} needs 1 to 4096 vcpus and 64 MiB to 64 TiB of memory"
                ));
            }
            if self.instances.iter().filter(|other| other.r#type == *name).count() > 1 {
                return contradiction(format!("instances names {name} twice"));
            }
        }
        if !(1..=100).contains(&self.capacity.account_percent) {
            return contradiction("capacity.account_percent must be 1 to 100".into());
        }
        if [self.capacity.vcpus, self.capacity.memory_mib].contains(&Some(Room::Amount(0))) {
            return contradiction("capacity.vcpus and capacity.memory_mib must be above zero".into());
        }
        for alias in &self.images.aliases {
            if let Err(error) = alias.image.parse::<ImageReference>() {
                return contradiction(format!("images.aliases: {} cannot be run: {error}", alias.image));
            }
        }
        let notebooks = &self.notebooks;
        if let Some(Err(error)) = notebooks.image.as_ref().map(|image| image.parse::<ImageReference>()) {
            return contradiction(format!("notebooks.image cannot be run: {error}"));
        }
        if let Some(Err(error)) = notebooks.origin.as_ref().map(|origin| origin.parse::<NotebookOrigin>()) {
            return contradiction(format!("notebooks.origin: {error}"));
        }
        if notebooks.port == 0 {
            return contradiction("notebooks.port must be the port at which the notebook server listens".into());
        }
        if self.regions.is_empty() {
            return contradiction("regions must name at least one region".into());
        }
        let letters = self.ec2.zones.as_bytes();
        let ordered = letters.is_sorted_by(|one, other| one < other);
        if letters.is_empty() || !letters.iter().all(u8::is_ascii_lowercase) || !ordered {
            return contradiction("ec2.zones must be small letters, each once and in order, such as abc".into());
        }
        let net = &self.network;
        let ranges = [
            ("network.platform", net.platform),
            ("network.services", net.services),
            ("network.s3_prefix_list", net.s3_prefix_list),
            ("network.uplink_links", net.uplink_links),
            ("network.elastic_ips", net.elastic_ips),
        ];
        for (at, (name, range)) in ranges.iter().enumerate() {
            for (other_name, other) in ranges.iter().skip(at + 1) {
                if range.contains(&other.network()) || other.contains(&range.network()) {
                    return contradiction(format!("{name} ({range}) and {other_name} ({other}) overlap"));
                }
            }
        }
        if !(1..=86_400).contains(&net.nat_idle_timeout.duration().as_secs()) {
            return contradiction("network.nat_idle_timeout must be 1 s to a day".into());
        }
        let positive = [
            ("endpoints.ping_interval", self.endpoints.ping_interval),
            ("endpoints.ping_timeout", self.endpoints.ping_timeout),
            ("endpoints.startup_timeout", self.endpoints.startup_timeout),
            ("invoke.timeout", self.invoke.timeout),
            ("metrics.interval", self.metrics.interval),
            ("credentials.lifetime", self.credentials.lifetime),
            ("limits.head_timeout", self.limits.head_timeout),
            ("runtime.archive_timeout", self.runtime.archive_timeout),
            ("limits.body_idle_timeout", self.limits.body_idle_timeout),
            ("notebooks.lifecycle_timeout", self.notebooks.lifecycle_timeout),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, span)| span.duration().is_zero()) {
            return contradiction(format!("{name} must be longer than zero"));
        }
        if self.credentials.refresh_before.duration() >= self.credentials.lifetime.duration() {
            return contradiction("credentials.refresh_before must be shorter than credentials.lifetime".into());
        }
        Ok(())
    }

    /// The region that answers where a request names none (unsigned requests, registry by address).
    #[expect(
        clippy::expect_used,
        reason = "`check` refuses an empty list, and the default has one region"
    )]
    pub fn default_region(&self) -> &Region {
        self.regions.first().expect("at least one region")
    }

    /// Accelerators of this machine that instance types are matched to, by their CDI names (CC-7).
    pub fn devices(&self) -> Vec<String> {
        isolarium_runtime::local::devices::read(&self.runtime.cdi_folders).single(&self.runtime.accelerators)
    }

    /// Which notebook instances there are, and under which names (SM-46, SM-47). `check` refuses an origin that cannot be
    /// read.
    pub fn notebook_settings(&self) -> NotebookSettings {
        NotebookSettings {
            image: self.notebooks.image.clone(),
            origin: self.notebooks.origin.as_ref().and_then(|origin| origin.parse().ok()),
            account: self.account.clone(),
        }
    }

    /// What instance types stand for (CC-7).
    pub fn instance_table(&self) -> InstanceTable {
        InstanceTable::new(self.instances.iter().map(|own| {
            let shape = InstanceShape {
                vcpus: own.vcpus,
                memory_mib: own.memory_mib,
                accelerators: own.accelerators,
            };
            (own.r#type.clone(), shape)
        }))
    }

    /// What EC2's operations need of the configuration (NET-30, NET-86).
    pub fn ec2_settings(&self) -> Ec2Settings {
        Ec2Settings {
            regions: self.regions.clone(),
            zone_letters: self.ec2.zones.clone(),
            public_pool: self.network.elastic_ips,
            s3_prefix_list: self.network.s3_prefix_list,
            services: self.network.services,
            reserved: vec![self.network.platform, self.network.uplink_links],
            notebook_endpoints: self.ec2.notebook_endpoints,
            quotas: Quotas {
                vpcs: self.ec2.vpcs,
                // A VPC has one internet gateway at most, so there are as many as VPCs.
                internet_gateways: self.ec2.vpcs,
                subnets_per_vpc: self.ec2.subnets_per_vpc,
                routes_per_table: self.ec2.routes_per_table,
                gateway_endpoints: self.ec2.gateway_endpoints,
                interface_endpoints_per_vpc: self.ec2.interface_endpoints_per_vpc,
                elastic_ips: self.ec2.elastic_ips,
                nat_gateways_per_zone: self.ec2.nat_gateways_per_zone,
                ..Quotas::default()
            },
        }
    }

    /// The shared part of the host's network, for `node`.
    pub fn host_network(&self) -> HostNetwork {
        HostNetwork {
            uplink: match &self.uplink {
                UplinkSetting::Word(UplinkWord::Host) => Uplink::Host,
                UplinkSetting::Word(UplinkWord::None) => Uplink::None,
                UplinkSetting::Netns(at) => Uplink::Netns {
                    path: at.netns.to_string_lossy().into_owned(),
                },
            },
            platform: self.network.platform,
            services: self.network.services,
            s3_prefix_list: self.network.s3_prefix_list,
            uplink_links: self.network.uplink_links,
            elastic_ips: self.network.elastic_ips,
            // `check` refuses what does not fit.
            nat_idle: u32::try_from(self.network.nat_idle_timeout.duration().as_secs())
                .unwrap_or(HostNetwork::NAT_IDLE),
        }
    }
}

/// `ISOLARIUM_…` variables as overrides, in the order of [`keys::KEYS`]. `look` reads one variable.
pub fn from_environment(look: impl Fn(&str) -> Option<String>) -> Vec<Override> {
    keys::KEYS
        .iter()
        .filter_map(|key| {
            let variable = key.variable();
            let value = look(&variable)?;
            Some(Override {
                origin: variable,
                key: key.name.into(),
                value,
            })
        })
        .collect()
}

fn toml_value(text: &str) -> Option<toml::Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}\n")).ok()?;
    // One line must be one value: `1\nother = 2` is not.
    (table.len() == 1).then(|| table.remove("value")).flatten()
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
