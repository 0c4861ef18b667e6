//! Data of workloads in a VPC: every byte travels by HTTPS from the transfer interface in the subnet to S3, so that
//! routes, groups, network ACLs, endpoint policies and flow logs are real (NI-18, VPC-12, IAM-32).
//!
//! Sockets are connected by `node` inside the interface's namespace and passed over; everything that parses is here.

mod name;
mod patient;
mod s3;
mod xml;

#[cfg(test)]
mod tests;

use isolarium_model::sagemaker::S3Uri;
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Scope, Timestamp};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::CheckedVpc;
use isolarium_reconcile::cut::{Cuts, Why};
use isolarium_reconcile::http::Connection;
use isolarium_reconcile::network::{NO_PATH, NetworkError, Networks, Port, blocked, name_servers};
use isolarium_reconcile::transfer::{Actor, ObjectEntry, TransferError, Via};
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::vpcs::Destination;
use isolarium_services::iam::credentials::MasterKey;
use isolarium_services::platform::PlatformError;
use isolarium_services::platform::roles::ExecutionRoles;
use rustix::fs::{Mode, OFlags};
use s3::{Client, Keys, S3Error};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How patient transfers are.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For a connection to S3.
    pub connect_timeout: Duration,
    /// For the answer of a name server.
    pub name_timeout: Duration,
    /// How long a connection may say nothing.
    pub idle_timeout: Duration,
    /// Tries of one call.
    pub attempts: u32,
    /// Before the second try; doubles.
    pub pause: Duration,
    /// Files above this many bytes are uploaded in parts of this size.
    pub part: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            name_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            attempts: 3,
            pause: Duration::from_millis(200),
            part: 64 << 20,
        }
    }
}

/// The certificates that are trusted: the engine's own authority alone, whoever answers in the VPC.
#[derive(Clone)]
pub struct Secure(Arc<rustls::ClientConfig>);

impl Secure {
    /// Trusts one authority.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn new(authority: rustls::pki_types::CertificateDer<'static>) -> Result<Self, rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answered, or somebody refused.
    #[error("{0}")]
    NoPath(String),
    /// The host's own trouble.
    #[error(transparent)]
    Host(#[from] ExecutorError),
}

/// The namespace of one transfer interface.
pub(crate) trait Inside: Send + Sync {
    /// A connected stream.
    fn tcp(&self, to: SocketAddrV4, timeout: Duration) -> Result<TcpStream, DialError>;
    /// A connected datagram socket.
    fn udp(&self, to: SocketAddrV4) -> Result<UdpSocket, DialError>;
}

/// A transfer interface on the host.
struct Interface<'a> {
    networks: &'a Networks,
    scope: &'a Scope,
    via: Via,
}

impl Interface<'_> {
    fn dial(
        &self,
        transport: Transport,
        to: SocketAddrV4,
        timeout: Duration,
    ) -> Result<std::os::fd::OwnedFd, DialError> {
        let to = Destination {
            transport,
            address: *to.ip(),
            port: to.port(),
        };
        let dialed = self
            .networks
            .dial(self.scope, self.via.vpc, self.via.interface, to, timeout);
        dialed.map_err(|error| match error {
            ExecutorError::Refused(text) => DialError::NoPath(text),
            other => DialError::Host(other),
        })
    }
}

impl Inside for Interface<'_> {
    fn tcp(&self, to: SocketAddrV4, timeout: Duration) -> Result<TcpStream, DialError> {
        self.dial(Transport::Tcp, to, timeout).map(TcpStream::from)
    }

    fn udp(&self, to: SocketAddrV4) -> Result<UdpSocket, DialError> {
        self.dial(Transport::Udp, to, Duration::from_secs(2))
            .map(UdpSocket::from)
    }
}

/// What the oracle says about the interface's ways.
struct Oracle<'a> {
    networks: &'a Networks,
    vpc: Arc<CheckedVpc>,
    via: Via,
}

impl s3::Way for Oracle<'_> {
    fn blocked(&self, to: SocketAddrV4, transport: Transport) -> Option<String> {
        let port = match transport {
            Transport::Tcp => Port::Tcp(to.port()),
            Transport::Udp => Port::Udp(to.port()),
        };
        blocked(
            &self.vpc,
            self.networks.public_ranges(),
            self.via.interface,
            *to.ip(),
            port,
        )
    }
}

