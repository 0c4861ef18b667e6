//! The way to the object store leads through authorization: nothing else in this module holds it (IAM-36, IAM-59).

use super::fault;
use super::log::Trace;
use crate::Caller;
use isolarium_model::s3::{Bucket, BucketName};
use isolarium_model::time::Clock;
use isolarium_model::{AccountId, Arn, Principal, Timestamp};
use isolarium_policy::{Authority, Compiled, DocumentKind, Granted, NamedPolicy, Question, ResourceSide, authorize};
use isolarium_store::{ObjectError, ObjectStore};
use isolarium_wire::ApiError;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Finds everything that decides what a caller may do (IAM-21). The wiring passes `iam::authority`.
pub trait Authorities: Send + Sync {
    /// The caller's documents and condition keys.
    ///
    /// # Errors
    /// When they cannot be read.
    fn authority(&self, caller: &Caller) -> Result<Authority, ApiError>;
}

impl<F> Authorities for F
where
    F: Fn(&Caller) -> Result<Authority, ApiError> + Send + Sync,
{
    fn authority(&self, caller: &Caller) -> Result<Authority, ApiError> {
        self(caller)
    }
}

/// What S3 requests and the platform's transfers share. Its fields are private: [`Call::allow`] hands the store out.
pub(super) struct Gate {
    objects: ObjectStore,
    clock: Arc<dyn Clock>,
    authorities: Arc<dyn Authorities>,
    /// Bucket policies as last read, with the text they were read from (IAM-26: the text is looked up every time).
    policies: Mutex<HashMap<BucketName, (String, Arc<Compiled>)>>,
}

/// Compiled policies kept at most.
const MOST_POLICIES: usize = 10_000;

/// One action on one bucket or object.
pub(super) struct Ask {
    action: &'static str,
    bucket: Option<BucketName>,
    question: Question,
}

impl Ask {
    /// About a bucket.
    pub(super) fn bucket(action: &'static str, bucket: &BucketName) -> Self {
        let question = Question::on(action, &Arn::s3(bucket.as_str()));
        Self {
            action,
            bucket: Some(bucket.clone()),
            question,
        }
    }

    /// About a bucket to be made: if the name is taken, its owner and policy have no say.
    pub(super) fn new_bucket(action: &'static str, bucket: &BucketName) -> Self {
        Self {
            bucket: None,
            ..Self::bucket(action, bucket)
        }
    }

    /// About an object.
    pub(super) fn object(action: &'static str, bucket: &BucketName, key: &str) -> Self {
        let question = Question::on(action, &Arn::s3(&format!("{bucket}/{key}")));
        Self {
            action,
            bucket: Some(bucket.clone()),
            question,
        }
    }

    /// About no resource in particular.
    pub(super) fn any(action: &'static str) -> Self {
        Self {
            action,
            bucket: None,
            question: Question::any(action),
        }
    }

    /// With a condition key.
    pub(super) fn with(mut self, key: &str, value: Option<impl Into<String>>) -> Self {
        if let Some(value) = value {
            self.question = self.question.with(key, value);
        }
        self
    }
}

/// A request on its way: who asks, and the gate.
#[derive(Clone)]
pub(super) struct Call {
    gate: Arc<Gate>,
    pub(super) caller: Caller,
    pub(super) trace: Trace,
    pub(super) now: Timestamp,
}

/// An allowed request with the store it may use.
pub(super) struct Allowed {
    pub(super) store: ObjectStore,
    /// The bucket of the first question, if there is one.
    bucket: Option<Bucket>,
}

impl Allowed {
    /// The bucket, which exists.
    pub(super) fn bucket(&self) -> S3Result<&Bucket> {
        self.bucket.as_ref().ok_or_else(|| fault::of(ObjectError::NoSuchBucket))
    }
}

impl Gate {
    pub(super) fn new(objects: ObjectStore, clock: Arc<dyn Clock>, authorities: Arc<dyn Authorities>) -> Self {
        Self {
            objects,
            clock,
            authorities,
            policies: Mutex::default(),
        }
    }

