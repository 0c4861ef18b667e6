//! Groups and who belongs to them.

use super::change::{again, change_with, every, read, unique_id};
use super::entity::{self, About, Entity};
use super::operation::operation;
use super::role::whole_seconds;
use super::{error, page, user};
use crate::Ctx;
use isolarium_model::iam::{Group, Policies, User, global};
use isolarium_model::{Arn, Key};
use isolarium_policy::Question;
use isolarium_store::state::{Batch, Expect, StoreError, Stored};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

/// Groups that one user may belong to.
pub(super) const MOST_PER_USER: usize = 10;

pub(super) fn shape(group: &Group) -> shapes::Group {
    shapes::Group {
        path: group.path.clone(),
        group_name: group.name.clone(),
        group_id: group.id.clone(),
        arn: group.arn().to_string(),
        create_date: group.created.0,
    }
}

fn key(ctx: &Ctx<'_>, name: &str) -> Key {
    Group::key(&ctx.caller.scope.account, name)
}

/// The group, written anew by `batch`: whoever changes its members does so, and who deletes it is then too late.
fn hold(ctx: &Ctx<'_>, name: &str, batch: Batch) -> Result<Batch, ApiError> {
    let key = key(ctx, name);
    let found = read::<Group>(ctx, &key, || entity::missing::<Group>(name))?;
    batch
        .put(&key, Expect::At(found.revision), &found.record)
        .map_err(error::store)
}

/// The users that belong to a group.
fn members(ctx: &Ctx<'_>, group: &Key) -> Result<Vec<User>, ApiError> {
    let mut users = every::<User>(ctx)?;
    users.retain(|user| user.groups.contains(&group.name));
    Ok(users)
}

/// The groups of a user, by name.
pub(super) fn groups_of(ctx: &Ctx<'_>, user: &User) -> Result<Vec<Group>, ApiError> {
    let mut groups = Vec::new();
    for name in &user.groups {
        let found = ctx.store.get::<Group>(&key(ctx, name)).map_err(error::store)?;
        groups.extend(found.map(|stored| stored.record));
    }
    Ok(groups)
}

operation!(
    "CreateGroup", CreateGroupRequest -> CreateGroupResponse,
    asks |this, ctx| {
        let path = this.path.as_deref().unwrap_or("/");
        let arn = Arn::iam(&ctx.caller.scope.account, &format!("group{path}{}", this.group_name));
        vec![Question::on("iam:CreateGroup", &arn)]
    },
    does |request, ctx| {
        entity::room_for::<Group>(ctx)?;
        let group = Group {
            account: ctx.caller.scope.account.clone(),
            path: request.path.unwrap_or_else(|| "/".into()),
            id: unique_id(ctx.ids, "AGPA", 17),
            created: whole_seconds(ctx.clock.now()),
            policies: Policies::default(),
            name: request.group_name,
        };
        let batch = Batch::default().put(&key(ctx, &group.name), Expect::Absent, &group);
        match ctx.store.commit(batch.map_err(error::store)?) {
            Ok(_) => Ok(shapes::CreateGroupResponse { group: shape(&group) }),
            Err(StoreError::Conflict { .. }) => Err(error::already_exists("Group", &group.name)),
            Err(other) => Err(error::store(other)),
        }
    },
);

operation!(
    "GetGroup", GetGroupRequest -> GetGroupResponse,
    asks |this, ctx| vec![About::named::<Group>(ctx, &this.group_name).asks("iam:GetGroup")],
    does |request, ctx| {
        let group = entity::load::<Group>(ctx, &request.group_name)?;
        let members = members(ctx, &key(ctx, &group.name))?.into_iter();
        let keyed = members.map(|member| (member.name.clone(), user::shape(&member, false)));
        let page = page::keyed(keyed, request.marker.as_deref(), request.max_items);
        Ok(shapes::GetGroupResponse {
            group: shape(&group),
            is_truncated: page.truncated(),
            users: page.items,
            marker: page.marker,
        })
    },
);

operation!(
    "ListGroups", ListGroupsRequest -> ListGroupsResponse,
    asks |_, _| vec![Question::any("iam:ListGroups")],
    does |request, ctx| {
        let prefix = request.path_prefix.unwrap_or_else(|| "/".into());
        let scope = global(&ctx.caller.scope.account);
        let within = |group: &Group| group.path.starts_with(&prefix);
        let page = page::records(ctx, &scope, request.marker, request.max_items, within)?;
        Ok(shapes::ListGroupsResponse {
            is_truncated: page.truncated(),
            groups: page.items.iter().map(shape).collect(),
            marker: page.marker,
        })
    },
);

