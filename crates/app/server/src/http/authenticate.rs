//! Who asks: signatures are believed here, once for all services (IAM-42..47).

use isolarium_model::{AccountId, Principal, Region, Timestamp};
use isolarium_services::context::Session;
use isolarium_services::iam::credentials::{Credential, Identities, ResolveError};
use isolarium_wire::sigv4::{
    AuthFault, Body, BodyCheck, CredentialScope, Head, Parsed, PayloadClaim, Secret, signing_key,
};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is accepted.
#[derive(Clone, Debug)]
pub struct Acceptance {
    pub regions: Vec<Region>,
    /// Seconds (IAM-44).
    pub skew: i64,
    /// `auth.unknown_keys = "root"`: this account's root takes every key that nobody has.
    pub unknown_keys_are_root_of: Option<AccountId>,
    /// Presigned S3 URLs of signature version 2.
    pub sigv2_query: bool,
}

/// A claim whose key is known and whose signature is still to be checked.
#[derive(Debug)]
pub struct Claimed {
    parsed: Arc<Parsed>,
    identity: Option<Credential>,
    root: Option<AccountId>,
}

/// A caller whose signature was believed.
#[derive(Debug)]
pub struct Authentic {
    pub principal: Principal,
    pub session: Option<Session>,
    /// The region of the signature; none in signature version 2.
    pub region: Option<Region>,
    /// What is still to be checked while a streamed body arrives.
    pub body: BodyCheck,
}

impl Claimed {
    /// Whether the signature can be checked before the body is there: the head says what its digest is.
    pub fn declares_digest(&self) -> bool {
        matches!(self.parsed.payload, PayloadClaim::Sha256(_))
    }
}

