//! Customers' managed policies and their versions (IAM-25).

use super::change::{again, count, every, read, unique_id};
use super::managed::{self, Usage};
use super::operation::operation;
use super::role::whole_seconds;
use super::tags;
use super::{aws_managed, error, page};
use isolarium_model::iam::{Group, Policy, PolicyVersion, Role, User, global};
use isolarium_policy::{DocumentKind, Question};
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

/// Longest managed policy, in characters without white space.
pub(super) const LONGEST: usize = 6_144;
/// Versions that a policy may have at once.
pub(super) const MOST_VERSIONS: usize = 5;
/// Customers' policies in one account.
pub(super) const MOST: usize = 1_500;

fn check(text: &str) -> Result<(), ApiError> {
    error::readable(text, DocumentKind::Identity)?;
    error::quota("PolicySize", LONGEST, error::counted_length(text))
}

/// A policy alone, with what lists leave out.
fn detailed(policy: &Policy, usage: &Usage) -> shapes::Policy {
    shapes::Policy {
        description: policy.description.clone(),
        tags: tags::shape(&policy.tags),
        ..managed::shape(policy, usage)
    }
}

/// A version; lists leave the document out.
pub(super) fn version_shape(policy: &Policy, version: &PolicyVersion, with_document: bool) -> shapes::PolicyVersion {
    shapes::PolicyVersion {
        document: with_document.then(|| uri_encode(&version.document)),
        version_id: Some(version.id()),
        is_default_version: Some(version.number == policy.default.number),
        create_date: Some(version.created.0),
    }
}

fn missing_version(arn: &str, id: &str) -> ApiError {
    error::no_such(format!(
        "Policy {arn} version {id} does not exist or is not attachable."
    ))
}

operation!(
    "CreatePolicy", CreatePolicyRequest -> CreatePolicyResponse,
    asks |this, ctx| {
        let path = this.path.as_deref().unwrap_or("/");
        let arn = Policy::arn_of(&ctx.caller.scope.account, path, &this.policy_name);
        tags::create_questions("Policy", &arn, this.tags.as_ref())
    },
    does |request, ctx| {
        check(&request.policy_document)?;
        let tags = tags::read(request.tags)?;
        error::quota("PoliciesPerAccount", MOST, count::<Policy>(ctx, MOST)? + 1)?;
        let now = whole_seconds(ctx.clock.now());
        let path = request.path.as_deref().unwrap_or("/");
        let policy = Policy {
            arn: Policy::arn_of(&ctx.caller.scope.account, path, &request.policy_name),
            id: unique_id(ctx.ids, "ANPA", 17),
            created: now,
            updated: now,
            description: request.description,
            default: PolicyVersion {
                number: 1,
                document: request.policy_document,
                created: now,
            },
            others: Vec::new(),
            next_version: 2,
            tags,
        };
        let key = managed::place(ctx, "iam:CreatePolicy", policy.arn.as_str())?;
        let batch = Batch::default().put(&key, Expect::Absent, &policy).map_err(error::store)?;
        match ctx.store.commit(batch) {
            Ok(_) => Ok(shapes::CreatePolicyResponse {
                policy: Some(detailed(&policy, &Usage::default())),
            }),
            Err(StoreError::Conflict { .. }) => {
                let name = &request.policy_name;
                let text = format!("A policy called {name} already exists. Duplicate names are not allowed.");
                Err(ApiError::client("EntityAlreadyExists", text).with_status(409))
            }
            Err(other) => Err(error::store(other)),
        }
    },
);

operation!(
    "GetPolicy", GetPolicyRequest -> GetPolicyResponse,
    asks |this, _| vec![managed::asks("iam:GetPolicy", &this.policy_arn)],
    does |request, ctx| {
        let policy = managed::load(ctx, &request.policy_arn)?;
        Ok(shapes::GetPolicyResponse {
            policy: Some(detailed(&policy, &Usage::read(ctx)?)),
        })
    },
);

