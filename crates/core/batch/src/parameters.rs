//! How large and how many requests are: the request's word, then the container's, then the defaults (CC-65, CC-66).

use isolarium_model::sagemaker::transform_job::{
    BatchStrategy, DEFAULT_PAYLOAD_MB, DataProcessing, MAX_IN_FLIGHT_MB, MEBIBYTE, SplitType, TransformSpec,
};
use serde_json::Value;

/// What `/execution-parameters` answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutionParameters {
    pub max_concurrent: Option<u64>,
    pub strategy: Option<BatchStrategy>,
    pub max_payload_mb: Option<u64>,
}

impl ExecutionParameters {
    /// Reads the answer's body. Members that are missing or of another kind count as not provided, and so does an answer
    /// that is no JSON object.
    pub fn parse(body: &[u8]) -> Self {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        let number = |name: &str| members.get(name).and_then(Value::as_u64);
        let strategy = members.get("BatchStrategy").and_then(Value::as_str);
        let all = [BatchStrategy::MultiRecord, BatchStrategy::SingleRecord];
        Self {
            max_concurrent: number("MaxConcurrentTransforms").filter(|count| *count > 0),
            strategy: all.into_iter().find(|one| Some(one.in_container()) == strategy),
            max_payload_mb: number("MaxPayloadInMB").filter(|size| *size <= MAX_IN_FLIGHT_MB),
        }
    }
}

/// What a job goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Requests that run at once on one instance, at least 1; with the largest payload that may be held of each they are
    /// within [`MAX_IN_FLIGHT_MB`].
    pub max_concurrent: u64,
    pub strategy: BatchStrategy,
    /// 0 is without limit.
    pub max_payload_mb: u64,
}

impl Parameters {
    /// What a request and its container make together.
    pub fn of(spec: &TransformSpec, container: ExecutionParameters) -> Self {
        let max_payload_mb = spec
            .max_payload_mb
            .or(container.max_payload_mb)
            .unwrap_or(DEFAULT_PAYLOAD_MB);
        let strategy = spec
            .strategy
            .or(container.strategy)
            .unwrap_or(BatchStrategy::MultiRecord);
        let mut parameters = Self {
            max_concurrent: 1,
            strategy,
            max_payload_mb,
        };
        let asked = spec.max_concurrent.filter(|count| *count > 0);
        let wanted = asked.or(container.max_concurrent).unwrap_or(1);
        // Creation knows the request alone: whoever names the payload, it is the one that is used that counts.
        let largest = match max_payload_mb {
            0 if parameters.streams(spec) => 1,
            0 => MAX_IN_FLIGHT_MB,
            payload => payload,
        };
        parameters.max_concurrent = wanted.clamp(1, (MAX_IN_FLIGHT_MB / largest).max(1));
        parameters
    }

    /// Whether objects pass as they are, without limit and without being held (CC-70).
    pub fn streams(&self, spec: &TransformSpec) -> bool {
        let one_record = spec.input.split != SplitType::None && self.strategy == BatchStrategy::SingleRecord;
        self.max_payload_mb == 0 && !one_record && spec.processing == DataProcessing::default()
    }

    /// The largest request in bytes; `None` is without limit.
    pub fn payload_bytes(&self) -> Option<usize> {
        let bytes = self.max_payload_mb.saturating_mul(MEBIBYTE);
        usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    }
}

#[cfg(test)]
mod tests;
