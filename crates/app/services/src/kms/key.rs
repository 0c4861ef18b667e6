//! CreateKey, DescribeKey, ListKeys, EnableKey, DisableKey, ScheduleKeyDeletion, CancelKeyDeletion.

use super::{ask, caller_account, cryptography, find, pending, policy, shapes, stored, tag, update};
use crate::{Ctx, Operation};
use isolarium_model::Timestamp;
use isolarium_model::kms::{KmsKey, KmsState};
use isolarium_model::time::uuid;
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, Query};
use isolarium_wire::ApiError;

/// Keys of a page when the request names no number.
const PAGE: usize = 100;
const DAY: i64 = 86_400_000;
/// Days until a key goes, when the request names none.
const WINDOW: i64 = 30;

fn unsupported(what: &str) -> ApiError {
    ApiError::client(
        "UnsupportedOperationException",
        format!("{what} is not supported by this engine; see docs/known-limits.md."),
    )
}

impl Operation for shapes::CreateKeyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "CreateKey";
    type Output = shapes::CreateKeyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let spec = self.key_spec.unwrap_or(shapes::KeySpec::SymmetricDefault);
        let usage = self.key_usage.unwrap_or(shapes::KeyUsageType::EncryptDecrypt);
        let origin = self.origin.unwrap_or(shapes::OriginType::AwsKms);
        let bypass = self.bypass_policy_lockout_safety_check.unwrap_or(false);
        let question = Question::any("kms:CreateKey")
            .with("kms:CallerAccount", caller_account(ctx))
            .with("kms:KeySpec", spec.as_str())
            .with("kms:KeyUsage", usage.as_str())
            .with("kms:KeyOrigin", origin.as_str())
            .with("kms:MultiRegion", self.multi_region.unwrap_or(false).to_string())
            .with("kms:BypassPolicyLockoutSafetyCheck", bypass.to_string());
        let tags = self.tags.iter().flatten();
        let mut questions = vec![question.with_request_tags(tags.map(|tag| (&tag.tag_key, &tag.tag_value)))];
        if self.tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
            // A key that is made with tags is tagged: its id is not known yet, so any key is asked about.
            let tagging = Question::on("kms:TagResource", &KmsKey::arn(&ctx.caller.scope, "*"))
                .with("kms:CallerAccount", caller_account(ctx));
            let tags = self.tags.iter().flatten();
            questions.push(tagging.with_request_tags(tags.map(|tag| (&tag.tag_key, &tag.tag_value))));
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let other_spec = request
            .key_spec
            .is_some_and(|spec| spec != shapes::KeySpec::SymmetricDefault)
            || request
                .customer_master_key_spec
                .is_some_and(|spec| spec != shapes::CustomerMasterKeySpec::SymmetricDefault);
        for (wanted, what) in [
            (other_spec, "A key spec other than SYMMETRIC_DEFAULT"),
            (
                request
                    .key_usage
                    .is_some_and(|usage| usage != shapes::KeyUsageType::EncryptDecrypt),
                "A key usage other than ENCRYPT_DECRYPT",
            ),
            (
                request
                    .origin
                    .is_some_and(|origin| origin != shapes::OriginType::AwsKms),
                "An origin other than AWS_KMS",
            ),
            (request.custom_key_store_id.is_some(), "A custom key store"),
            (request.xks_key_id.is_some(), "An external key store"),
            (request.multi_region == Some(true), "A multi-Region key"),
        ] {
            if wanted {
                return Err(unsupported(what));
            }
        }
        let (scope, id) = (&ctx.caller.scope, uuid(ctx.ids));
        let arn = KmsKey::arn(scope, &id);
        let text = request.policy.unwrap_or_else(|| policy::default_text(&scope.account));
        policy::check(
            ctx,
            &arn,
            &text,
            request.bypass_policy_lockout_safety_check == Some(true),
        )?;
        let key = KmsKey {
            created: ctx.clock.now(),
            state: KmsState::Enabled,
            description: request.description.unwrap_or_default(),
            policy: text,
            tags: tag::of_request(request.tags.unwrap_or_default())?,
            material: cryptography::new_material(ctx.master, ctx.ids, &arn)?,
            of_service: false,
            id,
            arn,
        };
        let batch = Batch::default().put(&KmsKey::key(scope, &key.id), Expect::Absent, &key);
        ctx.store.commit(batch.map_err(stored)?).map_err(stored)?;
        Ok(shapes::CreateKeyResponse {
            key_metadata: Some(described(key)),
        })
    }
}