impl Acceptance {
    /// Looks the key up and checks everything that needs no body, so that a stranger's body is never read.
    /// `service` is the signing name that the request must be signed for, `host_region` the region of its host name
    /// (IAM-46).
    ///
    /// # Errors
    /// The fault, or the store's failure.
    pub fn claim(
        &self,
        identities: &dyn Identities,
        parsed: Arc<Parsed>,
        service: Option<&str>,
        host_region: Option<&Region>,
        now: Timestamp,
    ) -> Result<Claimed, ResolveError> {
        if let Some(scope) = &parsed.scope {
            // A host name with a region takes signatures for that one alone.
            let here = |region: &&Region| host_region.is_none_or(|named| named == *region);
            let regions = self.regions.iter().filter(here).map(Region::as_str);
            scope.expect(service.unwrap_or(&scope.service), regions)?;
        }
        match identities.find(&parsed.access_key_id, parsed.token.as_deref(), now) {
            Ok(identity) => Ok(Claimed {
                parsed,
                identity: Some(identity),
                root: None,
            }),
            Err(ResolveError::Fault(AuthFault::UnknownKey | AuthFault::BadToken))
                if self.unknown_keys_are_root_of.is_some() =>
            {
                Ok(Claimed {
                    parsed,
                    identity: None,
                    root: self.unknown_keys_are_root_of.clone(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the signature. `bucket` is the bucket of the host name, which signature version 2 needs.
    ///
    /// # Errors
    /// The fault.
    pub fn verify(
        &self,
        claimed: Claimed,
        head: &Head<'_>,
        body: Body<'_>,
        bucket: Option<&str>,
        now: Timestamp,
    ) -> Result<Authentic, AuthFault> {
        let Claimed { parsed, identity, root } = claimed;
        let region = parsed.scope.as_ref().and_then(|scope| scope.region.parse().ok());
        match (identity, root) {
            (Some(identity), _) => {
                let seconds = now.0.div_euclid(1000);
                let secret = Secret {
                    text: identity.secret.expose(),
                    derive: remembered,
                };
                let check = parsed.verify(head, body, secret, seconds, self.skew, bucket)?;
                Ok(Authentic {
                    principal: identity.principal,
                    session: identity.session,
                    region,
                    body: check,
                })
            }
            (None, Some(account)) => {
                let check = parsed.body_without_secret(head, body)?;
                Ok(Authentic {
                    principal: Principal::Root { account },
                    session: None,
                    region,
                    body: check,
                })
            }
            (None, None) => Err(AuthFault::UnknownKey),
        }
    }
}

/// Signing keys that each thread remembers. Whoever signs keeps to one key, day, region and service.
const REMEMBERED: usize = 64;

/// A digest of a secret and a scope, and the signing key that was derived from them.
type Derived = ([u8; 32], [u8; 32]);

thread_local! {
    static KEYS: RefCell<VecDeque<Derived>> = const { RefCell::new(VecDeque::new()) };
}

/// [`signing_key`], of which the last results are remembered: by a digest, so that no secret stays here. Secrets are looked
/// up for every request before this, so one that was taken away is not asked for any more.
fn remembered(secret: &str, scope: &CredentialScope) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [secret, &scope.date, &scope.region, &scope.service] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    KEYS.with_borrow_mut(|keys| {
        if let Some((_, key)) = keys.iter().find(|(known, _)| *known == digest) {
            return *key;
        }
        let key = signing_key(secret, scope);
        keys.truncate(REMEMBERED.saturating_sub(1));
        keys.push_front((digest, key));
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use isolarium_wire::sigv4::{self, Accept};

    struct Nobody;

    impl Identities for Nobody {
        fn find(&self, _: &str, _: Option<&str>, _: Timestamp) -> Result<Credential, ResolveError> {
            Err(AuthFault::UnknownKey.into())
        }
    }

    /// The framing is no part of the object, whoever sends it.
    #[test]
    fn an_unknown_key_taken_for_root_still_has_the_framing_of_its_body_taken_off() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "s3.us-east-1.amazonaws.com"),
            ("x-amz-date", "20300101T000000Z"),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("x-amz-decoded-content-length", "5"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=anything/20300101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature={}",
            "0".repeat(64)
        );
        headers.insert("authorization", authorization.parse().unwrap());
        let head = Head {
            method: "PUT",
            path: "/b/k",
            query: "",
            headers: &headers,
            authority: None,
        };
        let accepted = |root: Option<AccountId>| {
            let acceptance = Acceptance {
                regions: vec!["us-east-1".parse().unwrap()],
                skew: 900,
                unknown_keys_are_root_of: root,
                sigv2_query: false,
            };
            let parsed = Arc::new(sigv4::parse(&head, Accept { sigv2_query: false }).unwrap());
            let claimed = acceptance.claim(&Nobody, parsed, Some("s3"), None, Timestamp(0))?;
            Ok::<_, ResolveError>(acceptance.verify(claimed, &head, Body::Streamed, None, Timestamp(0))?)
        };
        assert!(accepted(None).is_err(), "control: by default a stranger is refused");
        let authentic = accepted(Some("123456789012".parse().unwrap())).unwrap();
        let BodyCheck::Chunked(mut decoder) = authentic.body else {
            panic!("the body is in chunks");
        };
        let mut out = Vec::new();
        let body = format!(
            "5;chunk-signature={0}\r\nhello\r\n0;chunk-signature={0}\r\n\r\n",
            "1".repeat(64)
        );
        decoder.push(body.as_bytes(), &mut out).unwrap();
        assert_eq!((out.as_slice(), decoder.finish().unwrap().len()), (&b"hello"[..], 0));
    }

    #[test]
    fn remembered_signing_keys_are_those_of_their_secret_and_scope() {
        let scope = |date: &str, region: &str, service: &str| CredentialScope {
            date: date.into(),
            region: region.into(),
            service: service.into(),
        };
        let scopes = [
            scope("20260101", "us-east-1", "s3"),
            scope("20260102", "us-east-1", "s3"),
            scope("20260101", "us-east-2", "s3"),
            scope("20260101", "us-east-1", "sagemaker"),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..2 {
            for number in 0..REMEMBERED {
                let secret = format!("secret-{number}");
                for scope in &scopes {
                    let key = remembered(&secret, scope);
                    assert_eq!(key, signing_key(&secret, scope));
                    assert_eq!(seen.insert(key), turn == 0);
                    assert_eq!(remembered(&secret, scope), key, "again, from memory");
                }
            }
        }
        assert_eq!(KEYS.with_borrow(VecDeque::len), REMEMBERED);
    }
}
