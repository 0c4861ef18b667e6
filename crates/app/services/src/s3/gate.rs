//! The way to the object store leads through authorization: nothing else in this module holds it (IAM-36, IAM-59).

use super::fault;
use super::log::Trace;
use crate::audit::authorize;
use crate::kms::through::KeyStore;
use crate::{Caller, Source};
use http::HeaderMap;
use isolarium_model::s3::{Bucket, BucketName, ObjectKey, Tags};
use isolarium_model::time::Clock;
use isolarium_model::{AccountId, Arn, Principal, Region, Timestamp};
use isolarium_policy::{Authority, DocumentKind, Granted, Question, ResourceSide};
use isolarium_store::{ObjectError, ObjectStore};
use isolarium_wire::ApiError;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use std::sync::Arc;

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
    keys: Arc<KeyStore>,
    /// What was asked, for the check against AWS's authorization reference.
    #[cfg(test)]
    pub(super) asked: std::sync::Mutex<Vec<Question>>,
}

/// What the owner's root may do whatever the bucket policy says, or nobody could take a mistaken policy away.
pub(super) const ROOT_KEEPS: [&str; 3] = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];

/// Headers of requests that change access, which are condition keys of the same name.
const ACCESS_KEYS: [&str; 6] = [
    "x-amz-acl",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
];

/// Headers of a write that are condition keys of `s3:PutObject`, beside [`ACCESS_KEYS`].
const WRITE_KEYS: [&str; 9] = [
    "x-amz-storage-class",
    "x-amz-metadata-directive",
    "x-amz-object-annotation-directive",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-website-redirect-location",
    "if-match",
    "if-none-match",
];

/// Headers of a write whose condition keys leave the prefix off.
const LOCK_KEYS: [&str; 3] = [
    "object-lock-mode",
    "object-lock-legal-hold",
    "object-lock-retain-until-date",
];

/// What a write does: `s3:ObjectCreationOperation` tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// It makes an object: PutObject, CopyObject, CompleteMultipartUpload.
    Object,
    /// It begins or goes on with an upload, of which no object comes yet.
    Upload,
}

/// One action on one bucket or object.
pub(super) struct Ask {
    action: &'static str,
    bucket: Option<BucketName>,
    question: Question,
    /// The object whose tags are condition keys of the question, and its version.
    tagged: Option<(ObjectKey, Option<String>)>,
}

impl Ask {
    /// About a bucket.
    pub(super) fn bucket(action: &'static str, bucket: &BucketName) -> Self {
        let question = Question::on(action, &Arn::s3(bucket.as_str()));
        Self {
            action,
            bucket: Some(bucket.clone()),
            question,
            tagged: None,
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
            tagged: None,
        }
    }

    /// About no resource in particular.
    pub(super) fn any(action: &'static str) -> Self {
        Self {
            action,
            bucket: None,
            question: Question::any(action),
            tagged: None,
        }
    }

