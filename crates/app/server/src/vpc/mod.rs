//! What the engine serves inside VPCs: the resolver (NET-50), S3 for gateway endpoints (NET-32), interface endpoints (NET-40) and
//! container credentials (CC-80). `node` opens the sockets inside each VPC's router and passes them over; requests are answered here, by what
//! the VPC is at that moment.

mod endpoint;
mod gate;
mod view;

#[cfg(test)]
mod tests;

use crate::credentials::{Asker, Credentials};
use crate::http::door::Door as FrontDoor;
use crate::http::listen::{Answering, ConnectionLimits, Handler, Listener, Peer};
use crate::resolver::{Audience, Forwarder, Resolver, Sight};
use crate::tls::{Certificates, server_config};
use endpoint::{EndpointGate, Shown};
use gate::S3Gate;
use http::Request;
use hyper::body::Incoming;
use isolarium_model::Scope;
use isolarium_netplan::id::VpcId;
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::CheckedVpc;
use isolarium_reconcile::network::Doors;
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::vpcs::{Door, Vpcs};
use isolarium_store::StateStore;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
pub use view::{PublicNames, View};

/// Connections of one listener in a VPC: there may be hundreds of them beside the public ones.
const CONNECTIONS: usize = 1024;
/// Connections of one interface at one door: a container cannot take S3 or credentials from its neighbours, whose
/// transfers come through the same doors.
const CONNECTIONS_EACH: usize = 128;

/// What all VPCs' doors share.
pub struct Behind {
    pub host: Arc<dyn Vpcs>,
    pub store: Arc<dyn StateStore>,
    /// Answers what comes through endpoints. Containers are no callers from this machine.
    pub front: Arc<FrontDoor>,
    /// Shows certificates for S3's names alone.
    pub tls: Arc<rustls::ServerConfig>,
    /// Of interface endpoints.
    pub certificates: Arc<Certificates>,
    pub credentials: Arc<Credentials>,
    pub forwarder: Arc<Forwarder>,
    pub public: PublicNames,
    pub limits: ConnectionLimits,
    /// The runtime that serves; the loops call from threads of their own.
    pub runtime: tokio::runtime::Handle,
}

/// The doors of every VPC that stands on the host.
pub struct VpcDoors {
    behind: Arc<Behind>,
    open: Mutex<HashMap<VpcId, Arc<Mutex<Open>>>>,
}

/// One VPC's doors.
struct Open {
    live: Arc<Live>,
    resolver: Arc<Resolver>,
    doors: BTreeMap<Door, Served>,
}

/// A VPC as it is now; shared by everything that serves it.
struct Live(RwLock<Arc<View>>);

impl Live {
    fn now(&self) -> Arc<View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Audience for Arc<Live> {
    /// Interfaces of the VPC are answered while its DNS support is on, and nobody else (NET-50).
    fn zone_of(&self, client: IpAddr) -> Option<Sight> {
        let view = self.now();
        view.interface_at(client)?;
        Some(Sight {
            zone: view.zone()?,
            at: view.zone_at(client).map(str::to_owned),
        })
    }
}

/// A socket that is being served.
struct Served {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Served {
    fn stop(self) {
        // Nobody listens any more where the task has ended by itself.
        let _ = self.stop.send(true);
    }
}

impl VpcDoors {
    /// Nothing is open yet.
    pub fn new(behind: Behind) -> Self {
        Self {
            behind: Arc::new(behind),
            open: Mutex::default(),
        }
    }

    /// Every VPC that stands on the host, as it is now.
    pub fn views(&self) -> Vec<Arc<View>> {
        let all: Vec<_> = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        all.iter()
            .map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).live.now())
            .collect()
    }

    fn slot(&self, view: &Arc<View>) -> Arc<Mutex<Open>> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let live = Arc::new(Live(RwLock::new(view.clone())));
            Arc::new(Mutex::new(Open {
                resolver: Resolver::new(live.clone(), self.behind.forwarder.clone()),
                live,
                doors: BTreeMap::new(),
            }))
        };
        all.entry(view.vpc().id).or_insert_with(fresh).clone()
    }
}

