use super::shapes::*;
use crate::ecr::fixture::{Fixture, refusal, root};
use crate::iam::tests::user_caller;
use crate::{Caller, Dispatch};
use isolarium_model::Timestamp;
use isolarium_model::kms::KmsKey;
use isolarium_store::StateStore;
use isolarium_wire::{ApiError, Document};
use std::sync::atomic::Ordering;

const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("kms", operation, input)
}

/// As somebody other than root.
fn call_as(
    fixture: &Fixture,
    caller: &Caller,
    operation: &str,
    input: impl Into<Document>,
) -> Result<Document, ApiError> {
    Dispatch::default()
        .call("kms", operation, input.into(), &fixture.ctx(caller))
        .expect("served")
}

fn key(fixture: &Fixture, policy: Option<&str>) -> String {
    let request = CreateKeyRequest {
        policy: policy.map(Into::into),
        ..Default::default()
    };
    let made: CreateKeyResponse = call(fixture, "CreateKey", request).unwrap();
    made.key_metadata.unwrap().key_id
}

fn context(value: &str) -> Option<indexmap::IndexMap<String, String>> {
    let pairs = [("purpose", value), ("a", "b")];
    Some(
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect(),
    )
}

fn encrypt(fixture: &Fixture, key_id: &str, plain: &[u8]) -> Vec<u8> {
    let request = EncryptRequest {
        key_id: key_id.into(),
        plaintext: plain.to_vec(),
        encryption_context: context("test"),
        ..Default::default()
    };
    let answer: EncryptResponse = call(fixture, "Encrypt", request).unwrap();
    answer.ciphertext_blob.unwrap()
}

fn decryption(blob: Vec<u8>, value: &str) -> DecryptRequest {
    DecryptRequest {
        ciphertext_blob: Some(blob),
        encryption_context: context(value),
        ..Default::default()
    }
}

fn decrypt(fixture: &Fixture, blob: Vec<u8>, value: &str) -> Result<Vec<u8>, ApiError> {
    let answer: DecryptResponse = call(fixture, "Decrypt", decryption(blob, value))?;
    Ok(answer.plaintext.unwrap())
}

#[test]
fn what_is_encrypted_is_read_with_its_key_and_context_alone() {
    let fixture = Fixture::new();
    let id = key(&fixture, None);
    let blob = encrypt(&fixture, &id, b"hello");
    assert_ne!(
        blob,
        encrypt(&fixture, &id, b"hello"),
        "two times the same are not alike"
    );
    assert!(!blob.windows(5).any(|part| part == b"hello"));
    assert_eq!(decrypt(&fixture, blob.clone(), "test").unwrap(), b"hello");
    assert_eq!(
        refusal(decrypt(&fixture, blob.clone(), "other")).0,
        "InvalidCiphertextException"
    );
    for at in 0..blob.len() {
        let mut forged = blob.clone();
        forged[at] ^= 1;
        let refused = refusal(decrypt(&fixture, forged, "test"));
        assert!(
            [
                "InvalidCiphertextException",
                "AccessDeniedException",
                "InvalidArnException"
            ]
            .contains(&refused.0.as_str()),
            "{at} {refused:?}"
        );
    }
    for length in 0..blob.len() {
        assert!(decrypt(&fixture, blob[..length].to_vec(), "test").is_err(), "{length}");
    }
    let other = key(&fixture, None);
    let narrowed = DecryptRequest {
        key_id: Some(other),
        ..decryption(blob, "test")
    };
    let refused: Result<DecryptResponse, _> = call(&fixture, "Decrypt", narrowed);
    assert_eq!(refusal(refused).0, "IncorrectKeyException");
}

#[test]
fn data_keys_come_with_and_without_their_plain_form() {
    let fixture = Fixture::new();
    let id = key(&fixture, None);
    let request = GenerateDataKeyRequest {
        key_id: id.clone(),
        key_spec: Some(DataKeySpec::Aes256),
        encryption_context: context("test"),
        ..Default::default()
    };
    let made: GenerateDataKeyResponse = call(&fixture, "GenerateDataKey", request).unwrap();
    let plain = made.plaintext.unwrap();
    assert_eq!(plain.len(), 32);
    assert_eq!(decrypt(&fixture, made.ciphertext_blob.unwrap(), "test").unwrap(), plain);
    let request = GenerateDataKeyWithoutPlaintextRequest {
        key_id: id,
        number_of_bytes: Some(100),
        encryption_context: context("test"),
        ..Default::default()
    };
    let made: GenerateDataKeyWithoutPlaintextResponse =
        call(&fixture, "GenerateDataKeyWithoutPlaintext", request).unwrap();
    assert_eq!(
        decrypt(&fixture, made.ciphertext_blob.unwrap(), "test").unwrap().len(),
        100
    );
}