    /// The action asked about.
    pub(super) fn action(&self) -> &'static str {
        self.action
    }

    /// About an object that exists, in one of its versions: `s3:ExistingObjectTag/KEY` and `s3:versionid`.
    pub(super) fn existing(
        action: &'static str,
        bucket: &BucketName,
        key: &ObjectKey,
        version: Option<&String>,
    ) -> Self {
        let mut ask = Self::object(action, bucket, key.as_str()).with("s3:versionid", version);
        ask.tagged = Some((key.clone(), version.cloned()));
        ask
    }

    /// About an object to be written with these headers.
    pub(super) fn write(bucket: &BucketName, key: &ObjectKey, headers: &HeaderMap, write: Write) -> Self {
        let creates = (write == Write::Object).to_string();
        let ask = Self::object("s3:PutObject", bucket, key.as_str())
            .with("s3:ObjectCreationOperation", Some(creates))
            .with_access(headers);
        let ask = WRITE_KEYS
            .iter()
            .fold(ask, |ask, name| ask.with(&format!("s3:{name}"), text(headers, name)));
        LOCK_KEYS.iter().fold(ask, |ask, name| {
            ask.with(&format!("s3:{name}"), text(headers, &format!("x-amz-{name}")))
        })
    }

    /// With the headers that say who else is to have access.
    pub(super) fn with_access(self, headers: &HeaderMap) -> Self {
        ACCESS_KEYS
            .iter()
            .fold(self, |ask, name| ask.with(&format!("s3:{name}"), text(headers, name)))
    }

    /// With the tags that the request gives an object.
    pub(super) fn with_tags(self, tags: &Tags) -> Self {
        tags.iter().fold(self, |ask, (key, value)| {
            ask.with(&format!("s3:RequestObjectTag/{key}"), Some(value))
                .with("s3:RequestObjectTagKeys", Some(key))
        })
    }

    /// With a condition key.
    pub(super) fn with(mut self, key: &str, value: Option<impl Into<String>>) -> Self {
        if let Some(value) = value {
            self.question = self.question.with(key, value);
        }
        self
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A request on its way: who asks, and the gate.
#[derive(Clone)]
pub(super) struct Call {
    gate: Arc<Gate>,
    pub(super) caller: Caller,
    pub(super) trace: Trace,
    pub(super) now: Timestamp,
    /// Condition keys of the request that every question has: how it was signed, and the page that led to it.
    keys: Arc<SignatureKeys>,
}

/// Condition keys by name.
pub(super) type SignatureKeys = Vec<(&'static str, String)>;

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
    /// Where a bucket is; `None` when there is none.
    pub(super) fn region_of(&self, bucket: &BucketName) -> S3Result<Option<Region>> {
        match self.objects.bucket(bucket) {
            Ok(bucket) => Ok(Some(bucket.region)),
            Err(ObjectError::NoSuchBucket) => Ok(None),
            Err(error) => Err(fault::of(error)),
        }
    }

    pub(super) fn new(
        objects: ObjectStore,
        clock: Arc<dyn Clock>,
        authorities: Arc<dyn Authorities>,
        keys: Arc<KeyStore>,
    ) -> Self {
        Self {
            objects,
            clock,
            authorities,
            keys,
            #[cfg(test)]
            asked: std::sync::Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn key_store(&self) -> &KeyStore {
        &self.keys
    }

    /// Whether there is a bucket of that name.
    pub(super) fn has_bucket(&self, name: &BucketName) -> Result<bool, ObjectError> {
        match self.objects.bucket(name) {
            Ok(_) => Ok(true),
            Err(ObjectError::NoSuchBucket) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

impl Call {
    pub(super) fn new(gate: &Arc<Gate>, caller: Caller, trace: Trace) -> Self {
        Self {
            gate: Arc::clone(gate),
            caller,
            trace,
            now: gate.now(),
            keys: Arc::default(),
        }
    }

    /// With the condition keys of its signature.
    pub(super) fn signed(self, keys: SignatureKeys) -> Self {
        Self {
            keys: Arc::new(keys),
            ..self
        }
    }

    /// The keys of the key store, which ask for themselves whether the caller may use them.
    pub(super) fn key_store(&self) -> &KeyStore {
        &self.gate.keys
    }

    /// Whether the request was signed by a version of the signature.
    pub(super) fn signed_by(&self, version: &str) -> bool {
        self.keys
            .iter()
            .any(|(name, value)| *name == "s3:signatureversion" && value == version)
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
            questions.push(self.question(ask, bucket.as_ref())?);
        }
        #[cfg(test)]
        self.gate.asked.lock().unwrap().extend(questions.clone());
        let side = |question: &Question| {
            let at = questions.iter().position(|asked| asked == question);
            let bucket = at.and_then(|at| buckets.get(at)).and_then(Option::as_ref);
            bucket
                .map(|bucket| self.side(bucket, &question.action))
                .unwrap_or_default()
        };
        let granted: Granted<ObjectStore> =
            authorize(&self.caller, self.gate.objects.clone(), &authority, &questions, &side).map_err(|denial| {
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

    /// The question with every condition key that S3 has for it.
    fn question(&self, ask: &Ask, bucket: Option<&Bucket>) -> S3Result<Question> {
        let mut question = ask.question.clone();
        for (key, value) in self.keys.iter() {
            question = question.with(key, value.as_str());
        }
        let owner = match &ask.bucket {
            Some(_) => bucket.map(|bucket| &bucket.owner),
            // A bucket to be made, or none in particular, is the caller's.
            None => self.caller.principal.account(),
        };
        for key in ["s3:ResourceAccount", "aws:ResourceAccount"] {
            question = owner
                .iter()
                .fold(question, |question, owner| question.with(key, owner.as_str()));
        }
        let Some(bucket) = bucket else { return Ok(question) };
        if let Some((key, version)) = ask.tagged.as_ref().filter(|_| self.tags_matter(bucket)) {
            let object = match self.gate.objects.head(&bucket.name, key, version.as_deref()) {
                Ok(object) => object,
                Err(error @ (ObjectError::Store(_) | ObjectError::Io { .. })) => return Err(fault::of(error)),
                // What does not exist has no tags; that it does not exist is told after the decision.
                Err(_) => return Ok(question),
            };
            for (tag, value) in object.tags {
                question = question.with(&format!("s3:ExistingObjectTag/{tag}"), value);
            }
        }
        Ok(question)
    }

    /// Whether any document that will be read may speak of an object's tags. Root has no documents of its own.
    fn tags_matter(&self, bucket: &Bucket) -> bool {
        let spoken = || {
            let policy = bucket.policy.as_deref().unwrap_or_default();
            policy.to_ascii_lowercase().contains("existingobjecttag")
        };
        let alone = matches!(self.caller.principal, Principal::Root { .. } | Principal::Anonymous)
            && matches!(self.caller.source, Source::Public { .. });
        !alone || spoken()
    }

    /// Whether one more question would be allowed.
    pub(super) fn may(&self, ask: Ask) -> bool {
        self.allow(&[ask], None).is_ok()
    }

    /// The bucket's owner and policy. RestrictPublicBuckets takes the effect of a public policy from everybody outside
    /// the owner's account.
    fn side(&self, bucket: &Bucket, action: &str) -> ResourceSide {
        let own_root = matches!(&self.caller.principal, Principal::Root { account } if *account == bucket.owner);
        let spared = own_root && ROOT_KEEPS.contains(&action);
        let restricted = bucket
            .public_access_block
            .is_some_and(|block| block.restrict_public_buckets)
            && self.caller.principal.account() != Some(&bucket.owner);
        let policy = bucket
            .policy
            .as_ref()
            .filter(|text| !(spared || restricted && super::public::is_public(text)));
        let policy = policy.map(|text| {
            crate::iam::named(
                &format!("bucket policy of {}", bucket.name),
                text,
                DocumentKind::Resource,
            )
        });
        ResourceSide {
            owner: Some(bucket.owner.clone()),
            policies: policy.into_iter().collect(),
            ..ResourceSide::default()
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