impl Doors for VpcDoors {
    fn open(&self, scope: &Scope, vpc: &Arc<CheckedVpc>) -> Result<(), ExecutorError> {
        let view = Arc::new(View::of(scope, vpc, &self.behind.public));
        let slot = self.slot(&view);
        let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
        *open.live.0.write().unwrap_or_else(PoisonError::into_inner) = view.clone();
        let wanted = view.doors();
        let gone: Vec<Door> = open
            .doors
            .keys()
            .filter(|door| !wanted.contains(*door))
            .copied()
            .collect();
        for door in gone {
            if let Some(served) = open.doors.remove(&door) {
                served.stop();
            }
        }
        for door in wanted {
            if open.doors.get(&door).is_some_and(|served| !served.task.is_finished()) {
                continue;
            }
            let socket = self.behind.host.listen_vpc(vpc.id, door)?;
            let served = self.behind.serve(door, socket, &open)?;
            open.doors.insert(door, served);
        }
        self.behind.public.endpoints.replace(vpc.id, view.published());
        Ok(())
    }

    fn close(&self, vpc: VpcId) {
        let slot = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&vpc);
        self.behind.public.endpoints.replace(vpc, Vec::new());
        let Some(slot) = slot else { return };
        let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
        for served in std::mem::take(&mut open.doors).into_values() {
            served.stop();
        }
    }
}

impl Behind {
    fn serve(&self, door: Door, socket: OwnedFd, open: &Open) -> Result<Served, ExecutorError> {
        let unusable = |error: io::Error| ExecutorError::Host(format!("a socket of a VPC cannot be used: {error}"));
        // Sockets are registered with the runtime that serves them.
        let _entered = self.runtime.enter();
        let (stop, stopping) = watch::channel(false);
        let limits = ConnectionLimits {
            connections: self.limits.connections.min(CONNECTIONS),
            // Interfaces of jobs have one address each.
            each: Some(CONNECTIONS_EACH),
            ..self.limits
        };
        let listener = |handler: Arc<dyn Handler>, tls: Option<Arc<rustls::ServerConfig>>, socket| {
            Ok::<_, ExecutorError>(Listener {
                socket: tcp(socket).map_err(unusable)?,
                tls,
                handler,
                limits,
                lanes: None,
            })
        };
        let task = match door {
            Door::Resolver { transport, .. } => {
                let resolver = open.resolver.clone();
                match transport {
                    Transport::Udp => {
                        let socket = udp(socket).map_err(unusable)?;
                        self.runtime.spawn(until(stopping, resolver.serve_udp(socket)))
                    }
                    Transport::Tcp => {
                        let socket = tcp(socket).map_err(unusable)?;
                        self.runtime.spawn(until(stopping, resolver.serve_tcp(socket)))
                    }
                }
            }
            Door::S3 { port } => {
                let gate = Arc::new(S3Gate {
                    live: open.live.clone(),
                    store: self.store.clone(),
                    front: self.front.clone(),
                });
                let tls = (port == 443).then(|| self.tls.clone());
                self.runtime.spawn(listener(gate, tls, socket)?.run(stopping))
            }
            Door::Endpoint { address } => {
                let gate = Arc::new(EndpointGate {
                    live: open.live.clone(),
                    address,
                    store: self.store.clone(),
                    front: self.front.clone(),
                });
                let shown = Shown {
                    live: open.live.clone(),
                    address,
                    certificates: self.certificates.clone(),
                };
                let tls = server_config(Arc::new(shown)).map_err(|error| ExecutorError::Host(error.to_string()))?;
                self.runtime.spawn(listener(gate, Some(tls), socket)?.run(stopping))
            }
            Door::Credentials => {
                let handler = Arc::new(CredentialsDoor {
                    live: open.live.clone(),
                    credentials: self.credentials.clone(),
                });
                self.runtime.spawn(listener(handler, None, socket)?.run(stopping))
            }
        };
        Ok(Served { stop, task })
    }
}

/// Serves until it fails or is stopped.
async fn until(mut stop: watch::Receiver<bool>, serving: impl Future<Output = io::Result<()>>) {
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::error!(%error, "a VPC's name server stopped; it is opened again with the next change");
        },
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

fn tcp(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn udp(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// 169.254.170.2 inside a VPC.
struct CredentialsDoor {
    live: Arc<Live>,
    credentials: Arc<Credentials>,
}

impl Handler for CredentialsDoor {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let view = self.live.now();
        let from = match view.interface_at(peer.address) {
            Some((id, _)) => Asker::Interface(isolarium_model::ec2::key(view.scope(), id)),
            None => Asker::Nobody,
        };
        Box::pin(self.credentials.clone().serve(from, request))
    }
}