operation!(
    "UpdateGroup", UpdateGroupRequest -> UpdateGroupOutput,
    asks |this, ctx| {
        let mut questions = vec![About::named::<Group>(ctx, &this.group_name).asks("iam:UpdateGroup")];
        questions.extend(renamed::<Group>(ctx, "iam:UpdateGroup", this.new_group_name.as_deref()));
        questions
    },
    does |request, ctx| {
        let old = key(ctx, &request.group_name);
        again(ctx, || {
            let found = read::<Group>(ctx, &old, || entity::missing::<Group>(&request.group_name))?;
            let mut group = found.record;
            if let Some(path) = &request.new_path {
                group.path.clone_from(path);
            }
            if let Some(name) = &request.new_group_name {
                group.name.clone_from(name);
            }
            let new = key(ctx, &group.name);
            let mut batch = moved(ctx, &old, &new, found.revision, &group)?;
            if new != old {
                for mut user in stored_members(ctx, &old)? {
                    user.record.groups.remove(&old.name);
                    user.record.groups.insert(new.name.clone());
                    let (place, expect) = (user.key, Expect::At(user.revision));
                    batch = batch.put(&place, expect, &user.record).map_err(error::store)?;
                }
            }
            Ok((batch, ()))
        })?;
        Ok(shapes::UpdateGroupOutput {})
    },
);

/// The users of a group as they are to be written back.
fn stored_members(ctx: &Ctx<'_>, group: &Key) -> Result<Vec<Stored<User>>, ApiError> {
    let mut found = Vec::new();
    for user in members(ctx, group)? {
        let place = User::key(&user.account, &user.name);
        let stored = ctx.store.get::<User>(&place).map_err(error::store)?;
        found.extend(stored.filter(|stored| stored.record.groups.contains(&group.name)));
    }
    Ok(found)
}

/// Asks about the name that an entity is to have.
pub(super) fn renamed<E: Entity>(ctx: &Ctx<'_>, action: &str, new_name: Option<&str>) -> Option<Question> {
    new_name.map(|name| About::named::<E>(ctx, name).asks(action))
}

/// Writes an entity at its new place. A taken name is refused, unless it is its own in other letters.
pub(super) fn moved<E: Entity>(
    ctx: &Ctx<'_>,
    old: &Key,
    new: &Key,
    revision: isolarium_store::state::Revision,
    entity: &E,
) -> Result<Batch, ApiError> {
    if old == new {
        return Batch::default()
            .put(old, Expect::At(revision), entity)
            .map_err(error::store);
    }
    if ctx.store.get::<E>(new).map_err(error::store)?.is_some() {
        return Err(error::already_exists(E::NOUN, entity.display_name()));
    }
    let batch = Batch::default().delete::<E>(old, Expect::At(revision));
    batch.put(new, Expect::Absent, entity).map_err(error::store)
}

operation!(
    "DeleteGroup", DeleteGroupRequest -> DeleteGroupOutput,
    asks |this, ctx| vec![About::named::<Group>(ctx, &this.group_name).asks("iam:DeleteGroup")],
    does |request, ctx| {
        let place = key(ctx, &request.group_name);
        again(ctx, || {
            let found = read::<Group>(ctx, &place, || entity::missing::<Group>(&request.group_name))?;
            entity::bare(&found.record)?;
            if !members(ctx, &place)?.is_empty() {
                return Err(error::delete_conflict("remove users from group"));
            }
            Ok((Batch::default().delete::<Group>(&place, Expect::At(found.revision)), ()))
        })?;
        Ok(shapes::DeleteGroupOutput {})
    },
);

operation!(
    "AddUserToGroup", AddUserToGroupRequest -> AddUserToGroupOutput,
    asks |this, ctx| vec![About::named::<Group>(ctx, &this.group_name).asks("iam:AddUserToGroup")],
    does |request, ctx| {
        let group = key(ctx, &request.group_name);
        // A group that does not exist is told before a user that does not.
        hold(ctx, &request.group_name, Batch::default())?;
        let place = User::key(&ctx.caller.scope.account, &request.user_name);
        let missing = || entity::missing::<User>(&request.user_name);
        change_with(ctx, &place, missing, |user: &mut User, batch| {
            user.groups.insert(group.name.clone());
            error::quota("GroupsPerUser", MOST_PER_USER, user.groups.len())?;
            hold(ctx, &request.group_name, batch)
        })?;
        Ok(shapes::AddUserToGroupOutput {})
    },
);

operation!(
    "RemoveUserFromGroup", RemoveUserFromGroupRequest -> RemoveUserFromGroupOutput,
    asks |this, ctx| vec![About::named::<Group>(ctx, &this.group_name).asks("iam:RemoveUserFromGroup")],
    does |request, ctx| {
        let group = key(ctx, &request.group_name);
        entity::load::<Group>(ctx, &request.group_name)?;
        entity::change(ctx, &request.user_name, |user: &mut User| {
            let missing = || {
                let (user, group) = (&request.user_name, &request.group_name);
                error::no_such(format!("User {user} is not in group {group}."))
            };
            user.groups.remove(&group.name).then_some(()).ok_or_else(missing)
        })?;
        Ok(shapes::RemoveUserFromGroupOutput {})
    },
);

operation!(
    "ListGroupsForUser", ListGroupsForUserRequest -> ListGroupsForUserResponse,
    asks |this, ctx| vec![About::named::<User>(ctx, &this.user_name).asks("iam:ListGroupsForUser")],
    does |request, ctx| {
        let user = entity::load::<User>(ctx, &request.user_name)?;
        let groups = groups_of(ctx, &user)?;
        let keyed = groups.iter().map(|group| (group.name.clone(), shape(group)));
        let page = page::keyed(keyed, request.marker.as_deref(), request.max_items);
        Ok(shapes::ListGroupsForUserResponse {
            is_truncated: page.truncated(),
            groups: page.items,
            marker: page.marker,
        })
    },
);