operation!(
    "ListPolicies", ListPoliciesRequest -> ListPoliciesResponse,
    asks |_, _| vec![Question::any("iam:ListPolicies")],
    does |request, ctx| {
        let usage = Usage::read(ctx)?;
        let prefix = request.path_prefix.as_deref().unwrap_or("/");
        let wanted = |policy: &Policy| {
            let used = match request.policy_usage_filter {
                None => true,
                Some(shapes::PolicyUsageType::PermissionsPolicy) => usage.attached(&policy.arn) > 0,
                Some(shapes::PolicyUsageType::PermissionsBoundary) => usage.bounding(&policy.arn) > 0,
            };
            let attached = !request.only_attached.unwrap_or(false) || usage.uses(&policy.arn);
            used && attached && policy.path().starts_with(prefix)
        };
        let scope = request.scope.unwrap_or(shapes::PolicyScopeType::All);
        let lists = [
            (shapes::PolicyScopeType::Local, scope != shapes::PolicyScopeType::Aws),
            (shapes::PolicyScopeType::Aws, scope != shapes::PolicyScopeType::Local),
        ];
        let account = global(&ctx.caller.scope.account);
        let page = page::chain(lists.len(), request.marker.as_deref(), request.max_items, |list, marker, size| {
            match lists.get(list) {
                Some((shapes::PolicyScopeType::Local, true)) => {
                    page::records(ctx, &account, marker, Some(size), |policy: &Policy| wanted(policy))
                        .map(|page| page.map(|policy| managed::shape(&policy, &usage)))
                }
                Some((shapes::PolicyScopeType::Aws, true)) => {
                    let found = aws_managed::all().iter().filter(|policy| wanted(policy));
                    let named = found.map(|policy| (policy.name().to_owned(), managed::shape(policy, &usage)));
                    Ok(page::keyed(named, marker.as_deref(), Some(size)))
                }
                _ => Ok(page::Page::empty()),
            }
        })?;
        Ok(shapes::ListPoliciesResponse {
            is_truncated: page.truncated(),
            policies: Some(page.items),
            marker: page.marker,
        })
    },
);

operation!(
    "DeletePolicy", DeletePolicyRequest -> DeletePolicyOutput,
    asks |this, _| vec![managed::asks("iam:DeletePolicy", &this.policy_arn)],
    does |request, ctx| {
        let key = managed::place(ctx, "iam:DeletePolicy", &request.policy_arn)?;
        let missing = || error::no_such(format!("Policy {} was not found.", request.policy_arn));
        again(ctx, || {
            let found = read::<Policy>(ctx, &key, missing)?;
            if found.record.arn.as_str() != request.policy_arn {
                return Err(missing());
            }
            // Who attaches it meanwhile writes it anew, so this batch then fails.
            if Usage::read(ctx)?.uses(&found.record.arn) {
                return Err(error::conflict("Cannot delete a policy attached to entities."));
            }
            if !found.record.others.is_empty() {
                return Err(error::conflict(
                    "This policy has more than one version. Before you delete a policy, you must delete the policy's \
                     versions. The default version is deleted with the policy.",
                ));
            }
            Ok((Batch::default().delete::<Policy>(&key, Expect::At(found.revision)), ()))
        })?;
        Ok(shapes::DeletePolicyOutput {})
    },
);

operation!(
    "CreatePolicyVersion", CreatePolicyVersionRequest -> CreatePolicyVersionResponse,
    asks |this, _| vec![managed::asks("iam:CreatePolicyVersion", &this.policy_arn)],
    does |request, ctx| {
        check(&request.policy_document)?;
        let now = whole_seconds(ctx.clock.now());
        let as_default = request.set_as_default.unwrap_or(false);
        let policy = managed::edit(ctx, "iam:CreatePolicyVersion", &request.policy_arn, |policy| {
            if policy.others.len() + 1 >= MOST_VERSIONS {
                return Err(error::limit_exceeded(format!(
                    "A managed policy can have up to {MOST_VERSIONS} versions. Before you create a new version, you \
                     must delete an existing version."
                )));
            }
            policy.add(&request.policy_document, as_default, now);
            Ok(())
        })?;
        let newest = policy.versions().first().map(|version| version_shape(&policy, version, false));
        Ok(shapes::CreatePolicyVersionResponse { policy_version: newest })
    },
);

operation!(
    "GetPolicyVersion", GetPolicyVersionRequest -> GetPolicyVersionResponse,
    asks |this, _| vec![managed::asks("iam:GetPolicyVersion", &this.policy_arn)],
    does |request, ctx| {
        let policy = managed::load(ctx, &request.policy_arn)?;
        let found = policy.version(&request.version_id);
        let version = found.ok_or_else(|| missing_version(&request.policy_arn, &request.version_id))?;
        Ok(shapes::GetPolicyVersionResponse {
            policy_version: Some(version_shape(&policy, version, true)),
        })
    },
);

operation!(
    "ListPolicyVersions", ListPolicyVersionsRequest -> ListPolicyVersionsResponse,
    asks |this, _| vec![managed::asks("iam:ListPolicyVersions", &this.policy_arn)],
    does |request, ctx| {
        let policy = managed::load(ctx, &request.policy_arn)?;
        // Newest first.
        let keyed = policy.versions().into_iter().map(|version| {
            (format!("{:010}", u32::MAX - version.number), version_shape(&policy, version, false))
        });
        let page = page::keyed(keyed, request.marker.as_deref(), request.max_items);
        Ok(shapes::ListPolicyVersionsResponse {
            is_truncated: page.truncated(),
            versions: Some(page.items),
            marker: page.marker,
        })
    },
);

