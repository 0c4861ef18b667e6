//! The way to the image registry, which authenticates by its own tokens.

use super::body::Body;
use super::door::{Part, Visit};
use super::listen::Answering;
use super::receive::Unstalled;
use super::route;
use crate::names::{self, HostMeaning};
use crate::registry::{Denied, Distribution, Origin, Permit, serve};
use http::{Request, Response};
use hyper::body::Incoming;
use isolarium_model::Scope;
use isolarium_model::time::Clock;
use isolarium_policy::{DocumentKind, NamedPolicy, Question, ResourceSide};
use isolarium_services::audit::authorize;
use isolarium_services::{Caller, resource_tags};
use isolarium_services::{ecr, iam};
use isolarium_store::StateStore;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// The registry behind the front door.
pub struct RegistryPart {
    pub distribution: Arc<Distribution>,
    /// The registry of requests that came by address.
    pub home: Scope,
    /// Longest pause within a body.
    pub pause: Duration,
}

impl Part for RegistryPart {
    fn answer(self: Arc<Self>, visit: Visit, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let scope = match route::host(&parts).and_then(names::meaning) {
                Some(HostMeaning::Registry { account, region }) => Scope { account, region },
                _ => self.home.clone(),
            };
            let origin = Origin {
                source: visit.source,
                request_id: visit.request_id,
            };
            let request = Request::from_parts(parts, Unstalled::new(body, self.pause));
            let response: Response<Body> = serve(request, scope, origin, self.distribution.clone()).await;
            response
        })
    }
}

/// IAM as the registry asks it.
pub struct ByPolicy {
    pub store: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
}

impl Permit for ByPolicy {
    fn permit(&self, caller: &Caller, questions: &[Question]) -> Result<(), Denied> {
        let authority = iam::authority_of(self.store.as_ref(), caller, self.clock.now())
            .map_err(|error| Denied::Undecided(error.into()))?;
        let failed = RefCell::new(None);
        let side = |question: &Question| match ecr::resource_side(self.store.as_ref(), question) {
            Ok(side) => side.unwrap_or_default(),
            Err(error) => {
                failed.replace(Some(error));
                // A policy that cannot be read denies, whatever else allows.
                ResourceSide {
                    policies: vec![NamedPolicy::parse("unread policy", "", DocumentKind::Resource)],
                    ..ResourceSide::default()
                }
            }
        };
        let tagged =
            |question: &Question| resource_tags::added(self.store.as_ref(), None, &caller.principal, question.clone());
        let questions: Result<Vec<Question>, _> = questions.iter().map(tagged).collect();
        let questions = questions.map_err(|error| Denied::Undecided(error.into()))?;
        match authorize(caller, (), &authority, &questions, &side) {
            Ok(_) => Ok(()),
            Err(denial) => Err(match failed.take() {
                Some(error) => Denied::Undecided(error.into()),
                None => Denied::Policy(denial.to_string()),
            }),
        }
    }
}
