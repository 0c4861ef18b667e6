//! Key policies: GetKeyPolicy, PutKeyPolicy, ListKeyPolicies, and the policy's say in every question about a key.

use super::{aliases_of, ask, find, shapes, update};
use crate::iam::named;
use crate::{Ctx, Operation};
use isolarium_model::kms::KmsKey;
use isolarium_model::{AccountId, Arn, Principal, Scope};
use isolarium_policy::evaluate::decide;
use isolarium_policy::{Document, DocumentKind, Granted, NamedPolicy, Question, ResourceSide};
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;

/// The only name of a key's policy.
const DEFAULT: &str = "default";
/// Most bytes of a policy.
const LARGEST: usize = 32_768;

/// The policy of a key that was made without one: the account decides by IAM.
pub(super) fn default_text(account: &AccountId) -> String {
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{ "AWS" : "arn:aws:iam::{account}:root" }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// What AWS lets one account do with another's key. A key policy cannot give away anything else: the key stays under the
/// control of its own account.
const ACROSS_ACCOUNTS: [&str; 6] = [
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
];

/// The owner of a key and its policy, without which nobody may do anything with it; `None` when the question is about
/// something else, or about a key that there is not. Of what is not done across accounts, the key of another account says
/// nothing.
///
/// # Errors
/// When the record cannot be read.
pub fn resource_side(
    store: &dyn StateStore,
    caller: &Principal,
    question: &Question,
) -> Result<Option<ResourceSide>, StoreError> {
    let Some((key, arn)) = key_of(store, question)? else {
        return Ok(None);
    };
    let own = caller.account();
    let foreign = own.is_some() && own != arn.account().as_ref();
    if foreign && !ACROSS_ACCOUNTS.contains(&question.action.as_str()) {
        return Ok(Some(ResourceSide {
            policies: Vec::new(),
            ..side(&arn, named("key policy", &key.policy, DocumentKind::Resource))
        }));
    }
    Ok(Some(side(
        &arn,
        named("key policy", &key.policy, DocumentKind::Resource),
    )))
}

fn side(arn: &Arn, policy: NamedPolicy) -> ResourceSide {
    ResourceSide {
        owner: arn.account(),
        policies: vec![policy],
        required: true,
        ..ResourceSide::default()
    }
}

/// Adds what is known of a key: its kind, its aliases, its tags.
///
/// # Errors
/// When the records cannot be read.
pub fn added(store: &dyn StateStore, mut question: Question) -> Result<Question, StoreError> {
    let Some((key, arn)) = key_of(store, &question)? else {
        return Ok(question);
    };
    for (name, value) in [
        ("kms:KeySpec", "SYMMETRIC_DEFAULT"),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT"),
        ("kms:KeyOrigin", "AWS_KMS"),
        ("kms:MultiRegion", "false"),
    ] {
        question = question.with(name, value);
    }
    if let (Some(account), Some(region)) = (arn.account(), arn.region()) {
        for alias in aliases_of(store, &Scope { account, region }, &key.id)? {
            question = question.with("kms:ResourceAliases", alias.name);
        }
    }
    for (name, value) in &key.tags {
        question = question.with(&format!("aws:ResourceTag/{name}"), value.clone());
    }
    Ok(question)
}

fn key_of(store: &dyn StateStore, question: &Question) -> Result<Option<(KmsKey, Arn)>, StoreError> {
    let Ok(arn) = question.resource.parse::<Arn>() else {
        return Ok(None);
    };
    let id = arn.resource().strip_prefix("key/").map(str::to_owned);
    let (Some(id), "kms", Some(account), Some(region)) = (id, arn.service(), arn.account(), arn.region()) else {
        return Ok(None);
    };
    let found = store.get::<KmsKey>(&KmsKey::key(&Scope { account, region }, &id))?;
    Ok(found.map(|found| (found.record, arn)))
}

/// Checks a policy; unless the request waives it, the policy must let the caller change it again.
pub(super) fn check(ctx: &Ctx<'_>, arn: &Arn, text: &str, bypass: bool) -> Result<(), ApiError> {
    let malformed = |text: String| ApiError::client("MalformedPolicyDocumentException", text);
    if text.len() > LARGEST {
        return Err(ApiError::client(
            "LimitExceededException",
            format!("A key policy can have at most {LARGEST} bytes."),
        ));
    }
    Document::parse(text, DocumentKind::Resource).map_err(|error| malformed(error.to_string()))?;
    if bypass {
        return Ok(());
    }
    let question = Question::on("kms:PutKeyPolicy", arn).with("kms:CallerAccount", super::caller_account(ctx));
    let authority = crate::iam::authority(ctx)?;
    let policy = named("key policy", text, DocumentKind::Resource);
    match decide(&authority, &question, &side(arn, policy)) {
        Ok(_) => Ok(()),
        Err(_) => Err(malformed(
            "The new key policy will not allow you to update the key policy in the future.".into(),
        )),
    }
}

fn only_default(name: Option<&str>) -> Result<(), ApiError> {
    match name {
        None | Some(DEFAULT) => Ok(()),
        Some(_) => Err(ApiError::client("NotFoundException", "No such policy exists")),
    }
}

impl Operation for shapes::GetKeyPolicyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "GetKeyPolicy";
    type Output = shapes::GetKeyPolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:GetKeyPolicy", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        only_default(request.policy_name.as_deref())?;
        Ok(shapes::GetKeyPolicyResponse {
            policy: Some(find(ctx, &request.key_id)?.record.policy),
            policy_name: Some(DEFAULT.into()),
        })
    }
}

impl Operation for shapes::PutKeyPolicyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "PutKeyPolicy";
    type Output = shapes::PutKeyPolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let bypass = self.bypass_policy_lockout_safety_check.unwrap_or(false);
        let question = ask(ctx, "kms:PutKeyPolicy", &self.key_id);
        vec![question.with("kms:BypassPolicyLockoutSafetyCheck", bypass.to_string())]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        only_default(request.policy_name.as_deref())?;
        let bypass = request.bypass_policy_lockout_safety_check == Some(true);
        update(ctx, &request.key_id, |key| {
            check(ctx, &key.arn, &request.policy, bypass)?;
            key.policy.clone_from(&request.policy);
            Ok(())
        })?;
        Ok(shapes::PutKeyPolicyOutput {})
    }
}

impl Operation for shapes::ListKeyPoliciesRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "ListKeyPolicies";
    type Output = shapes::ListKeyPoliciesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:ListKeyPolicies", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        find(ctx, &request.get().key_id)?;
        Ok(shapes::ListKeyPoliciesResponse {
            policy_names: Some(vec![DEFAULT.into()]),
            next_marker: None,
            truncated: Some(false),
        })
    }
}
