use crate::Caller;
use crate::context::Session;
use crate::ecr::fixture::{Fixture, START, root};
use crate::iam::credentials::resolve;
use crate::iam::tests::{call, make_role, user_caller};
use isolarium_model::{Principal, Timestamp};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam;
use isolarium_wire::shapes::sts as shapes;

const ACCOUNT: &str = "123456789012";
const ASSUME: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:*","iam:*"],"Resource":"*"}]}"#;

fn trust(principal: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},
            "Action":["sts:AssumeRole","sts:TagSession"]}}]}}"#
    )
}

fn request(role: &str) -> shapes::AssumeRoleRequest {
    shapes::AssumeRoleRequest {
        role_arn: format!("arn:aws:iam::{ACCOUNT}:role/{role}"),
        role_session_name: "session-1".into(),
        ..Default::default()
    }
}

fn assume(
    lab: &Fixture,
    caller: &Caller,
    request: shapes::AssumeRoleRequest,
) -> Result<shapes::AssumeRoleResponse, ApiError> {
    call(lab, caller, "sts", "AssumeRole", request)
}

fn identity(lab: &Fixture, caller: &Caller) -> shapes::GetCallerIdentityResponse {
    call(
        lab,
        caller,
        "sts",
        "GetCallerIdentity",
        shapes::GetCallerIdentityRequest {},
    )
    .unwrap()
}

/// The caller that signs with these credentials.
fn with(lab: &Fixture, credentials: &shapes::Credentials) -> Caller {
    let anyone = root(ACCOUNT);
    let ctx = lab.ctx(&anyone);
    let (id, token) = (&credentials.access_key_id, &credentials.session_token);
    let found = resolve(ctx.store, ctx.master, id, Some(token), Timestamp(START)).unwrap();
    assert_eq!(found.secret.expose(), credentials.secret_access_key);
    Caller {
        principal: found.principal,
        session: found.session,
        ..root(ACCOUNT)
    }
}

fn put_policy(lab: &Fixture, role: &str, text: &str) {
    let request = iam::PutRolePolicyRequest {
        role_name: role.into(),
        policy_name: "p".into(),
        policy_document: text.into(),
    };
    call::<iam::PutRolePolicyOutput>(lab, &root(ACCOUNT), "iam", "PutRolePolicy", request).unwrap();
}

/// Proves: IAM-53
#[test]
fn everyone_may_ask_who_they_are() {
    let lab = Fixture::new();
    let seen = identity(&lab, &root(ACCOUNT));
    assert_eq!(seen.user_id.as_deref(), Some(ACCOUNT));
    assert_eq!(seen.arn.as_deref(), Some("arn:aws:iam::123456789012:root"));
    let nobody = user_caller(&lab, "nobody", None);
    let seen = identity(&lab, &nobody);
    assert_eq!(seen.arn.as_deref(), Some("arn:aws:iam::123456789012:user/nobody"));
    assert_eq!(seen.account.as_deref(), Some(ACCOUNT));
}

