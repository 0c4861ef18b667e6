//! Delivery of flow logs (NET-55, NET-56): to CloudWatch Logs as the flow log's role, to S3 as the service that delivers logs.

use super::PlatformError;
use super::roles::{ExecutionRoles, LogPiece};
use crate::audit::{self, Inquiry};
use crate::iam::credentials::{AssumeError, ExecutionRole, check_service_role};
use crate::{Caller, Session, Source};
use isolarium_model::logs::GroupName;
use isolarium_model::s3::{BucketName, ObjectKey};
use isolarium_model::{Arn, Principal, Scope};
use isolarium_policy::Question;
use isolarium_store::{LogError, logs};
use std::time::Duration;

/// The service that roles of flow logs trust.
pub const FLOW_LOGS: &str = "vpc-flow-logs.amazonaws.com";
/// The service that buckets' policies let in.
pub const DELIVERY: &str = "delivery.logs.amazonaws.com";

const LASTS: Duration = Duration::from_secs(3600);

/// What a role of a flow log is to be allowed on its log group besides writing (NET-55).
const DESCRIBING: [&str; 2] = ["logs:DescribeLogGroups", "logs:DescribeLogStreams"];

/// A flow log that delivers.
#[derive(Clone, Copy, Debug)]
pub struct Delivering<'a> {
    pub scope: &'a Scope,
    /// `aws:SourceArn` when its role is assumed and its bucket's policy is asked.
    pub flow_log_arn: &'a Arn,
}

impl ExecutionRoles {
    /// How far a source has been delivered; 0 at first.
    ///
    /// # Errors
    /// The log store's failure.
    pub fn delivered(&self, source: &str) -> Result<u64, PlatformError> {
        self.logs.source_offset(source).map_err(engine)
    }

    /// Writes a piece of a flow log into a stream, exactly once, as the flow log's role; makes group and stream where they
    /// are missing.
    ///
    /// # Errors
    /// `Role` when the role is gone or does not trust the service, `Denied` when it may not.
    pub fn deliver_to_logs(
        &self,
        flow_log: Delivering<'_>,
        role_arn: &Arn,
        group: &str,
        stream: &str,
        piece: &LogPiece<'_>,
    ) -> Result<(), PlatformError> {
        let now = self.clock.now();
        let inquiry = Inquiry::default();
        let wanted = ExecutionRole {
            role_arn,
            scope: flow_log.scope,
            source_arn: flow_log.flow_log_arn,
            session_name: "FlowLogs",
            lasts: LASTS,
            inquiry: &inquiry,
        };
        let role = check_service_role(&*self.store, now, &wanted, FLOW_LOGS).map_err(|error| match error {
            AssumeError::Role(_) => PlatformError::Denied("Access error".into()),
            other @ AssumeError::Store(_) => engine(other),
        })?;
        let mut caller = self.delivering(flow_log, role.session(wanted.session_name), FLOW_LOGS);
        caller.session = Some(Session::lasting(now, now.after(LASTS)));
        let outcome = self.write(&caller, &GroupName::new(flow_log.scope, group), stream, piece);
        let asked = audit::texts(&[("logGroupName", Some(group)), ("logStreamName", Some(stream))]);
        self.audit
            .acted(&caller, "logs.amazonaws.com", "PutLogEvents", asked, &outcome, now);
        outcome
    }

    fn write(
        &self,
        caller: &Caller,
        group: &GroupName,
        stream: &str,
        piece: &LogPiece<'_>,
    ) -> Result<(), PlatformError> {
        let now = self.clock.now();
        let mut questions = vec![Question::on("logs:PutLogEvents", &group.stream_arn(stream))];
        questions.extend(DESCRIBING.map(|action| Question::on(action, &group.stream_arn(""))));
        questions.extend(
            ["logs:CreateLogGroup", "logs:CreateLogStream"].map(|action| Question::on(action, &group.stream_arn(""))),
        );
        self.allow(caller, &questions, false)?;
        let source = logs::Source {
            id: piece.source,
            from: piece.from,
            to: piece.to,
        };
        let append = || self.logs.append_from(group, stream, &source, piece.events, now);
        match append() {
            Err(LogError::NoGroup | LogError::NoStream) => {
                self.logs.ensure_stream(group, stream, now).map_err(engine)?;
                append()
            }
            other => other,
        }
        .map(|_| ())
        .map_err(engine)
    }

    /// Stores a file of a flow log, if the bucket's policy lets the service that delivers logs do so. Repeated, it stores
    /// the same object.
    ///
    /// # Errors
    /// `Denied` without such a policy, `Unusable` when the bucket or the key cannot be.
    pub fn deliver_to_s3(
        &self,
        flow_log: Delivering<'_>,
        bucket: &str,
        key: &str,
        bytes: &[u8],
    ) -> Result<(), PlatformError> {
        let unusable = |what: &str| PlatformError::Unusable(format!("\"{what}\" cannot be used."));
        let bucket_name: BucketName = bucket.parse().map_err(|_| unusable(bucket))?;
        let object: ObjectKey = key.parse().map_err(|_| unusable(key))?;
        let principal = Principal::Service { name: DELIVERY.into() };
        let caller = self.delivering(flow_log, principal, DELIVERY);
        let about = [
            ("aws:SourceAccount", flow_log.scope.account.to_string()),
            ("aws:SourceArn", flow_log.flow_log_arn.to_string()),
            ("s3:x-amz-acl", "bucket-owner-full-control".to_owned()),
        ];
        let put = self
            .s3
            .service_put(&caller, &bucket_name, &object, &about, &mut &*bytes);
        put.map(|_| ()).map_err(|error| match error.code.as_str() {
            "AccessDenied" => PlatformError::Denied("Access error".into()),
            "InternalError" | "SlowDown" | "ServiceUnavailable" => engine(error),
            _ => PlatformError::Unusable(error.message),
        })
    }

    fn delivering(&self, flow_log: Delivering<'_>, principal: Principal, service: &str) -> Caller {
        Caller {
            principal,
            scope: flow_log.scope.clone(),
            source: Source::Public {
                address: self.source,
                secure: true,
            },
            session: None,
            request_id: self.ids.hex(16),
            user_agent: service.into(),
            inquiry: Inquiry::default(),
        }
    }
}

fn engine(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PlatformError {
    PlatformError::Engine(error.into())
}
