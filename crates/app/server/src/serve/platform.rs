//! What the engine serves inside the platform network: credentials, names, and the public services under their public
//! names. `node` opens the sockets there and passes them over.

use crate::cli::config::{Config, UplinkSetting, UplinkWord};
use crate::credentials::{Asker, Credentials};
use crate::http::listen::{Answering, ConnectionLimits, Handler, Listener, Peer};
use crate::lanes::Lanes;
use crate::names;
use crate::resolver::answer::Zone;
use crate::resolver::{Forwarder, OpenSocket, Resolver, host_upstream};
use crate::vpc::PublicNames;
use http::Request;
use hyper::body::Incoming;
use isolarium_netplan::compile::CREDENTIALS;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Transport};
use isolarium_node::NodeHost;
use isolarium_runtime::executor::ExecutorError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};

const HTTP: u16 = 80;
const HTTPS: u16 = 443;
const DNS: u16 = 53;

/// Why the platform network's services did not start.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("the platform network could not be set up")]
    Network(#[source] ExecutorError),
    #[error("no socket on {address}:{port} inside the platform network")]
    Listen {
        address: IpAddr,
        port: u16,
        #[source]
        source: ExecutorError,
    },
    #[error("a socket of the platform network cannot be used")]
    Adopt(#[source] io::Error),
}

/// The sockets, open and not yet served.
pub struct Sockets {
    credentials: TcpListener,
    dns_udp: UdpSocket,
    dns_tcp: TcpListener,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
}

fn listen(host: &dyn NodeHost, address: Ipv4Addr, port: u16, transport: Transport) -> Result<OwnedFd, PlatformError> {
    let address = IpAddr::V4(address);
    host.listen(&ListenerSpec {
        address,
        port,
        transport,
    })
    .map_err(|source| PlatformError::Listen { address, port, source })
}

fn tcp(host: &dyn NodeHost, address: Ipv4Addr, port: u16) -> Result<TcpListener, PlatformError> {
    let socket = std::net::TcpListener::from(listen(host, address, port, Transport::Tcp)?);
    socket
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(socket))
        .map_err(PlatformError::Adopt)
}

impl Sockets {
    /// Sets the network up and opens every socket. Blocks; needs a tokio runtime around it.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn open(host: &dyn NodeHost, network: &HostNetwork) -> Result<Self, PlatformError> {
        host.ensure_network(network).map_err(PlatformError::Network)?;
        let resolver = network.resolver();
        let udp = std::net::UdpSocket::from(listen(host, resolver, DNS, Transport::Udp)?);
        let dns_udp = udp
            .set_nonblocking(true)
            .and_then(|()| UdpSocket::from_std(udp))
            .map_err(PlatformError::Adopt)?;
        let addresses = names::addresses(network.services, network.s3_prefix_list);
        let all = |port| {
            addresses
                .iter()
                .map(|address| tcp(host, *address, port))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            credentials: tcp(host, CREDENTIALS, HTTP)?,
            dns_udp,
            dns_tcp: tcp(host, resolver, DNS)?,
            http: all(HTTP)?,
            https: all(HTTPS)?,
        })
    }

    /// The listeners of everything that speaks HTTP; `door` answers for the services.
    pub fn listeners(
        self,
        door: &Arc<dyn Handler>,
        credentials: Arc<Credentials>,
        tls: &Arc<rustls::ServerConfig>,
        limits: ConnectionLimits,
        lanes: &Arc<Lanes>,
        resolver: Arc<Resolver>,
    ) -> Vec<Listener> {
        tokio::spawn(report(resolver.clone().serve_udp(self.dns_udp)));
        tokio::spawn(report(resolver.serve_tcp(self.dns_tcp)));
        let plain = |socket, handler: Arc<dyn Handler>| Listener {
            socket,
            tls: None,
            handler,
            limits,
            lanes: Some(lanes.clone()),
        };
        let mut all = vec![plain(self.credentials, Arc::new(CredentialsHandler(credentials)))];
        all.extend(self.http.into_iter().map(|socket| plain(socket, door.clone())));
        all.extend(self.https.into_iter().map(|socket| Listener {
            socket,
            tls: Some(tls.clone()),
            handler: door.clone(),
            limits,
            lanes: Some(lanes.clone()),
        }));
        all
    }
}

async fn report(serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the name server of the platform network stopped");
    }
}

struct CredentialsHandler(Arc<Credentials>);

impl Handler for CredentialsHandler {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let from = match peer.address {
            IpAddr::V4(address) => Asker::Platform(address),
            IpAddr::V6(_) => Asker::Nobody,
        };
        Box::pin(self.0.clone().serve(from, request))
    }
}

/// The public names as containers see them.
pub fn public_names(config: &Config) -> PublicNames {
    PublicNames {
        regions: config.regions.clone(),
        services: config.network.services,
        s3_prefix_list: config.network.s3_prefix_list,
        endpoints: Arc::default(),
        zone_rule: config.ec2.runtime_zone_rule,
    }
}

/// The name server of the platform network.
pub fn resolver(public: &PublicNames, forwarder: Arc<Forwarder>) -> Arc<Resolver> {
    let zone = Zone {
        regions: public.regions.clone(),
        services: public.services,
        s3_prefix_list: public.s3_prefix_list,
        endpoints: public.endpoints.clone(),
        vpc: None,
    };
    Resolver::new(Arc::new(zone), forwarder)
}

/// Asks for names that are not the engine's, from inside the platform network, whoever wants to know.
pub fn forwarder(config: &Config, host: &Arc<dyn NodeHost>) -> Arc<Forwarder> {
    let host = host.clone();
    let open: OpenSocket = Arc::new(move || {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let socket = host.listen(&ListenerSpec {
            address,
            port: 0,
            transport: Transport::Udp,
        });
        socket.map(std::net::UdpSocket::from).map_err(io::Error::other)
    });
    Arc::new(Forwarder::new(
        upstream(config),
        config.resolver.timeout.duration(),
        open,
    ))
}

/// The configured name servers, or the host's own where the host is the uplink.
fn upstream(config: &Config) -> Vec<SocketAddr> {
    if !config.resolver.upstream.is_empty() {
        return config.resolver.upstream.clone();
    }
    match config.uplink {
        UplinkSetting::Word(UplinkWord::Host) => {
            let servers = host_upstream(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
            if servers.is_empty() {
                tracing::warn!("the host has no name server that containers can reach; set resolver.upstream");
            }
            servers
        }
        UplinkSetting::Word(UplinkWord::None) | UplinkSetting::Netns(_) => Vec::new(),
    }
}
