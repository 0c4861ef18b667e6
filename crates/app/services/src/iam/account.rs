//! The account as a whole: its alias, its numbers, everything about its entities at once.

use super::change::{again, count, every};
use super::entity::Entity;
use super::managed::Usage;
use super::operation::operation;
use super::role::{LONGEST_TRUST, whole_seconds};
use super::{attached, aws_managed, boundary, error, group, managed, operator, page, policy, tags};
use crate::Ctx;
use isolarium_model::Record;
use isolarium_model::iam::{Account, AccountAlias, Group, Policies, Policy, Role, User, global};
use isolarium_policy::Question;
use isolarium_store::state::{Batch, Expect};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

fn no_alias(alias: &str) -> ApiError {
    error::no_such(format!("The Account Alias {alias} cannot be found."))
}

operation!(
    "CreateAccountAlias", CreateAccountAliasRequest -> CreateAccountAliasOutput,
    asks |_, _| vec![Question::any("iam:CreateAccountAlias")],
    does |request, ctx| {
        let id = &ctx.caller.scope.account;
        let place = Account::key(id);
        let alias = AccountAlias {
            alias: request.account_alias,
            account: id.clone(),
            created: whole_seconds(ctx.clock.now()),
        };
        let key = AccountAlias::key(&alias.alias);
        again(ctx, || {
            let mut account = super::change::read::<Account>(ctx, &place, || no_alias(&alias.alias))?;
            let taken = ctx.store.get::<AccountAlias>(&key).map_err(error::store)?;
            if taken.is_some() {
                let text = format!("The account alias {} already exists.", alias.alias);
                return Err(ApiError::client("EntityAlreadyExists", text).with_status(409));
            }
            let mut batch = Batch::default().put(&key, Expect::Absent, &alias).map_err(error::store)?;
            // An account has one alias: a new one takes the place of the old one.
            if let Some(old) = account.record.alias.replace(alias.alias.clone()) {
                batch = batch.delete::<AccountAlias>(&AccountAlias::key(&old), Expect::Any);
            }
            let batch = batch.put(&place, Expect::At(account.revision), &account.record);
            Ok((batch.map_err(error::store)?, ()))
        })?;
        Ok(shapes::CreateAccountAliasOutput {})
    },
);

operation!(
    "DeleteAccountAlias", DeleteAccountAliasRequest -> DeleteAccountAliasOutput,
    asks |_, _| vec![Question::any("iam:DeleteAccountAlias")],
    does |request, ctx| {
        let place = Account::key(&ctx.caller.scope.account);
        again(ctx, || {
            let missing = || no_alias(&request.account_alias);
            let mut account = super::change::read::<Account>(ctx, &place, missing)?;
            if account.record.alias.as_ref() != Some(&request.account_alias) {
                return Err(missing());
            }
            account.record.alias = None;
            let key = AccountAlias::key(&request.account_alias);
            let batch = Batch::default()
                .delete::<AccountAlias>(&key, Expect::Any)
                .put(&place, Expect::At(account.revision), &account.record);
            Ok((batch.map_err(error::store)?, ()))
        })?;
        Ok(shapes::DeleteAccountAliasOutput {})
    },
);

operation!(
    "ListAccountAliases", ListAccountAliasesRequest -> ListAccountAliasesResponse,
    asks |_, _| vec![Question::any("iam:ListAccountAliases")],
    does |_, ctx| {
        let found = ctx.store.get::<Account>(&Account::key(&ctx.caller.scope.account)).map_err(error::store)?;
        Ok(shapes::ListAccountAliasesResponse {
            account_aliases: found.and_then(|stored| stored.record.alias).into_iter().collect(),
            is_truncated: Some(false),
            marker: None,
        })
    },
);

