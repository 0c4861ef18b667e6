//! The real thing: every access of the platform is asked for in the name of the execution role's session, with the
//! policies of this moment, and then done through the same stores that callers use (NI-12..14, IAM-52, IAM-57).

use super::acts::PlatformAudit;
use super::{Actor, AsRole, PlatformError, PlatformSettings};
use crate::audit::{self, Inquiry};
use crate::ecr::{self, Registry, ResolveError, ResolvedImage};
use crate::iam::credentials::{
    AssumeError, ExecutionRole, MasterKey, SessionCredentials, check_execution_role, mint_session,
};
use crate::kms::through::{KeyFault, NewDataKey, Use};
use crate::s3::{S3Front, TransferError};
use crate::{Caller, Session, Source};
use isolarium_model::ecr::ImageReference;
use isolarium_model::logs::{GroupName, LogEvent};
use isolarium_model::metrics::Sample;
use isolarium_model::s3::{BucketName, ObjectKey};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Arn, Scope, Sha256Digest};
use isolarium_policy::Question;
use isolarium_policy::evaluate::ResourceSide;
use isolarium_store::objects::ListingQuery;
use isolarium_store::{LogError, LogStore, Metrics, StateStore, logs};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Last part of the session's ARN (CC-81).
const SESSION: &str = "SageMaker";

/// How long a session is said to last; every access assumes the role anew.
const LASTS: Duration = Duration::from_secs(3600);

/// What the platform does at EC2 with the role of a workload in a VPC (IAM-55, P6), in the order in which it does it.
const ATTACHING: [&str; 9] = [
    "DescribeSubnets",
    "DescribeSecurityGroups",
    "DescribeVpcs",
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "CreateNetworkInterface",
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterfacePermission",
    "DeleteNetworkInterface",
];

/// Objects per page of a listing.
const PAGE: usize = 1000;

/// Acts for execution roles. Cheap to share; all calls block.
pub struct ExecutionRoles {
    pub store: Arc<dyn StateStore>,
    pub logs: Arc<dyn LogStore>,
    pub metrics: Arc<Metrics>,
    pub s3: S3Front,
    pub registry: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub settings: PlatformSettings,
    pub audit: PlatformAudit,
    /// The address from which the platform's own requests count as coming (`aws:SourceIp`).
    pub source: IpAddr,
}

/// Lines of a source between two offsets, for a log stream.
#[derive(Clone, Copy, Debug)]
pub struct LogPiece<'a> {
    /// Names the source; never used twice.
    pub source: &'a str,
    /// Offset of the first line.
    pub from: u64,
    /// Offset behind the last line.
    pub to: u64,
    pub events: &'a [LogEvent],
}

impl ExecutionRoles {
    /// The role's session, if the role exists and trusts the platform now.
    fn session(&self, actor: &Actor) -> Result<Caller, PlatformError> {
        let now = self.clock.now();
        let inquiry = Inquiry::acting_for(actor.owner_arn.as_str());
        let wanted = ExecutionRole {
            role_arn: &actor.role_arn,
            scope: &actor.scope,
            source_arn: &actor.owner_arn,
            session_name: SESSION,
            lasts: LASTS,
            inquiry: &inquiry,
        };
        let checked = check_execution_role(&*self.store, now, &wanted);
        let request_id = self.ids.hex(16);
        self.audit.assumed(actor, &checked, &inquiry, &request_id, now);
        let role = checked.map_err(|error| match error {
            AssumeError::Role(arn) => PlatformError::Role(arn),
            other @ AssumeError::Store(_) => PlatformError::Engine(other.into()),
        })?;
        Ok(Caller {
            principal: role.session(SESSION),
            scope: actor.scope.clone(),
            source: Source::Public {
                address: self.source,
                secure: true,
            },
            session: Some(Session::lasting(now, now.after(LASTS))),
            request_id,
            user_agent: "sagemaker.amazonaws.com".into(),
            inquiry: inquiry.anew(),
        })
    }