/// S3 through the subnets of workloads.
pub struct SubnetS3 {
    wiring: Wiring,
    idle: Mutex<HashMap<Via, Vec<(Timestamp, Connection)>>>,
}

impl std::ops::Deref for SubnetS3 {
    type Target = Wiring;
    fn deref(&self) -> &Wiring {
        &self.wiring
    }
}

/// Idle connections are not used again after this time: servers close them about then.
const FRESH: Duration = Duration::from_secs(20);
/// Idle connections kept from one interface.
const KEPT: usize = 4;

/// What [`SubnetS3`] is made of.
pub struct Wiring {
    pub roles: Arc<ExecutionRoles>,
    pub master: MasterKey,
    pub networks: Arc<Networks>,
    /// What ends transfers, by the ARN of their owner.
    pub cuts: Arc<Cuts>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub secure: Secure,
    pub settings: Settings,
    /// Where objects lie while they are read, on the data directory's file system.
    pub directory: PathBuf,
}

impl SubnetS3 {
    /// Nothing is open yet.
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            idle: Mutex::default(),
        }
    }

    fn with<T>(
        &self,
        of: &Actor,
        via: Via,
        about: &S3Uri,
        act: impl FnOnce(&mut Client<'_>) -> Result<T, S3Error>,
    ) -> Result<T, TransferError> {
        let cut = self.cuts.of(&of.owner_arn);
        ended(cut.why())?;
        // The loop keeps what is known in line; a restart knows nothing yet.
        let vpc = match self.networks.known(via.vpc) {
            Some(vpc) => vpc,
            None => self.networks.ensure(&of.scope, via.vpc).map_err(|error| match error {
                NetworkError::Host(ExecutorError::Unreachable(text) | ExecutorError::Busy(text)) => {
                    TransferError::Away(text)
                }
                other => TransferError::Engine(other.into()),
            })?,
        };
        // The role is assumed anew for every object: who may no longer do it fails here (IAM-52).
        let keys = self
            .roles
            .credentials(&crate::serve::platform_actor(of), &self.master)
            .map_err(|error| match error {
                PlatformError::Engine(cause) => TransferError::Engine(cause),
                readable => TransferError::Role(readable.to_string()),
            })?;
        let inside = Interface {
            networks: &self.networks,
            scope: &of.scope,
            via,
        };
        let servers = name_servers(&vpc);
        let way = Oracle {
            networks: &self.networks,
            vpc,
            via,
        };
        let mut client = Client {
            inside: &inside,
            way: &way,
            secure: &self.secure,
            settings: &self.settings,
            clock: &*self.clock,
            ids: &*self.ids,
            keys: Keys {
                access_key_id: keys.access_key_id,
                secret: keys.secret,
                token: keys.token,
            },
            region: of.scope.region.as_str(),
            servers,
            connection: self.open(via),
            cut: Arc::clone(&cut),
        };
        let done = act(&mut client);
        if let Some(connection) = client.connection.take() {
            self.keep(via, connection);
        }
        done.or_else(|error| {
            // Whatever broke, broke because of that.
            ended(cut.why())?;
            Err(failed(about, error))
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<Via, Vec<(Timestamp, Connection)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, via: Via) -> Option<Connection> {
        let now = self.clock.now();
        let mut all = self.idle();
        let own = all.get_mut(&via)?;
        own.retain(|(since, _)| now.since(*since) < FRESH);
        own.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, via: Via, connection: Connection) {
        let now = self.clock.now();
        let mut all = self.idle();
        let own = all.entry(via).or_default();
        if own.len() < KEPT {
            own.push((now, connection));
        }
    }

    /// Closes what is open from an interface that is about to go.
    pub fn leave(&self, via: Via) {
        self.idle().remove(&via);
    }

    /// See [`isolarium_reconcile::Transfer`] for this and the following ones.
    pub(crate) fn list(&self, of: &Actor, via: Via, prefix: &S3Uri) -> Result<Vec<ObjectEntry>, TransferError> {
        self.with(of, via, prefix, |client| client.list(prefix))
    }

    pub(crate) fn read(&self, of: &Actor, via: Via, object: &S3Uri, max: usize) -> Result<Vec<u8>, TransferError> {
        let mut bytes = Vec::new();
        let most = u64::try_from(max).unwrap_or(u64::MAX);
        self.with(of, via, object, |client| client.get(object, &mut bytes, most))?;
        Ok(bytes)
    }

    pub(crate) fn open_object(
        &self,
        of: &Actor,
        via: Via,
        object: &S3Uri,
        copies: Option<BorrowedFd<'_>>,
    ) -> Result<File, TransferError> {
        let mut file = match copies {
            None => self.nameless().map_err(disk)?,
            Some(volume) => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let made = rustix::fs::openat(volume, ".", flags, Mode::RUSR | Mode::WUSR);
                File::from(made.map_err(|error| disk(error.into()))?)
            }
        };
        self.with(of, via, object, |client| client.get(object, &mut file, u64::MAX))?;
        file.rewind().map_err(disk)?;
        Ok(file)
    }

    pub(crate) fn fetch(&self, of: &Actor, via: Via, object: &S3Uri, to: &Path) -> Result<(), TransferError> {
        let mut file = File::options().write(true).create_new(true).open(to).map_err(disk)?;
        self.with(of, via, object, |client| client.get(object, &mut file, u64::MAX))?;
        // Every user of the container may read it, whatever the umask.
        let readable = std::fs::Permissions::from_mode(0o444);
        file.flush().and_then(|()| file.set_permissions(readable)).map_err(disk)
    }

    pub(crate) fn put(&self, of: &Actor, via: Via, object: &S3Uri, from: &Path) -> Result<(), TransferError> {
        let file = File::open(from).map_err(disk)?;
        self.with(of, via, object, |client| {
            client.put(object, &file, of.kms_key.as_deref())
        })
    }

    pub(crate) fn delete(&self, of: &Actor, via: Via, object: &S3Uri) -> Result<(), TransferError> {
        self.with(of, via, object, |client| client.delete(object))
    }

    /// A file that is gone when it is closed, also after a crash of this process.
    fn nameless(&self) -> io::Result<File> {
        let path = self.directory.join(format!("download-{}", self.ids.hex(16)));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

/// What a cut means for the owner of the job.
fn ended(why: Option<Why>) -> Result<(), TransferError> {
    match why {
        None => Ok(()),
        Some(Why::Unwanted) => Err(TransferError::Cut),
        Some(Why::TooLong(limit)) => Err(TransferError::Unusable(format!(
            "moving the data through the subnet took longer than {} seconds",
            limit.as_secs()
        ))),
    }
}

fn disk(error: io::Error) -> TransferError {
    TransferError::Engine(Box::new(S3Error::Disk(error)))
}

/// What the failure means for the owner of the job.
fn failed(about: &S3Uri, error: S3Error) -> TransferError {
    // SM-64, and behind it what is missing, where that is known.
    let no_path = |why: Option<String>| match why {
        Some(why) => TransferError::NoPath(format!("{NO_PATH} Cause: {why}.")),
        None => TransferError::NoPath(NO_PATH.into()),
    };
    match error {
        S3Error::NoPath { to, why } => no_path(why.map(|why| format!("S3 at {to} is not reached: {why}"))),
        S3Error::Name { name, cause, why } => no_path(Some(match why {
            Some(why) => format!("the name {name} is not resolved: {why}"),
            None => format!("the name {name} is not resolved: {cause}"),
        })),
        S3Error::Refused { code, message } if code == "AccessDenied" => TransferError::Denied(message),
        S3Error::Refused { ref code, .. }
            if matches!(code.as_str(), "InternalError" | "SlowDown" | "ServiceUnavailable") =>
        {
            TransferError::Engine(error.into())
        }
        S3Error::Refused { message, .. } => TransferError::Unusable(format!("\"{about}\": {message}")),
        // A connection that is cut by a changed rule or route says nothing but that it broke (NET-68).
        S3Error::Broken(cause) => no_path(Some(format!("the connection to S3 broke ({cause})"))),
        S3Error::Dial(DialError::Host(ExecutorError::Unreachable(text))) => TransferError::Away(text),
        S3Error::Dial(_) | S3Error::Disk(_) | S3Error::Request(_) => TransferError::Engine(error.into()),
    }
}