#[test]
fn a_key_rests_goes_and_takes_its_ciphertexts_with_it() {
    let fixture = Fixture::new();
    let id = key(&fixture, None);
    let blob = encrypt(&fixture, &id, b"x");
    let disable = DisableKeyRequest { key_id: id.clone() };
    let _: DisableKeyOutput = call(&fixture, "DisableKey", disable).unwrap();
    assert_eq!(refusal(decrypt(&fixture, blob.clone(), "test")).0, "DisabledException");
    let _: EnableKeyOutput = call(&fixture, "EnableKey", EnableKeyRequest { key_id: id.clone() }).unwrap();
    assert!(decrypt(&fixture, blob.clone(), "test").is_ok());
    let schedule = |days: i64| {
        let request = ScheduleKeyDeletionRequest {
            key_id: id.clone(),
            pending_window_in_days: Some(days),
        };
        call::<_, ScheduleKeyDeletionResponse>(&fixture, "ScheduleKeyDeletion", request)
    };
    assert_eq!(refusal(schedule(6)).0, "ValidationException");
    schedule(7).unwrap();
    assert_eq!(
        refusal(decrypt(&fixture, blob.clone(), "test")).0,
        "KMSInvalidStateException"
    );
    let cancel = CancelKeyDeletionRequest { key_id: id.clone() };
    let _: CancelKeyDeletionResponse = call(&fixture, "CancelKeyDeletion", cancel).unwrap();
    assert_eq!(refusal(decrypt(&fixture, blob.clone(), "test")).0, "DisabledException");
    let alias = CreateAliasRequest {
        alias_name: "alias/a".into(),
        target_key_id: id.clone(),
    };
    let _: CreateAliasOutput = call(&fixture, "CreateAlias", alias).unwrap();
    schedule(7).unwrap();
    fixture.clock.0.fetch_add(7 * 86_400_000, Ordering::Relaxed);
    let store: &dyn StateStore = &fixture.store;
    let describe = DescribeKeyRequest {
        key_id: id.clone(),
        grant_tokens: None,
    };
    let described: Result<DescribeKeyResponse, _> = call(&fixture, "DescribeKey", describe);
    assert_eq!(refusal(described).0, "NotFoundException", "also before it is swept");
    let now = Timestamp(fixture.clock.0.load(Ordering::Relaxed));
    assert_eq!(super::housekeeping::sweep(store, now).unwrap(), 1);
    assert!(store.all::<KmsKey>().unwrap().is_empty());
    assert_eq!(refusal(decrypt(&fixture, blob, "test")).0, "InvalidCiphertextException");
}

#[test]
fn the_key_policy_decides_and_iam_where_it_names_the_account() {
    let fixture = Fixture::new();
    let alice = user_caller(&fixture, "alice", Some(ALL));
    let bob = user_caller(&fixture, "bob", None);
    let by_account = key(&fixture, None);
    let statement = |who: &str, more: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[
                {{"Effect":"Allow","Principal":{{"AWS":"{}"}},"Action":"kms:*","Resource":"*"}},
                {{"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::123456789012:user/{who}"}},"Action":"kms:Encrypt","Resource":"*"{more}}}]}}"#,
            "arn:aws:iam::123456789012:user/root-stand-in"
        )
    };
    let condition = r#","Condition":{"StringEquals":{"kms:EncryptionContext:purpose":"test"}}"#;
    let text = statement("bob", condition);
    let locked: Result<CreateKeyResponse, _> = call(
        &fixture,
        "CreateKey",
        CreateKeyRequest {
            policy: Some(text.clone()),
            ..Default::default()
        },
    );
    assert_eq!(
        refusal(locked).0,
        "MalformedPolicyDocumentException",
        "nobody could change it"
    );
    let made: CreateKeyResponse = call(
        &fixture,
        "CreateKey",
        CreateKeyRequest {
            policy: Some(text),
            bypass_policy_lockout_safety_check: Some(true),
            ..Default::default()
        },
    )
    .unwrap();
    let by_name = made.key_metadata.unwrap().key_id;
    let ask = |caller: &Caller, key_id: &str, value: &str| {
        let request = EncryptRequest {
            key_id: key_id.into(),
            plaintext: b"x".to_vec(),
            encryption_context: context(value),
            ..Default::default()
        };
        call_as(&fixture, caller, "Encrypt", request)
            .map(drop)
            .map_err(|error| error.code)
    };
    let denied = Err("AccessDeniedException".to_owned());
    assert_eq!(ask(&alice, &by_account, "test"), Ok(()));
    assert_eq!(ask(&bob, &by_account, "test"), denied, "IAM says nothing of bob");
    assert_eq!(ask(&bob, &by_name, "test"), Ok(()), "the key policy is enough");
    assert_eq!(ask(&bob, &by_name, "other"), denied, "its condition counts");
    assert_eq!(ask(&alice, &by_name, "test"), denied, "IAM alone is not enough");
    assert_eq!(
        ask(&root("123456789012"), &by_name, "test"),
        denied,
        "not even for root"
    );
}