    /// Asks IAM whether the session may. The resource's owner and its policy have their say, unless `open` says that
    /// the resource is everybody's and the caller's side decides alone.
    pub(super) fn allow(&self, caller: &Caller, questions: &[Question], open: bool) -> Result<(), PlatformError> {
        let authority = crate::iam::authority_of(&*self.store, caller, self.clock.now())
            .map_err(|error| PlatformError::Engine(error.into()))?;
        let known = |question: &Question| {
            crate::resource_tags::added(&*self.store, Some(&*self.logs), &caller.principal, question.clone())
        };
        let questions: Result<Vec<Question>, _> = questions.iter().map(known).collect();
        let questions = questions.map_err(|error| PlatformError::Engine(error.into()))?;
        let sides = questions.iter().map(|question| match open {
            true => Ok(ResourceSide::default()),
            false => crate::iam::resource_side(&*self.store, &caller.principal, question),
        });
        let sides: Result<Vec<ResourceSide>, _> = sides.collect();
        let sides = sides.map_err(|error| PlatformError::Engine(error.into()))?;
        let side = |question: &Question| {
            let at = questions.iter().position(|asked| asked == question);
            at.and_then(|at| sides.get(at)).cloned().unwrap_or_default()
        };
        audit::authorize(caller, (), &authority, &questions, &side)
            .map(|_| ())
            .map_err(|denial| PlatformError::Denied(denial.to_string()))
    }

    /// What an image reference means now, if the role may pull it (CC-1, CC-11).
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn resolve_image(&self, actor: &Actor, reference: &str) -> Result<ResolvedImage, PlatformError> {
        let caller = self.session(actor)?;
        let questions = ecr::resolve::pull_questions(reference).map_err(unresolved)?;
        let parsed = reference.parse::<ImageReference>().ok();
        let accounts = &self.settings.managed_images.accounts;
        // Managed images are offered to every account, as AWS's own registries are. The role is asked about the name that its
        // owner wrote; what stands for it is the operator's choice.
        let alias = parsed
            .as_ref()
            .and_then(|parsed| self.settings.image_aliases.of(parsed, accounts));
        let of_managed = |parsed: &ImageReference| accounts.contains(parsed.scope.account.as_str());
        let managed = alias.is_some() || parsed.as_ref().is_some_and(of_managed);
        // The operator offers it to all notebook instances; whoever may make one need not be let into its repository.
        let offered = self.settings.notebooks.image.as_deref() == Some(reference)
            && actor.owner_arn.resource().starts_with("notebook-instance/");
        let allowed = if offered {
            Ok(())
        } else {
            self.allow(&caller, &questions, managed)
        };
        let resolved = allowed.and_then(|()| {
            let architecture = ecr::resolve::host_architecture();
            let run = alias.unwrap_or(reference);
            ecr::resolve_image(&self.registry, &*self.store, run, architecture).map_err(unresolved)
        });
        let asked = audit::texts(&[("image", Some(reference))]);
        self.audit.acted(
            &caller,
            "ecr.amazonaws.com",
            "BatchGetImage",
            asked,
            &resolved,
            self.clock.now(),
        );
        resolved
    }

    /// Credentials of the role's session, for requests that the platform makes from inside a VPC (IAM-32).
    ///
    /// # Errors
    /// `Role`.
    pub fn credentials(&self, actor: &Actor, master: &MasterKey) -> Result<SessionCredentials, PlatformError> {
        let caller = self.session(actor)?;
        let now = self.clock.now();
        let session = Session::lasting(now, now.after(LASTS));
        Ok(mint_session(master, &*self.ids, caller.principal, session))
    }

