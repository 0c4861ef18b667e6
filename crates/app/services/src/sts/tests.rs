use crate::Caller;
use crate::context::Session;
use crate::ecr::fixture::{Fixture, START, root};
use crate::iam::credentials::resolve;
use crate::iam::tests::{call, make_role, user_caller};
use isolarium_model::{Principal, Timestamp};
use isolarium_policy::Question;
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
    let by_arn = |arn: &str| {
        let arns = Some(vec![shapes::PolicyDescriptorType { arn: Some(arn.into()) }]);
        let request = shapes::AssumeRoleRequest {
            policy_arns: arns,
            ..request("worker")
        };
        assume(&lab, &alice, request)
    };
    let create = iam::CreatePolicyRequest {
        policy_name: "only-roles".into(),
        policy_document: allow.into(),
        ..Default::default()
    };
    let made = call::<iam::CreatePolicyResponse>(&lab, &root(ACCOUNT), "iam", "CreatePolicy", create).unwrap();
    let policy_arn = made.policy.unwrap().arn.unwrap();
    let answered = by_arn(&policy_arn).unwrap();
    assert!(answered.packed_policy_size.is_some());
    let managed = with(&lab, &answered.credentials.unwrap());
    assert!(roles(&managed).is_ok());
    let error = users(&managed).unwrap_err();
    assert!(error.message.contains("because no session policy allows"), "{error}");
    let delete = iam::DeletePolicyRequest { policy_arn };
    call::<iam::DeletePolicyOutput>(&lab, &root(ACCOUNT), "iam", "DeletePolicy", delete).unwrap();
    assert!(roles(&managed).is_err(), "a policy that is gone allows nothing");
    for missing in [
        "arn:aws:iam::aws:policy/None",
        "arn:aws:iam::210987654321:policy/other",
        "x",
    ] {
        assert_eq!(
            by_arn(missing).unwrap_err().code,
            "ValidationError",
            "never a wider session instead"
        );
    }
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

