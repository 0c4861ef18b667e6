//! The policy simulator: what policies would say, answered by the same engine that decides requests.

mod entries;
mod operations;
mod result;

#[cfg(test)]
mod tests;

use super::documents::{add, held_by};
use super::error;
use crate::Ctx;
use isolarium_model::iam::{Group, Role, User};
use isolarium_model::{AccountId, Arn, Principal};
use isolarium_policy::question::Context;
use isolarium_policy::{Authority, DocumentKind, NamedPolicy, Question, ResourceSide};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use std::collections::BTreeSet;

pub(crate) use operations::handlers;

/// What a simulation asks about, besides whose policies.
struct Asked {
    actions: Vec<String>,
    resources: Option<Vec<String>>,
    resource_policy: Option<String>,
    resource_owner: Option<String>,
    caller_arn: Option<String>,
    boundary: Option<Vec<String>>,
    /// Guard rails of an organisation, by level from its root to the account.
    organization: Vec<Vec<String>>,
    entries: Option<Vec<shapes::ContextEntry>>,
    marker: Option<String>,
    max_items: Option<i64>,
}

/// Whose policies are simulated.
struct Subject {
    principal: Principal,
    identity: Vec<NamedPolicy>,
    boundary: Option<NamedPolicy>,
    /// What inline policies are called by: users', groups' or roles'.
    kind: shapes::PolicySourceType,
    context: Context,
}

/// The subject's name in a simulation of policies that belong to nobody.
const NOBODY: &str = "simulated";

/// A user that need not exist: the simulated caller.
fn user(account: AccountId, path: &str, name: &str) -> Principal {
    Principal::User {
        account,
        path: path.into(),
        name: name.into(),
        id: String::new(),
    }
}

/// The entity that `PolicySourceArn` names, with its policies of this moment.
fn subject(ctx: &Ctx<'_>, source: &str) -> Result<Subject, ApiError> {
    let missing = || error::no_such(format!("The entity {source} cannot be found."));
    let arn: Arn = source
        .parse()
        .map_err(|_| error::invalid_input(format!("ARN {source} is not valid.")))?;
    let own = &ctx.caller.scope.account;
    let account = arn.account().filter(|account| account == own).ok_or_else(missing)?;
    let (noun, name) = arn.resource().split_once('/').ok_or_else(missing)?;
    let name = name.rsplit('/').next().unwrap_or(name);
    let (principal, kind) = match noun {
        "user" => {
            let found = ctx
                .store
                .get::<User>(&User::key(&account, name))
                .map_err(error::store)?;
            let found = found.map(|stored| stored.record).filter(|user| user.arn() == arn);
            (found.ok_or_else(missing)?.principal(), shapes::PolicySourceType::User)
        }
        "role" => {
            let found = ctx
                .store
                .get::<Role>(&Role::key(&account, name))
                .map_err(error::store)?;
            let found = found.map(|stored| stored.record).filter(|role| role.arn() == arn);
            (
                found.ok_or_else(missing)?.session(NOBODY),
                shapes::PolicySourceType::Role,
            )
        }
        "group" => {
            let found = ctx
                .store
                .get::<Group>(&Group::key(&account, name))
                .map_err(error::store)?;
            let found = found.map(|stored| stored.record).filter(|group| group.arn() == arn);
            return members_of(ctx, &found.ok_or_else(missing)?);
        }
        _ => return Err(missing()),
    };
    let held = held_by(ctx.store, &principal).map_err(error::store)?;
    let mut context = known_of(&principal);
    for (tag, value) in held.tags {
        context.insert(format!("aws:principaltag/{}", tag.to_lowercase()), vec![value]);
    }
    Ok(Subject {
        principal,
        identity: held.identity,
        boundary: held.boundary,
        kind,
        context,
    })
}

/// A user who would have a group's policies and no others.
fn members_of(ctx: &Ctx<'_>, group: &Group) -> Result<Subject, ApiError> {
    let mut identity = Vec::new();
    if !add(ctx.store, &group.policies, "", &mut identity).map_err(error::store)? {
        return Err(error::concurrent());
    }
    Ok(Subject {
        principal: user(group.account.clone(), "/", NOBODY),
        identity,
        boundary: None,
        kind: shapes::PolicySourceType::Group,
        context: Context::new(),
    })
}

/// The condition keys that follow from who asks.
fn known_of(principal: &Principal) -> Context {
    let mut context = Context::new();
    if let Some(arn) = principal.principal_arn() {
        context.insert("aws:principalarn".into(), vec![arn.to_string()]);
    }
    if let Some(account) = principal.account() {
        context.insert("aws:principalaccount".into(), vec![account.to_string()]);
    }
    if let Principal::User { name, .. } = principal {
        context.insert("aws:username".into(), vec![name.clone()]);
    }
    context
}

/// Policies given as text, named by their place in the request.
fn given(list: &str, texts: &[String]) -> Result<Vec<NamedPolicy>, ApiError> {
    let numbered = texts.iter().zip(1_usize..);
    numbered
        .map(|(text, number)| {
            super::readable(text, DocumentKind::Identity).map_err(|error| error::invalid_input(error.message))?;
            Ok(NamedPolicy::parse(
                format!("{list}.{number}"),
                text,
                DocumentKind::Identity,
            ))
        })
        .collect()
}