    /// Asks whether the role may do something at EC2 now, and tells the audit trail that it was done or refused (NET-66,
    /// IAM-55). No resources mean `*`.
    ///
    /// # Errors
    /// `Role`; `Denied` in EC2's words (IAM-62).
    pub fn act_at_ec2(&self, actor: &Actor, action: &str, resources: &[Arn]) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        let named = format!("ec2:{action}");
        let questions = match resources {
            [] => vec![Question::any(&named)],
            some => some.iter().map(|resource| Question::on(&named, resource)).collect(),
        };
        let outcome = self.allow(&caller, &questions, false).map_err(in_ec2s_words);
        let now = self.clock.now();
        self.audit
            .acted(&caller, "ec2.amazonaws.com", action, None, &outcome, now);
        outcome
    }

    /// A layer's blob. Resolving the image was what needed permission.
    ///
    /// # Errors
    /// `Unusable` when it is gone.
    pub fn open_layer(&self, blob: &Sha256Digest) -> Result<File, PlatformError> {
        match self.registry.blobs.get(blob) {
            Ok(Some((file, _))) => Ok(file),
            Ok(None) => Err(PlatformError::Unusable(format!(
                "The layer {blob} is not in the registry."
            ))),
            Err(error) => Err(PlatformError::Engine(error.into())),
        }
    }

    /// Key and size of every object whose key begins with the prefix, sorted by key (`s3:ListBucket`).
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn list(&self, actor: &Actor, prefix: &S3Uri) -> Result<Vec<(String, u64)>, PlatformError> {
        let caller = self.session(actor)?;
        let bucket = bucket(prefix)?;
        let mut found = Vec::new();
        let mut query = ListingQuery {
            prefix: prefix.key.clone(),
            delimiter: None,
            after: None,
            limit: PAGE,
        };
        loop {
            let page = self
                .s3
                .platform_list(&caller, &bucket, &query)
                .map_err(transfer(prefix))?;
            found.extend(
                page.objects
                    .into_iter()
                    .map(|object| (object.key.as_str().to_owned(), object.size)),
            );
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// An object as a file, and its size (`s3:GetObject`). One that lies encrypted is decrypted in the directory `copies`, where
    /// one is given.
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn open(
        &self,
        actor: &Actor,
        object: &S3Uri,
        copies: Option<BorrowedFd<'_>>,
    ) -> Result<(File, u64), PlatformError> {
        let caller = self.session(actor)?;
        let opened = self.s3.platform_open(&caller, &bucket(object)?, &key(object)?, copies);
        let (file, found) = opened.map_err(transfer(object))?;
        Ok((file, found.size))
    }

    /// A small object's bytes.
    ///
    /// # Errors
    /// As [`Self::open`]; `Unusable` when it has more than `max` bytes.
    pub fn read(
        &self,
        actor: &Actor,
        object: &S3Uri,
        max: usize,
        copies: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<u8>, PlatformError> {
        let (file, size) = self.open(actor, object, copies)?;
        if usize::try_from(size).map_or(true, |size| size > max) {
            return Err(PlatformError::Unusable(format!(
                "The object \"{object}\" has more than {max} bytes."
            )));
        }
        let mut bytes = Vec::new();
        file.take(size)
            .read_to_end(&mut bytes)
            .map_err(|error| PlatformError::Engine(error.into()))?;
        Ok(bytes)
    }

    /// Shows an object as `name` below `directory`, without copying a byte unless it lies encrypted (`s3:GetObject`,
    /// `kms:Decrypt`).
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn link(&self, actor: &Actor, object: &S3Uri, directory: &Path, name: &str) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        let (bucket, key) = (bucket(object)?, key(object)?);
        self.s3
            .platform_link_into(&caller, &bucket, &key, directory, name)
            .map(|_| ())
            .map_err(transfer(object))
    }

    /// As [`Self::link`], but no copy is made: `false` for an object that lies encrypted.
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn link_plain(
        &self,
        actor: &Actor,
        object: &S3Uri,
        directory: &Path,
        name: &str,
    ) -> Result<bool, PlatformError> {
        let caller = self.session(actor)?;
        let linked = self
            .s3
            .platform_link(&caller, &bucket(object)?, &key(object)?, directory, name);
        linked.map_err(transfer(object))
    }

    /// Copies an object's plain bytes to a file `name` below `directory` (`s3:GetObject`, `kms:Decrypt`).
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn copy(&self, actor: &Actor, object: &S3Uri, directory: &Path, name: &str) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        let copied = self
            .s3
            .platform_copy_into(&caller, &bucket(object)?, &key(object)?, directory, name);
        copied.map(|_| ()).map_err(transfer(object))
    }

    /// A new data key for a storage volume of the actor's, under the key that a request names: the role gives the platform a
    /// grant (`kms:CreateGrant`).
    ///
    /// # Errors
    /// `Role`; `Denied` without the grant; `Unusable` in the key store's words.
    pub fn volume_key(&self, actor: &Actor, given: &str) -> Result<NewDataKey, PlatformError> {
        let caller = self.session(actor)?;
        let context = volume_context(actor);
        let of = Use {
            caller: &caller,
            region: &actor.scope.region,
            context: &context,
        };
        let made = self.s3.platform_volume_key(&of, given).map_err(unusable_key);
        self.tell_key(&caller, "CreateGrant", given, &made);
        made
    }

    /// Opens a data key that [`Self::volume_key`] made, by the grant.
    ///
    /// # Errors
    /// `Role`; `Unusable` in the key store's words.
    pub fn open_volume_key(&self, actor: &Actor, key_arn: &Arn, sealed: &str) -> Result<[u8; 32], PlatformError> {
        let caller = self.session(actor)?;
        let context = volume_context(actor);
        let of = Use {
            caller: &caller,
            region: &actor.scope.region,
            context: &context,
        };
        let opened = self
            .s3
            .platform_open_volume_key(&of, key_arn, sealed)
            .map_err(unusable_key);
        self.tell_key(&caller, "Decrypt", key_arn.as_str(), &opened);
        opened
    }

    fn tell_key<T>(&self, caller: &Caller, operation: &'static str, key: &str, outcome: &Result<T, PlatformError>) {
        let asked = audit::texts(&[("keyId", Some(key))]);
        let now = self.clock.now();
        self.audit
            .acted(caller, "kms.amazonaws.com", operation, asked, outcome, now);
    }

    /// Stores a file as an object (`s3:PutObject`), encrypted under a key of the key store where one is named (CC-36,
    /// `kms:GenerateDataKey`).
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn put(&self, actor: &Actor, object: &S3Uri, from: &Path, kms_key: Option<&str>) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        let mut file = File::open(from).map_err(|error| PlatformError::Engine(error.into()))?;
        let (bucket, key) = (bucket(object)?, key(object)?);
        self.s3
            .platform_put(&caller, &bucket, &key, kms_key, &mut file)
            .map(|_| ())
            .map_err(transfer(object))
    }

    /// Deletes an object (`s3:DeleteObject`); one that is gone is no error.
    ///
    /// # Errors
    /// `Role`, `Denied`, `Unusable`.
    pub fn delete(&self, actor: &Actor, object: &S3Uri) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        self.s3
            .platform_delete(&caller, &bucket(object)?, &key(object)?)
            .map_err(transfer(object))
    }

    /// Appends a piece of a workload's output exactly once, with the role's permission; makes group and stream where
    /// they are missing, with its permission too (CC-90, CC-91). Returns the offset to read next from.
    ///
    /// # Errors
    /// `Role`, `Denied`.
    pub fn append_log(
        &self,
        actor: &Actor,
        group: &str,
        stream: &str,
        piece: &LogPiece<'_>,
    ) -> Result<u64, PlatformError> {
        let caller = self.session(actor)?;
        let outcome = self.append_as(&caller, actor, group, stream, piece);
        let asked = audit::texts(&[("logGroupName", Some(group)), ("logStreamName", Some(stream))]);
        self.audit.acted(
            &caller,
            "logs.amazonaws.com",
            "PutLogEvents",
            asked,
            &outcome,
            self.clock.now(),
        );
        outcome
    }

    fn append_as(
        &self,
        caller: &Caller,
        actor: &Actor,
        group: &str,
        stream: &str,
        piece: &LogPiece<'_>,
    ) -> Result<u64, PlatformError> {
        let (group, now) = (GroupName::new(&actor.scope, group), self.clock.now());
        self.allow(
            caller,
            &[Question::on("logs:PutLogEvents", &group.stream_arn(stream))],
            false,
        )?;
        let source = logs::Source {
            id: piece.source,
            from: piece.from,
            to: piece.to,
        };
        let append = || self.logs.append_from(&group, stream, &source, piece.events, now);
        let first = append();
        let questions = match &first {
            Err(LogError::NoGroup) => vec![
                Question::on("logs:CreateLogGroup", &group.stream_arn("")),
                Question::on("logs:CreateLogStream", &group.stream_arn("")),
            ],
            Err(LogError::NoStream) => vec![Question::on("logs:CreateLogStream", &group.stream_arn(""))],
            _ => return first.map_err(|error| PlatformError::Engine(error.into())),
        };
        self.allow(caller, &questions, false)?;
        self.logs
            .ensure_stream(&group, stream, now)
            .map_err(|error| PlatformError::Engine(error.into()))?;
        append().map_err(|error| PlatformError::Engine(error.into()))
    }

    /// Puts metrics of a job, all of one namespace (`cloudwatch:PutMetricData`).
    ///
    /// # Errors
    /// `Role`, `Denied`.
    pub fn put_metrics(&self, actor: &Actor, namespace: &str, samples: Vec<Sample>) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        let question = Question::any("cloudwatch:PutMetricData").with("cloudwatch:namespace", namespace);
        let outcome = self.allow(&caller, &[question], false).and_then(|()| {
            let put = self.metrics.put(&actor.scope, samples);
            put.map_err(|error| PlatformError::Engine(error.into()))
        });
        let asked = audit::texts(&[("namespace", Some(namespace))]);
        let (source, now) = ("monitoring.amazonaws.com", self.clock.now());
        self.audit.acted(&caller, source, "PutMetricData", asked, &outcome, now);
        outcome
    }

    /// Every source of which it is known how far it was read.
    ///
    /// # Errors
    /// The log store's failure.
    pub fn log_sources(&self) -> Result<Vec<String>, PlatformError> {
        self.logs.sources().map_err(|error| PlatformError::Engine(error.into()))
    }

    /// Forgets how far a source was read.
    ///
    /// # Errors
    /// The log store's failure.
    pub fn forget_log(&self, source: &str) -> Result<(), PlatformError> {
        self.logs
            .forget_source(source)
            .map_err(|error| PlatformError::Engine(error.into()))
    }
}

