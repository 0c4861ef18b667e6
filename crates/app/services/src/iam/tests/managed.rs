//! Managed policies, groups, boundaries, tags: what they are, and that every change counts at the next question.

use super::{ACCOUNT, ALL, READ_S3, TRUST, ask, user_caller};
use crate::Dispatch;
use crate::context::Caller;
use crate::ecr::fixture::{Fixture, root};
use isolarium_model::Principal;
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};

const OBJECT: &str = "arn:aws:s3:::data/k";

/// Calls an operation as root, with JSON in and out.
fn run(lab: &Fixture, operation: &str, input: Value) -> Result<Value, ApiError> {
    let input: Document = serde_json::from_value(input).unwrap();
    let caller = root(ACCOUNT);
    let answer = Dispatch::default().call("iam", operation, input, &lab.ctx(&caller));
    answer
        .expect("a served operation")
        .map(|answer| serde_json::to_value(answer).unwrap())
}

#[track_caller]
fn ok(lab: &Fixture, operation: &str, input: Value) -> Value {
    run(lab, operation, input.clone()).unwrap_or_else(|error| panic!("{operation} {input}: {error:?}"))
}

#[track_caller]
fn refused(lab: &Fixture, code: &str, status: u16, operation: &str, input: Value) -> String {
    let error = run(lab, operation, input.clone()).expect_err(operation);
    assert_eq!(
        (error.code.as_str(), error.status),
        (code, status),
        "{operation} {input}: {error:?}"
    );
    error.message
}

fn arn(kind: &str, rest: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:{kind}/{rest}")
}

fn make_policy(lab: &Fixture, name: &str, document: &str) -> String {
    let made = ok(
        lab,
        "CreatePolicy",
        json!({"PolicyName": name, "PolicyDocument": document}),
    );
    made["Policy"]["Arn"].as_str().unwrap().to_owned()
}

fn allowed(lab: &Fixture, caller: &Caller) -> bool {
    ask(&lab.ctx(caller), "s3:GetObject", OBJECT).is_ok()
}

fn names(answer: &Value, list: &str, member: &str) -> Vec<String> {
    let items = answer[list].as_array().unwrap_or_else(|| panic!("{list} of {answer}"));
    items
        .iter()
        .map(|item| item[member].as_str().unwrap().to_owned())
        .collect()
}

/// Every page of a list, and how many there were.
fn pages(lab: &Fixture, operation: &str, input: &Value, size: u32) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    loop {
        let mut input = input.clone();
        input["MaxItems"] = json!(size);
        if let Some(marker) = found.last().and_then(|page| page.get("Marker")) {
            input["Marker"] = marker.clone();
        }
        let page = ok(lab, operation, input);
        let more = page.get("Marker").is_some();
        assert_eq!(page["IsTruncated"], json!(more), "{operation}");
        found.push(page);
        if !more {
            return found;
        }
    }
}

fn narrowed(action: &str) -> String {
    READ_S3.replace("s3:Get*", action)
}