fn described(key: KmsKey) -> shapes::KeyMetadata {
    let state = match key.state {
        KmsState::Enabled => shapes::KeyState::Enabled,
        KmsState::Disabled => shapes::KeyState::Disabled,
        KmsState::PendingDeletion { .. } => shapes::KeyState::PendingDeletion,
    };
    let deletion = match key.state {
        KmsState::PendingDeletion { at } => Some(at.0),
        KmsState::Enabled | KmsState::Disabled => None,
    };
    shapes::KeyMetadata {
        aws_account_id: key.arn.account().map(|account| account.to_string()),
        arn: Some(key.arn.to_string()),
        creation_date: Some(key.created.0),
        enabled: Some(key.state == KmsState::Enabled),
        description: Some(key.description),
        key_usage: Some(shapes::KeyUsageType::EncryptDecrypt),
        key_state: Some(state),
        deletion_date: deletion,
        origin: Some(shapes::OriginType::AwsKms),
        key_manager: Some(match key.of_service {
            true => shapes::KeyManagerType::Aws,
            false => shapes::KeyManagerType::Customer,
        }),
        customer_master_key_spec: Some(shapes::CustomerMasterKeySpec::SymmetricDefault),
        key_spec: Some(shapes::KeySpec::SymmetricDefault),
        encryption_algorithms: Some(vec![shapes::EncryptionAlgorithmSpec::SymmetricDefault]),
        multi_region: Some(false),
        key_id: key.id,
        ..Default::default()
    }
}

impl Operation for shapes::DescribeKeyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "DescribeKey";
    type Output = shapes::DescribeKeyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:DescribeKey", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        Ok(shapes::DescribeKeyResponse {
            key_metadata: Some(described(find(ctx, &request.get().key_id)?.record)),
        })
    }
}

/// A page of the caller's own records by name.
pub(super) fn page(ctx: &Ctx<'_>, limit: Option<i64>, default: usize, marker: Option<String>) -> Query {
    Query {
        sort_by: SortBy::Name,
        after: marker,
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default),
        ..Query::all(&ctx.caller.scope)
    }
}

impl Operation for shapes::ListKeysRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "ListKeys";
    type Output = shapes::ListKeysResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("kms:ListKeys")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let query = page(ctx, request.limit, PAGE, request.marker);
        let found = ctx.store.query::<KmsKey>(&query).map_err(stored)?;
        let now = ctx.clock.now();
        let keys = found
            .rows
            .into_iter()
            .map(|row| row.record)
            .filter(|key| !key.is_gone(now));
        let keys = keys.map(|key| shapes::KeyListEntry {
            key_arn: Some(key.arn.to_string()),
            key_id: Some(key.id),
        });
        Ok(shapes::ListKeysResponse {
            keys: Some(keys.collect()),
            truncated: Some(found.next.is_some()),
            next_marker: found.next,
        })
    }
}

/// Switches a key on or off.
fn switch(ctx: &Ctx<'_>, given: &str, state: KmsState) -> Result<(), ApiError> {
    update(ctx, given, |key| match key.state {
        KmsState::PendingDeletion { .. } => Err(pending(key)),
        KmsState::Enabled | KmsState::Disabled => {
            key.state = state;
            Ok(())
        }
    })
    .map(drop)
}

impl Operation for shapes::EnableKeyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "EnableKey";
    type Output = shapes::EnableKeyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:EnableKey", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        switch(ctx, &request.get().key_id, KmsState::Enabled)?;
        Ok(shapes::EnableKeyOutput {})
    }
}

impl Operation for shapes::DisableKeyRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "DisableKey";
    type Output = shapes::DisableKeyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:DisableKey", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        switch(ctx, &request.get().key_id, KmsState::Disabled)?;
        Ok(shapes::DisableKeyOutput {})
    }
}

impl Operation for shapes::ScheduleKeyDeletionRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "ScheduleKeyDeletion";
    type Output = shapes::ScheduleKeyDeletionResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let days = self.pending_window_in_days.unwrap_or(WINDOW);
        let question = ask(ctx, "kms:ScheduleKeyDeletion", &self.key_id);
        vec![question.with("kms:ScheduleKeyDeletionPendingWindowInDays", days.to_string())]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let days = request.pending_window_in_days.unwrap_or(WINDOW);
        if !(7..=30).contains(&days) {
            return Err(ApiError::validation(
                "PendingWindowInDays must be between 7 and 30 days (inclusive).",
            ));
        }
        let at = Timestamp(ctx.clock.now().0.saturating_add(days.saturating_mul(DAY)));
        let key = update(ctx, &request.key_id, |key| match key.state {
            KmsState::PendingDeletion { .. } => Err(pending(key)),
            KmsState::Enabled | KmsState::Disabled => {
                key.state = KmsState::PendingDeletion { at };
                Ok(())
            }
        })?;
        Ok(shapes::ScheduleKeyDeletionResponse {
            key_id: Some(key.arn.to_string()),
            deletion_date: Some(at.0),
            key_state: Some(shapes::KeyState::PendingDeletion),
            pending_window_in_days: Some(days),
        })
    }
}

impl Operation for shapes::CancelKeyDeletionRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "CancelKeyDeletion";
    type Output = shapes::CancelKeyDeletionResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:CancelKeyDeletion", &self.key_id)]
    }

    /// The key is disabled then, as on AWS.
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let key = update(ctx, &request.get().key_id, |key| match key.state {
            KmsState::PendingDeletion { .. } => {
                key.state = KmsState::Disabled;
                Ok(())
            }
            KmsState::Enabled | KmsState::Disabled => Err(ApiError::client(
                "KMSInvalidStateException",
                format!("{} is not pending deletion.", key.arn),
            )),
        })?;
        Ok(shapes::CancelKeyDeletionResponse {
            key_id: Some(key.arn.to_string()),
        })
    }
}