impl AsRole for ExecutionRoles {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn assume(&self, actor: &Actor) -> Result<(), PlatformError> {
        self.session(actor).map(|_| ())
    }

    fn check_network(&self, actor: &Actor) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        // Nothing is known yet of the interfaces: a permission for some of them, or on conditions about them, is none.
        ATTACHING.into_iter().try_for_each(|name| {
            let asking = Caller {
                inquiry: caller.inquiry.anew(),
                ..caller.clone()
            };
            let asked = self.allow(&asking, &[Question::any(&format!("ec2:{name}"))], false);
            let outcome = asked.map_err(in_ec2s_words);
            // The check itself does nothing at EC2: what it finds missing is all there is to tell (IAM-27).
            if outcome.is_err() {
                let now = self.clock.now();
                self.audit
                    .acted(&asking, "ec2.amazonaws.com", name, None, &outcome, now);
            }
            outcome
        })
    }

    fn check_image(&self, actor: &Actor, reference: &str) -> Result<(), PlatformError> {
        self.resolve_image(actor, reference).map(|_| ())
    }

    fn any_object(&self, actor: &Actor, prefix: &S3Uri) -> Result<bool, PlatformError> {
        let caller = self.session(actor)?;
        let query = ListingQuery {
            prefix: prefix.key.clone(),
            delimiter: None,
            after: None,
            limit: 1,
        };
        let page = self
            .s3
            .platform_list(&caller, &bucket(prefix)?, &query)
            .map_err(transfer(prefix))?;
        Ok(!page.objects.is_empty())
    }

    fn check_object(&self, actor: &Actor, object: &S3Uri) -> Result<(), PlatformError> {
        let caller = self.session(actor)?;
        self.s3
            .platform_check(&caller, &bucket(object)?, &key(object)?)
            .map_err(transfer(object))
    }

    fn check_key(&self, scope: &Scope, key: &str) -> Result<(), PlatformError> {
        self.s3
            .platform_check_key(scope, key)
            .map_err(|error| match unusable_key(error) {
                PlatformError::Denied(text) => PlatformError::Unusable(text),
                other => other,
            })
    }

    fn has_bucket(&self, name: &str) -> Result<bool, PlatformError> {
        let Ok(name) = name.parse() else {
            return Ok(false);
        };
        let failed = |error: TransferError| PlatformError::Engine(error.into());
        self.s3.platform_has_bucket(&name).map_err(failed)
    }
}

