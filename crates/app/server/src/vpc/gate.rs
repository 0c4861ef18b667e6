//! S3 behind the gateway endpoints of a VPC.

use super::Live;
use crate::http::door::Door as FrontDoor;
use crate::http::listen::{Answering, Handler, Peer};
use crate::http::route::Only;
use crate::http::s3;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use isolarium_model::ec2::{EndpointKind, EndpointState, VpcEndpoint, key};
use isolarium_services::Source;
use isolarium_services::context::EndpointSource;
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;
use std::sync::Arc;

/// Ports 80 and 443 of the prefix list, inside one VPC. S3 and nothing else: what is signed for another service or sent to
/// another host is answered as S3 answers it.
pub(super) struct S3Gate {
    pub(super) live: Arc<Live>,
    pub(super) store: Arc<dyn StateStore>,
    pub(super) front: Arc<FrontDoor>,
}

impl S3Gate {
    /// The endpoint that the sender's route table leads to, with its policy as it is now, not as it was when the VPC was
    /// last applied (NET-35); `None`: there is none, or none any more.
    fn source(&self, peer: Peer) -> Result<Option<Source>, StoreError> {
        let view = self.live.now();
        let Some(id) = view.s3_endpoint_of(peer.address) else {
            return Ok(None);
        };
        let found = self.store.get::<VpcEndpoint>(&key(view.scope(), id))?;
        let endpoint = found.map(|stored| stored.record).filter(|endpoint| {
            endpoint.state == EndpointState::Available && matches!(endpoint.kind, EndpointKind::Gateway { .. })
        });
        Ok(endpoint.map(|endpoint| {
            Source::Endpoint(EndpointSource {
                vpc_id: endpoint.vpc.to_string(),
                endpoint_id: id.to_string(),
                region: view.scope().region.clone(),
                address: peer.address,
                secure: peer.secure,
                gateway: true,
                policy: Some(endpoint.policy.into()),
            })
        }))
    }
}

impl Handler for S3Gate {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let refused = match self.source(peer) {
            Ok(Some(source)) => return self.front.clone().enter(peer, source, Some(Only::S3), request),
            Ok(None) => ApiError::client("AccessDenied", "Access Denied").with_status(403),
            Err(cause) => ApiError {
                code: "InternalError".into(),
                ..ApiError::internal(cause)
            },
        };
        Box::pin(async move {
            let (parts, _) = request.into_parts();
            let mut answer = s3::refusal(&refused, &parts, &crate::clock::request_id());
            // Whatever comes next on this connection had the same answer.
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
            answer
        })
    }
}
