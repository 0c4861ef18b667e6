//! The errors of an invocation that reached, or should have reached, a container (SM-58, SM-62).

use isolarium_model::{Arn, Scope};
use isolarium_reconcile::Guard;
use isolarium_reconcile::fleets::Stage;
use isolarium_wire::{ApiError, Document};

/// How much of a container's own error text is repeated, bytes.
pub(super) const MESSAGE_LIMIT: usize = 64 * 1024;

/// Where an invocation failed.
pub(super) struct Failure<'a> {
    pub scope: &'a Scope,
    pub endpoint_name: &'a str,
    pub guard: &'a Guard,
    /// The container, where the instance has several.
    pub stage: Option<&'a Stage>,
}

impl Failure<'_> {
    /// `primary`, or the name of one of several.
    fn container(&self) -> &str {
        self.stage.map_or("primary", |stage| stage.name.as_str())
    }

    /// `<variant>/<instance id>`, and the container's name behind it where there are several.
    fn log_stream(&self) -> String {
        match self.stage {
            None => self.guard.log_stream(),
            Some(stage) => format!("{}/{}", self.guard.log_stream(), stage.name),
        }
    }

    /// The container answered with another status than 2xx (CC-52).
    pub fn answered(&self, status: u16, body: &[u8]) -> ApiError {
        let text = String::from_utf8_lossy(body);
        let kind = if (400..500).contains(&status) {
            "client error"
        } else {
            "server error"
        };
        self.model_error(
            status,
            &text,
            &format!(
                "Received {kind} ({status}) from {} with message \"{text}\".",
                self.container()
            ),
        )
    }

    /// The container took too long (SM-53).
    pub fn timed_out(&self) -> ApiError {
        let text = format!(
            "Your invocation timed out while waiting for a response from container {}. Review the latency metrics for \
             each container in Amazon CloudWatch, resolve the issue, and try again.",
            self.container()
        );
        self.unanswered(&text)
    }

    /// The container closed the connection in the middle of its answer.
    pub fn broken(&self) -> ApiError {
        self.unanswered("The container closed the connection before its answer was complete.")
    }

    /// The answer is over the limit (SM-54).
    pub fn too_large(&self, limit: usize) -> ApiError {
        self.unanswered(&format!("The answer of the container is larger than {limit} bytes."))
    }

    /// Nobody listens in the container.
    pub fn unreachable(&self) -> ApiError {
        super::unavailable()
    }

    fn unanswered(&self, text: &str) -> ApiError {
        let begin = format!(
            "Received server error (0) from {} with message \"{text}\".",
            self.container()
        );
        self.model_error(0, text, &begin)
    }

    fn model_error(&self, status: u16, original: &str, begin: &str) -> ApiError {
        let Scope { account, region } = self.scope;
        let group = format!("/aws/sagemaker/Endpoints/{}", self.endpoint_name);
        let message = format!(
            "{begin} See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} in account \
             {account} for more information."
        );
        let stream = Arn::regional(
            "logs",
            self.scope,
            &format!("log-group:{group}:log-stream:{}", self.log_stream()),
        );
        ApiError::client("ModelError", message)
            .with_status(424)
            .with_member("OriginalStatusCode", Document::Integer(i64::from(status)))
            .with_member("OriginalMessage", Document::String(original.into()))
            .with_member("LogStreamArn", Document::String(stream.to_string()))
    }
}