#[test]
fn aliases_stand_for_keys() {
    let fixture = Fixture::new();
    let (one, two) = (key(&fixture, None), key(&fixture, None));
    let create = |name: &str, id: &str| {
        let request = CreateAliasRequest {
            alias_name: name.into(),
            target_key_id: id.into(),
        };
        call::<_, CreateAliasOutput>(&fixture, "CreateAlias", request)
    };
    for wrong in ["a", "alias/", "alias/aws/s3"] {
        assert_eq!(refusal(create(wrong, &one)).0, "InvalidAliasNameException", "{wrong}");
    }
    create("alias/a", &one).unwrap();
    assert_eq!(refusal(create("alias/a", &two)).0, "AlreadyExistsException");
    assert_eq!(refusal(create("alias/b", "alias/a")).0, "ValidationException");
    let blob = encrypt(&fixture, "alias/a", b"x");
    let request = UpdateAliasRequest {
        alias_name: "alias/a".into(),
        target_key_id: two.clone(),
    };
    let _: UpdateAliasOutput = call(&fixture, "UpdateAlias", request).unwrap();
    assert_eq!(
        decrypt(&fixture, blob, "test").unwrap(),
        b"x",
        "the ciphertext knows its key"
    );
    let list = |key_id: Option<&str>| {
        let request = ListAliasesRequest {
            key_id: key_id.map(Into::into),
            ..Default::default()
        };
        let answer: ListAliasesResponse = call(&fixture, "ListAliases", request).unwrap();
        answer
            .aliases
            .unwrap()
            .into_iter()
            .map(|one| one.alias_name.unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (list(None), list(Some(&one)), list(Some(&two))),
        (vec!["alias/a".to_owned()], vec![], vec!["alias/a".to_owned()])
    );
}

/// A partner whom the key policy lets do everything may use the key and nothing more; what it was not asked about does not tell
/// whether a key exists.
#[test]
fn another_account_may_use_a_key_and_never_manage_it() {
    const PARTNER: &str = "210987654321";
    let fixture = Fixture::new();
    let partner = root(PARTNER);
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":
        ["arn:aws:iam::123456789012:root","arn:aws:iam::210987654321:root"]},"Action":"kms:*","Resource":"*"}]}"#;
    let arn = |id: &str| format!("arn:aws:kms:us-east-1:123456789012:key/{id}");
    let (shared, private) = (arn(&key(&fixture, Some(policy))), arn(&key(&fixture, None)));
    let own: CreateKeyResponse = call_as(&fixture, &partner, "CreateKey", CreateKeyRequest::default())
        .unwrap()
        .try_into()
        .unwrap();
    let own = own.key_metadata.unwrap().arn.unwrap();
    let encrypt = EncryptRequest {
        key_id: shared.clone(),
        plaintext: b"x".to_vec(),
        ..Default::default()
    };
    let encrypted: EncryptResponse = call_as(&fixture, &partner, "Encrypt", encrypt)
        .unwrap()
        .try_into()
        .unwrap();
    let blob = encrypted.ciphertext_blob.unwrap();
    let decrypt = |named: Option<&str>| {
        let request = DecryptRequest {
            ciphertext_blob: Some(blob.clone()),
            key_id: named.map(Into::into),
            ..Default::default()
        };
        let outcome = call_as(&fixture, &partner, "Decrypt", request);
        outcome.map(|answer| DecryptResponse::try_from(answer).unwrap().plaintext.unwrap())
    };
    assert_eq!(decrypt(None).unwrap(), b"x", "control");
    assert_eq!(decrypt(Some(&shared)).unwrap(), b"x", "control");
    let describe = |id: &str| {
        let request = DescribeKeyRequest {
            key_id: id.into(),
            ..Default::default()
        };
        call_as(&fixture, &partner, "DescribeKey", request)
    };
    assert!(describe(&shared).is_ok(), "control");
    assert_eq!(refusal(describe(&private)).0, "AccessDeniedException");

    let manage = |key_id: &str| -> Vec<(&'static str, Document)> {
        let key_id = || key_id.to_owned();
        vec![
            (
                "GetKeyPolicy",
                GetKeyPolicyRequest {
                    key_id: key_id(),
                    policy_name: None,
                }
                .into(),
            ),
            (
                "ListKeyPolicies",
                ListKeyPoliciesRequest {
                    key_id: key_id(),
                    ..Default::default()
                }
                .into(),
            ),
            (
                "PutKeyPolicy",
                PutKeyPolicyRequest {
                    key_id: key_id(),
                    policy: policy.into(),
                    ..Default::default()
                }
                .into(),
            ),
            (
                "TagResource",
                TagResourceRequest {
                    key_id: key_id(),
                    tags: vec![Tag {
                        tag_key: "a".into(),
                        tag_value: "b".into(),
                    }],
                }
                .into(),
            ),
            (
                "UntagResource",
                UntagResourceRequest {
                    key_id: key_id(),
                    tag_keys: vec!["a".into()],
                }
                .into(),
            ),
            (
                "ListResourceTags",
                ListResourceTagsRequest {
                    key_id: key_id(),
                    ..Default::default()
                }
                .into(),
            ),
            (
                "CreateAlias",
                CreateAliasRequest {
                    alias_name: "alias/a".into(),
                    target_key_id: key_id(),
                }
                .into(),
            ),
            ("DisableKey", DisableKeyRequest { key_id: key_id() }.into()),
            ("EnableKey", EnableKeyRequest { key_id: key_id() }.into()),
            (
                "ScheduleKeyDeletion",
                ScheduleKeyDeletionRequest {
                    key_id: key_id(),
                    ..Default::default()
                }
                .into(),
            ),
            (
                "CancelKeyDeletion",
                CancelKeyDeletionRequest { key_id: key_id() }.into(),
            ),
        ]
    };
    for (operation, request) in manage(&shared) {
        let outcome = call_as(&fixture, &partner, operation, request);
        assert_eq!(refusal(outcome).0, "AccessDeniedException", "{operation}");
    }
    assert!(describe(&shared).is_ok(), "nothing of it changed the key");
    for (operation, request) in manage(&own).into_iter().filter(|(name, _)| *name != "PutKeyPolicy") {
        let outcome = call_as(&fixture, &partner, operation, request);
        assert!(outcome.is_ok(), "control: {operation}: {outcome:?}");
    }

    let absent = arn("00000000-0000-0000-0000-000000000000");
    let list = |id: &str| {
        let request = ListAliasesRequest {
            key_id: Some(id.into()),
            ..Default::default()
        };
        call_as(&fixture, &partner, "ListAliases", request)
    };
    assert!(list(&own).is_ok(), "control");
    for foreign in [&private, &absent] {
        assert_eq!(refusal(list(foreign)).0, "NotFoundException", "{foreign}");
        assert_eq!(refusal(decrypt(Some(foreign))).0, "IncorrectKeyException", "{foreign}");
    }
}

#[test]
fn only_the_master_key_that_sealed_a_key_opens_it() {
    use crate::iam::credentials::MasterKey;
    let fixture = Fixture::new();
    let tried = |master: &MasterKey| super::seals(&fixture.store, master).unwrap();
    assert_eq!(tried(&fixture.master), super::Seals { keys: 0, opened: 0 });
    key(&fixture, None);
    assert_eq!(tried(&fixture.master), super::Seals { keys: 1, opened: 1 });
    assert_eq!(tried(&MasterKey::new([0x5a; 32])), super::Seals { keys: 1, opened: 0 });
}
