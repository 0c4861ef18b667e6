//! CreateAlias, UpdateAlias, DeleteAlias, ListAliases. Both the alias and its key must let the caller.

use super::key::page;
use super::{ask, caller_account, find, is_own, missing, pending, shapes, stored};
use crate::{Ctx, Operation};
use isolarium_model::kms::{KmsAlias, KmsKey, KmsState};
use isolarium_policy::{Granted, Question};
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;

/// Aliases of a page when the request names no number.
const PAGE: usize = 50;

/// Asks about an alias by its name.
fn ask_alias(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    let name = name.strip_prefix("alias/").unwrap_or(name).replace(':', "-");
    let arn = KmsAlias::arn(&ctx.caller.scope, &format!("alias/{name}"));
    Question::on(action, &arn).with("kms:CallerAccount", caller_account(ctx))
}

/// Asks about a key by id or ARN. No alias stands behind another.
fn ask_both(ctx: &Ctx<'_>, action: &str, alias: &str, key: &str) -> Vec<Question> {
    vec![ask_alias(ctx, action, alias), ask(ctx, action, key)]
}

/// A name that callers may give.
fn checked(name: &str) -> Result<(), ApiError> {
    let refused = |text: &str| Err(ApiError::client("InvalidAliasNameException", text));
    match name.strip_prefix("alias/") {
        None => refused("Alias must start with the prefix \"alias/\"."),
        Some("") => refused("Alias needs a name behind the prefix \"alias/\"."),
        Some(rest) if rest.contains(':') => refused("The name of an alias has no colons."),
        Some(rest) if rest.starts_with("aws/") => refused("Aliases beginning with alias/aws/ are reserved."),
        Some(_) => Ok(()),
    }
}

/// The key an alias is to stand for: one of the caller's own that is there to stay.
fn target(ctx: &Ctx<'_>, given: &str) -> Result<KmsKey, ApiError> {
    if given.starts_with("alias/") || given.contains(":alias/") {
        return Err(ApiError::validation("Aliases must refer to keys. Not aliases"));
    }
    if !is_own(ctx, given) {
        return Err(missing(ctx, given));
    }
    let key = find(ctx, given)?.record;
    match key.state {
        KmsState::PendingDeletion { .. } => Err(pending(&key)),
        KmsState::Enabled | KmsState::Disabled => Ok(key),
    }
}

fn absent(ctx: &Ctx<'_>, name: &str) -> ApiError {
    let arn = KmsAlias::arn(&ctx.caller.scope, name);
    ApiError::client("NotFoundException", format!("Alias {arn} is not found."))
}

impl Operation for shapes::CreateAliasRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "CreateAlias";
    type Output = shapes::CreateAliasOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_both(ctx, "kms:CreateAlias", &self.alias_name, &self.target_key_id)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        checked(&request.alias_name)?;
        let (scope, now) = (&ctx.caller.scope, ctx.clock.now());
        let alias = KmsAlias {
            key_id: target(ctx, &request.target_key_id)?.id,
            name: request.alias_name,
            created: now,
            updated: now,
        };
        let batch = Batch::default().put(&KmsAlias::key(scope, &alias.name), Expect::Absent, &alias);
        match ctx.store.commit(batch.map_err(stored)?) {
            Ok(_) => Ok(shapes::CreateAliasOutput {}),
            Err(StoreError::Conflict { .. }) => Err(ApiError::client(
                "AlreadyExistsException",
                format!(
                    "An alias with the name {} already exists",
                    KmsAlias::arn(scope, &alias.name)
                ),
            )),
            Err(error) => Err(stored(error)),
        }
    }
}

impl Operation for shapes::UpdateAliasRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "UpdateAlias";
    type Output = shapes::UpdateAliasOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let mut questions = ask_both(ctx, "kms:UpdateAlias", &self.alias_name, &self.target_key_id);
        // The key that loses the alias has its say too.
        let before = ask(ctx, "kms:UpdateAlias", &self.alias_name);
        if before.context.contains_key("kms:requestalias") && !questions.contains(&before) {
            questions.push(without_alias(before));
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let name = request.alias_name.as_str();
        let key = KmsAlias::key(&ctx.caller.scope, name);
        let to = target(ctx, &request.target_key_id)?.id;
        loop {
            let found = ctx.store.get::<KmsAlias>(&key).map_err(stored)?;
            let mut found = found.ok_or_else(|| absent(ctx, name))?;
            found.record.key_id.clone_from(&to);
            found.record.updated = ctx.clock.now();
            let batch = Batch::default().put(&key, Expect::At(found.revision), &found.record);
            match ctx.store.commit(batch.map_err(stored)?) {
                Ok(_) => return Ok(shapes::UpdateAliasOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}

/// `kms:RequestAlias` is a key of uses of a key, not of changes of an alias.
fn without_alias(mut question: Question) -> Question {
    question.context.remove("kms:requestalias");
    question
}

impl Operation for shapes::DeleteAliasRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "DeleteAlias";
    type Output = shapes::DeleteAliasOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let key = without_alias(ask(ctx, "kms:DeleteAlias", &self.alias_name));
        vec![ask_alias(ctx, "kms:DeleteAlias", &self.alias_name), key]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().alias_name;
        let key = KmsAlias::key(&ctx.caller.scope, name);
        if ctx.store.get::<KmsAlias>(&key).map_err(stored)?.is_none() {
            return Err(absent(ctx, name));
        }
        ctx.store
            .commit(Batch::default().delete::<KmsAlias>(&key, Expect::Any))
            .map_err(stored)?;
        Ok(shapes::DeleteAliasOutput {})
    }
}

impl Operation for shapes::ListAliasesRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "ListAliases";
    type Output = shapes::ListAliasesResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("kms:ListAliases")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let of = |given| match is_own(ctx, given) {
            true => find(ctx, given),
            false => Err(missing(ctx, given)),
        };
        let of = request.key_id.as_deref().map(of).transpose()?;
        let scope = &ctx.caller.scope;
        let page = match &of {
            // The aliases of one key are few: they come in one page.
            Some(_) => page(ctx, None, usize::MAX, None),
            None => page(ctx, request.limit, PAGE, request.marker),
        };
        let found = ctx.store.query::<KmsAlias>(&page).map_err(stored)?;
        let aliases = found.rows.into_iter().map(|row| row.record);
        let wanted = aliases.filter(|alias| of.as_ref().is_none_or(|of| of.record.id == alias.key_id));
        let shown = wanted.map(|alias| shapes::AliasListEntry {
            alias_arn: Some(KmsAlias::arn(scope, &alias.name).to_string()),
            alias_name: Some(alias.name),
            target_key_id: Some(alias.key_id),
            creation_date: Some(alias.created.0),
            last_updated_date: Some(alias.updated.0),
        });
        Ok(shapes::ListAliasesResponse {
            aliases: Some(shown.collect()),
            truncated: Some(found.next.is_some()),
            next_marker: found.next,
        })
    }
}
