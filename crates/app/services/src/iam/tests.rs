mod managed;

use super::credentials::{
    AssumeError, ExecutionRole, MasterKey, ResolveError, assume_execution_role, mint_session, resolve,
};
use super::operator;
use crate::context::{Caller, EndpointSource, Session, Source};
use crate::dispatch::grant;
use crate::ecr::fixture::{Fixture, START, root, scope};
use crate::{Ctx, Dispatch};
use isolarium_model::iam::{KeyOwner, Role};
use isolarium_model::{Arn, Principal, Timestamp};
use isolarium_policy::Question;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::AuthFault;
use isolarium_wire::{ApiError, Document};
use std::collections::BTreeMap;
use std::time::Duration;

const ACCOUNT: &str = "123456789012";
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
const READ_S3: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::data/*"}]}"#;
const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

/// Calls an operation as `caller`.
pub(crate) fn call<O>(
    lab: &Fixture,
    caller: &Caller,
    service: &str,
    name: &str,
    input: impl Into<Document>,
) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let answer = Dispatch::default()
        .call(service, name, input.into(), &lab.ctx(caller))
        .expect("a served operation");
    answer.map(|document| O::try_from(document).unwrap())
}

fn iam<O>(lab: &Fixture, name: &str, input: impl Into<Document>) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    call(lab, &root(ACCOUNT), "iam", name, input)
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> (String, u16) {
    let error = outcome.unwrap_err();
    (error.code, error.status)
}

pub(crate) fn make_role(lab: &Fixture, name: &str, trust: &str) -> shapes::Role {
    let request = shapes::CreateRoleRequest {
        role_name: name.into(),
        assume_role_policy_document: trust.into(),
        ..Default::default()
    };
    iam::<shapes::CreateRoleResponse>(lab, "CreateRole", request)
        .unwrap()
        .role
}

fn put_role_policy(lab: &Fixture, role: &str, text: &str) -> Result<shapes::PutRolePolicyOutput, ApiError> {
    let request = shapes::PutRolePolicyRequest {
        role_name: role.into(),
        policy_name: "inline".into(),
        policy_document: text.into(),
    };
    iam(lab, "PutRolePolicy", request)
}

/// A user with one inline policy, or with none.
pub(crate) fn user_caller(lab: &Fixture, name: &str, policy: Option<&str>) -> Caller {
    let request = shapes::CreateUserRequest {
        user_name: name.into(),
        ..Default::default()
    };
    let user = iam::<shapes::CreateUserResponse>(lab, "CreateUser", request)
        .unwrap()
        .user
        .unwrap();
    if let Some(text) = policy {
        let request = shapes::PutUserPolicyRequest {
            user_name: name.into(),
            policy_name: "inline".into(),
            policy_document: text.into(),
        };
        iam::<shapes::PutUserPolicyOutput>(lab, "PutUserPolicy", request).unwrap();
    }
    let principal = Principal::User {
        account: ACCOUNT.parse().unwrap(),
        path: user.path,
        name: user.user_name,
        id: user.user_id,
    };
    Caller {
        principal,
        ..root(ACCOUNT)
    }
}

fn ask(ctx: &Ctx<'_>, action: &str, resource: &str) -> Result<(), ApiError> {
    let question = Question {
        resource: resource.into(),
        ..Question::any(action)
    };
    grant("iam", (), &[question], ctx).map(|_| ())
}

/// Proves: IAM-64
#[test]
fn a_role_lives_from_creation_to_deletion() {
    let lab = Fixture::new();
    let request = shapes::CreateRoleRequest {
        path: Some("/team/".into()),
        role_name: "Worker".into(),
        assume_role_policy_document: TRUST.into(),
        description: Some("trains".into()),
        tags: Some(vec![shapes::Tag {
            key: "team".into(),
            value: "red".into(),
        }]),
        ..Default::default()
    };
    let made = iam::<shapes::CreateRoleResponse>(&lab, "CreateRole", request.clone())
        .unwrap()
        .role;
    assert_eq!(made.arn, "arn:aws:iam::123456789012:role/team/Worker");
    assert!(
        made.role_id.starts_with("AROA") && made.role_id.len() == 21,
        "{}",
        made.role_id
    );
    assert_eq!(made.max_session_duration, Some(3_600));
    let again = shapes::CreateRoleRequest {
        role_name: "WORKER".into(),
        ..request
    };
    assert_eq!(
        code(iam::<shapes::CreateRoleResponse>(&lab, "CreateRole", again)),
        ("EntityAlreadyExists".into(), 409)
    );

    let get =
        |name: &str| iam::<shapes::GetRoleResponse>(&lab, "GetRole", shapes::GetRoleRequest { role_name: name.into() });
    let seen = get("worker").unwrap().role;
    assert_eq!(seen, made);
    let trust = seen.assume_role_policy_document.unwrap();
    assert!(
        trust.starts_with("%7B%22Version%22") && !trust.contains('"'),
        "URL-encoded: {trust}"
    );

    put_role_policy(&lab, "Worker", READ_S3).unwrap();
    let policy = shapes::GetRolePolicyRequest {
        role_name: "Worker".into(),
        policy_name: "inline".into(),
    };
    let seen = iam::<shapes::GetRolePolicyResponse>(&lab, "GetRolePolicy", policy.clone()).unwrap();
    assert_eq!(seen.policy_document, isolarium_wire::sigv4::uri_encode(READ_S3));
    let list = shapes::ListRolePoliciesRequest {
        role_name: "Worker".into(),
        ..Default::default()
    };
    let names = iam::<shapes::ListRolePoliciesResponse>(&lab, "ListRolePolicies", list).unwrap();
    assert_eq!(
        (names.policy_names, names.is_truncated),
        (vec!["inline".to_owned()], Some(false))
    );

    let delete = shapes::DeleteRoleRequest {
        role_name: "Worker".into(),
    };
    let early = iam::<shapes::DeleteRoleOutput>(&lab, "DeleteRole", delete.clone());
    assert_eq!(code(early), ("DeleteConflict".into(), 409));
    let gone = shapes::DeleteRolePolicyRequest {
        role_name: "Worker".into(),
        policy_name: "inline".into(),
    };
    iam::<shapes::DeleteRolePolicyOutput>(&lab, "DeleteRolePolicy", gone.clone()).unwrap();
    let twice = iam::<shapes::DeleteRolePolicyOutput>(&lab, "DeleteRolePolicy", gone);
    assert_eq!(code(twice), ("NoSuchEntity".into(), 404));
    iam::<shapes::DeleteRoleOutput>(&lab, "DeleteRole", delete.clone()).unwrap();
    let error = get("Worker").unwrap_err();
    assert_eq!(error.message, "The role with name Worker cannot be found.");
    assert_eq!((error.code.as_str(), error.status), ("NoSuchEntity", 404));
    for outcome in [
        iam::<shapes::DeleteRoleOutput>(&lab, "DeleteRole", delete).map(drop),
        put_role_policy(&lab, "Worker", READ_S3).map(drop),
        iam::<shapes::GetRolePolicyResponse>(&lab, "GetRolePolicy", policy).map(drop),
    ] {
        assert_eq!(code(outcome), ("NoSuchEntity".into(), 404));
    }
}

/// Proves: IAM-1, IAM-3, IAM-64
#[test]
fn documents_that_cannot_be_read_are_never_stored() {
    let lab = Fixture::new();
    make_role(&lab, "worker", TRUST);
    put_role_policy(&lab, "worker", READ_S3).unwrap();
    for bad in [
        "{",
        "{}",
        TRUST,
        r#"{"Statement":[{"Effect":"Allow","Action":"s3:*"}]}"#,
    ] {
        assert_eq!(
            code(put_role_policy(&lab, "worker", bad)),
            ("MalformedPolicyDocument".into(), 400),
            "{bad}"
        );
    }
    let update = |text: &str| {
        let request = shapes::UpdateAssumeRolePolicyRequest {
            role_name: "worker".into(),
            policy_document: text.into(),
        };
        iam::<shapes::UpdateAssumeRolePolicyOutput>(&lab, "UpdateAssumeRolePolicy", request)
    };
    assert!(update(TRUST).is_ok());
    assert_eq!(code(update(READ_S3)), ("MalformedPolicyDocument".into(), 400));
    let long = format!(
        r#"{{"Statement":[{{"Effect":"Allow","Action":"s3:{}","Resource":"*"}}]}}"#,
        "a".repeat(10_240)
    );
    assert_eq!(
        code(put_role_policy(&lab, "worker", &long)),
        ("LimitExceeded".into(), 409)
    );
}

/// Proves: IAM-64
#[test]
fn lists_are_paged_by_marker_and_filtered_by_path() {
    let lab = Fixture::new();
    for number in 0..25 {
        let path = if number % 2 == 0 { "/even/" } else { "/odd/" };
        let request = shapes::CreateRoleRequest {
            path: Some(path.into()),
            role_name: format!("r{number:02}"),
            assume_role_policy_document: TRUST.into(),
            ..Default::default()
        };
        iam::<shapes::CreateRoleResponse>(&lab, "CreateRole", request).unwrap();
    }
    let all = |path: Option<&str>, size| {
        let (mut names, mut marker, mut pages) = (Vec::new(), None, 0);
        loop {
            let request = shapes::ListRolesRequest {
                path_prefix: path.map(str::to_owned),
                marker,
                max_items: Some(size),
            };
            let page = iam::<shapes::ListRolesResponse>(&lab, "ListRoles", request).unwrap();
            assert!(page.roles.len() <= usize::try_from(size).unwrap());
            names.extend(page.roles.into_iter().map(|role| role.role_name));
            pages += 1;
            assert_eq!(page.is_truncated, Some(page.marker.is_some()));
            marker = page.marker;
            if marker.is_none() {
                return (names, pages);
            }
        }
    };
    let (names, pages) = all(None, 7);
    assert_eq!((names.len(), pages), (25, 4));
    assert!(names.is_sorted());
    let (even, _) = all(Some("/even/"), 4);
    assert_eq!(even.len(), 13);
    assert!(all(Some("/none/"), 4).0.is_empty());
    let bad = shapes::ListRolesRequest {
        marker: Some("nonsense".into()),
        ..Default::default()
    };
    assert_eq!(
        code(iam::<shapes::ListRolesResponse>(&lab, "ListRoles", bad)),
        ("ValidationError".into(), 400)
    );
}

/// Proves: IAM-20, IAM-45, IAM-47, IAM-68
#[test]
fn keys_are_found_used_and_deleted() {
    let lab = Fixture::new();
    let caller = root(ACCOUNT);
    let ctx = lab.ctx(&caller);
    let account = ACCOUNT.parse().unwrap();
    let key = operator::create_root_key(ctx.store, ctx.clock, ctx.ids, &account).unwrap();
    assert!(key.id.starts_with("AKIA") && key.id.len() == 20);
    assert_eq!(key.secret.expose().len(), 40);
    let now = Timestamp(START);
    let found = |id: &str, token: Option<&str>| resolve(ctx.store, ctx.master, id, token, now);
    let credential = found(&key.id, None).unwrap();
    assert_eq!(
        credential.principal,
        Principal::Root {
            account: account.clone()
        }
    );
    assert_eq!(credential.secret, key.secret);
    assert!(matches!(
        found("AKIANOBODY", None),
        Err(ResolveError::Fault(AuthFault::UnknownKey))
    ));
    assert!(matches!(
        found(&key.id, Some("x")),
        Err(ResolveError::Fault(AuthFault::BadToken))
    ));

    let user = user_caller(&lab, "alice", None);
    let request = shapes::CreateAccessKeyRequest {
        user_name: Some("alice".into()),
    };
    let made = iam::<shapes::CreateAccessKeyResponse>(&lab, "CreateAccessKey", request.clone())
        .unwrap()
        .access_key;
    assert_eq!(found(&made.access_key_id, None).unwrap().principal, user.principal);
    iam::<shapes::CreateAccessKeyResponse>(&lab, "CreateAccessKey", request.clone()).unwrap();
    let third = iam::<shapes::CreateAccessKeyResponse>(&lab, "CreateAccessKey", request);
    assert_eq!(code(third), ("LimitExceeded".into(), 409));
    let list = shapes::ListAccessKeysRequest {
        user_name: Some("alice".into()),
        ..Default::default()
    };
    let listed = iam::<shapes::ListAccessKeysResponse>(&lab, "ListAccessKeys", list).unwrap();
    assert_eq!(listed.access_key_metadata.len(), 2);

    let delete_user = shapes::DeleteUserRequest {
        user_name: "alice".into(),
    };
    let early = iam::<shapes::DeleteUserOutput>(&lab, "DeleteUser", delete_user.clone());
    assert_eq!(code(early), ("DeleteConflict".into(), 409));
    for key in listed.access_key_metadata {
        let id = key.access_key_id.unwrap();
        let request = shapes::DeleteAccessKeyRequest {
            user_name: Some("alice".into()),
            access_key_id: id.clone(),
        };
        iam::<shapes::DeleteAccessKeyOutput>(&lab, "DeleteAccessKey", request.clone()).unwrap();
        assert!(matches!(
            found(&id, None),
            Err(ResolveError::Fault(AuthFault::UnknownKey))
        ));
        let twice = iam::<shapes::DeleteAccessKeyOutput>(&lab, "DeleteAccessKey", request);
        assert_eq!(code(twice), ("NoSuchEntity".into(), 404));
    }
    let foreign = shapes::DeleteAccessKeyRequest {
        user_name: Some("alice".into()),
        access_key_id: key.id.clone(),
    };
    let other = iam::<shapes::DeleteAccessKeyOutput>(&lab, "DeleteAccessKey", foreign);
    assert_eq!(code(other), ("NoSuchEntity".into(), 404), "a key of somebody else");
    assert!(found(&key.id, None).is_ok());
    iam::<shapes::DeleteUserOutput>(&lab, "DeleteUser", delete_user).unwrap();
}

fn fifteen_minutes() -> Session {
    Session::lasting(Timestamp(START), Timestamp(START + 900_000))
}

fn stored_role(ctx: &Ctx<'_>, name: &str) -> Role {
    ctx.store
        .get::<Role>(&Role::key(&ACCOUNT.parse().unwrap(), name))
        .unwrap()
        .unwrap()
        .record
}

/// Proves: IAM-45
#[test]
fn session_tokens_cannot_be_forged_changed_moved_or_outlived() {
    let lab = Fixture::new();
    make_role(&lab, "worker", TRUST);
    let caller = root(ACCOUNT);
    let ctx = lab.ctx(&caller);
    let role = stored_role(&ctx, "worker");
    let made = mint_session(ctx.master, ctx.ids, role.session("s1"), fifteen_minutes());
    assert!(made.access_key_id.starts_with("ASIA"));
    let try_it =
        |master: &MasterKey, id: &str, token: Option<&str>, now| resolve(ctx.store, master, id, token, Timestamp(now));
    let (id, token) = (made.access_key_id.as_str(), made.token.expose());
    let good = try_it(ctx.master, id, Some(token), START).unwrap();
    assert_eq!(
        (good.principal, good.secret.clone()),
        (made.principal.clone(), made.secret.clone())
    );
    assert_eq!(good.session.unwrap(), made.session);
    assert!(try_it(ctx.master, id, Some(token), START + 899_999).is_ok());

    let fault = |outcome| match outcome {
        Err(ResolveError::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        fault(try_it(ctx.master, id, Some(token), START + 900_000)),
        AuthFault::ExpiredToken
    );
    assert_eq!(
        fault(try_it(ctx.master, id, None, START)),
        AuthFault::UnknownKey,
        "without its token"
    );
    let other = mint_session(ctx.master, ctx.ids, role.session("s1"), fifteen_minutes());
    assert_ne!(other.secret, made.secret);
    assert_eq!(
        fault(try_it(ctx.master, &other.access_key_id, Some(token), START)),
        AuthFault::BadToken
    );
    assert_eq!(
        fault(try_it(&MasterKey::new([8; 32]), id, Some(token), START)),
        AuthFault::BadToken
    );
    for at in 0..token.len() {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(
            fault(try_it(ctx.master, id, Some(&changed), START)),
            AuthFault::BadToken,
            "byte {at}"
        );
    }
    for bad in ["", "AQ", "!", &token[..token.len() / 2]] {
        assert_eq!(
            fault(try_it(ctx.master, id, Some(bad), START)),
            AuthFault::BadToken,
            "{bad}"
        );
    }
    assert!(
        !token.contains(made.secret.expose()),
        "the secret does not travel in the token"
    );
}

/// Proves: IAM-26
#[test]
fn current_policies_decide_and_a_deleted_role_leaves_nothing() {
    let lab = Fixture::new();
    make_role(&lab, "worker", TRUST);
    put_role_policy(&lab, "worker", READ_S3).unwrap();
    let owner = root(ACCOUNT);
    let role = stored_role(&lab.ctx(&owner), "worker");
    let made = mint_session(
        lab.ctx(&owner).master,
        lab.ctx(&owner).ids,
        role.session("s1"),
        fifteen_minutes(),
    );
    let caller = Caller {
        principal: made.principal.clone(),
        session: Some(made.session.clone()),
        ..root(ACCOUNT)
    };
    let ctx = lab.ctx(&caller);
    let read = || ask(&ctx, "s3:GetObject", "arn:aws:s3:::data/k");
    assert!(read().is_ok());
    put_role_policy(&lab, "worker", &READ_S3.replace("data", "other")).unwrap();
    assert_eq!(code(read()), ("AccessDenied".into(), 403));
    put_role_policy(&lab, "worker", READ_S3).unwrap();
    assert!(read().is_ok());

    let gone = shapes::DeleteRolePolicyRequest {
        role_name: "worker".into(),
        policy_name: "inline".into(),
    };
    iam::<shapes::DeleteRolePolicyOutput>(&lab, "DeleteRolePolicy", gone).unwrap();
    let delete = shapes::DeleteRoleRequest {
        role_name: "worker".into(),
    };
    iam::<shapes::DeleteRoleOutput>(&lab, "DeleteRole", delete).unwrap();
    make_role(&lab, "worker", TRUST);
    put_role_policy(&lab, "worker", ALL).unwrap();
    assert_eq!(
        code(read()),
        ("AccessDenied".into(), 403),
        "a new role of the same name is another role"
    );
    let found = resolve(
        ctx.store,
        ctx.master,
        &made.access_key_id,
        Some(made.token.expose()),
        Timestamp(START),
    );
    assert!(matches!(found, Err(ResolveError::Fault(AuthFault::UnknownKey))));
}

/// Proves: IAM-50, IAM-52, SM-60, CC-81
#[test]
fn an_execution_role_is_assumed_only_when_it_trusts_sagemaker_for_this_job() {
    let lab = Fixture::new();
    make_role(&lab, "open", TRUST);
    let narrow = TRUST.replace(
        r#""Action":"sts:AssumeRole""#,
        r#""Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"},
            "ArnLike":{"aws:SourceArn":"arn:aws:sagemaker:us-east-1:123456789012:*"}}"#,
    );
    make_role(&lab, "narrow", &narrow);
    make_role(&lab, "elsewhere", &narrow.replace("us-east-1", "eu-west-1"));
    make_role(&lab, "lambda", &TRUST.replace("sagemaker", "lambda"));
    make_role(
        &lab,
        "people",
        &TRUST.replace(r#""Service":"sagemaker.amazonaws.com""#, r#""AWS":"123456789012""#),
    );
    let caller = root(ACCOUNT);
    let ctx = lab.ctx(&caller);
    let home = scope(ACCOUNT);
    let source: Arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"
        .parse()
        .unwrap();
    let assume = |text: &str| {
        let role_arn: Arn = text.parse().unwrap();
        let wanted = ExecutionRole {
            role_arn: &role_arn,
            scope: &home,
            source_arn: &source,
            session_name: "SageMaker",
            lasts: Duration::from_secs(86_400),
            inquiry: &crate::audit::Inquiry::default(),
        };
        assume_execution_role(ctx.store, ctx.master, ctx.clock, ctx.ids, &wanted)
    };
    for name in ["open", "narrow"] {
        let made = assume(&format!("arn:aws:iam::123456789012:role/{name}")).unwrap();
        let arn = made.principal.arn().unwrap().to_string();
        assert_eq!(arn, format!("arn:aws:sts::123456789012:assumed-role/{name}/SageMaker"));
        assert_eq!(made.expires, Timestamp(START + 3_600_000), "the role's own limit");
        let found = resolve(
            ctx.store,
            ctx.master,
            &made.access_key_id,
            Some(made.token.expose()),
            Timestamp(START),
        );
        assert_eq!(found.unwrap().secret, made.secret);
    }
    for arn in [
        "arn:aws:iam::123456789012:role/elsewhere",
        "arn:aws:iam::123456789012:role/lambda",
        "arn:aws:iam::123456789012:role/people",
        "arn:aws:iam::123456789012:role/missing",
        "arn:aws:iam::123456789012:role/path/open",
        "arn:aws:iam::999999999999:role/open",
        "arn:aws:iam::123456789012:user/open",
    ] {
        let error = assume(arn).unwrap_err();
        assert!(matches!(error, AssumeError::Role(_)), "{arn}");
        assert_eq!(
            error.to_string(),
            format!(
                "Could not assume role {arn}. Please ensure that the role exists and allows principal \
                 'sagemaker.amazonaws.com' to assume the role."
            )
        );
    }
}

/// Proves: IAM-58, IAM-59, IAM-60
#[test]
fn users_may_do_what_their_policies_say_and_denials_come_before_existence() {
    let lab = Fixture::new();
    make_role(&lab, "worker", TRUST);
    let reader = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:GetRole",
        "Resource":"arn:aws:iam::123456789012:role/worker"}]}"#;
    let alice = user_caller(&lab, "alice", Some(reader));
    let get = |caller: &Caller, name: &str| {
        let request = shapes::GetRoleRequest { role_name: name.into() };
        call::<shapes::GetRoleResponse>(&lab, caller, "iam", "GetRole", request)
    };
    assert!(get(&alice, "worker").is_ok());
    let missing = get(&alice, "missing").unwrap_err();
    assert_eq!(
        (missing.code.as_str(), missing.status),
        ("AccessDenied", 403),
        "a denial, not NoSuchEntity"
    );
    assert_eq!(
        missing.message,
        "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: iam:GetRole on resource: \
         arn:aws:iam::123456789012:role/missing because no identity-based policy allows the iam:GetRole action"
    );
    let bob = user_caller(&lab, "bob", None);
    assert_eq!(code(get(&bob, "worker")), ("AccessDenied".into(), 403));
    let all = user_caller(&lab, "admin", Some(ALL));
    assert_eq!(code(get(&all, "missing")), ("NoSuchEntity".into(), 404));
}

/// Proves: IAM-47, IAM-62
#[test]
fn denials_carry_the_code_of_their_protocol() {
    let lab = Fixture::new();
    let nobody = user_caller(&lab, "nobody", None);
    let admin = user_caller(&lab, "admin", Some(ALL));
    let said = |caller: &Caller, service: &str| {
        grant(service, (), &[Question::any("x:Do")], &lab.ctx(caller))
            .map(drop)
            .map_err(|error| (error.code, error.status))
    };
    for (service, wanted, status) in [
        ("sagemaker", "AccessDeniedException", 400),
        ("sagemaker-runtime", "AccessDeniedException", 403),
        ("logs", "AccessDeniedException", 400),
        ("iam", "AccessDenied", 403),
        ("sts", "AccessDenied", 403),
        ("ec2", "UnauthorizedOperation", 403),
    ] {
        assert_eq!(said(&admin, service), Ok(()), "control");
        assert_eq!(said(&nobody, service), Err((wanted.to_owned(), status)), "{service}");
    }
    let error = grant("ec2", (), &[Question::any("ec2:CreateVpc")], &lab.ctx(&nobody)).unwrap_err();
    assert!(
        error
            .message
            .starts_with("You are not authorized to perform this operation. User: "),
        "{error}"
    );
}

/// Proves: IAM-51
#[test]
fn passing_a_role_is_asked_with_the_service_that_gets_it() {
    let lab = Fixture::new();
    let only = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:PassRole","Resource":"*",
        "Condition":{"StringEquals":{"iam:PassedToService":"sagemaker.amazonaws.com"}}}]}"#;
    let alice = user_caller(&lab, "alice", Some(only));
    let role: Arn = "arn:aws:iam::123456789012:role/worker".parse().unwrap();
    let pass = |arn: &Arn, service| {
        let question = super::pass_role_question(arn, service);
        grant("sagemaker", (), &[question], &lab.ctx(&alice)).map(drop)
    };
    assert!(pass(&role, "sagemaker.amazonaws.com").is_ok());
    assert!(pass(&role, "lambda.amazonaws.com").is_err());
    let foreign: Arn = "arn:aws:iam::999999999999:role/worker".parse().unwrap();
    assert!(
        pass(&foreign, "sagemaker.amazonaws.com").is_err(),
        "a role of another account"
    );
}

/// Proves: IAM-16
#[test]
fn condition_keys_are_there_when_aws_has_them_and_absent_when_not() {
    let lab = Fixture::new();
    let alice = user_caller(&lab, "alice", None);
    let now = Timestamp(START);
    let public = alice.context(now);
    let one = |key: &str| public.get(key).map(|values| values.join(","));
    assert_eq!(one("aws:sourceip").as_deref(), Some("127.0.0.1"));
    assert_eq!(one("aws:username").as_deref(), Some("alice"));
    assert_eq!(one("aws:principaltype").as_deref(), Some("User"));
    assert_eq!(
        one("aws:principalarn").as_deref(),
        Some("arn:aws:iam::123456789012:user/alice")
    );
    assert_eq!(one("aws:principalaccount").as_deref(), Some(ACCOUNT));
    assert_eq!(one("aws:requestedregion").as_deref(), Some("us-east-1"));
    assert_eq!(one("aws:securetransport").as_deref(), Some("false"));
    assert_eq!(one("aws:currenttime").as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(one("aws:epochtime").as_deref(), Some("1700000000"));
    assert_eq!(one("aws:useragent").as_deref(), Some("test"));
    for absent in [
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:vpcsourceip",
        "aws:tokenissuetime",
        "aws:multifactorauthpresent",
    ] {
        assert_eq!(one(absent), None, "{absent}");
    }
    let session = Session {
        tags: BTreeMap::from([("Team".to_owned(), "red".to_owned())]),
        ..Session::lasting(now, now)
    };
    let inside = Caller {
        source: Source::Endpoint(EndpointSource {
            vpc_id: "vpc-1".into(),
            endpoint_id: "vpce-1".into(),
            region: "us-east-1".parse().unwrap(),
            address: [10, 0, 0, 9].into(),
            secure: true,
            gateway: false,
            policy: Some(ALL.into()),
        }),
        principal: Principal::RoleSession {
            account: ACCOUNT.parse().unwrap(),
            path: "/p/".into(),
            role: "r".into(),
            role_id: "AROAX".into(),
            session: "s".into(),
        },
        session: Some(session),
        ..alice
    };
    let keys = inside.context(now);
    let one = |key: &str| keys.get(key).map(|values| values.join(","));
    assert_eq!(one("aws:sourceip"), None, "absent through an endpoint");
    assert_eq!(one("aws:sourcevpc").as_deref(), Some("vpc-1"));
    assert_eq!(one("aws:sourcevpce").as_deref(), Some("vpce-1"));
    assert_eq!(one("aws:vpcsourceip").as_deref(), Some("10.0.0.9"));
    assert_eq!(
        one("aws:principalarn").as_deref(),
        Some("arn:aws:iam::123456789012:role/p/r")
    );
    assert_eq!(one("aws:userid").as_deref(), Some("AROAX:s"));
    assert_eq!(one("aws:username"), None, "only for users");
    assert_eq!(one("aws:principaltag/team").as_deref(), Some("red"));
    assert_eq!(one("aws:tokenissuetime").as_deref(), Some("2023-11-14T22:13:20Z"));
}

/// Proves: IAM-20, IAM-30, IAM-32
#[test]
fn an_endpoint_policy_binds_its_callers_root_included() {
    let lab = Fixture::new();
    let through = |policy: &str| Caller {
        source: Source::Endpoint(EndpointSource {
            vpc_id: "vpc-1".into(),
            endpoint_id: "vpce-1".into(),
            region: "us-east-1".parse().unwrap(),
            address: [10, 0, 0, 9].into(),
            secure: true,
            gateway: false,
            policy: Some(policy.into()),
        }),
        ..root(ACCOUNT)
    };
    let open = ALL.replace(r#""Effect""#, r#""Principal":"*","Effect""#);
    let get = shapes::ListRolesRequest::default();
    let list =
        |policy: &str| call::<shapes::ListRolesResponse>(&lab, &through(policy), "iam", "ListRoles", get.clone());
    assert!(list(&open).is_ok());
    let silent = open.replace(r#""Action":"*""#, r#""Action":"s3:*""#);
    let error = list(&silent).unwrap_err();
    assert!(
        error
            .message
            .contains("because no VPC endpoint policy allows the iam:ListRoles action"),
        "{error}"
    );
    assert_eq!(
        code(list("not a policy")),
        ("AccessDenied".into(), 403),
        "an unreadable policy denies"
    );
}

/// Proves: IAM-64
#[test]
fn get_user_without_a_name_is_about_the_caller() {
    let lab = Fixture::new();
    let alice = user_caller(&lab, "alice", Some(ALL));
    let get = |caller: &Caller| {
        call::<shapes::GetUserResponse>(&lab, caller, "iam", "GetUser", shapes::GetUserRequest::default())
    };
    assert_eq!(get(&alice).unwrap().user.arn, "arn:aws:iam::123456789012:user/alice");
    assert_eq!(get(&root(ACCOUNT)).unwrap().user.arn, "arn:aws:iam::123456789012:root");
    make_role(&lab, "worker", TRUST);
    put_role_policy(&lab, "worker", ALL).unwrap();
    let role = stored_role(&lab.ctx(&alice), "worker");
    let session = Caller {
        principal: role.session("s1"),
        ..root(ACCOUNT)
    };
    assert_eq!(code(get(&session)), ("ValidationError".into(), 400));
    let account = ACCOUNT.parse().unwrap();
    let ctx = lab.ctx(&alice);
    let none = KeyOwner::User { name: "ghost".into() };
    let made = operator::create_key(ctx.store, ctx.clock, ctx.ids, &account, &none);
    assert!(matches!(made, Err(operator::KeyError::NoOwner)));
}

/// Proves: IAM-58
#[test]
fn every_operation_of_iam_is_asked_about_under_its_own_name() {
    let lab = Fixture::new();
    make_role(&lab, "worker", TRUST);
    let nobody = user_caller(&lab, "nobody", None);
    let denied = ALL.replace("Allow", "Deny");
    let shut = user_caller(&lab, "shut", Some(&denied));
    let stranger = Caller {
        scope: scope("999999999999"),
        ..nobody.clone()
    };
    let members = [
        ("RoleName", "worker"),
        ("UserName", "someone"),
        ("PolicyName", "p"),
        ("PolicyDocument", READ_S3),
        ("AssumeRolePolicyDocument", TRUST),
        ("AccessKeyId", "AKIAEXAMPLE"),
        ("Status", "Active"),
        ("GroupName", "team"),
        ("PolicyArn", "arn:aws:iam::123456789012:policy/p"),
        ("PermissionsBoundary", "arn:aws:iam::123456789012:policy/p"),
        ("VersionId", "v1"),
        ("Description", "d"),
        ("AccountAlias", "alias"),
    ];
    let mut input: BTreeMap<String, Document> = members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Document::String(value.into())))
        .collect();
    for list in ["Tags", "TagKeys"] {
        input.insert(list.into(), Document::List(Vec::new()));
    }
    let input = Document::Map(input.into_iter().collect());
    let handlers = super::handlers();
    assert_eq!(handlers.len(), 85);
    for handler in handlers {
        let action = format!("is not authorized to perform: iam:{}", handler.operation);
        let try_as = |caller: &Caller| {
            Dispatch::default()
                .call("iam", handler.operation, input.clone(), &lab.ctx(caller))
                .unwrap()
        };
        for caller in [&nobody, &shut, &stranger] {
            let error = try_as(caller).expect_err(handler.operation);
            assert_eq!(error.code, "AccessDenied", "{}", handler.operation);
            assert!(error.message.contains(&action), "{}: {error}", handler.operation);
        }
        // The control: root is let through, whatever the operation then says of this input.
        let code = try_as(&root(ACCOUNT)).err().map(|error| error.code);
        assert_ne!(code.as_deref(), Some("AccessDenied"), "{}", handler.operation);
    }
}