operation!(
    "SetDefaultPolicyVersion", SetDefaultPolicyVersionRequest -> SetDefaultPolicyVersionOutput,
    asks |this, _| vec![managed::asks("iam:SetDefaultPolicyVersion", &this.policy_arn)],
    does |request, ctx| {
        let now = whole_seconds(ctx.clock.now());
        managed::edit(ctx, "iam:SetDefaultPolicyVersion", &request.policy_arn, |policy| {
            let chosen = policy.choose(&request.version_id, now);
            chosen.then_some(()).ok_or_else(|| missing_version(&request.policy_arn, &request.version_id))
        })?;
        Ok(shapes::SetDefaultPolicyVersionOutput {})
    },
);

operation!(
    "DeletePolicyVersion", DeletePolicyVersionRequest -> DeletePolicyVersionOutput,
    asks |this, _| vec![managed::asks("iam:DeletePolicyVersion", &this.policy_arn)],
    does |request, ctx| {
        let now = whole_seconds(ctx.clock.now());
        managed::edit(ctx, "iam:DeletePolicyVersion", &request.policy_arn, |policy| {
            if policy.default.id() == request.version_id {
                return Err(error::conflict("Cannot delete the default version of a policy."));
            }
            let removed = policy.remove(&request.version_id, now);
            removed.then_some(()).ok_or_else(|| missing_version(&request.policy_arn, &request.version_id))
        })?;
        Ok(shapes::DeletePolicyVersionOutput {})
    },
);

/// Something that a policy is used by.
enum UsedBy {
    Group(shapes::PolicyGroup),
    User(shapes::PolicyUser),
    Role(shapes::PolicyRole),
}

operation!(
    "ListEntitiesForPolicy", ListEntitiesForPolicyRequest -> ListEntitiesForPolicyResponse,
    asks |this, _| vec![managed::asks("iam:ListEntitiesForPolicy", &this.policy_arn)],
    does |request, ctx| {
        let arn = managed::load(ctx, &request.policy_arn)?.arn.clone();
        let prefix = request.path_prefix.as_deref().unwrap_or("/");
        let wants = |usage| request.policy_usage_filter.is_none_or(|wanted| wanted == usage);
        let permissions = wants(shapes::PolicyUsageType::PermissionsPolicy);
        let bounds = wants(shapes::PolicyUsageType::PermissionsBoundary);
        let uses = |path: &str, attached: bool, bounded: bool| {
            path.starts_with(prefix) && (permissions && attached || bounds && bounded)
        };
        let of_kind = |kind| request.entity_filter.is_none_or(|wanted| wanted == kind);
        let mut found = Vec::new();
        if of_kind(shapes::EntityType::Group) {
            for group in every::<Group>(ctx)? {
                if uses(&group.path, group.policies.managed.contains(&arn), false) {
                    found.push((format!("1:{}", group.name), UsedBy::Group(shapes::PolicyGroup {
                        group_name: Some(group.name),
                        group_id: Some(group.id),
                    })));
                }
            }
        }
        if of_kind(shapes::EntityType::User) {
            for user in every::<User>(ctx)? {
                let has = &user.attachments;
                if uses(&user.path, has.policies.managed.contains(&arn), has.boundary.as_ref() == Some(&arn)) {
                    found.push((format!("2:{}", user.name), UsedBy::User(shapes::PolicyUser {
                        user_name: Some(user.name),
                        user_id: Some(user.id),
                    })));
                }
            }
        }
        if of_kind(shapes::EntityType::Role) {
            for role in every::<Role>(ctx)? {
                let has = &role.attachments;
                if uses(&role.path, has.policies.managed.contains(&arn), has.boundary.as_ref() == Some(&arn)) {
                    found.push((format!("3:{}", role.name), UsedBy::Role(shapes::PolicyRole {
                        role_name: Some(role.name),
                        role_id: Some(role.id),
                    })));
                }
            }
        }
        let page = page::keyed(found, request.marker.as_deref(), request.max_items);
        let is_truncated = page.truncated();
        let (mut groups, mut users, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for each in page.items {
            match each {
                UsedBy::Group(group) => groups.push(group),
                UsedBy::User(user) => users.push(user),
                UsedBy::Role(role) => roles.push(role),
            }
        }
        Ok(shapes::ListEntitiesForPolicyResponse {
            policy_groups: Some(groups),
            policy_users: Some(users),
            policy_roles: Some(roles),
            is_truncated,
            marker: page.marker,
        })
    },
);