/// Proves: IAM-50, IAM-53, IAM-61
#[test]
fn a_role_is_assumed_when_identity_and_trust_allow() {
    let lab = Fixture::new();
    make_role(&lab, "worker", &trust(r#"{"AWS":"123456789012"}"#));
    let alice = user_caller(&lab, "alice", Some(ASSUME));
    let made = assume(&lab, &alice, request("worker")).unwrap();
    let credentials = made.credentials.unwrap();
    assert_eq!(credentials.expiration, START + 3_600_000);
    let arn = "arn:aws:sts::123456789012:assumed-role/worker/session-1";
    assert_eq!(made.assumed_role_user.unwrap().arn, arn);
    let session = with(&lab, &credentials);
    assert_eq!(identity(&lab, &session).arn.as_deref(), Some(arn));

    let bob = user_caller(&lab, "bob", None);
    let error = assume(&lab, &bob, request("worker")).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("AccessDenied", 403));
    assert!(
        error
            .message
            .ends_with("because no identity-based policy allows the sts:AssumeRole action"),
        "{error}"
    );
    make_role(&lab, "closed", &trust(r#"{"Service":"sagemaker.amazonaws.com"}"#));
    for name in ["closed", "missing"] {
        let error = assume(&lab, &alice, request(name)).unwrap_err();
        assert!(
            error
                .message
                .ends_with("because no role trust policy allows the sts:AssumeRole action"),
            "{error}"
        );
        assert_eq!(error.status, 403);
    }
}

/// Proves: IAM-53
#[test]
fn a_trusted_external_id_has_to_be_given() {
    let lab = Fixture::new();
    let text = trust(r#"{"AWS":"123456789012"}"#).replace(
        r#""Action""#,
        r#""Condition":{"StringEquals":{"sts:ExternalId":"42"}},"Action""#,
    );
    make_role(&lab, "worker", &text);
    let alice = user_caller(&lab, "alice", Some(ASSUME));
    let given = |id: Option<&str>| {
        assume(
            &lab,
            &alice,
            shapes::AssumeRoleRequest {
                external_id: id.map(str::to_owned),
                ..request("worker")
            },
        )
    };
    assert!(given(Some("42")).is_ok());
    assert!(given(Some("43")).is_err());
    assert!(given(None).is_err());
}

/// Proves: IAM-53
#[test]
fn sessions_last_as_long_as_role_and_chain_allow() {
    let lab = Fixture::new();
    make_role(&lab, "worker", &trust(r#"{"AWS":"123456789012"}"#));
    put_policy(&lab, "worker", ASSUME);
    let long = iam::CreateRoleRequest {
        role_name: "long".into(),
        assume_role_policy_document: trust(r#"{"AWS":"123456789012"}"#),
        max_session_duration: Some(43_200),
        ..Default::default()
    };
    call::<iam::CreateRoleResponse>(&lab, &root(ACCOUNT), "iam", "CreateRole", long).unwrap();
    let alice = user_caller(&lab, "alice", Some(ASSUME));
    let lasting = |caller: &Caller, role: &str, seconds| {
        let request = shapes::AssumeRoleRequest {
            duration_seconds: Some(seconds),
            ..request(role)
        };
        assume(&lab, caller, request).map(|made| made.credentials.unwrap())
    };
    assert_eq!(lasting(&alice, "long", 43_200).unwrap().expiration, START + 43_200_000);
    assert_eq!(lasting(&alice, "worker", 900).unwrap().expiration, START + 900_000);
    assert_eq!(lasting(&alice, "worker", 3_601).unwrap_err().code, "ValidationError");
    assert_eq!(lasting(&alice, "worker", 899).unwrap_err().code, "ValidationError");
    let chained = with(&lab, &lasting(&alice, "worker", 900).unwrap());
    assert!(lasting(&chained, "long", 3_600).is_ok());
    let error = lasting(&chained, "long", 3_601).unwrap_err();
    assert!(error.message.contains("role chaining"), "{error}");
}

/// Proves: IAM-24, IAM-53
#[test]
fn a_session_policy_narrows_and_never_widens() {
    let lab = Fixture::new();
    make_role(&lab, "worker", &trust(r#"{"AWS":"123456789012"}"#));
    let text = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:ListRoles","iam:ListUsers"],
        "Resource":"*"}]}"#;
    put_policy(&lab, "worker", text);
    let alice = user_caller(&lab, "alice", Some(ASSUME));
    let narrowed = |policy: Option<&str>| {
        let request = shapes::AssumeRoleRequest {
            policy: policy.map(str::to_owned),
            ..request("worker")
        };
        assume(&lab, &alice, request).map(|made| with(&lab, &made.credentials.unwrap()))
    };
    let roles = |caller: &Caller| {
        call::<iam::ListRolesResponse>(&lab, caller, "iam", "ListRoles", iam::ListRolesRequest::default())
    };
    let users = |caller: &Caller| {
        call::<iam::ListUsersResponse>(&lab, caller, "iam", "ListUsers", iam::ListUsersRequest::default())
    };
    let whole = narrowed(None).unwrap();
    assert!(roles(&whole).is_ok() && users(&whole).is_ok());
    let allow = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListRoles","Resource":"*"}]}"#;
    let narrow = narrowed(Some(allow)).unwrap();
    assert!(roles(&narrow).is_ok());
    let error = users(&narrow).unwrap_err();
    assert!(
        error
            .message
            .ends_with("because no session policy allows the iam:ListUsers action"),
        "{error}"
    );
    let wide = narrowed(Some(&allow.replace("iam:ListRoles", "*"))).unwrap();
    let create = iam::CreateUserRequest {
        user_name: "x".into(),
        ..Default::default()
    };
    assert!(call::<iam::CreateUserResponse>(&lab, &wide, "iam", "CreateUser", create).is_err());
    assert_eq!(narrowed(Some("{")).unwrap_err().code, "MalformedPolicyDocument");
    let arns = Some(vec![shapes::PolicyDescriptorType {
        arn: Some("arn:aws:iam::aws:policy/ReadOnlyAccess".into()),
    }]);
    let request = shapes::AssumeRoleRequest {
        policy_arns: arns,
        ..request("worker")
    };
    assert_eq!(
        assume(&lab, &alice, request).unwrap_err().code,
        "ValidationError",
        "never a wider session instead"
    );
}

/// Proves: IAM-16, IAM-53
#[test]
fn session_tags_need_leave_and_become_principal_tags() {
    let lab = Fixture::new();
    let only_assume = trust(r#"{"AWS":"123456789012"}"#).replace(r#","sts:TagSession""#, "");
    make_role(&lab, "untagged", &only_assume);
    make_role(&lab, "tagged", &trust(r#"{"AWS":"123456789012"}"#));
    let alice = user_caller(&lab, "alice", Some(ASSUME));
    let tagged = |role: &str| {
        let tags = Some(vec![shapes::Tag {
            key: "team".into(),
            value: "red".into(),
        }]);
        assume(&lab, &alice, shapes::AssumeRoleRequest { tags, ..request(role) })
    };
    let caller = with(&lab, &tagged("tagged").unwrap().credentials.unwrap());
    let keys = caller.context(Timestamp(START));
    assert_eq!(keys.get("aws:principaltag/team"), Some(&vec!["red".to_owned()]));
    let error = tagged("untagged").unwrap_err();
    assert!(error.message.contains("sts:TagSession"), "{error}");
    assert!(matches!(caller.principal, Principal::RoleSession { .. }));
    assert!(matches!(caller.session, Some(Session { policies: None, .. })));
}
