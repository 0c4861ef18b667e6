//! S3 alone on a loopback port, for `tests/conformance/s3.py`: signatures are verified against two fixed keys, the first
//! account's root and a user of it who may only read.
//!
//! `s3_server DIR` prints the port it listens on and serves until it is killed.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use isolarium_model::time::Clock;
use isolarium_model::{Principal, Scope, Secret, Timestamp};
use isolarium_policy::{Authority, DocumentKind, NamedPolicy};
use isolarium_services::s3::{AccessLog, Body, FileAccessLog, FormKeys, FormSigner, S3Front, S3Wiring};
use isolarium_services::{Caller, Source};
use isolarium_store::objects::SCHEMA;
use isolarium_store::{Database, ObjectStore};
use isolarium_wire::ApiError;
use isolarium_wire::sigv4::{self, Accept, AuthFault, BodyCheck, Head};
use std::convert::Infallible;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const READER: &str = r#"{"Version":"2012-10-17","Statement":[
    {"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":"*"}]}"#;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Secret key and principal of an access key.
fn key(access_key_id: &str) -> Option<(&'static str, Principal)> {
    let account = "123456789012".parse().ok()?;
    let other = "210987654321".parse().ok()?;
    match access_key_id {
        "AKIAROOT" => Some(("root-secret", Principal::Root { account })),
        "AKIAOTHER" => Some(("other-secret", Principal::Root { account: other })),
        "AKIAREADER" => {
            let (path, name, id) = ("/".into(), "reader".into(), "AIDAREADER".into());
            Some((
                "reader-secret",
                Principal::User {
                    account,
                    path,
                    name,
                    id,
                },
            ))
        }
        _ => None,
    }
}

struct Keys;

impl FormKeys for Keys {
    fn find(&self, access_key_id: &str, _: Option<&str>, _: Timestamp) -> Result<FormSigner, AuthFault> {
        let (secret, principal) = key(access_key_id).ok_or(AuthFault::UnknownKey)?;
        Ok(FormSigner {
            secret: Secret::new(secret),
            principal,
            session: None,
        })
    }
}

fn authority(caller: &Caller) -> Result<Authority, ApiError> {
    let mut authority = Authority::bare(caller.principal.clone(), caller.context(SystemClock.now()));
    if let Principal::User { .. } = caller.principal {
        authority.identity = vec![NamedPolicy::parse("reader", READER, DocumentKind::Identity)];
    }
    Ok(authority)
}

fn authenticate(parts: &http::request::Parts, front: &S3Front) -> Result<(Principal, BodyCheck), AuthFault> {
    let head = Head::from(parts);
    let parsed = match sigv4::parse(&head, Accept { sigv2_query: true }) {
        Err(AuthFault::Missing) => return Ok((Principal::Anonymous, BodyCheck::Done)),
        other => other?,
    };
    let (secret, principal) = key(&parsed.access_key_id).ok_or(AuthFault::UnknownKey)?;
    let host = parts
        .headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let now = SystemClock.now().0 / 1000;
    let check = parsed.verify(
        &head,
        sigv4::Body::Streamed,
        secret,
        now,
        sigv4::DEFAULT_SKEW,
        front.bucket_in_host(host),
    )?;
    Ok((principal, check))
}

async fn answer(front: S3Front, peer: IpAddr, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let (parts, body) = request.into_parts();
    let (principal, check) = match authenticate(&parts, &front) {
        Ok(found) => found,
        Err(fault) => {
            let text = format!("<Error><Code>SignatureDoesNotMatch</Code><Message>{fault}</Message></Error>");
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            return Ok(response);
        }
    };
    let (Ok(home), Ok(region)) = ("123456789012".parse(), "us-east-1".parse()) else {
        return Ok(Response::new(Body::empty()));
    };
    let account = principal.account().cloned().unwrap_or(home);
    let caller = Caller {
        principal,
        scope: Scope { account, region },
        source: Source::Public {
            address: peer,
            secure: false,
        },
        session: None,
        request_id: format!("{:016X}", COUNT.fetch_add(1, Ordering::Relaxed)),
        user_agent: String::new(),
    };
    Ok(front.call(Request::from_parts(parts, body), caller, check).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: s3_server DIR")?);
    let database = Arc::new(Database::open(&dir.join("state.db"), &[SCHEMA])?);
    let log: Arc<dyn AccessLog> = Arc::new(FileAccessLog::open(&dir.join("s3-access.jsonl"))?);
    let front = S3Front::new(S3Wiring {
        objects: ObjectStore::open(&dir, database)?,
        clock: Arc::new(SystemClock),
        authorities: Arc::new(authority),
        access_log: log,
        base_hosts: Vec::new(),
    })
    .with_form_keys(Arc::new(Keys));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let front = front.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(front.clone(), peer.ip(), request));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}
