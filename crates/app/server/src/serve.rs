//! The wiring: the only place where concrete types meet.

mod acting;
mod housekeeping;
mod no_node;
pub mod platform;
mod stores;

#[cfg(test)]
mod tests;

pub use no_node::NoNode;

use crate::cli::config::{Config, ImageAliasSetting, UnknownKeys};
use crate::clock::{SystemClock, SystemIds};
use crate::credentials::{Assume, Credentials, Lifetimes, Session, SessionError};
use crate::flows::{FlowLogs, FlowSettings};
use crate::http::authenticate::Acceptance;
use crate::http::door::{Door, Engine, RequestLimits};
use crate::http::listen::{ConnectionLimits, Handler, Listener};
use crate::http::registry::{ByPolicy, RegistryPart};
use crate::http::s3::S3Part;
use crate::invoke::{InvokeSettings, Proxy};
use crate::lanes::Lanes;
use crate::layout::{self, Layout, LayoutError};
use crate::metrics::Collector;
use crate::metrics::listener::MetricsPage;
use crate::metrics::prometheus::Exposition;
use crate::metrics::tally::Tally;
use crate::notebook::{self, NotebookPart};
use crate::operator::answer::Operator;
use crate::operator::profiles;
use crate::operator::server::OperatorSocket;
use crate::proxy::refusals::Refusals;
use crate::proxy::{self, TUNNELS};
use crate::registry::Distribution;
use crate::tls::{Authority, Certificates, TlsError, server_config};
use crate::transfer::{self, Secure, SubnetS3};
use crate::vpc::{Behind, VpcDoors};
use acting::AsTransfer;
pub(crate) use acting::actor as platform_actor;
use isolarium_model::Scope;
use isolarium_model::ec2::prefix_list;
use isolarium_model::time::{Clock, IdSource};
use isolarium_netplan::flowlog::Ranges;
use isolarium_node::NodeHost;
use isolarium_reconcile::driver::StartError as DriverError;
use isolarium_reconcile::network::{Doors, Networks, NoDoors, ServiceRanges};
use isolarium_reconcile::settings::{NotebookProgram, Updates};
use isolarium_reconcile::{Deps, Driver, Fleets, ReconcileSettings, Scheduler, WorkDir};
use isolarium_runtime::executor::ExecutorError;
use isolarium_services::Dispatch;
use isolarium_services::audit::{self, Inquiry};
use isolarium_services::iam::credentials::{
    AssumeError, ExecutionRole, SessionCredentials, StoredIdentities, assume_execution_role,
};
use isolarium_services::iam::operator::KeyError;
use isolarium_services::kms::through::KeyStore;
use isolarium_services::platform::Actor;
use isolarium_services::platform::PlatformSettings;
use isolarium_services::platform::acts::PlatformAudit;
use isolarium_services::platform::image_aliases::{ImageAlias, ImageAliases};
use isolarium_services::platform::managed_images::ManagedImages;
use isolarium_services::platform::roles::ExecutionRoles;
use isolarium_services::s3::{FileAccessLog, S3Front, S3Wiring};
use isolarium_store::{AuditError, AuditSettings, AuditTrail, Keep};
use platform::{PlatformError, Sockets};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use stores::{Stores, StoresError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Why the server did not start. Every text says what the operator should do, or names the place.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Stores(#[from] StoresError),
    #[error("the certificate authority is not usable")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}; another server may be running, or the address is not this host's")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("no threads to serve connections; raise the limit of processes (ulimit -u)")]
    Lanes(#[source] io::Error),
    #[error("the root key could not be made")]
    RootKey(#[source] KeyError),
    #[error("the default VPC could not be made")]
    DefaultVpc(#[source] isolarium_wire::ApiError),
    #[error("the credentials file could not be written")]
    Credentials(#[source] ExecutorError),
    #[error("what the machine has cannot be read, which capacity = \"host\" needs; give numbers instead")]
    Capacity(#[source] io::Error),
    #[error("the platform network is not usable")]
    Platform(#[from] PlatformError),
    #[error("the loops of jobs and endpoints did not start")]
    Driver(#[from] DriverError),
    #[error("the audit trail cannot be used; `isolarium audit-log verify` says what is wrong with it")]
    Audit(#[from] AuditError),
    #[error("cannot write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    listening: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    driver: Driver,
    lanes: Arc<Lanes>,
    drain: std::time::Duration,
    layout: Layout,
    collector: Arc<Collector>,
}

impl Server {
    /// Starts everything; it answers when this returns. `host` is the machine, `None` where nothing privileged helps:
    /// then jobs and endpoints are accepted and fail.
    ///
    /// # Errors
    /// The first step that failed; nothing is left running.
    pub async fn start(config: Config, host: Option<Arc<dyn NodeHost>>) -> Result<Self, StartError> {
        let mut capacity = config.capacity.of_host().map_err(StartError::Capacity)?;
        capacity.accelerators = accelerators(&config);
        let layout = Layout::open(&config.data_dir)?;
        let file = |path: PathBuf| move |source| StartError::File { path, source };
        let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(SystemIds));
        let (socket, address) = bind_again(config.listen, &layout).await?;
        let url = format!("http://{address}");
        let stores = Stores::open(&layout, &url)?;
        let home = Scope {
            account: config.account.clone(),
            region: config.default_region().clone(),
        };
        let has_node = host.is_some();
        let host: Arc<dyn NodeHost> = host.unwrap_or_else(|| Arc::new(NoNode::new(layout.root())));
        ensure_root_key(&stores, &config, &layout, host.as_ref(), clock.as_ref(), ids.as_ref())?;
        default_vpcs(&config, &stores, clock.as_ref(), ids.as_ref())?;
        let trail = open_trail(&config, &layout, &clock)?;
        let s3 =
            s3_front(&config, &trail, &stores, &layout, &clock, &ids).map_err(file(layout.at("logs/s3-access.log")))?;
        let roles = Arc::new(ExecutionRoles {
            store: stores.state.clone(),
            logs: stores.logs.clone(),
            metrics: stores.metrics.clone(),
            s3: s3.clone(),
            registry: stores.registry.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            settings: platform_settings(&config),
            audit: PlatformAudit::new(trail.clone()),
            source: address.ip(),
        });
        let engine = Arc::new(Engine {
            dispatch: Dispatch::default(),
            store: stores.state.clone(),
            logs: stores.logs.clone(),
            metrics: stores.metrics.clone(),
            registry: stores.registry.clone(),
            platform: roles.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            master: stores.master.clone(),
            audit: trail.clone(),
        });
        let authority = Arc::new(Authority::open(&layout.at("ca"), clock.now())?);
        let fleets = Arc::new(Fleets::default());
        let tally = Arc::new(Tally::default());
        let collector = Arc::new(Collector::new(tally.clone(), stores.metrics.clone(), clock.clone()));
        let door = |config: &Config| {
            let routes = (&fleets, &tally);
            Arc::new(door(config, &engine, &stores, s3.clone(), routes, &host, &home))
        };
        let limits = ConnectionLimits {
            head: usize::try_from(config.limits.request_head).unwrap_or(usize::MAX),
            head_timeout: config.limits.head_timeout.duration(),
            connections: most_connections(config.limits.connections),
            each: None,
        };
        let lanes = Arc::new(Lanes::start(config.serve.threads).map_err(StartError::Lanes)?);
        let handler: Arc<dyn Handler> = door(&config);
        let plain = |socket| Listener {
            socket,
            tls: None,
            handler: handler.clone(),
            limits,
            lanes: Some(lanes.clone()),
        };
        let mut listeners = vec![plain(socket)];
        let certificates = |addresses: &[std::net::IpAddr]| {
            Arc::new(Certificates::new(
                authority.clone(),
                clock.clone(),
                &config.regions,
                addresses,
            ))
        };
        let mut tls_address = None;
        if let Some(wanted) = config.tls_listen {
            let (socket, bound) = bind(wanted).await?;
            tls_address = Some(bound);
            let tls = Some(server_config(certificates(&[bound.ip()]))?);
            listeners.push(Listener {
                socket,
                tls,
                handler: handler.clone(),
                limits,
                lanes: Some(lanes.clone()),
            });
        }
        let (stop, _) = watch::channel(false);
        let refusals = Arc::new(Refusals::default());
        let mut proxy_address = None;
        let mut draining = Vec::new();
        if let Some(wanted) = config.proxy_listen {
            let (socket, bound) = bind(wanted).await?;
            proxy_address = Some(bound);
            let tunnels = Arc::new(Semaphore::new(TUNNELS));
            draining.push(tokio::spawn(proxy::Proxy::drained(
                tunnels.clone(),
                TUNNELS,
                stop.subscribe(),
            )));
            let handler = Arc::new(proxy::Proxy {
                front: handler.clone(),
                tls: server_config(certificates(&[]))?,
                regions: config.regions.clone(),
                limits,
                tunnels,
                stop: stop.subscribe(),
                refusals: refusals.clone(),
                clock: clock.clone(),
            });
            listeners.push(Listener {
                socket,
                tls: None,
                handler,
                limits,
                lanes: Some(lanes.clone()),
            });
        }
        if let Some(wanted) = config.metrics.listen {
            let (socket, _) = bind(wanted).await?;
            let page = MetricsPage(Arc::new(Exposition {
                collector: collector.clone(),
                store: stores.state.clone(),
                data_dir: config.data_dir.clone(),
            }));
            listeners.push(Listener {
                socket,
                tls: None,
                handler: Arc::new(page),
                limits,
                lanes: None,
            });
        }
        let mut background = vec![tokio::spawn(collector.clone().run(config.metrics.interval.duration()))];
        let mut vpc_doors: Arc<dyn Doors> = Arc::new(NoDoors);
        if has_node {
            let network = config.host_network();
            let sockets = Sockets::open(host.as_ref(), &network)?;
            let credentials = Arc::new(credentials(&config, &stores, &trail, &clock, &ids));
            let tls = server_config(certificates(&[]))?;
            let forwarder = platform::forwarder(&config, &host);
            let public = platform::public_names(&config);
            let resolver = platform::resolver(&public, forwarder.clone());
            // Containers are no callers from this machine: `auth.unknown_keys` is not meant for what they run.
            let mut inside = config.clone();
            inside.auth.unknown_keys = UnknownKeys::Reject;
            let inside = door(&inside);
            let s3_names = Certificates::of_s3(authority.clone(), clock.clone(), &config.regions);
            let doors = Arc::new(VpcDoors::new(Behind {
                host: host.clone(),
                store: stores.state.clone(),
                front: inside.clone(),
                tls: server_config(Arc::new(s3_names))?,
                credentials: credentials.clone(),
                forwarder,
                certificates: certificates(&[]),
                public,
                limits,
                runtime: tokio::runtime::Handle::current(),
            }));
            vpc_doors = doors.clone();
            let flow_logs = flow_logs(&config, &layout, &host, doors, &roles);
            background.push(tokio::spawn(flow_logs.run()));
            let inside: Arc<dyn Handler> = inside;
            listeners.extend(sockets.listeners(&inside, credentials, &tls, limits, &lanes, resolver));
        }
        let networks = Networks::new(stores.state.clone(), host.clone(), vpc_doors, service_ranges(&config));
        let cuts: Arc<isolarium_reconcile::Cuts> = Arc::default();
        let subnet = SubnetS3::new(transfer::Wiring {
            cuts: cuts.clone(),
            roles: roles.clone(),
            master: stores.master.clone(),
            networks: networks.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            secure: Secure::new(authority.certificate()).map_err(TlsError::Refused)?,
            settings: transfer::Settings::default(),
            directory: layout.at("run"),
        });
        let scheduler = Arc::new(Scheduler::new(capacity));
        let driver = Driver::start(Deps {
            store: stores.state.clone(),
            executor: host.clone(),
            archives: host.clone(),
            dial: host.clone(),
            egress: host.clone(),
            transfer: Arc::new(AsTransfer {
                roles,
                subnet,
                executor: host.clone(),
            }),
            networks: networks.clone(),
            cuts,
            clock: clock.clone(),
            ids,
            work: WorkDir::new(layout.at("work")),
            settings: reconcile_settings(&config, &authority),
            fleets,
            scheduler: scheduler.clone(),
            held: Default::default(),
            captured: Default::default(),
            asynchronous: Default::default(),
            seen: Default::default(),
            unpacked: Default::default(),
        })?;
        let listening = listeners
            .into_iter()
            .map(|listener| tokio::spawn(listener.run(stop.subscribe())))
            .chain(draining)
            .collect();
        let retention = config.audit.retention.duration();
        let operator = Arc::new(Operator {
            engine,
            egress: host.clone(),
            networks,
            scheduler,
            proxy: proxy_address,
            refusals,
            home,
            host: host.clone(),
            credentials: Default::default(),
        });
        let operator_path = layout.at("run/operator.sock");
        let operator_socket = OperatorSocket::bind(&operator_path).map_err(file(operator_path))?;
        background.extend([
            tokio::spawn(operator_socket.run(Arc::new(move |ask| operator.reply(ask)))),
            tokio::spawn(housekeeping::keep(stores, clock)),
            tokio::spawn(housekeeping::keep_trail(trail, retention)),
        ]);
        let url_path = layout.at("run/url");
        layout::write_whole(&url_path, format!("{url}\n").as_bytes(), 0o644).map_err(file(url_path))?;
        Ok(Self {
            address,
            tls_address,
            stop,
            listening,
            background,
            driver,
            lanes,
            drain: config.serve.drain.duration(),
            layout,
            collector,
        })
    }

    /// Where the services answer.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the services answer over TLS, if they do.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Takes no new requests, lets the running ones end within the drain limit, then stops the loops. Containers live
    /// on.
    pub async fn stop(self) {
        // Nobody listens to it any more when every listener has ended already.
        let _ = self.stop.send(true);
        let drained = async {
            for listener in self.listening {
                let _ = listener.await;
            }
        };
        if tokio::time::timeout(self.drain, drained).await.is_err() {
            tracing::warn!("requests were still running at the end of serve.drain; they are broken off");
        }
        for task in self.background {
            task.abort();
        }
        let _ = std::fs::remove_file(self.layout.at("run/url"));
        let _ = std::fs::remove_file(self.layout.at("run/operator.sock"));
        let (driver, lanes, collector) = (self.driver, self.lanes, self.collector);
        // Joining their threads blocks until the current steps are done. What the last invocations were like is kept.
        let _ = tokio::task::spawn_blocking(move || {
            drop((lanes, driver));
            collector.put();
        })
        .await;
    }
}

fn flow_logs(
    config: &Config,
    layout: &Layout,
    host: &Arc<dyn NodeHost>,
    doors: Arc<VpcDoors>,
    roles: &Arc<ExecutionRoles>,
) -> Arc<FlowLogs> {
    Arc::new(FlowLogs {
        host: host.clone(),
        views: Arc::new(move || doors.views()),
        store: roles.store.clone(),
        roles: roles.clone(),
        clock: roles.clock.clone(),
        ranges: Ranges {
            s3: vec![config.network.s3_prefix_list],
            amazon: vec![config.network.services],
        },
        folder: layout.at("flows"),
        settings: FlowSettings {
            read: config.flow_logs.read.duration(),
            minute: config.flow_logs.minute.duration(),
        },
    })
}

/// Connections a listener takes: half of the files this process may have open are left for everything else, so that
/// idle clients cannot take what a request needs.
fn most_connections(configured: usize) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = files
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX)
        / 2;
    if half < configured {
        tracing::warn!(
            configured,
            taken = half,
            "limits.connections is cut: raise the limit of open files (ulimit -n)"
        );
    }
    configured.min(half)
}

/// As [`bind`]. Where any free port will do, the one of a process that was killed is taken again, so that its clients
/// find their server: a process that stops by itself removes `run/url`.
async fn bind_again(address: SocketAddr, layout: &Layout) -> Result<(TcpListener, SocketAddr), StartError> {
    let before = layout::left_address(layout.root()).filter(|before| before.ip() == address.ip());
    if address.port() == 0
        && let Some(before) = before
        && let Ok(bound) = bind(before).await
    {
        return Ok(bound);
    }
    bind(address).await
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// The root key of the default account, and the file that tells it and those of the other accounts to whoever started the
/// engine. A file that is gone is written again.
fn ensure_root_key(
    stores: &Stores,
    config: &Config,
    layout: &Layout,
    host: &dyn NodeHost,
    clock: &dyn Clock,
    ids: &dyn IdSource,
) -> Result<(), StartError> {
    let store = stores.state.as_ref();
    if !profiles::has_root_key(store, &config.account).map_err(StoresError::from)? {
        isolarium_services::iam::operator::create_root_key(store, clock, ids, &config.account)
            .map_err(StartError::RootKey)?;
    } else if layout.at("credentials").exists() {
        return Ok(());
    }
    let text = profiles::text(store, &config.account).map_err(StoresError::from)?;
    host.write_credentials(&text).map_err(StartError::Credentials)
}

fn identities(stores: &Stores) -> Arc<StoredIdentities> {
    Arc::new(StoredIdentities {
        store: stores.state.clone(),
        master: stores.master.clone(),
    })
}

fn s3_front(
    config: &Config,
    trail: &Arc<AuditTrail>,
    stores: &Stores,
    layout: &Layout,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> io::Result<S3Front> {
    let (store, now) = (stores.state.clone(), clock.clone());
    Ok(S3Front::new(S3Wiring {
        objects: stores.objects.clone(),
        clock: clock.clone(),
        authorities: Arc::new(move |caller: &isolarium_services::Caller| {
            isolarium_services::iam::authority_of(store.as_ref(), caller, now.now())
                .map_err(isolarium_wire::ApiError::internal)
        }),
        keys: Arc::new(KeyStore {
            store: stores.state.clone(),
            master: stores.master.clone(),
            ids: ids.clone(),
            clock: clock.clone(),
        }),
        identities: identities(stores),
        audit: trail.clone(),
        access_log: Arc::new(FileAccessLog::open(&layout.at("logs/s3-access.log"))?),
        base_hosts: Vec::new(),
        regions: config.regions.clone(),
    }))
}

fn door(
    config: &Config,
    engine: &Arc<Engine>,
    stores: &Stores,
    s3: S3Front,
    (fleets, tally): (&Arc<Fleets>, &Arc<Tally>),
    host: &Arc<dyn NodeHost>,
    home: &Scope,
) -> Door {
    let identities = identities(stores);
    let acceptance = Acceptance {
        regions: config.regions.clone(),
        skew: i64::try_from(config.auth.clock_skew.duration().as_secs()).unwrap_or(i64::MAX),
        unknown_keys_are_root_of: (config.auth.unknown_keys == UnknownKeys::Root).then(|| config.account.clone()),
        sigv2_query: config.auth.s3_presigned_v2,
    };
    let pause = config.limits.body_idle_timeout.duration();
    let invoke = InvokeSettings {
        timeout: config.invoke.timeout.duration(),
        stream_timeout: config.invoke.stream_timeout.duration(),
        connect_timeout: config.invoke.connect_timeout.duration(),
        body_limit: usize::try_from(config.limits.invoke_body).unwrap_or(usize::MAX),
        idle_connections: config.invoke.idle_connections,
    };
    Door {
        engine: engine.clone(),
        identities: identities.clone(),
        acceptance: acceptance.clone(),
        account: home.account.clone(),
        limits: RequestLimits {
            head: usize::try_from(config.limits.request_head).unwrap_or(usize::MAX),
            request: config.limits.request_body,
            invoke: config.limits.invoke_body,
            pause,
        },
        proxy: Arc::new(Proxy::new(fleets.clone(), stores.state.clone(), host.clone(), invoke).counting(tally.clone())),
        notebooks: Arc::new(NotebookPart {
            engine: engine.clone(),
            dial: host.clone(),
            settings: config.notebook_settings(),
            port: config.notebooks.port,
            connect_timeout: config.invoke.connect_timeout.duration(),
            pause,
            sockets: Arc::new(Semaphore::new(notebook::MOST_SOCKETS)),
        }),
        s3: Arc::new(S3Part {
            front: s3,
            identities,
            acceptance,
            clock: engine.clock.clone(),
            audit: engine.audit.clone(),
            home: home.clone(),
            pause,
        }),
        registry: Arc::new(RegistryPart {
            distribution: Arc::new(Distribution {
                registry: stores.registry.clone(),
                store: stores.state.clone(),
                clock: engine.clock.clone(),
                ids: engine.ids.clone(),
                audit: engine.audit.clone(),
                permit: Arc::new(ByPolicy {
                    store: stores.state.clone(),
                    clock: engine.clock.clone(),
                }),
            }),
            home: home.clone(),
            pause,
        }),
    }
}

/// The default VPCs that the operator wants (NET-6).
fn default_vpcs(config: &Config, stores: &Stores, clock: &dyn Clock, ids: &dyn IdSource) -> Result<(), StartError> {
    if !config.ec2.default_vpc {
        return Ok(());
    }
    let settings = config.ec2_settings();
    for region in &config.regions {
        let scope = Scope {
            account: config.account.clone(),
            region: region.clone(),
        };
        isolarium_services::ec2::default_vpc::ensure(stores.state.as_ref(), clock, ids, &settings, &scope)
            .map_err(StartError::DefaultVpc)?;
    }
    Ok(())
}

fn open_trail(config: &Config, layout: &Layout, clock: &Arc<dyn Clock>) -> Result<Arc<AuditTrail>, AuditError> {
    let settings = AuditSettings {
        queue_bytes: usize::try_from(config.audit.queue_bytes).unwrap_or(usize::MAX),
        sync_interval: config.audit.sync_interval.duration(),
        ..AuditSettings::default()
    };
    AuditTrail::open(&layout.at("audit"), settings, clock.clone()).map(Arc::new)
}

/// Tells of credentials that a container gets; they leave after their event.
fn tell_assumption(
    trail: &AuditTrail,
    wanted: &ExecutionRole<'_>,
    made: &Result<SessionCredentials, AssumeError>,
    clock: &dyn Clock,
) -> Result<(), SessionError> {
    let actor = Actor {
        scope: wanted.scope.clone(),
        role_arn: wanted.role_arn.clone(),
        owner_arn: wanted.source_arn.clone(),
    };
    let (key, error) = match made {
        Ok(made) => (Some(made.access_key_id.as_str()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let id = crate::clock::request_id();
    let event = audit::of_assumption(&actor, key, error.as_deref(), wanted.inquiry, &id, clock.now());
    let keep = if error.is_some() { Keep::Refusal } else { Keep::Change };
    match (trail.submit(event, keep).wait(), made) {
        (Err(down), Ok(_)) => Err(SessionError::Engine(down.into())),
        _ => Ok(()),
    }
}

/// The name of execution roles' sessions (CC-81).
const SESSION_NAME: &str = "SageMaker";

fn credentials(
    config: &Config,
    stores: &Stores,
    trail: &Arc<AuditTrail>,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> Credentials {
    let trail = trail.clone();
    let (store, master) = (stores.state.clone(), stores.master.clone());
    let (now, chance) = (clock.clone(), ids.clone());
    let assume: Assume = Arc::new(move |scope, role_arn, owner_arn, lasts| {
        let inquiry = Inquiry::acting_for(owner_arn.as_str());
        let wanted = ExecutionRole {
            role_arn,
            scope,
            source_arn: owner_arn,
            session_name: SESSION_NAME,
            lasts,
            inquiry: &inquiry,
        };
        let made = assume_execution_role(store.as_ref(), &master, now.as_ref(), chance.as_ref(), &wanted);
        tell_assumption(&trail, &wanted, &made, now.as_ref())?;
        match made {
            Ok(made) => Ok(Session {
                access_key_id: made.access_key_id,
                secret_access_key: made.secret,
                token: made.token,
                expires: made.expires,
            }),
            Err(error @ AssumeError::Role(_)) => Err(SessionError::Role(error.to_string())),
            Err(error @ AssumeError::Store(_)) => Err(SessionError::Engine(error.into())),
        }
    });
    let lifetimes = Lifetimes {
        lifetime: config.credentials.lifetime.duration(),
        refresh_before: config.credentials.refresh_before.duration(),
    };
    Credentials::new(stores.state.clone(), clock.clone(), assume, lifetimes)
}

/// How many accelerators the machine has.
fn accelerators(config: &Config) -> u64 {
    u64::try_from(config.devices().len()).unwrap_or(u64::MAX)
}

fn platform_settings(config: &Config) -> PlatformSettings {
    let mut managed_images = ManagedImages::default();
    managed_images
        .accounts
        .extend(config.images.managed_accounts.iter().map(ToString::to_string));
    managed_images.repositories.extend(
        config
            .images
            .unisolated
            .iter()
            .map(|one| (one.family.clone(), one.repository.clone())),
    );
    let alias = |one: &ImageAliasSetting| ImageAlias {
        account: one.account.as_ref().map(ToString::to_string),
        repository: one.repository.clone(),
        tag: one.tag.clone(),
        image: one.image.clone(),
    };
    PlatformSettings {
        in_place: config.endpoints.updates == Updates::InPlace,
        image_aliases: ImageAliases(config.images.aliases.iter().map(alias).collect()),
        managed_images,
        platform_network: config.network.platform,
        training_instances: config.limits.training_instances,
        instances: config.instance_table().with_accelerators(accelerators(config)),
        ec2: config.ec2_settings(),
        notebooks: config.notebook_settings(),
    }
}

/// What VPCs are told of the operator's addresses.
fn service_ranges(config: &Config) -> ServiceRanges {
    let network = config.host_network();
    let s3 = |region| (prefix_list::s3(region), BTreeSet::from([network.s3_prefix_list]));
    ServiceRanges {
        prefix_lists: config.regions.iter().map(s3).collect(),
        public: vec![network.services, network.s3_prefix_list],
    }
}

fn reconcile_settings(config: &Config, authority: &Authority) -> ReconcileSettings {
    ReconcileSettings {
        training_grace: config.jobs.stop_grace.duration(),
        hosting_grace: config.endpoints.stop_grace.duration(),
        drain_limit: config.endpoints.drain.duration(),
        ping_timeout: config.endpoints.ping_timeout.duration(),
        ping_interval: config.endpoints.ping_interval.duration(),
        ping_failures: config.endpoints.ping_failures,
        startup_deadline: config.endpoints.startup_timeout.duration(),
        restart_backoff: config.endpoints.restart_backoff.duration(),
        restart_backoff_max: config.endpoints.restart_backoff_max.duration(),
        capture_interval: config.endpoints.capture_interval.duration(),
        updates: config.endpoints.updates,
        checkpoint_interval: config.jobs.checkpoint_interval.duration(),
        log_interval: config.reconcile.log_interval.duration(),
        retry: config.reconcile.retry.duration(),
        gc_interval: config.reconcile.gc_interval.duration(),
        workers: config.reconcile.workers,
        vpc_workers: config.reconcile.vpc_workers,
        vpc_workers_per_account: config.reconcile.vpc_workers_per_account,
        transfer_limit: config.reconcile.transfer_limit.duration(),
        pids: config.runtime.pids,
        overlay_bytes: config.runtime.overlay_bytes,
        shm_percent: config.runtime.shm_percent,
        platform_network: config.network.platform,
        resolver: Some(config.host_network().resolver().into()),
        instances: config.instance_table(),
        training_instances: config.limits.training_instances,
        devices: config.devices(),
        endpoint_patience: config.capacity.endpoint_wait.duration(),
        notebooks: config.notebooks.image.clone().map(|image| NotebookProgram {
            image,
            command: config.notebooks.command.clone(),
            port: config.notebooks.port,
        }),
        lifecycle_limit: config.notebooks.lifecycle_timeout.duration(),
        ca_bundle: config.tls.inject_ca.then(|| authority.bundle().to_path_buf()),
        ..ReconcileSettings::default()
    }
}