/// Proves: IAM-25, IAM-26
#[test]
fn managed_policies_of_users_and_roles_count_at_the_next_question() {
    let lab = Fixture::new();
    let user = user_caller(&lab, "alice", None);
    let role = super::make_role(&lab, "worker", TRUST);
    let session = Caller {
        principal: Principal::RoleSession {
            account: ACCOUNT.parse().unwrap(),
            path: role.path,
            role: role.role_name,
            role_id: role.role_id,
            session: "s".into(),
        },
        ..root(ACCOUNT)
    };
    let policy = make_policy(&lab, "Read", READ_S3);
    for (caller, noun, name) in [(&user, "User", "alice"), (&session, "Role", "worker")] {
        let to = json!({format!("{noun}Name"): name, "PolicyArn": policy});
        assert!(!allowed(&lab, caller), "{noun}");
        ok(&lab, &format!("Attach{noun}Policy"), to.clone());
        assert!(allowed(&lab, caller), "{noun}: attached");
        let version = |document: &str| {
            let input = json!({"PolicyArn": policy, "PolicyDocument": document});
            ok(&lab, "CreatePolicyVersion", input)["PolicyVersion"]["VersionId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let other = version(&narrowed("s3:PutObject"));
        assert!(
            allowed(&lab, caller),
            "{noun}: a version that is not the default says nothing"
        );
        let choose = |id: &str| {
            ok(
                &lab,
                "SetDefaultPolicyVersion",
                json!({"PolicyArn": policy, "VersionId": id}),
            )
        };
        choose(&other);
        assert!(!allowed(&lab, caller), "{noun}: the default version counts");
        choose("v1");
        assert!(allowed(&lab, caller), "{noun}: chosen again");
        ok(
            &lab,
            "DeletePolicyVersion",
            json!({"PolicyArn": policy, "VersionId": other}),
        );
        ok(&lab, &format!("Detach{noun}Policy"), to.clone());
        assert!(!allowed(&lab, caller), "{noun}: detached");
        let text = refused(&lab, "NoSuchEntity", 404, &format!("Detach{noun}Policy"), to);
        assert_eq!(text, format!("Policy {policy} was not found."));
    }
    let readable = json!({"UserName": "alice", "PolicyArn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"});
    ok(&lab, "AttachUserPolicy", readable.clone());
    assert!(allowed(&lab, &user), "AWS's own");
    ok(&lab, "DetachUserPolicy", readable);
    assert!(!allowed(&lab, &user));
}

/// Proves: IAM-25, IAM-26
#[test]
fn policies_of_groups_count_for_their_users_alone_and_at_once() {
    let lab = Fixture::new();
    let (member, other) = (user_caller(&lab, "alice", None), user_caller(&lab, "bob", None));
    ok(&lab, "CreateGroup", json!({"GroupName": "Readers", "Path": "/team/"}));
    let policy = make_policy(&lab, "Read", READ_S3);
    let join = json!({"GroupName": "READERS", "UserName": "alice"});
    ok(&lab, "AddUserToGroup", join.clone());
    ok(&lab, "AddUserToGroup", join.clone());
    assert!(!allowed(&lab, &member), "the group allows nothing yet");
    let managed = json!({"GroupName": "Readers", "PolicyArn": policy});
    ok(&lab, "AttachGroupPolicy", managed.clone());
    assert!(allowed(&lab, &member) && !allowed(&lab, &other));
    ok(&lab, "DetachGroupPolicy", managed);
    assert!(!allowed(&lab, &member));
    let inline = json!({"GroupName": "Readers", "PolicyName": "in", "PolicyDocument": READ_S3});
    ok(&lab, "PutGroupPolicy", inline);
    assert!(allowed(&lab, &member) && !allowed(&lab, &other));
    // A name changes nothing about who belongs to it.
    let rename = json!({"GroupName": "Readers", "NewGroupName": "Lectors", "NewPath": "/other/"});
    ok(&lab, "UpdateGroup", rename);
    assert!(allowed(&lab, &member));
    let groups = ok(&lab, "ListGroupsForUser", json!({"UserName": "alice"}));
    assert_eq!(names(&groups, "Groups", "Arn"), [arn("group", "other/Lectors")]);
    let deny = ALL.replace("Allow", "Deny");
    ok(
        &lab,
        "PutGroupPolicy",
        json!({"GroupName": "Lectors", "PolicyName": "no", "PolicyDocument": deny}),
    );
    assert!(!allowed(&lab, &member), "a group's Deny binds its users");
    ok(
        &lab,
        "DeleteGroupPolicy",
        json!({"GroupName": "Lectors", "PolicyName": "no"}),
    );
    assert!(allowed(&lab, &member));
    ok(
        &lab,
        "RemoveUserFromGroup",
        json!({"GroupName": "Lectors", "UserName": "alice"}),
    );
    assert!(!allowed(&lab, &member), "no longer a member");
    let twice = json!({"GroupName": "Lectors", "UserName": "alice"});
    refused(&lab, "NoSuchEntity", 404, "RemoveUserFromGroup", twice);
}

/// Proves: IAM-24, IAM-26
#[test]
fn a_boundary_takes_away_and_gives_nothing() {
    let lab = Fixture::new();
    let user = user_caller(&lab, "alice", Some(ALL));
    let bare = user_caller(&lab, "bob", None);
    let read = make_policy(&lab, "Read", READ_S3);
    let may = |caller: &Caller, action: &str| ask(&lab.ctx(caller), action, OBJECT);
    assert!(may(&user, "s3:GetObject").is_ok() && may(&user, "s3:PutObject").is_ok());
    for name in ["alice", "bob"] {
        ok(
            &lab,
            "PutUserPermissionsBoundary",
            json!({"UserName": name, "PermissionsBoundary": read}),
        );
    }
    assert!(may(&user, "s3:GetObject").is_ok(), "within the boundary");
    let denied = may(&user, "s3:PutObject").unwrap_err();
    let reason = "because no permissions boundary allows the s3:PutObject action";
    assert!(denied.message.contains(reason), "{denied:?}");
    assert!(may(&bare, "s3:GetObject").is_err(), "a boundary gives nothing");
    ok(
        &lab,
        "CreatePolicyVersion",
        json!({"PolicyArn": read, "PolicyDocument": ALL, "SetAsDefault": true}),
    );
    assert!(
        may(&user, "s3:PutObject").is_ok(),
        "the boundary's default version counts"
    );
    let seen = ok(&lab, "GetUser", json!({"UserName": "alice"}));
    assert_eq!(
        seen["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"],
        json!(read)
    );
    ok(
        &lab,
        "SetDefaultPolicyVersion",
        json!({"PolicyArn": read, "VersionId": "v1"}),
    );
    assert!(may(&user, "s3:PutObject").is_err());
    refused(&lab, "DeleteConflict", 409, "DeletePolicy", json!({"PolicyArn": read}));
    ok(&lab, "DeleteUserPermissionsBoundary", json!({"UserName": "alice"}));
    assert!(may(&user, "s3:PutObject").is_ok(), "without a boundary again");
}

/// A session keeps to the boundary of its role, and a role is born with one.
///
/// Proves: IAM-24, IAM-64
#[test]
fn roles_and_users_can_be_made_with_a_boundary() {
    let lab = Fixture::new();
    let read = make_policy(&lab, "Read", READ_S3);
    let role = json!({"RoleName": "r", "AssumeRolePolicyDocument": TRUST, "PermissionsBoundary": read});
    let made = ok(&lab, "CreateRole", role);
    let kind = &made["Role"]["PermissionsBoundary"]["PermissionsBoundaryType"];
    assert_eq!(kind, "PermissionsBoundaryPolicy");
    ok(
        &lab,
        "PutRolePolicy",
        json!({"RoleName": "r", "PolicyName": "p", "PolicyDocument": ALL}),
    );
    let session = Caller {
        principal: Principal::RoleSession {
            account: ACCOUNT.parse().unwrap(),
            path: "/".into(),
            role: "r".into(),
            role_id: made["Role"]["RoleId"].as_str().unwrap().into(),
            session: "s".into(),
        },
        ..root(ACCOUNT)
    };
    let may = |action: &str| ask(&lab.ctx(&session), action, OBJECT).is_ok();
    assert!(may("s3:GetObject") && !may("s3:PutObject"));
    ok(
        &lab,
        "PutRolePermissionsBoundary",
        json!({
            "RoleName": "r", "PermissionsBoundary": "arn:aws:iam::aws:policy/AmazonS3FullAccess"
        }),
    );
    assert!(may("s3:PutObject"));
    ok(&lab, "DeleteRolePermissionsBoundary", json!({"RoleName": "r"}));
    assert!(may("s3:PutObject"));
    let absent = arn("policy", "none");
    for (operation, input) in [
        ("CreateUser", json!({"UserName": "u", "PermissionsBoundary": absent})),
        (
            "PutRolePermissionsBoundary",
            json!({"RoleName": "r", "PermissionsBoundary": absent}),
        ),
    ] {
        let text = refused(&lab, "NoSuchEntity", 404, operation, input);
        assert_eq!(
            text,
            format!("Scope ARN: {absent} does not exist or is not attachable.")
        );
    }
    refused(&lab, "NoSuchEntity", 404, "GetUser", json!({"UserName": "u"}));
}

/// Proves: IAM-25, IAM-64
#[test]
fn a_managed_policy_lives_through_its_versions() {
    let lab = Fixture::new();
    let create = json!({
        "PolicyName": "Read", "Path": "/team/", "PolicyDocument": READ_S3, "Description": "reads",
        "Tags": [{"Key": "team", "Value": "ml"}],
    });
    let made = ok(&lab, "CreatePolicy", create)["Policy"].clone();
    let policy = arn("policy", "team/Read");
    assert_eq!(
        (&made["Arn"], &made["DefaultVersionId"]),
        (&json!(policy), &json!("v1"))
    );
    let id = made["PolicyId"].as_str().unwrap();
    assert!(id.starts_with("ANPA") && id.len() == 21, "{id}");
    let again = json!({"PolicyName": "READ", "PolicyDocument": READ_S3});
    let text = refused(&lab, "EntityAlreadyExists", 409, "CreatePolicy", again);
    assert_eq!(
        text,
        "A policy called READ already exists. Duplicate names are not allowed."
    );
    let of = json!({"PolicyArn": policy});
    let seen = ok(&lab, "GetPolicy", of.clone())["Policy"].clone();
    assert_eq!(seen["Description"], "reads");
    assert_eq!(seen["AttachmentCount"], 0);

    for number in 2..=5 {
        let input = json!({"PolicyArn": policy, "PolicyDocument": ALL, "SetAsDefault": number == 3});
        assert_eq!(
            ok(&lab, "CreatePolicyVersion", input)["PolicyVersion"]["VersionId"],
            format!("v{number}")
        );
    }
    let sixth = json!({"PolicyArn": policy, "PolicyDocument": ALL});
    refused(&lab, "LimitExceeded", 409, "CreatePolicyVersion", sixth);
    let bad = json!({"PolicyArn": policy, "PolicyDocument": "{}"});
    refused(&lab, "MalformedPolicyDocument", 400, "CreatePolicyVersion", bad);
    let versions = pages(&lab, "ListPolicyVersions", &of, 2);
    let ids: Vec<_> = versions
        .iter()
        .flat_map(|page| names(page, "Versions", "VersionId"))
        .collect();
    assert_eq!(
        (ids, versions.len()),
        (["v5", "v4", "v3", "v2", "v1"].map(str::to_owned).to_vec(), 3)
    );
    let version = |id: &str| json!({"PolicyArn": policy, "VersionId": id});
    let third = ok(&lab, "GetPolicyVersion", version("v3"))["PolicyVersion"].clone();
    assert_eq!(third["IsDefaultVersion"], true);
    assert_eq!(third["Document"], isolarium_wire::sigv4::uri_encode(ALL));
    refused(&lab, "NoSuchEntity", 404, "GetPolicyVersion", version("v9"));
    let text = refused(&lab, "DeleteConflict", 409, "DeletePolicyVersion", version("v3"));
    assert_eq!(text, "Cannot delete the default version of a policy.");
    refused(&lab, "DeleteConflict", 409, "DeletePolicy", of.clone());
    for id in ["v1", "v2", "v4", "v5"] {
        ok(&lab, "DeletePolicyVersion", version(id));
    }
    refused(&lab, "NoSuchEntity", 404, "DeletePolicyVersion", version("v1"));

    user_caller(&lab, "alice", None);
    let to = json!({"UserName": "alice", "PolicyArn": policy});
    ok(&lab, "AttachUserPolicy", to.clone());
    assert_eq!(ok(&lab, "GetPolicy", of.clone())["Policy"]["AttachmentCount"], 1);
    let text = refused(&lab, "DeleteConflict", 409, "DeletePolicy", of.clone());
    assert_eq!(text, "Cannot delete a policy attached to entities.");
    ok(&lab, "DetachUserPolicy", to.clone());
    ok(&lab, "DeletePolicy", of.clone());
    let text = refused(&lab, "NoSuchEntity", 404, "GetPolicy", of.clone());
    assert_eq!(text, format!("Policy {policy} was not found."));
    let text = refused(&lab, "NoSuchEntity", 404, "AttachUserPolicy", to);
    assert_eq!(text, format!("Policy {policy} does not exist or is not attachable."));
    refused(&lab, "NoSuchEntity", 404, "DeletePolicy", of);
    refused(
        &lab,
        "InvalidInput",
        400,
        "GetPolicy",
        json!({"PolicyArn": "AmazonS3ReadOnlyAccess"}),
    );
}

/// Proves: IAM-25, IAM-56
#[test]
fn policies_of_aws_can_be_read_and_attached_and_never_changed() {
    let lab = Fixture::new();
    let policy = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess";
    let seen = ok(&lab, "GetPolicy", json!({"PolicyArn": policy}))["Policy"].clone();
    let version = json!({"PolicyArn": policy, "VersionId": seen["DefaultVersionId"]});
    assert!(ok(&lab, "GetPolicyVersion", version.clone())["PolicyVersion"]["Document"].is_string());
    for (operation, input) in [
        ("DeletePolicy", json!({"PolicyArn": policy})),
        (
            "CreatePolicyVersion",
            json!({"PolicyArn": policy, "PolicyDocument": ALL, "SetAsDefault": true}),
        ),
        ("SetDefaultPolicyVersion", version.clone()),
        ("DeletePolicyVersion", version),
        (
            "TagPolicy",
            json!({"PolicyArn": policy, "Tags": [{"Key": "a", "Value": "b"}]}),
        ),
    ] {
        refused(&lab, "AccessDenied", 403, operation, input);
    }
    assert_eq!(ok(&lab, "GetPolicy", json!({"PolicyArn": policy}))["Policy"], seen);
}

/// Another account's policies can be neither read nor used.
///
/// Proves: IAM-23, IAM-64
#[test]
fn an_account_uses_its_own_policies_alone() {
    let lab = Fixture::new();
    let policy = make_policy(&lab, "Read", READ_S3);
    let foreign = root("999999999999");
    let as_foreign = |operation: &str, input: Value| {
        let input: Document = serde_json::from_value(input).unwrap();
        Dispatch::default()
            .call("iam", operation, input, &lab.ctx(&foreign))
            .unwrap()
    };
    as_foreign("CreateUser", json!({"UserName": "eve"})).unwrap();
    let attach = as_foreign("AttachUserPolicy", json!({"UserName": "eve", "PolicyArn": policy})).unwrap_err();
    assert_eq!((attach.code.as_str(), attach.status), ("NoSuchEntity", 404));
    for operation in [
        "GetPolicy",
        "DeletePolicy",
        "ListPolicyVersions",
        "ListEntitiesForPolicy",
    ] {
        let error = as_foreign(operation, json!({"PolicyArn": policy})).unwrap_err();
        assert_eq!(error.code, "AccessDenied", "{operation}");
        if operation != "DeletePolicy" {
            ok(&lab, operation, json!({"PolicyArn": policy}));
        }
    }
    let listed = as_foreign("ListPolicies", json!({"Scope": "Local"})).unwrap();
    assert_eq!(serde_json::to_value(listed).unwrap()["Policies"], json!([]));
}

/// Proves: IAM-25, IAM-64
#[test]
fn every_quota_is_kept_to_the_last_one() {
    let lab = Fixture::new();
    user_caller(&lab, "alice", None);
    super::make_role(&lab, "worker", TRUST);
    ok(&lab, "CreateGroup", json!({"GroupName": "g"}));
    let policies: Vec<_> = (0..11)
        .map(|number| make_policy(&lab, &format!("p{number}"), READ_S3))
        .collect();
    for (noun, name) in [("User", "alice"), ("Group", "g"), ("Role", "worker")] {
        let attach = format!("Attach{noun}Policy");
        let to = |policy: &str| json!({format!("{noun}Name"): name, "PolicyArn": policy});
        for policy in &policies[..10] {
            ok(&lab, &attach, to(policy));
        }
        ok(&lab, &attach, to(&policies[0]));
        let text = refused(&lab, "LimitExceeded", 409, &attach, to(&policies[10]));
        assert_eq!(text, format!("Cannot exceed quota for PoliciesPer{noun}: 10"));
    }
    for (noun, name, most) in [
        ("User", "alice", 2_048),
        ("Group", "g", 5_120),
        ("Role", "worker", 10_240),
    ] {
        let put = |policy: &str, length: usize| {
            // White space is free.
            let frame = narrowed("s3:").replace("arn:aws:s3:::data/*", "*");
            let used = frame.chars().filter(|c| !c.is_ascii_whitespace()).count();
            let text = narrowed(&format!("s3:{}", "a".repeat(length - used))).replace("arn:aws:s3:::data/*", "*");
            let text = format!("{}{text}", " ".repeat(100));
            run(
                &lab,
                &format!("Put{noun}Policy"),
                json!({
                    format!("{noun}Name"): name, "PolicyName": policy, "PolicyDocument": text
                }),
            )
        };
        put("one", most / 2).unwrap();
        put("two", most / 2).unwrap();
        put("two", most / 2).unwrap();
        let error = put("two", most / 2 + 1).unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("LimitExceeded", 409), "{noun}");
        assert!(error.message.contains(&format!("{most} bytes")), "{error:?}");
    }
    let sized = |length: usize| {
        let used = narrowed("s3:").chars().filter(|c| !c.is_ascii_whitespace()).count();
        json!({"PolicyName": format!("n{length}"), "PolicyDocument": narrowed(&format!("s3:{}", "a".repeat(length - used)))})
    };
    ok(&lab, "CreatePolicy", sized(6_144));
    let text = refused(&lab, "LimitExceeded", 409, "CreatePolicy", sized(6_145));
    assert_eq!(text, "Cannot exceed quota for PolicySize: 6144");
    for number in 0..11 {
        ok(&lab, "CreateGroup", json!({"GroupName": format!("g{number}")}));
    }
    let join = |number: u32| json!({"GroupName": format!("g{number}"), "UserName": "alice"});
    for number in 0..10 {
        ok(&lab, "AddUserToGroup", join(number));
    }
    let text = refused(&lab, "LimitExceeded", 409, "AddUserToGroup", join(10));
    assert_eq!(text, "Cannot exceed quota for GroupsPerUser: 10");
    for number in 12..300 {
        ok(&lab, "CreateGroup", json!({"GroupName": format!("g{number}")}));
    }
    let text = refused(&lab, "LimitExceeded", 409, "CreateGroup", json!({"GroupName": "over"}));
    assert_eq!(text, "Cannot exceed quota for GroupsPerAccount: 300");
}

/// Proves: IAM-64
#[test]
fn tags_are_unique_without_regard_to_case_and_none_is_of_aws() {
    let lab = Fixture::new();
    user_caller(&lab, "thing", None);
    super::make_role(&lab, "thing", TRUST);
    let policy = make_policy(&lab, "thing", READ_S3);
    for (noun, member, name) in [
        ("User", "UserName", "thing"),
        ("Role", "RoleName", "thing"),
        ("Policy", "PolicyArn", &*policy),
    ] {
        let tag = |tags: &[(&str, &str)]| {
            let tags: Vec<_> = tags
                .iter()
                .map(|(key, value)| json!({"Key": key, "Value": value}))
                .collect();
            json!({member: name, "Tags": tags})
        };
        let list = || {
            let listed = pages(&lab, &format!("List{noun}Tags"), &json!({member: name}), 1);
            let tags = listed.iter().flat_map(|page| page["Tags"].as_array().unwrap().clone());
            tags.map(|tag| format!("{}={}", tag["Key"].as_str().unwrap(), tag["Value"].as_str().unwrap()))
                .collect::<Vec<_>>()
        };
        let set = format!("Tag{noun}");
        ok(&lab, &set, tag(&[("Team", "red"), ("stage", "test")]));
        ok(&lab, &set, tag(&[("team", "blue")]));
        assert_eq!(list(), ["stage=test", "team=blue"], "{noun}");
        for reserved in ["aws:team", "AWS:team"] {
            refused(&lab, "InvalidInput", 400, &set, tag(&[(reserved, "x")]));
        }
        refused(&lab, "InvalidInput", 400, &set, tag(&[("a", "1"), ("A", "2")]));
        let more: Vec<String> = (0..48).map(|number| format!("k{number}")).collect();
        ok(
            &lab,
            &set,
            tag(&more.iter().map(|key| (key.as_str(), "")).collect::<Vec<_>>()),
        );
        assert_eq!(list().len(), 50);
        refused(&lab, "LimitExceeded", 409, &set, tag(&[("one-more", "")]));
        ok(&lab, &format!("Untag{noun}"), json!({member: name, "TagKeys": more}));
        ok(
            &lab,
            &format!("Untag{noun}"),
            json!({member: name, "TagKeys": ["TEAM", "none"]}),
        );
        assert_eq!(list(), ["stage=test"], "{noun}");
    }
    let reserved = json!({"UserName": "x", "Tags": [{"Key": "aws:x", "Value": ""}]});
    refused(&lab, "InvalidInput", 400, "CreateUser", reserved);
}

/// Proves: IAM-26, IAM-45, IAM-64
#[test]
fn a_renamed_user_keeps_its_keys_groups_and_policies() {
    let lab = Fixture::new();
    let user = user_caller(&lab, "alice", Some(READ_S3));
    user_caller(&lab, "bob", None);
    ok(&lab, "CreateGroup", json!({"GroupName": "g"}));
    ok(&lab, "AddUserToGroup", json!({"GroupName": "g", "UserName": "alice"}));
    let key = ok(&lab, "CreateAccessKey", json!({"UserName": "alice"}))["AccessKey"]["AccessKeyId"].clone();
    let id = key.as_str().unwrap();
    let someone = root(ACCOUNT);
    let ctx = lab.ctx(&someone);
    let signer = || super::resolve(ctx.store, ctx.master, id, None, super::Timestamp(super::START));
    assert_eq!(signer().unwrap().principal, user.principal);
    refused(
        &lab,
        "EntityAlreadyExists",
        409,
        "UpdateUser",
        json!({"UserName": "alice", "NewUserName": "BOB"}),
    );
    ok(
        &lab,
        "UpdateUser",
        json!({"UserName": "alice", "NewUserName": "Carol", "NewPath": "/team/"}),
    );
    refused(&lab, "NoSuchEntity", 404, "GetUser", json!({"UserName": "alice"}));
    let renamed = Caller {
        principal: signer().unwrap().principal,
        ..root(ACCOUNT)
    };
    assert_eq!(renamed.principal.arn().unwrap().as_str(), arn("user", "team/Carol"));
    assert!(allowed(&lab, &renamed));
    assert!(
        !allowed(&lab, &user),
        "whoever still calls itself by the old name is nobody"
    );
    let members = ok(&lab, "GetGroup", json!({"GroupName": "g"}));
    assert_eq!(names(&members, "Users", "UserName"), ["Carol"]);
    ok(&lab, "UpdateUser", json!({"UserName": "carol", "NewUserName": "CAROL"}));
    assert!(signer().is_ok(), "the same name in other letters");

    let status = |status: &str| json!({"UserName": "Carol", "AccessKeyId": id, "Status": status});
    ok(&lab, "UpdateAccessKey", status("Inactive"));
    assert!(signer().is_err(), "an inactive key signs nothing");
    let listed = ok(&lab, "ListAccessKeys", json!({"UserName": "Carol"}));
    assert_eq!(names(&listed, "AccessKeyMetadata", "Status"), ["Inactive"]);
    ok(&lab, "UpdateAccessKey", status("Active"));
    assert!(signer().is_ok());
    refused(
        &lab,
        "NoSuchEntity",
        404,
        "UpdateAccessKey",
        json!({"UserName": "bob", "AccessKeyId": id, "Status": "Inactive"}),
    );
}

/// Proves: IAM-64
#[test]
fn nothing_is_deleted_from_under_what_uses_it() {
    let lab = Fixture::new();
    let policy = make_policy(&lab, "p", READ_S3);
    user_caller(&lab, "alice", None);
    super::make_role(&lab, "worker", TRUST);
    ok(&lab, "CreateGroup", json!({"GroupName": "g"}));
    for (noun, name) in [("User", "alice"), ("Group", "g"), ("Role", "worker")] {
        let of = |rest: Value| {
            let mut input = json!({format!("{noun}Name"): name});
            input.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            input
        };
        ok(&lab, &format!("Attach{noun}Policy"), of(json!({"PolicyArn": policy})));
        let delete = format!("Delete{noun}");
        let text = refused(&lab, "DeleteConflict", 409, &delete, of(json!({})));
        assert_eq!(text, "Cannot delete entity, must detach all policies first.");
        ok(&lab, &format!("Detach{noun}Policy"), of(json!({"PolicyArn": policy})));
        ok(
            &lab,
            &format!("Put{noun}Policy"),
            of(json!({"PolicyName": "in", "PolicyDocument": READ_S3})),
        );
        let text = refused(&lab, "DeleteConflict", 409, &delete, of(json!({})));
        assert_eq!(text, "Cannot delete entity, must delete policies first.");
        ok(&lab, &format!("Delete{noun}Policy"), of(json!({"PolicyName": "in"})));
    }
    ok(&lab, "AddUserToGroup", json!({"GroupName": "g", "UserName": "alice"}));
    for (delete, input) in [
        ("DeleteUser", json!({"UserName": "alice"})),
        ("DeleteGroup", json!({"GroupName": "g"})),
    ] {
        let text = refused(&lab, "DeleteConflict", 409, delete, input);
        assert_eq!(text, "Cannot delete entity, must remove users from group first.");
    }
    ok(
        &lab,
        "RemoveUserFromGroup",
        json!({"GroupName": "g", "UserName": "alice"}),
    );
    ok(&lab, "DeleteUser", json!({"UserName": "alice"}));
    ok(&lab, "DeleteGroup", json!({"GroupName": "g"}));
    ok(&lab, "DeleteRole", json!({"RoleName": "worker"}));
    for (operation, input, text) in [
        (
            "GetGroup",
            json!({"GroupName": "g"}),
            "The group with name g cannot be found.",
        ),
        (
            "GetUser",
            json!({"UserName": "alice"}),
            "The user with name alice cannot be found.",
        ),
        (
            "AddUserToGroup",
            json!({"GroupName": "g", "UserName": "alice"}),
            "The group with name g cannot be found.",
        ),
    ] {
        assert_eq!(refused(&lab, "NoSuchEntity", 404, operation, input), text);
    }
}

/// Proves: IAM-64
#[test]
fn lists_of_policies_and_their_users_are_filtered_and_paged() {
    let lab = Fixture::new();
    user_caller(&lab, "alice", None);
    super::make_role(&lab, "worker", TRUST);
    ok(&lab, "CreateGroup", json!({"GroupName": "g", "Path": "/team/"}));
    for number in 0..5 {
        let input =
            json!({"PolicyName": format!("p{number}"), "Path": format!("/{}/", number % 2), "PolicyDocument": READ_S3});
        ok(&lab, "CreatePolicy", input);
    }
    let (first, second) = (arn("policy", "0/p0"), arn("policy", "1/p1"));
    let managed = "arn:aws:iam::aws:policy/ReadOnlyAccess";
    ok(
        &lab,
        "AttachUserPolicy",
        json!({"UserName": "alice", "PolicyArn": first}),
    );
    ok(&lab, "AttachGroupPolicy", json!({"GroupName": "g", "PolicyArn": first}));
    ok(
        &lab,
        "AttachRolePolicy",
        json!({"RoleName": "worker", "PolicyArn": managed}),
    );
    ok(
        &lab,
        "PutRolePermissionsBoundary",
        json!({"RoleName": "worker", "PermissionsBoundary": second}),
    );

    let listed = |input: Value, size: u32| {
        let pages = pages(&lab, "ListPolicies", &input, size);
        let names: Vec<_> = pages
            .iter()
            .flat_map(|page| names(page, "Policies", "PolicyName"))
            .collect();
        (names, pages.len())
    };
    let (all, _) = listed(json!({}), 1_000);
    let (local, count) = listed(json!({"Scope": "Local"}), 2);
    let (aws, _) = listed(json!({"Scope": "AWS"}), 4);
    assert_eq!(
        (local.clone(), count),
        (["p0", "p1", "p2", "p3", "p4"].map(str::to_owned).to_vec(), 3)
    );
    assert!(aws.contains(&"AmazonSageMakerFullAccess".to_owned()) && aws.is_sorted());
    for size in [1, 3, 5, 7, 1_000] {
        assert_eq!(
            listed(json!({"Scope": "All"}), size).0,
            [local.clone(), aws.clone()].concat(),
            "{size}"
        );
    }
    assert_eq!(all.len(), local.len() + aws.len());
    assert_eq!(
        listed(json!({"Scope": "Local"}), 5).1,
        1,
        "a last full page is known as the last"
    );
    assert_eq!(listed(json!({"PathPrefix": "/1/"}), 10).0, ["p1", "p3"]);
    assert_eq!(
        listed(json!({"OnlyAttached": true}), 1).0,
        ["p0", "p1", "ReadOnlyAccess"]
    );
    assert_eq!(
        listed(json!({"PolicyUsageFilter": "PermissionsBoundary"}), 10).0,
        ["p1"]
    );
    assert_eq!(
        listed(json!({"PolicyUsageFilter": "PermissionsPolicy"}), 10).0,
        ["p0", "ReadOnlyAccess"]
    );
    refused(
        &lab,
        "ValidationError",
        400,
        "ListPolicies",
        json!({"Marker": "nonsense"}),
    );

    let entities = |input: Value| {
        let pages = pages(&lab, "ListEntitiesForPolicy", &input, 1);
        let mut found = Vec::new();
        for page in &pages {
            found.extend(names(page, "PolicyGroups", "GroupName"));
            found.extend(names(page, "PolicyUsers", "UserName"));
            found.extend(names(page, "PolicyRoles", "RoleName"));
        }
        found
    };
    assert_eq!(entities(json!({"PolicyArn": first})), ["g", "alice"]);
    assert_eq!(entities(json!({"PolicyArn": first, "EntityFilter": "User"})), ["alice"]);
    assert_eq!(entities(json!({"PolicyArn": first, "PathPrefix": "/team/"})), ["g"]);
    assert_eq!(entities(json!({"PolicyArn": second})), ["worker"]);
    assert!(entities(json!({"PolicyArn": second, "PolicyUsageFilter": "PermissionsPolicy"})).is_empty());
    assert_eq!(entities(json!({"PolicyArn": managed})), ["worker"]);
    let attached = ok(&lab, "ListAttachedRolePolicies", json!({"RoleName": "worker"}));
    assert_eq!(names(&attached, "AttachedPolicies", "PolicyName"), ["ReadOnlyAccess"]);
    let seen = ok(&lab, "GetPolicy", json!({"PolicyArn": second}))["Policy"].clone();
    assert_eq!(
        (&seen["AttachmentCount"], &seen["PermissionsBoundaryUsageCount"]),
        (&json!(0), &json!(1))
    );
}

/// Proves: IAM-64
#[test]
fn the_whole_account_is_told_page_by_page_and_once() {
    let lab = Fixture::new();
    for name in ["alice", "bob"] {
        user_caller(&lab, name, Some(READ_S3));
    }
    super::make_role(&lab, "worker", TRUST);
    ok(&lab, "CreateGroup", json!({"GroupName": "Readers"}));
    ok(
        &lab,
        "AddUserToGroup",
        json!({"GroupName": "Readers", "UserName": "alice"}),
    );
    let policy = make_policy(&lab, "Own", READ_S3);
    ok(
        &lab,
        "CreatePolicyVersion",
        json!({"PolicyArn": policy, "PolicyDocument": ALL}),
    );
    for arn in [policy.as_str(), "arn:aws:iam::aws:policy/ReadOnlyAccess"] {
        ok(
            &lab,
            "AttachRolePolicy",
            json!({"RoleName": "worker", "PolicyArn": arn}),
        );
    }
    const LISTS: [(&str, &str); 4] = [
        ("UserDetailList", "UserName"),
        ("GroupDetailList", "GroupName"),
        ("RoleDetailList", "RoleName"),
        ("Policies", "PolicyName"),
    ];
    let told = |input: Value, size: u32| {
        let pages = pages(&lab, "GetAccountAuthorizationDetails", &input, size);
        LISTS.map(|(list, member)| {
            pages
                .iter()
                .flat_map(|page| names(page, list, member))
                .collect::<Vec<_>>()
        })
    };
    let whole = told(json!({}), 1_000);
    let [users, groups, roles, policies] = &whole;
    assert_eq!(
        (users.join(" "), groups.join(" ")),
        ("alice bob".into(), "Readers".into())
    );
    assert_eq!(
        (roles.join(" "), policies.join(" ")),
        ("worker".into(), "Own ReadOnlyAccess".into())
    );
    for size in 1..8 {
        assert_eq!(told(json!({}), size), whole, "{size}");
    }
    let [users, groups, roles, policies] = told(json!({"Filter": ["Group", "LocalManagedPolicy"]}), 1);
    assert_eq!((users.len(), roles.len()), (0, 0));
    assert_eq!((groups.join(" "), policies.join(" ")), ("Readers".into(), "Own".into()));
    let all = ok(&lab, "GetAccountAuthorizationDetails", json!({}));
    assert_eq!(all["UserDetailList"][0]["GroupList"], json!(["Readers"]));
    assert_eq!(all["Policies"][0]["PolicyVersionList"].as_array().unwrap().len(), 2);
    assert_eq!(
        all["RoleDetailList"][0]["AttachedManagedPolicies"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let summary = ok(&lab, "GetAccountSummary", json!({}))["SummaryMap"].clone();
    for (name, number) in [
        ("Users", 2),
        ("Groups", 1),
        ("Roles", 1),
        ("Policies", 1),
        ("PolicyVersionsInUse", 2),
    ] {
        assert_eq!(summary[name], number, "{name}");
    }
}

/// Proves: IAM-64
#[test]
fn a_role_is_updated_and_an_account_has_one_alias() {
    let lab = Fixture::new();
    super::make_role(&lab, "worker", TRUST);
    let role = || ok(&lab, "GetRole", json!({"RoleName": "worker"}))["Role"].clone();
    ok(
        &lab,
        "UpdateRole",
        json!({"RoleName": "worker", "Description": "trains", "MaxSessionDuration": 7_200}),
    );
    assert_eq!(
        (&role()["Description"], &role()["MaxSessionDuration"]),
        (&json!("trains"), &json!(7_200))
    );
    ok(
        &lab,
        "UpdateRoleDescription",
        json!({"RoleName": "worker", "Description": "serves"}),
    );
    assert_eq!(
        (&role()["Description"], &role()["MaxSessionDuration"]),
        (&json!("serves"), &json!(7_200))
    );
    refused(&lab, "NoSuchEntity", 404, "UpdateRole", json!({"RoleName": "none"}));

    let caller = root(ACCOUNT);
    let ctx = lab.ctx(&caller);
    for account in [ACCOUNT, "999999999999"] {
        super::operator::create_account(ctx.store, ctx.clock, &account.parse().unwrap()).unwrap();
    }
    let aliases = || ok(&lab, "ListAccountAliases", json!({}))["AccountAliases"].clone();
    ok(&lab, "CreateAccountAlias", json!({"AccountAlias": "one"}));
    ok(&lab, "CreateAccountAlias", json!({"AccountAlias": "two"}));
    assert_eq!(aliases(), json!(["two"]));
    let foreign = root("999999999999");
    let theirs = |alias: &str| {
        let input: Document = serde_json::from_value(json!({"AccountAlias": alias})).unwrap();
        Dispatch::default()
            .call("iam", "CreateAccountAlias", input, &lab.ctx(&foreign))
            .unwrap()
    };
    let taken = theirs("two").unwrap_err();
    assert_eq!((taken.code.as_str(), taken.status), ("EntityAlreadyExists", 409));
    theirs("one").expect("free again");
    refused(
        &lab,
        "NoSuchEntity",
        404,
        "DeleteAccountAlias",
        json!({"AccountAlias": "one"}),
    );
    ok(&lab, "DeleteAccountAlias", json!({"AccountAlias": "two"}));
    assert_eq!(aliases(), json!([]));
}

/// Many callers may change what hangs together at once, and none of them is told to come again.
///
/// Proves: IAM-25
#[test]
fn a_policy_is_attached_to_many_roles_at_once() {
    let lab = Fixture::new();
    let policy = make_policy(&lab, "p", READ_S3);
    let roles: Vec<String> = (0..16).map(|number| format!("r{number:02}")).collect();
    for role in &roles {
        super::make_role(&lab, role, TRUST);
    }
    std::thread::scope(|threads| {
        for role in &roles {
            let (lab, policy) = (&lab, &policy);
            threads.spawn(move || ok(lab, "AttachRolePolicy", json!({"RoleName": role, "PolicyArn": policy})));
        }
    });
    let found = ok(&lab, "ListEntitiesForPolicy", json!({"PolicyArn": policy}));
    assert_eq!(names(&found, "PolicyRoles", "RoleName"), roles);
}

/// Proves: IAM-56
#[test]
fn the_policy_for_sagemaker_opens_what_is_named_for_it_and_no_other_object() {
    let lab = Fixture::new();
    let user = user_caller(&lab, "alice", None);
    let policy = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess";
    let may = |action: &str, resource: &str| ask(&lab.ctx(&user), action, resource).is_ok();
    let model = "arn:aws:sagemaker:us-east-1:123456789012:model/m";
    assert!(!may("sagemaker:CreateModel", model), "control: not attached yet");
    ok(
        &lab,
        "AttachUserPolicy",
        json!({"UserName": "alice", "PolicyArn": policy}),
    );
    for (action, resource) in [
        ("sagemaker:CreateModel", model),
        ("sagemaker:ListModels", "*"),
        ("ec2:CreateNetworkInterface", "*"),
        ("ec2:DescribeSubnets", "*"),
        (
            "logs:PutLogEvents",
            "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/TrainingJobs:log-stream:s",
        ),
        ("ecr:GetAuthorizationToken", "*"),
        ("ecr:BatchGetImage", "arn:aws:ecr:us-east-1:123456789012:repository/any"),
        ("cloudwatch:PutMetricData", "*"),
        ("s3:GetObject", "arn:aws:s3:::my-SageMaker-data/k"),
        ("s3:PutObject", "arn:aws:s3:::Sagemaker/k"),
        ("s3:GetObject", "arn:aws:s3:::plain/sagemaker/k"),
        ("s3:DeleteObject", "arn:aws:s3:::aws-glue-x/k"),
        ("s3:ListBucket", "arn:aws:s3:::anything"),
        ("s3:CreateBucket", "arn:aws:s3:::anything"),
        ("s3:GetBucketCORS", "arn:aws:s3:::anything"),
        ("s3:PutBucketCORS", "arn:aws:s3:::anything"),
    ] {
        assert!(may(action, resource), "{action} on {resource}");
    }
    for (action, resource) in [
        ("s3:GetObject", "arn:aws:s3:::data/k"),
        ("s3:PutObject", "arn:aws:s3:::SAGEMAKER/k"),
        ("s3:DeleteBucket", "arn:aws:s3:::sagemaker-x"),
        ("s3:PutBucketPolicy", "arn:aws:s3:::sagemaker-x"),
        ("iam:CreateUser", "arn:aws:iam::123456789012:user/x"),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/r"),
        ("ec2:RunInstances", "*"),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/r"),
    ] {
        assert!(!may(action, resource), "{action} on {resource}");
    }
    let role = arn("role", "r").parse().unwrap();
    let pass = |service: &str| {
        let question = crate::iam::pass_role_question(&role, service);
        crate::dispatch::grant("iam", (), &[question], &lab.ctx(&user)).is_ok()
    };
    assert!(pass("sagemaker.amazonaws.com") && !pass("ec2.amazonaws.com"));
}

/// Proves: IAM-56
#[test]
fn each_policy_of_aws_gives_what_its_name_says_and_no_more() {
    let lab = Fixture::new();
    let user = user_caller(&lab, "alice", None);
    for (policy, given, withheld) in [
        (
            "AdministratorAccess",
            vec!["iam:CreateUser", "sagemaker:CreateModel", "s3:DeleteBucket"],
            vec![],
        ),
        (
            "PowerUserAccess",
            vec!["sagemaker:CreateModel", "s3:PutObject", "iam:ListRoles"],
            vec!["iam:CreateUser", "iam:PutUserPolicy"],
        ),
        (
            "ReadOnlyAccess",
            vec![
                "s3:GetObject",
                "sagemaker:DescribeModel",
                "iam:GetRole",
                "logs:GetLogEvents",
                "ecr:BatchGetImage",
            ],
            vec![
                "s3:PutObject",
                "sagemaker:CreateModel",
                "iam:CreateUser",
                "sts:AssumeRole",
                "sagemaker:InvokeEndpoint",
            ],
        ),
        (
            "job-function/ViewOnlyAccess",
            vec!["s3:ListBucket", "sagemaker:ListModels", "iam:ListUsers"],
            vec!["s3:GetObject", "logs:GetLogEvents", "iam:CreateUser"],
        ),
        (
            "SecurityAudit",
            vec![
                "iam:GetAccountAuthorizationDetails",
                "sagemaker:DescribeModel",
                "s3:GetBucketPolicy",
            ],
            vec!["s3:GetObject", "logs:GetLogEvents", "iam:CreateUser"],
        ),
        (
            "AmazonS3FullAccess",
            vec!["s3:PutObject", "s3:DeleteBucket"],
            vec!["sagemaker:ListModels"],
        ),
        (
            "AmazonS3ReadOnlyAccess",
            vec!["s3:GetObject", "s3:ListBucket"],
            vec!["s3:PutObject", "s3:DeleteObject"],
        ),
        (
            "AmazonSageMakerReadOnly",
            vec!["sagemaker:DescribeModel", "sagemaker:ListModels"],
            vec!["sagemaker:CreateModel", "sagemaker:InvokeEndpoint", "s3:GetObject"],
        ),
        (
            "AmazonEC2ContainerRegistryReadOnly",
            vec!["ecr:BatchGetImage", "ecr:GetAuthorizationToken"],
            vec!["ecr:PutImage", "ecr:CreateRepository"],
        ),
        (
            "AmazonEC2ContainerRegistryPowerUser",
            vec!["ecr:BatchGetImage", "ecr:PutImage"],
            vec!["ecr:CreateRepository", "ecr:DeleteRepository"],
        ),
        (
            "AmazonEC2ContainerRegistryFullAccess",
            vec!["ecr:DeleteRepository", "ecr:PutImage"],
            vec!["s3:GetObject", "iam:CreateUser"],
        ),
        (
            "CloudWatchLogsFullAccess",
            vec!["logs:DeleteLogGroup"],
            vec!["s3:GetObject"],
        ),
        (
            "CloudWatchLogsReadOnlyAccess",
            vec!["logs:GetLogEvents", "logs:FilterLogEvents"],
            vec!["logs:PutLogEvents", "logs:DeleteLogGroup"],
        ),
        (
            "IAMFullAccess",
            vec!["iam:CreateUser", "iam:PassRole"],
            vec!["s3:GetObject"],
        ),
        (
            "IAMReadOnlyAccess",
            vec!["iam:GetUser", "iam:ListPolicies", "iam:SimulatePrincipalPolicy"],
            vec!["iam:CreateUser", "iam:PassRole"],
        ),
        (
            "AmazonVPCFullAccess",
            vec![
                "ec2:CreateVpc",
                "ec2:DescribeSubnets",
                "ec2:AuthorizeSecurityGroupIngress",
            ],
            vec!["ec2:RunInstances", "ec2:TerminateInstances"],
        ),
        (
            "AmazonVPCReadOnlyAccess",
            vec!["ec2:DescribeVpcs", "ec2:DescribeSecurityGroups"],
            vec!["ec2:CreateVpc", "ec2:DescribeInstances"],
        ),
    ] {
        let to = json!({"UserName": "alice", "PolicyArn": format!("arn:aws:iam::aws:policy/{policy}")});
        let may = |action: &&str| ask(&lab.ctx(&user), action, "*").is_ok();
        assert!(!given.iter().any(may), "{policy}: not attached yet");
        ok(&lab, "AttachUserPolicy", to.clone());
        for action in &given {
            assert!(may(action), "{policy}: {action}");
        }
        for action in &withheld {
            assert!(!may(action), "{policy}: {action}");
        }
        ok(&lab, "DetachUserPolicy", to);
    }
}
