//! What users, groups and roles have in common.

use super::change::{self, read};
use super::error;
use crate::Ctx;
use isolarium_model::iam::{Group, Policies, Role, User};
use isolarium_model::{AccountId, Arn, Key, Record};
use isolarium_policy::Question;
use isolarium_wire::ApiError;

/// A user, group or role: something that policies are attached to.
pub(super) trait Entity: Record {
    /// As it stands in operation names, such as `AttachUserPolicy`.
    const NOUN: &'static str;
    /// All inline policies together, in characters without white space.
    const LONGEST_INLINE: usize;
    /// Entities of this kind in one account.
    const MOST: usize;

    /// Where the record lives.
    fn place(account: &AccountId, name: &str) -> Key;
    /// With its path.
    fn full_arn(&self) -> Arn;
    /// As the caller spelled it when it was made.
    fn display_name(&self) -> &str;
    fn policies(&self) -> &Policies;
    fn policies_mut(&mut self) -> &mut Policies;
    /// The boundary's ARN; groups have none.
    fn boundary(&self) -> Option<&Arn>;
}

impl Entity for User {
    const NOUN: &'static str = "User";
    const LONGEST_INLINE: usize = 2_048;
    const MOST: usize = 5_000;

    fn place(account: &AccountId, name: &str) -> Key {
        Self::key(account, name)
    }
    fn full_arn(&self) -> Arn {
        self.arn()
    }
    fn display_name(&self) -> &str {
        &self.name
    }
    fn policies(&self) -> &Policies {
        &self.attachments.policies
    }
    fn policies_mut(&mut self) -> &mut Policies {
        &mut self.attachments.policies
    }
    fn boundary(&self) -> Option<&Arn> {
        self.attachments.boundary.as_ref()
    }
}

impl Entity for Role {
    const NOUN: &'static str = "Role";
    const LONGEST_INLINE: usize = 10_240;
    const MOST: usize = 1_000;

    fn place(account: &AccountId, name: &str) -> Key {
        Self::key(account, name)
    }
    fn full_arn(&self) -> Arn {
        self.arn()
    }
    fn display_name(&self) -> &str {
        &self.name
    }
    fn policies(&self) -> &Policies {
        &self.attachments.policies
    }
    fn policies_mut(&mut self) -> &mut Policies {
        &mut self.attachments.policies
    }
    fn boundary(&self) -> Option<&Arn> {
        self.attachments.boundary.as_ref()
    }
}

impl Entity for Group {
    const NOUN: &'static str = "Group";
    const LONGEST_INLINE: usize = 5_120;
    const MOST: usize = 300;

    fn place(account: &AccountId, name: &str) -> Key {
        Self::key(account, name)
    }
    fn full_arn(&self) -> Arn {
        self.arn()
    }
    fn display_name(&self) -> &str {
        &self.name
    }
    fn policies(&self) -> &Policies {
        &self.policies
    }
    fn policies_mut(&mut self) -> &mut Policies {
        &mut self.policies
    }
    fn boundary(&self) -> Option<&Arn> {
        None
    }
}

/// The error of an entity that does not exist.
pub(super) fn missing<E: Entity>(name: &str) -> ApiError {
    let noun = E::NOUN.to_ascii_lowercase();
    error::no_such(format!("The {noun} with name {name} cannot be found."))
}

/// An entity of the caller's account.
pub(super) fn load<E: Entity>(ctx: &Ctx<'_>, name: &str) -> Result<E, ApiError> {
    let key = E::place(&ctx.caller.scope.account, name);
    read::<E>(ctx, &key, || missing::<E>(name)).map(|stored| stored.record)
}

/// Changes an entity of the caller's account.
pub(super) fn change<E: Entity>(
    ctx: &Ctx<'_>,
    name: &str,
    apply: impl Fn(&mut E) -> Result<(), ApiError>,
) -> Result<E, ApiError> {
    let key = E::place(&ctx.caller.scope.account, name);
    change::change(ctx, &key, || missing::<E>(name), apply)
}

/// The entity that a question is about, whether or not it exists (IAM-59).
pub(super) struct About {
    arn: Arn,
    boundary: Option<Arn>,
}

impl About {
    /// An entity of the caller's account: with its path where it exists.
    pub(super) fn named<E: Entity>(ctx: &Ctx<'_>, name: &str) -> Self {
        let account = &ctx.caller.scope.account;
        let found = ctx.store.get::<E>(&E::place(account, name)).ok().flatten();
        match found.map(|stored| stored.record) {
            Some(entity) => Self {
                arn: entity.full_arn(),
                boundary: entity.boundary().cloned(),
            },
            None => Self {
                arn: Arn::iam(account, &format!("{}/{name}", E::NOUN.to_ascii_lowercase())),
                boundary: None,
            },
        }
    }

    /// Asks about an action on it.
    pub(super) fn asks(&self, action: &str) -> Question {
        Question::on(action, &self.arn)
    }

    /// The same, with `iam:PermissionsBoundary` of the entity as it is.
    pub(super) fn asks_bounded(&self, action: &str) -> Question {
        match &self.boundary {
            Some(boundary) => self.asks(action).with("iam:PermissionsBoundary", boundary.as_str()),
            None => self.asks(action),
        }
    }
}

/// Refuses one entity more than the account may have.
pub(super) fn room_for<E: Entity>(ctx: &Ctx<'_>) -> Result<(), ApiError> {
    error::quota(
        &format!("{}sPerAccount", E::NOUN),
        E::MOST,
        change::count::<E>(ctx, E::MOST)? + 1,
    )
}

/// Refuses to delete an entity that still has policies.
pub(super) fn bare<E: Entity>(entity: &E) -> Result<(), ApiError> {
    if !entity.policies().managed.is_empty() {
        return Err(error::delete_conflict("detach all policies"));
    }
    if !entity.policies().inline.is_empty() {
        return Err(error::delete_conflict("delete policies"));
    }
    Ok(())
}