    fn compiled(&self, bucket: &BucketName, text: &str) -> Arc<Compiled> {
        let mut known = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = known.get(bucket).filter(|(seen, _)| seen == text) {
            return Arc::clone(compiled);
        }
        let compiled = Arc::new(Compiled::new(text, DocumentKind::Resource));
        if known.len() >= MOST_POLICIES {
            known.clear();
        }
        known.insert(bucket.clone(), (text.to_owned(), Arc::clone(&compiled)));
        compiled
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Call {
    pub(super) fn new(gate: &Arc<Gate>, caller: Caller, trace: Trace) -> Self {
        Self {
            gate: Arc::clone(gate),
            caller,
            trace,
            now: gate.now(),
        }
    }

    /// The call that the front put into a request's extensions.
    pub(super) fn of<T>(request: &S3Request<T>) -> S3Result<Self> {
        request
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| s3_error!(InternalError, "the request has no caller"))
    }

    /// The account that will own what the caller makes; anonymous callers have none.
    pub(super) fn account(&self) -> S3Result<&AccountId> {
        self.caller
            .principal
            .account()
            .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
    }

    /// Asks every question; all must be allowed. `expected_owner` is `x-amz-expected-bucket-owner` of the first
    /// question's bucket. Blocks on the index.
    pub(super) fn allow(&self, asks: &[Ask], expected_owner: Option<&str>) -> S3Result<Allowed> {
        let mut buckets: Vec<Option<Bucket>> = Vec::new();
        for ask in asks {
            buckets.push(match &ask.bucket {
                None => None,
                Some(name) => match self.gate.objects.bucket(name) {
                    Ok(bucket) => Some(bucket),
                    Err(ObjectError::NoSuchBucket) => None,
                    Err(error) => return Err(fault::of(error)),
                },
            });
        }
        let authority = self.gate.authorities.authority(&self.caller).map_err(|error| {
            tracing::error!(%error, "the caller's policies cannot be read");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        })?;
        let mut questions = Vec::new();
        for (ask, bucket) in asks.iter().zip(&buckets) {
            let owner = bucket.as_ref().map(|bucket| bucket.owner.to_string());
            questions.push(match owner {
                Some(owner) => ask.question.clone().with("s3:ResourceAccount", owner),
                None => ask.question.clone(),
            });
        }
        let side = |question: &Question| {
            let at = questions.iter().position(|asked| asked == question);
            let bucket = at.and_then(|at| buckets.get(at)).and_then(Option::as_ref);
            bucket.map(|bucket| self.side(bucket)).unwrap_or_default()
        };
        let granted: Granted<ObjectStore> = authorize(self.gate.objects.clone(), &authority, &questions, &side)
            .map_err(|denial| {
                let nobody = self.caller.principal == Principal::Anonymous;
                let text = if nobody {
                    "Access Denied".to_owned()
                } else {
                    denial.to_string()
                };
                let mut error = S3Error::with_message(S3ErrorCode::AccessDenied, text);
                error.set_request_id(self.caller.request_id.clone());
                error
            })?;
        let bucket = buckets.into_iter().next().flatten();
        if let (Some(expected), Some(bucket)) = (expected_owner, &bucket)
            && expected != bucket.owner.as_str()
        {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(Allowed {
            store: granted.into_inner(),
            bucket,
        })
    }

    /// Whether one more question would be allowed.
    pub(super) fn may(&self, ask: Ask) -> bool {
        self.allow(&[ask], None).is_ok()
    }

    /// The bucket's owner and policy. RestrictPublicBuckets takes the effect of a public policy from everybody outside
    /// the owner's account.
    fn side(&self, bucket: &Bucket) -> ResourceSide {
        let restricted = bucket
            .public_access_block
            .is_some_and(|block| block.restrict_public_buckets)
            && self.caller.principal.account() != Some(&bucket.owner);
        let policy = bucket
            .policy
            .as_ref()
            .filter(|text| !(restricted && super::public::is_public(text)));
        let policy = policy.map(|text| NamedPolicy {
            name: format!("bucket policy of {}", bucket.name),
            policy: self.gate.compiled(&bucket.name, text),
        });
        ResourceSide {
            owner: Some(bucket.owner.clone()),
            policy,
            trust: false,
        }
    }

    /// A failed read of a key: without the right to list, a caller does not learn that the key is missing.
    pub(super) fn missing(&self, error: ObjectError, bucket: &BucketName) -> S3Error {
        let tells = matches!(error, ObjectError::NoSuchKey | ObjectError::IsDeleted { .. });
        if tells && !self.may(Ask::bucket("s3:ListBucket", bucket)) {
            return s3_error!(AccessDenied, "Access Denied");
        }
        fault::of(error)
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask")
            .field("action", &self.action)
            .field("resource", &self.question.resource)
            .finish()
    }
}
