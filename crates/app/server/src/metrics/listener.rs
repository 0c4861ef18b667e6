//! `GET /metrics` on an address of this machine alone.

use super::prometheus::{Exposition, MEDIA_TYPE};
use crate::http::body;
use crate::http::listen::{Answering, Handler, Peer};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;

/// Answers with the exposition. There are no credentials: whoever has a process on this machine may read it, nobody else.
pub struct MetricsPage(pub Arc<Exposition>);

impl Handler for MetricsPage {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let status = |status: StatusCode| {
                let mut response = Response::new(body::empty());
                *response.status_mut() = status;
                response
            };
            // A page in a browser of this machine must not read it by a name of its own for this address.
            if !peer.address.is_loopback() || !host(&request).is_some_and(is_local) {
                return status(StatusCode::FORBIDDEN);
            }
            if request.uri().path() != "/metrics" {
                return status(StatusCode::NOT_FOUND);
            }
            if request.method() != Method::GET {
                return status(StatusCode::METHOD_NOT_ALLOWED);
            }
            let exposition = self.0.clone();
            match tokio::task::spawn_blocking(move || exposition.text()).await {
                Ok(Ok(text)) => {
                    let mut response = Response::new(body::full(text));
                    let headers = response.headers_mut();
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                    response
                }
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "metrics could not be read");
                    status(StatusCode::INTERNAL_SERVER_ERROR)
                }
                Err(error) => {
                    tracing::error!(%error, "metrics could not be read");
                    status(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        })
    }
}

/// The host of a request without its port.
fn host(request: &Request<Incoming>) -> Option<&str> {
    let text = match request.headers().get(HOST) {
        Some(value) => value.to_str().ok()?,
        None => request.uri().host()?,
    };
    match text.rfind(']') {
        Some(end) => text.get(..=end),
        None => text.split(':').next(),
    }
}

/// Whether a host is this machine by an address or by the one name that nobody else can have.
fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