operation!(
    "GetAccountSummary", GetAccountSummaryInput -> GetAccountSummaryResponse,
    asks |_, _| vec![Question::any("iam:GetAccountSummary")],
    does |_, ctx| {
        let account = ctx.store.get::<Account>(&Account::key(&ctx.caller.scope.account)).map_err(error::store)?;
        let root_keys = account.is_some_and(|stored| !stored.record.access_keys.is_empty());
        let policies = every::<Policy>(ctx)?;
        let versions: usize = policies.iter().map(|policy| policy.others.len() + 1).sum();
        let numbers = [
            ("Users", number::<User>(ctx)?),
            ("UsersQuota", User::MOST),
            ("Groups", number::<Group>(ctx)?),
            ("GroupsQuota", Group::MOST),
            ("Roles", number::<Role>(ctx)?),
            ("RolesQuota", Role::MOST),
            ("Policies", policies.len()),
            ("PoliciesQuota", policy::MOST),
            ("PolicySizeQuota", policy::LONGEST),
            ("PolicyVersionsInUse", versions),
            ("VersionsPerPolicyQuota", policy::MOST_VERSIONS),
            ("UserPolicySizeQuota", User::LONGEST_INLINE),
            ("GroupPolicySizeQuota", Group::LONGEST_INLINE),
            ("RolePolicySizeQuota", Role::LONGEST_INLINE),
            ("AssumeRolePolicySizeQuota", LONGEST_TRUST),
            ("AttachedPoliciesPerUserQuota", attached::MOST),
            ("AttachedPoliciesPerGroupQuota", attached::MOST),
            ("AttachedPoliciesPerRoleQuota", attached::MOST),
            ("GroupsPerUserQuota", group::MOST_PER_USER),
            ("AccessKeysPerUserQuota", operator::MOST_KEYS),
            ("AccountAccessKeysPresent", usize::from(root_keys)),
            // What cannot be made here: there is none.
            ("AccountMFAEnabled", 0),
            ("AccountPasswordPresent", 0),
            ("AccountSigningCertificatesPresent", 0),
            ("InstanceProfiles", 0),
            ("MFADevices", 0),
            ("MFADevicesInUse", 0),
            ("Providers", 0),
            ("ServerCertificates", 0),
        ];
        let shown = |(name, number): (&str, usize)| (name.to_owned(), i64::try_from(number).unwrap_or(i64::MAX));
        Ok(shapes::GetAccountSummaryResponse {
            summary_map: Some(numbers.into_iter().map(shown).collect()),
        })
    },
);

fn number<R: Record>(ctx: &Ctx<'_>) -> Result<usize, ApiError> {
    count::<R>(ctx, usize::MAX)
}

/// One entity of GetAccountAuthorizationDetails.
enum Detail {
    User(shapes::UserDetail),
    Group(shapes::GroupDetail),
    Role(shapes::RoleDetail),
    Policy(shapes::ManagedPolicyDetail),
}

/// The lists that GetAccountAuthorizationDetails goes through, in this order.
const LISTS: [shapes::EntityType; 5] = [
    shapes::EntityType::User,
    shapes::EntityType::Group,
    shapes::EntityType::Role,
    shapes::EntityType::LocalManagedPolicy,
    shapes::EntityType::AWSManagedPolicy,
];

fn inline(policies: &Policies) -> Option<Vec<shapes::PolicyDetail>> {
    let detail = |(name, text): (&String, &String)| shapes::PolicyDetail {
        policy_name: Some(name.clone()),
        policy_document: Some(uri_encode(text)),
    };
    (!policies.inline.is_empty()).then(|| policies.inline.iter().map(detail).collect())
}

fn attached(policies: &Policies) -> Option<Vec<shapes::AttachedPolicy>> {
    Some(policies.managed.iter().map(attached::shape).collect())
}

fn user_detail(ctx: &Ctx<'_>, user: &User) -> Result<shapes::UserDetail, ApiError> {
    let groups = group::groups_of(ctx, user)?;
    Ok(shapes::UserDetail {
        path: Some(user.path.clone()),
        user_name: Some(user.name.clone()),
        user_id: Some(user.id.clone()),
        arn: Some(user.arn().to_string()),
        create_date: Some(user.created.0),
        user_policy_list: inline(&user.attachments.policies),
        group_list: Some(groups.into_iter().map(|group| group.name).collect()),
        attached_managed_policies: attached(&user.attachments.policies),
        permissions_boundary: boundary::shape(user.attachments.boundary.as_ref()),
        tags: tags::shape(&user.attachments.tags),
    })
}

fn group_detail(group: &Group) -> shapes::GroupDetail {
    shapes::GroupDetail {
        path: Some(group.path.clone()),
        group_name: Some(group.name.clone()),
        group_id: Some(group.id.clone()),
        arn: Some(group.arn().to_string()),
        create_date: Some(group.created.0),
        group_policy_list: inline(&group.policies),
        attached_managed_policies: attached(&group.policies),
    }
}

