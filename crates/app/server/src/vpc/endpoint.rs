//! Interface endpoints: one service each, on port 443 of their interfaces' addresses (NET-40..48).

use super::{Live, View};
use crate::http::door::{self, Door as FrontDoor};
use crate::http::listen::{Answering, Handler, Peer};
use crate::http::route::{self, Only};
use crate::resolver::private::{matches, plain};
use crate::tls::Certificates;
use http::Request;
use hyper::body::Incoming;
use isolarium_model::ec2::endpoint_service::OwnName;
use isolarium_model::ec2::{EndpointKind, EndpointService, EndpointState, VpcEndpoint, key};
use isolarium_netplan::id::EndpointId;
use isolarium_services::Source;
use isolarium_services::context::EndpointSource;
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The names of the endpoint at an address of a VPC.
struct Names<'a> {
    view: &'a View,
    id: EndpointId,
    service: EndpointService,
    suffix: &'a str,
    zones: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn at(view: &'a View, address: Ipv4Addr) -> Option<Self> {
        let (id, endpoint) = view.endpoint_at(address)?;
        Some(Self {
            view,
            id,
            service: endpoint.service,
            suffix: &endpoint.suffix,
            zones: view.endpoint_zones(id),
        })
    }

    /// Whether a host is this endpoint's: one of its own names or a default name of its service.
    fn hold(&self, host: &str) -> bool {
        let (host, region) = (plain(host), &self.view.scope().region);
        let default = self.service.private_names(region);
        default.iter().any(|pattern| matches(pattern, &host))
            || OwnName::read(&host).is_some_and(|name| self.has(&name))
    }

    fn has(&self, name: &OwnName) -> bool {
        name.endpoint == self.id
            && name.service == self.service
            && name.region == self.view.scope().region
            && name.suffix.as_deref().is_none_or(|suffix| suffix == self.suffix)
            && name.zone.as_deref().is_none_or(|zone| self.zones.contains(&zone))
    }

    /// What the certificate covers, and a name for all endpoints with the same one: default names, and every label under
    /// each spelling of the service's domain (NET-48). Buckets stand before S3's labels, so its certificates are its own.
    fn covered(&self) -> (String, Vec<String>) {
        let region = &self.view.scope().region;
        let mut names = self.service.private_names(region);
        let domain = |base: &str| format!("{base}.{region}.vpce.amazonaws.com");
        names.extend(self.service.bases().iter().map(|base| format!("*.{}", domain(base))));
        let mut group = format!("endpoint {}", self.service.name(region));
        if self.service == EndpointService::S3 {
            group = format!("{group} {} {}", self.id, self.zones.join(" "));
            let own = format!("{}-{}", self.id, self.suffix);
            let zonal = self.zones.iter().map(|zone| format!("{own}-{zone}"));
            let labels: Vec<String> = zonal.chain([own.clone(), self.id.to_string()]).collect();
            for label in labels {
                let base = format!("{label}.{}", domain(self.service.base()));
                names.extend([format!("*.{base}"), format!("*.bucket.{base}")]);
            }
        }
        (group, names)
    }
}

/// Shows the certificate of the endpoint at an address, to clients that ask for one of its names or for none. Whoever asks for
/// another service gets no connection.
pub(super) struct Shown {
    pub(super) live: Arc<Live>,
    pub(super) address: Ipv4Addr,
    pub(super) certificates: Arc<Certificates>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let view = self.live.now();
        let names = Names::at(&view, self.address)?;
        if hello.server_name().is_some_and(|asked| !names.hold(asked)) {
            return None;
        }
        let (group, covered) = names.covered();
        match self.certificates.of_names(&group, &covered) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no certificate for an endpoint"
                );
                None
            }
        }
    }
}

/// What an endpoint of a service leads to.
fn only(service: EndpointService) -> Only {
    let api = |signing_name, service| Only::Api { signing_name, service };
    match service {
        EndpointService::SagemakerApi => api("sagemaker", "sagemaker"),
        EndpointService::SagemakerRuntime | EndpointService::SagemakerRuntimeFips => {
            api("sagemaker", "sagemaker-runtime")
        }
        EndpointService::FeaturestoreRuntime => api("sagemaker", "sagemaker-featurestore-runtime"),
        EndpointService::SagemakerMetrics => api("sagemaker", "sagemaker-metrics"),
        EndpointService::Notebook => Only::Notebook,
        EndpointService::Sts => api("sts", "sts"),
        EndpointService::Logs => api("logs", "logs"),
        EndpointService::EcrApi => api("ecr", "ecr"),
        EndpointService::EcrDkr => Only::Registry,
        EndpointService::Ec2 => api("ec2", "ec2"),
        EndpointService::Monitoring => api("monitoring", "cloudwatch"),
        EndpointService::S3 => Only::S3,
    }
}

/// Port 443 of one address: one service, for interfaces of the VPC, under the endpoint's policy of this moment.
pub(super) struct EndpointGate {
    pub(super) live: Arc<Live>,
    pub(super) address: Ipv4Addr,
    pub(super) store: Arc<dyn StateStore>,
    pub(super) front: Arc<FrontDoor>,
}

impl EndpointGate {
    /// What a request through the endpoint at this address carries into authorization (NET-46); `None`: there is no
    /// endpoint, or none any more.
    fn source(&self, view: &View, peer: Peer) -> Result<Option<(EndpointService, Source)>, StoreError> {
        let Some((id, endpoint)) = view.endpoint_at(self.address) else {
            return Ok(None);
        };
        // The router lets nobody else through: this is a second wall.
        if view.interface_at(peer.address).is_none() {
            return Ok(None);
        }
        let service = endpoint.service;
        let found = self.store.get::<VpcEndpoint>(&key(view.scope(), id))?;
        let record = found.map(|stored| stored.record).filter(|record| {
            let same = matches!(record.kind, EndpointKind::Interface { service: of, .. } if of == service);
            record.state == EndpointState::Available && same
        });
        Ok(record.map(|record| {
            let source = Source::Endpoint(EndpointSource {
                vpc_id: record.vpc.to_string(),
                endpoint_id: id.to_string(),
                region: view.scope().region.clone(),
                address: peer.address,
                secure: peer.secure,
                gateway: false,
                policy: service.takes_policy().then(|| record.policy.into()),
            });
            (service, source)
        }))
    }

    /// Whether every host that a request names is the endpoint's.
    fn is_addressed(&self, view: &View, parts: &http::request::Parts) -> bool {
        let Some(names) = Names::at(view, self.address) else {
            return false;
        };
        let own = |host: &str| host.parse() == Ok(self.address) || names.hold(host);
        route::host(parts).is_none_or(own) && parts.uri.host().is_none_or(own)
    }
}

impl Handler for EndpointGate {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let view = self.live.now();
        let (parts, body) = request.into_parts();
        let refused = match self.source(&view, peer) {
            Ok(Some((service, source))) if self.is_addressed(&view, &parts) => {
                let request = Request::from_parts(parts, body);
                return self.front.clone().enter(peer, source, Some(only(service)), request);
            }
            Ok(Some((service, _))) => {
                let name = service.name(&view.scope().region);
                let text =
                    format!("The request is for another host: this VPC endpoint leads to {name} and nothing else.");
                ApiError::client("MisdirectedRequest", text).with_status(421)
            }
            Ok(None) => {
                let text = "Access Denied: the VPC endpoint does not serve.";
                ApiError::client("AccessDeniedException", text).with_status(403)
            }
            Err(cause) => ApiError::internal(cause),
        };
        Box::pin(async move { door::turn_away(&refused, &parts, body).await })
    }
}
