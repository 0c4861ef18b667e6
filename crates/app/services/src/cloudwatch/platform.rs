//! Names of the metrics that the platform puts itself.

/// Metrics of training jobs, by the regular expressions of their definitions.
pub const TRAINING_JOBS: &str = "/aws/sagemaker/TrainingJobs";
/// Invocations of endpoints.
pub const INVOCATIONS: &str = "AWS/SageMaker";