/// What the data key of a volume is bound to.
fn volume_context(actor: &Actor) -> BTreeMap<String, String> {
    [("aws:sagemaker:arn".to_owned(), actor.owner_arn.to_string())].into()
}

fn unusable_key(error: KeyFault) -> PlatformError {
    match error {
        KeyFault::Denied(text) => PlatformError::Denied(text),
        KeyFault::Engine(cause) => PlatformError::Engine(cause.into()),
        readable @ KeyFault::Refused(_) => PlatformError::Unusable(readable.to_string()),
    }
}

/// EC2's own words (IAM-62).
fn in_ec2s_words(error: PlatformError) -> PlatformError {
    match error {
        PlatformError::Denied(text) => {
            PlatformError::Denied(format!("You are not authorized to perform this operation. {text}"))
        }
        other => other,
    }
}

fn bucket(uri: &S3Uri) -> Result<BucketName, PlatformError> {
    uri.bucket
        .parse()
        .map_err(|_| PlatformError::Unusable(format!("\"{}\" cannot be the name of a bucket.", uri.bucket)))
}

fn key(uri: &S3Uri) -> Result<ObjectKey, PlatformError> {
    uri.key
        .parse()
        .map_err(|_| PlatformError::Unusable(format!("\"{uri}\" names no object.")))
}

/// S3's answer about an address in this module's words.
fn transfer(about: &S3Uri) -> impl Fn(TransferError) -> PlatformError {
    move |error| match error.code.as_str() {
        "AccessDenied" => PlatformError::Denied(error.message),
        "InternalError" | "SlowDown" | "ServiceUnavailable" => PlatformError::Engine(error.into()),
        _ => PlatformError::Unusable(format!("\"{about}\": {}", error.message)),
    }
}

fn unresolved(error: ResolveError) -> PlatformError {
    match error {
        ResolveError::Registry(cause) => PlatformError::Engine(cause.into()),
        ResolveError::NoRepository(_) | ResolveError::NoImage(_) => {
            PlatformError::Unusable(format!("Requested image not found: {error}."))
        }
        readable => PlatformError::Unusable(format!("{readable}.")),
    }
}

#[cfg(test)]
mod tests;
