//! Managed policies as other operations need them: found by ARN, held while they are attached, counted.

use super::change::{change, every};
use super::{aws_managed, error};
use crate::Ctx;
use isolarium_model::Arn;
use isolarium_model::iam::{Group, Policy, Role, User};
use isolarium_policy::Question;
use isolarium_store::StateStore;
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use std::borrow::Cow;
use std::collections::HashMap;

/// The managed policy with this very ARN.
///
/// # Errors
/// When the store cannot be read.
pub fn find(store: &dyn StateStore, arn: &Arn) -> Result<Option<Cow<'static, Policy>>, StoreError> {
    if let Some(policy) = aws_managed::find(arn) {
        return Ok(Some(Cow::Borrowed(policy)));
    }
    let Some(key) = Policy::key_of(arn) else {
        return Ok(None);
    };
    let found = store.get::<Policy>(&key)?.map(|stored| stored.record);
    Ok(found.filter(|policy| policy.arn == *arn).map(Cow::Owned))
}

fn missing(arn: &str) -> ApiError {
    error::no_such(format!("Policy {arn} was not found."))
}

fn parse(arn: &str) -> Result<Arn, ApiError> {
    arn.parse()
        .map_err(|_| error::invalid_input(format!("ARN {arn} is not valid.")))
}

/// Asks about an action on a managed policy.
pub(super) fn asks(action: &str, arn: &str) -> Question {
    match arn.parse() {
        Ok(arn) => Question::on(action, &arn),
        Err(_) => Question::any(action),
    }
}

/// The policy that a request names.
pub(super) fn load(ctx: &Ctx<'_>, arn: &str) -> Result<Cow<'static, Policy>, ApiError> {
    find(ctx.store, &parse(arn)?)
        .map_err(error::store)?
        .ok_or_else(|| missing(arn))
}

/// Where the customer's policy that a request would change lives. AWS's own cannot be changed by anybody.
pub(super) fn place(ctx: &Ctx<'_>, action: &str, arn: &str) -> Result<isolarium_model::Key, ApiError> {
    let parsed = parse(arn)?;
    if aws_managed::find(&parsed).is_some() {
        let caller = ctx
            .caller
            .principal
            .arn()
            .map(|arn| arn.to_string())
            .unwrap_or_default();
        let text = format!("User: {caller} is not authorized to perform: {action} on resource: policy {arn}");
        return Err(ApiError::client("AccessDenied", text).with_status(403));
    }
    Policy::key_of(&parsed).ok_or_else(|| missing(arn))
}

/// Changes a customer's policy.
pub(super) fn edit(
    ctx: &Ctx<'_>,
    action: &str,
    arn: &str,
    apply: impl Fn(&mut Policy) -> Result<(), ApiError>,
) -> Result<Policy, ApiError> {
    let key = place(ctx, action, arn)?;
    let gone = || missing(arn);
    change(ctx, &key, gone, |policy: &mut Policy| {
        if policy.arn.as_str() != arn {
            return Err(gone());
        }
        apply(policy)
    })
}

/// What a policy is wanted for, which decides how its absence is worded.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Permissions,
    Boundary,
}

/// The ARN of a policy that is about to be used. The batch fails if the policy is deleted in the meantime.
pub(super) fn hold(ctx: &Ctx<'_>, arn: &str, wanted: Use, batch: Batch) -> Result<(Arn, Batch), ApiError> {
    let parsed = parse(arn)?;
    if aws_managed::find(&parsed).is_some() {
        return Ok((parsed, batch));
    }
    let absent = || {
        error::no_such(match wanted {
            Use::Permissions => format!("Policy {arn} does not exist or is not attachable."),
            Use::Boundary => format!("Scope ARN: {arn} does not exist or is not attachable."),
        })
    };
    // Only the own account's: the gate was asked about the entity, not about the policy.
    let own = parsed.account().filter(|account| *account == ctx.caller.scope.account);
    let key = own.and_then(|_| Policy::key_of(&parsed)).ok_or_else(absent)?;
    let found = ctx.store.get::<Policy>(&key).map_err(error::store)?;
    let found = found.filter(|stored| stored.record.arn == parsed).ok_or_else(absent)?;
    let batch = batch.put(&key, Expect::At(found.revision), &found.record);
    Ok((parsed, batch.map_err(error::store)?))
}

/// How often each managed policy is used in the caller's account.
#[derive(Default)]
pub(super) struct Usage {
    attached: HashMap<Arn, i64>,
    bounding: HashMap<Arn, i64>,
}

impl Usage {
    /// Counts.
    pub(super) fn read(ctx: &Ctx<'_>) -> Result<Self, ApiError> {
        let mut usage = Self::default();
        for user in every::<User>(ctx)? {
            usage.add(user.attachments.policies.managed, user.attachments.boundary);
        }
        for role in every::<Role>(ctx)? {
            usage.add(role.attachments.policies.managed, role.attachments.boundary);
        }
        for group in every::<Group>(ctx)? {
            usage.add(group.policies.managed, None);
        }
        Ok(usage)
    }

    fn add(&mut self, managed: impl IntoIterator<Item = Arn>, boundary: Option<Arn>) {
        for arn in managed {
            *self.attached.entry(arn).or_default() += 1;
        }
        if let Some(arn) = boundary {
            *self.bounding.entry(arn).or_default() += 1;
        }
    }

    /// Users, groups and roles whose permissions it gives.
    pub(super) fn attached(&self, arn: &Arn) -> i64 {
        self.attached.get(arn).copied().unwrap_or(0)
    }

    /// Users and roles whose boundary it is.
    pub(super) fn bounding(&self, arn: &Arn) -> i64 {
        self.bounding.get(arn).copied().unwrap_or(0)
    }

    /// Whether anything uses it.
    pub(super) fn uses(&self, arn: &Arn) -> bool {
        self.attached(arn) + self.bounding(arn) > 0
    }
}

/// As lists show a policy: without description and tags.
pub(super) fn shape(policy: &Policy, usage: &Usage) -> shapes::Policy {
    shapes::Policy {
        policy_name: Some(policy.name().into()),
        policy_id: Some(policy.id.clone()),
        arn: Some(policy.arn.to_string()),
        path: Some(policy.path().into()),
        default_version_id: Some(policy.default.id()),
        attachment_count: Some(usage.attached(&policy.arn)),
        permissions_boundary_usage_count: Some(usage.bounding(&policy.arn)),
        is_attachable: Some(true),
        create_date: Some(policy.created.0),
        update_date: Some(policy.updated.0),
        ..Default::default()
    }
}
