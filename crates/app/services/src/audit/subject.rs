//! What a resource is, by its ARN.

/// (service, first part of the resource, type): CloudFormation's names, which CloudTrail uses.
const KINDS: &[(&str, &str, &str)] = &[
    ("sagemaker", "model", "AWS::SageMaker::Model"),
    ("sagemaker", "endpoint", "AWS::SageMaker::Endpoint"),
    ("sagemaker", "endpoint-config", "AWS::SageMaker::EndpointConfig"),
    ("sagemaker", "training-job", "AWS::SageMaker::TrainingJob"),
    ("sagemaker", "transform-job", "AWS::SageMaker::TransformJob"),
    ("sagemaker", "processing-job", "AWS::SageMaker::ProcessingJob"),
    ("sagemaker", "feature-group", "AWS::SageMaker::FeatureGroup"),
    ("sagemaker", "model-package", "AWS::SageMaker::ModelPackage"),
    ("sagemaker", "model-package-group", "AWS::SageMaker::ModelPackageGroup"),
    ("sagemaker", "notebook-instance", "AWS::SageMaker::NotebookInstance"),
    (
        "sagemaker",
        "notebook-instance-lifecycle-config",
        "AWS::SageMaker::NotebookInstanceLifecycleConfig",
    ),
    ("iam", "role", "AWS::IAM::Role"),
    ("iam", "user", "AWS::IAM::User"),
    ("iam", "group", "AWS::IAM::Group"),
    ("iam", "policy", "AWS::IAM::Policy"),
    ("ecr", "repository", "AWS::ECR::Repository"),
    ("logs", "log-group", "AWS::Logs::LogGroup"),
    ("ec2", "vpc", "AWS::EC2::VPC"),
    ("ec2", "subnet", "AWS::EC2::Subnet"),
    ("ec2", "security-group", "AWS::EC2::SecurityGroup"),
    ("ec2", "vpc-endpoint", "AWS::EC2::VPCEndpoint"),
    ("kms", "key", "AWS::KMS::Key"),
];

/// CloudTrail's type of the resource with this ARN; `None` for kinds without a name.
pub fn resource_kind(arn: &str) -> Option<String> {
    let [_, _, service, _, _, resource] = isolarium_model::arn::split(arn)?;
    if service == "s3" {
        let kind = if resource.contains('/') {
            "AWS::S3::Object"
        } else {
            "AWS::S3::Bucket"
        };
        return Some(kind.into());
    }
    let end = resource.bytes().position(|byte| matches!(byte, b'/' | b':'));
    let first = resource.get(..end.unwrap_or(resource.len()))?;
    KINDS
        .iter()
        .find(|(of, prefix, _)| *of == service && *prefix == first)
        .map(|(_, _, kind)| (*kind).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_tell_what_a_resource_is() {
        for (arn, want) in [
            ("arn:aws:s3:::b", Some("AWS::S3::Bucket")),
            ("arn:aws:s3:::b/k", Some("AWS::S3::Object")),
            (
                "arn:aws:sagemaker:us-east-1:123456789012:model/m",
                Some("AWS::SageMaker::Model"),
            ),
            ("arn:aws:iam::123456789012:role/path/r", Some("AWS::IAM::Role")),
            (
                "arn:aws:logs:us-east-1:123456789012:log-group:/aws/x:log-stream:y",
                Some("AWS::Logs::LogGroup"),
            ),
            ("arn:aws:iam::123456789012:root", None),
            ("*", None),
        ] {
            assert_eq!(resource_kind(arn).as_deref(), want, "{arn}");
        }
    }
}