/// Proves: IAM-22, IAM-53
#[test]
fn trust_that_names_the_user_is_enough_and_trust_that_names_the_account_delegates() {
    let lab = Fixture::new();
    let powerless = user_caller(&lab, "powerless", None);
    make_role(
        &lab,
        "by-name",
        &trust(r#"{"AWS":"arn:aws:iam::123456789012:user/powerless"}"#),
    );
    make_role(
        &lab,
        "by-account",
        &trust(r#"{"AWS":"arn:aws:iam::123456789012:root"}"#),
    );
    assert!(assume(&lab, &powerless, request("by-name")).is_ok());
    let error = assume(&lab, &powerless, request("by-account")).unwrap_err();
    assert!(error.message.contains("no identity-based policy allows"), "{error}");
    let other = user_caller(&lab, "other", Some(ASSUME));
    assert!(assume(&lab, &other, request("by-account")).is_ok());
    let error = assume(&lab, &other, request("by-name")).unwrap_err();
    assert!(error.message.contains("no role trust policy allows"), "{error}");
    let error = assume(&lab, &root(ACCOUNT), request("by-account")).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("AccessDenied", "Roles may not be assumed by root accounts.")
    );
}

/// What a role does that others may assume, with its tags and source identity.
fn chain(lab: &Fixture) -> Caller {
    let everything = trust(r#"{"AWS":"123456789012"}"#)
        .replace(r#""sts:TagSession"]"#, r#""sts:TagSession","sts:SetSourceIdentity"]"#);
    for role in ["first", "second"] {
        make_role(lab, role, &everything);
        put_policy(lab, role, ASSUME);
    }
    make_role(lab, "no-tags", &everything.replace(r#","sts:TagSession""#, ""));
    make_role(
        lab,
        "no-identity",
        &everything.replace(r#","sts:SetSourceIdentity""#, ""),
    );
    user_caller(lab, "alice", Some(ASSUME))
}

fn tag(key: &str, value: &str) -> shapes::Tag {
    shapes::Tag {
        key: key.into(),
        value: value.into(),
    }
}

/// Proves: IAM-16, IAM-53
#[test]
fn transitive_tags_and_the_source_identity_go_along_the_chain_and_cannot_be_changed() {
    let lab = Fixture::new();
    let alice = chain(&lab);
    let wanted = shapes::AssumeRoleRequest {
        tags: Some(vec![tag("Team", "red"), tag("stage", "test")]),
        transitive_tag_keys: Some(vec!["team".into()]),
        source_identity: Some("alice".into()),
        ..request("first")
    };
    let made = assume(&lab, &alice, wanted).unwrap();
    assert_eq!(made.source_identity.as_deref(), Some("alice"));
    assert!(
        made.packed_policy_size
            .is_some_and(|percent| (1..=100).contains(&percent))
    );
    let first = with(&lab, &made.credentials.unwrap());
    let keys = first.context(Timestamp(START));
    assert_eq!(keys.get("aws:principaltag/stage"), Some(&vec!["test".to_owned()]));
    assert_eq!(keys.get("aws:sourceidentity"), Some(&vec!["alice".to_owned()]));

    let made = assume(&lab, &first, request("second")).unwrap();
    assert_eq!(made.source_identity.as_deref(), Some("alice"));
    let second = with(&lab, &made.credentials.unwrap()).context(Timestamp(START));
    assert_eq!(second.get("aws:principaltag/team"), Some(&vec!["red".to_owned()]));
    assert_eq!(second.get("aws:principaltag/stage"), None, "not transitive");
    assert_eq!(second.get("aws:sourceidentity"), Some(&vec!["alice".to_owned()]));

    for (role, action) in [("no-tags", "sts:TagSession"), ("no-identity", "sts:SetSourceIdentity")] {
        assert!(
            assume(&lab, &alice, request(role)).is_ok(),
            "control: without tags and identity"
        );
        let error = assume(&lab, &first, request(role)).unwrap_err();
        assert!(error.message.contains(&format!("perform: {action} on")), "{error}");
    }
    let changed = shapes::AssumeRoleRequest {
        tags: Some(vec![tag("TEAM", "blue")]),
        ..request("second")
    };
    assert_eq!(assume(&lab, &first, changed).unwrap_err().code, "InvalidParameterValue");
    let renamed = |name: &str| shapes::AssumeRoleRequest {
        source_identity: Some(name.into()),
        ..request("second")
    };
    assert_eq!(
        assume(&lab, &first, renamed("mallory")).unwrap_err().code,
        "AccessDenied"
    );
    assert!(assume(&lab, &first, renamed("alice")).is_ok());
    let unknown = shapes::AssumeRoleRequest {
        tags: Some(vec![tag("a", "b")]),
        transitive_tag_keys: Some(vec!["c".into()]),
        ..request("first")
    };
    assert_eq!(assume(&lab, &alice, unknown).unwrap_err().code, "InvalidParameterValue");
}

/// Proves: IAM-53
#[test]
fn an_mfa_code_that_no_device_made_is_refused() {
    let lab = Fixture::new();
    let alice = chain(&lab);
    let with_code = shapes::AssumeRoleRequest {
        serial_number: Some("arn:aws:iam::123456789012:mfa/alice".into()),
        token_code: Some("123456".into()),
        ..request("first")
    };
    assert!(assume(&lab, &alice, request("first")).is_ok(), "control");
    let error = assume(&lab, &alice, with_code).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("AccessDenied", 403));
}

fn session_token(
    lab: &Fixture,
    caller: &Caller,
    seconds: Option<i64>,
) -> Result<shapes::GetSessionTokenResponse, ApiError> {
    let request = shapes::GetSessionTokenRequest {
        duration_seconds: seconds,
        ..Default::default()
    };
    call(lab, caller, "sts", "GetSessionToken", request)
}

/// Proves: IAM-16, IAM-53
#[test]
fn a_session_token_is_its_user_without_iam_and_most_of_sts() {
    let lab = Fixture::new();
    make_role(&lab, "worker", &trust(r#"{"AWS":"123456789012"}"#));
    let owner = root(ACCOUNT);
    crate::iam::operator::create_account(lab.ctx(&owner).store, &lab.clock, &ACCOUNT.parse().unwrap()).unwrap();
    let everything = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let alice = user_caller(&lab, "alice", Some(everything));
    let users = |caller: &Caller| {
        call::<iam::ListUsersResponse>(&lab, caller, "iam", "ListUsers", iam::ListUsersRequest::default())
    };
    assert!(users(&alice).is_ok(), "control: the user may");
    let credentials = session_token(&lab, &alice, None).unwrap().credentials.unwrap();
    assert_eq!(credentials.expiration, START + 43_200_000);
    let session = with(&lab, &credentials);
    assert_eq!(identity(&lab, &session), identity(&lab, &alice));
    let keys = session.context(Timestamp(START));
    assert_eq!(keys.get("aws:multifactorauthpresent"), Some(&vec!["false".to_owned()]));
    assert_eq!(alice.context(Timestamp(START)).get("aws:multifactorauthpresent"), None);
    let error = users(&session).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("InvalidClientTokenId", 403));
    assert!(assume(&lab, &session, request("worker")).is_ok());
    assert_eq!(session_token(&lab, &session, None).unwrap_err().code, "AccessDenied");
    let info = |caller: &Caller| {
        let access_key_id = credentials.access_key_id.clone();
        let request = shapes::GetAccessKeyInfoRequest { access_key_id };
        call::<shapes::GetAccessKeyInfoResponse>(&lab, caller, "sts", "GetAccessKeyInfo", request)
    };
    assert_eq!(info(&session).unwrap_err().code, "AccessDenied");
    assert_eq!(info(&alice).unwrap().account.as_deref(), Some(ACCOUNT));
    let role = with(
        &lab,
        &assume(&lab, &alice, request("worker")).unwrap().credentials.unwrap(),
    );
    assert_eq!(session_token(&lab, &role, None).unwrap_err().code, "AccessDenied");

    let long = session_token(&lab, &alice, Some(129_600)).unwrap().credentials.unwrap();
    assert_eq!(long.expiration, START + 129_600_000);
    let of_root = session_token(&lab, &root(ACCOUNT), Some(129_600))
        .unwrap()
        .credentials
        .unwrap();
    assert_eq!(of_root.expiration, START + 3_600_000, "a root's last an hour");

    assert!(
        session_token(&lab, &user_caller(&lab, "powerless", None), None).is_ok(),
        "no permission is needed"
    );
}

/// Proves: IAM-53
#[test]
fn the_account_of_a_key_is_told_to_who_may_know() {
    let lab = Fixture::new();
    let may =
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:GetAccessKeyInfo","Resource":"*"}}"#;
    let alice = user_caller(&lab, "alice", Some(may));
    let info = |caller: &Caller, id: &str| {
        let access_key_id = id.to_owned();
        let request = shapes::GetAccessKeyInfoRequest { access_key_id };
        call::<shapes::GetAccessKeyInfoResponse>(&lab, caller, "sts", "GetAccessKeyInfo", request)
    };
    let ctx = lab.ctx(&alice);
    let other = "210987654321".parse().unwrap();
    let key = crate::iam::operator::create_root_key(ctx.store, ctx.clock, ctx.ids, &other).unwrap();
    assert_eq!(info(&alice, &key.id).unwrap().account.as_deref(), Some("210987654321"));
    let temporary = session_token(&lab, &alice, None)
        .unwrap()
        .credentials
        .unwrap()
        .access_key_id;
    crate::iam::operator::create_account(ctx.store, ctx.clock, &ACCOUNT.parse().unwrap()).unwrap();
    assert_eq!(info(&alice, &temporary).unwrap().account.as_deref(), Some(ACCOUNT));
    for unknown in ["AKIA0000000000000000", "ASIA7777777777777777", "ASIAAAAAAAAAAAAAAAAA"] {
        assert_eq!(info(&alice, unknown).unwrap_err().code, "ValidationError", "{unknown}");
    }
    let bob = user_caller(&lab, "bob", None);
    assert_eq!(info(&bob, &key.id).unwrap_err().code, "AccessDenied");
}

/// Proves: IAM-27, IAM-62
#[test]
fn a_denial_of_ec2_carries_its_story_for_who_may_read_it() {
    let lab = Fixture::new();
    let reader = user_caller(&lab, "reader", Some(ASSUME));
    let no = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"},
        {"Sid":"NoVpcs","Effect":"Deny","Action":"ec2:DescribeVpcs","Resource":"*"}]}"#;
    let denied = user_caller(&lab, "denied", Some(no));
    let ask = |action: &str, caller: &Caller| {
        let questions = [Question::any(action).with("ec2:Region", "us-east-1")];
        crate::dispatch::grant("ec2", (), &questions, &lab.ctx(caller)).map(|_| ())
    };
    assert!(ask("ec2:DescribeSubnets", &denied).is_ok(), "control");
    let error = ask("ec2:DescribeVpcs", &denied).unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("UnauthorizedOperation", 403));
    let (text, blob) = error
        .message
        .split_once(" Encoded authorization failure message: ")
        .unwrap();
    let start = "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/denied is not";
    assert!(
        text.starts_with(start) && text.ends_with("in an identity-based policy."),
        "{text}"
    );
    assert!(
        !text.contains("NoVpcs") && !blob.contains("NoVpcs"),
        "the statement is told only to who may read it"
    );

    let decode = |caller: &Caller, blob: &str| {
        let encoded_message = blob.to_owned();
        let request = shapes::DecodeAuthorizationMessageRequest { encoded_message };
        call::<shapes::DecodeAuthorizationMessageResponse>(&lab, caller, "sts", "DecodeAuthorizationMessage", request)
    };
    let story = decode(&reader, blob).unwrap().decoded_message.unwrap();
    let story: serde_json::Value = serde_json::from_str(&story).unwrap();
    assert_eq!(story["explicitDeny"], true);
    assert_eq!(story["context"]["action"], "ec2:DescribeVpcs");
    assert_eq!(
        story["context"]["principal"]["arn"],
        "arn:aws:iam::123456789012:user/denied"
    );
    assert_eq!(story["matchedStatements"]["items"][0]["statementId"], "NoVpcs");
    let conditions = story["context"]["conditions"]["items"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|key| key["key"] == "ec2:region" && key["values"]["items"][0]["value"] == "us-east-1")
    );

    let silent = ask("ec2:DescribeVpcs", &user_caller(&lab, "silent", None)).unwrap_err();
    let blob_of_silent = silent.message.rsplit(' ').next().unwrap().to_owned();
    let told: serde_json::Value =
        serde_json::from_str(&decode(&reader, &blob_of_silent).unwrap().decoded_message.unwrap()).unwrap();
    assert_eq!(
        (&told["explicitDeny"], &told["missing"]),
        (&false.into(), &"identity".into())
    );

    assert_eq!(decode(&denied, blob).unwrap_err().code, "AccessDenied");
    // The root of the account may read it, and that of another, who may call the operation as well, may not.
    assert!(decode(&root(ACCOUNT), blob).is_ok(), "control");
    assert_eq!(
        decode(&root("999988887777"), blob).unwrap_err().code,
        "InvalidAuthorizationMessageException"
    );
    let mut changed = blob.to_owned().into_bytes();
    changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for bad in [changed.as_str(), "x", "", &blob[..blob.len() - 4]] {
        assert_eq!(
            decode(&reader, bad).unwrap_err().code,
            "InvalidAuthorizationMessageException",
            "{bad}"
        );
    }
}