fn role_detail(role: &Role) -> shapes::RoleDetail {
    shapes::RoleDetail {
        path: Some(role.path.clone()),
        role_name: Some(role.name.clone()),
        role_id: Some(role.id.clone()),
        arn: Some(role.arn().to_string()),
        create_date: Some(role.created.0),
        assume_role_policy_document: Some(uri_encode(&role.trust)),
        instance_profile_list: Some(Vec::new()),
        role_policy_list: inline(&role.attachments.policies),
        attached_managed_policies: attached(&role.attachments.policies),
        permissions_boundary: boundary::shape(role.attachments.boundary.as_ref()),
        tags: tags::shape(&role.attachments.tags),
        role_last_used: None,
    }
}

fn policy_detail(policy: &Policy, usage: &Usage) -> shapes::ManagedPolicyDetail {
    let shown = managed::shape(policy, usage);
    let versions = policy.versions().into_iter();
    shapes::ManagedPolicyDetail {
        policy_name: shown.policy_name,
        policy_id: shown.policy_id,
        arn: shown.arn,
        path: shown.path,
        default_version_id: shown.default_version_id,
        attachment_count: shown.attachment_count,
        permissions_boundary_usage_count: shown.permissions_boundary_usage_count,
        is_attachable: shown.is_attachable,
        description: policy.description.clone(),
        create_date: shown.create_date,
        update_date: shown.update_date,
        policy_version_list: Some(
            versions
                .map(|version| policy::version_shape(policy, version, true))
                .collect(),
        ),
    }
}

fn details(
    ctx: &Ctx<'_>,
    kind: shapes::EntityType,
    usage: &Usage,
    marker: Option<String>,
    size: i64,
) -> Result<page::Page<Detail>, ApiError> {
    let scope = global(&ctx.caller.scope.account);
    let size = Some(size);
    Ok(match kind {
        shapes::EntityType::User => {
            let page = page::records(ctx, &scope, marker, size, |_: &User| true)?;
            let items = page.items.iter().map(|user| user_detail(ctx, user).map(Detail::User));
            page::Page {
                items: items.collect::<Result<_, _>>()?,
                marker: page.marker,
            }
        }
        shapes::EntityType::Group => {
            page::records(ctx, &scope, marker, size, |_: &Group| true)?.map(|group| Detail::Group(group_detail(&group)))
        }
        shapes::EntityType::Role => {
            page::records(ctx, &scope, marker, size, |_: &Role| true)?.map(|role| Detail::Role(role_detail(&role)))
        }
        shapes::EntityType::LocalManagedPolicy => page::records(ctx, &scope, marker, size, |_: &Policy| true)?
            .map(|policy| Detail::Policy(policy_detail(&policy, usage))),
        // Of AWS's own, those that somebody uses.
        shapes::EntityType::AWSManagedPolicy => {
            let used = aws_managed::all().iter().filter(|policy| usage.uses(&policy.arn));
            let named = used.map(|policy| (policy.name().to_owned(), Detail::Policy(policy_detail(policy, usage))));
            page::keyed(named, marker.as_deref(), size)
        }
    })
}

operation!(
    "GetAccountAuthorizationDetails",
    GetAccountAuthorizationDetailsRequest -> GetAccountAuthorizationDetailsResponse,
    asks |_, _| vec![Question::any("iam:GetAccountAuthorizationDetails")],
    does |request, ctx| {
        let usage = Usage::read(ctx)?;
        let filter = request.filter.unwrap_or_default();
        let marker = request.marker.as_deref();
        let page = page::chain(LISTS.len(), marker, request.max_items, |list, marker, size| {
            match LISTS.get(list).filter(|kind| filter.is_empty() || filter.contains(kind)) {
                Some(kind) => details(ctx, *kind, &usage, marker, size),
                None => Ok(page::Page::empty()),
            }
        })?;
        let mut answer = shapes::GetAccountAuthorizationDetailsResponse {
            is_truncated: page.truncated(),
            marker: page.marker,
            ..Default::default()
        };
        let (mut users, mut groups, mut roles, mut policies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for detail in page.items {
            match detail {
                Detail::User(user) => users.push(user),
                Detail::Group(group) => groups.push(group),
                Detail::Role(role) => roles.push(role),
                Detail::Policy(policy) => policies.push(policy),
            }
        }
        answer.user_detail_list = Some(users);
        answer.group_detail_list = Some(groups);
        answer.role_detail_list = Some(roles);
        answer.policies = Some(policies);
        Ok(answer)
    },
);
