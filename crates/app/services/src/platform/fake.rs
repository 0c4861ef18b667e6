//! An account whose roles, images and objects are lists. It keeps no state of requests and refuses on request.

use super::{Actor, AsRole, PlatformError, PlatformSettings};
use isolarium_model::Scope;
use isolarium_model::sagemaker::S3Uri;

/// What exists and what is denied.
#[derive(Default)]
pub(crate) struct FakePlatform {
    pub settings: PlatformSettings,
    /// Roles that cannot be assumed.
    pub unusable_roles: Vec<String>,
    /// Roles that may not attach to a VPC.
    pub unattached_roles: Vec<String>,
    pub missing_images: Vec<String>,
    pub missing_buckets: Vec<String>,
    /// Keys of the key store that are not there.
    pub missing_keys: Vec<String>,
    /// `s3://bucket/key` of what is not there.
    pub missing_objects: Vec<String>,
    /// `s3://bucket/key` of what the role may not read.
    pub denied_objects: Vec<String>,
}

impl AsRole for FakePlatform {
    fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    fn assume(&self, actor: &Actor) -> Result<(), PlatformError> {
        if self.unusable_roles.contains(&actor.role_arn.to_string()) {
            return Err(PlatformError::Role(actor.role_arn.clone()));
        }
        Ok(())
    }

    fn check_network(&self, actor: &Actor) -> Result<(), PlatformError> {
        if self.unattached_roles.contains(&actor.role_arn.to_string()) {
            return Err(PlatformError::Denied(format!(
                "{} is not authorized to perform: ec2:DescribeSubnets",
                actor.role_arn
            )));
        }
        Ok(())
    }

    fn check_image(&self, _: &Actor, reference: &str) -> Result<(), PlatformError> {
        if self.missing_images.iter().any(|image| image == reference) {
            return Err(PlatformError::Unusable(format!(
                "Requested image {reference} not found."
            )));
        }
        Ok(())
    }

    fn any_object(&self, actor: &Actor, prefix: &S3Uri) -> Result<bool, PlatformError> {
        match self.check_object(actor, prefix) {
            Err(PlatformError::Unusable(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn check_object(&self, _: &Actor, object: &S3Uri) -> Result<(), PlatformError> {
        let text = object.to_string();
        if self.denied_objects.contains(&text) {
            return Err(PlatformError::Denied(format!(
                "User: arn:aws:sts::123456789012:assumed-role/r/SageMaker is not authorized to perform: s3:GetObject \
                 on resource: {text}"
            )));
        }
        if self.missing_objects.contains(&text) {
            return Err(PlatformError::Unusable(format!("no object {text}")));
        }
        Ok(())
    }

    fn check_key(&self, _: &Scope, key: &str) -> Result<(), PlatformError> {
        if self.missing_keys.iter().any(|missing| missing == key) {
            return Err(PlatformError::Unusable(format!("Key '{key}' does not exist")));
        }
        Ok(())
    }

    fn has_bucket(&self, name: &str) -> Result<bool, PlatformError> {
        Ok(!self.missing_buckets.iter().any(|bucket| bucket == name))
    }
}