/// The user that `CallerArn` names; it need not exist.
fn caller(arn: &str) -> Result<Principal, ApiError> {
    let refused = || error::invalid_input(format!("{arn} is not the ARN of an IAM user."));
    let parsed: Arn = arn.parse().map_err(|_| refused())?;
    let account = parsed
        .account()
        .filter(|_| parsed.service() == "iam")
        .ok_or_else(refused)?;
    let path = parsed.resource().strip_prefix("user/").ok_or_else(refused)?;
    let (path, name) = match path.rsplit_once('/') {
        Some((path, name)) => (format!("/{path}/"), name),
        None => ("/".to_owned(), path),
    };
    Ok(user(account, &path, name))
}

/// The account that `ResourceOwner` names, by its id or its root's ARN.
fn owner(text: &str) -> Result<AccountId, ApiError> {
    let of_arn = || text.parse::<Arn>().ok().and_then(|arn| arn.account());
    let found = text.parse().ok().or_else(of_arn);
    found.ok_or_else(|| error::invalid_input(format!("{text} is not the ARN of an account.")))
}

/// Every action on every resource, in the order of the request.
fn simulate(mut subject: Subject, asked: &Asked) -> Result<Vec<shapes::EvaluationResult>, ApiError> {
    if let Some(arn) = &asked.caller_arn {
        let principal = caller(arn)?;
        subject.context.extend(known_of(&principal));
        subject.principal = principal;
    }
    if let Some(texts) = &asked.boundary {
        let mut boundaries = given("PermissionsBoundaryPolicyInputList", texts)?;
        if boundaries.len() > 1 {
            return Err(error::invalid_input("There is at most one permissions boundary."));
        }
        subject.boundary = boundaries.pop().or(subject.boundary);
    }
    subject
        .context
        .extend(entries::read(asked.entries.as_deref().unwrap_or_default())?);
    let policy = match &asked.resource_policy {
        Some(_) if subject.kind != shapes::PolicySourceType::User && asked.caller_arn.is_none() => {
            return Err(error::invalid_input("CallerArn must be given with ResourcePolicy."));
        }
        Some(text) => {
            super::readable(text, DocumentKind::Resource).map_err(|error| error::invalid_input(error.message))?;
            Some(NamedPolicy::parse("ResourcePolicy", text, DocumentKind::Resource))
        }
        None => None,
    };
    let organization: Vec<Vec<NamedPolicy>> = asked
        .organization
        .iter()
        .map(|level| given("ServiceControlPolicyInputList", level))
        .collect::<Result<_, _>>()?;
    let side = ResourceSide {
        owner: asked.resource_owner.as_deref().map(owner).transpose()?,
        policies: policy.into_iter().collect(),
        ..ResourceSide::default()
    };
    let all = subject.identity.iter().chain(&subject.boundary).chain(&side.policies);
    let named: BTreeSet<String> = all
        .chain(organization.iter().flatten())
        .filter_map(|policy| policy.policy.document())
        .flat_map(|document| document.context_keys())
        .collect();
    let missing: Vec<String> = named
        .into_iter()
        .filter(|key| !subject.context.contains_key(key))
        .collect();
    let authority = Authority {
        identity: subject.identity,
        boundary: subject.boundary,
        organization,
        ..Authority::bare(subject.principal, subject.context)
    };
    let everything = vec!["*".to_owned()];
    let resources = asked
        .resources
        .as_ref()
        .filter(|list| !list.is_empty())
        .unwrap_or(&everything);
    let simulation = result::Simulation {
        authority,
        side,
        kind: subject.kind,
        missing,
        several: resources.len() > 1,
    };
    let mut results = Vec::new();
    for action in &asked.actions {
        let known = action == "*"
            || action
                .split_once(':')
                .is_some_and(|(service, name)| !service.is_empty() && !name.is_empty());
        if !known {
            return Err(error::invalid_input(format!("Invalid Action: {action}")));
        }
        for resource in resources {
            if resource != "*" && resource.parse::<Arn>().is_err() {
                return Err(error::invalid_input(format!("Invalid Resource ARN: {resource}")));
            }
            results.push(simulation.result(&Question {
                action: action.clone(),
                resource: resource.clone(),
                context: Context::new(),
            }));
        }
    }
    Ok(results)
}

/// One page of results; the marker is the number of results before the next page.
fn page(results: Vec<shapes::EvaluationResult>, asked: &Asked) -> Result<shapes::SimulatePolicyResponse, ApiError> {
    let from: usize = match &asked.marker {
        Some(marker) => marker
            .parse()
            .map_err(|_| error::invalid_input(format!("Invalid Marker: {marker}")))?,
        None => 0,
    };
    let until = from.saturating_add(super::page::page_size(asked.max_items));
    let more = results.len() > until;
    let shown = results.into_iter().skip(from).take(until - from).collect();
    Ok(shapes::SimulatePolicyResponse {
        evaluation_results: Some(shown),
        is_truncated: Some(more),
        marker: more.then(|| until.to_string()),
    })
}
