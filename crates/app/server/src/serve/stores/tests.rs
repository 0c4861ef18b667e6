use super::*;
use isolarium_model::kms::{KmsKey, KmsState};
use isolarium_model::{Scope, Timestamp};
use isolarium_store::{Batch, Expect};

/// A key that was sealed under a master key that is not here.
fn sealed_elsewhere() -> (Scope, KmsKey) {
    let scope = Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    let key = KmsKey {
        of_service: false,
        id: "1".into(),
        arn: KmsKey::arn(&scope, "1"),
        created: Timestamp(0),
        state: KmsState::Enabled,
        description: String::new(),
        policy: String::new(),
        tags: std::collections::BTreeMap::new(),
        material: "AAAA".into(),
    };
    (scope, key)
}

/// With sealed keys in the database the engine neither makes another master key nor works under one that opens none of them.
#[test]
fn a_lost_or_foreign_master_key_stops_the_start_while_keys_are_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open(dir.path()).unwrap();
    let path = layout.at("master.key");
    let open = || Stores::open(&layout, "https://localhost");
    let (scope, key) = sealed_elsewhere();
    {
        let stores = open().unwrap();
        let made = std::fs::read(&path).unwrap();
        assert_eq!(made.len(), 32, "the first start makes it");
        std::fs::remove_file(&path).unwrap();
        drop(stores);
        let stores = open().unwrap();
        assert_ne!(
            std::fs::read(&path).unwrap(),
            made,
            "without sealed keys it is made again"
        );
        let batch = Batch::default().put(&KmsKey::key(&scope, &key.id), Expect::Absent, &key);
        stores.state.commit(batch.unwrap()).unwrap();
    }
    let refused = open().map(drop).unwrap_err();
    assert!(matches!(refused, StoresError::MasterWrong { keys: 1, .. }), "{refused}");
    std::fs::remove_file(&path).unwrap();
    let refused = open().map(drop).unwrap_err();
    assert!(
        matches!(refused, StoresError::MasterMissing { keys: 1, .. }),
        "{refused}"
    );
    assert!(!path.exists(), "nothing was made anew");
    std::fs::write(layout.at("master.key.lost"), "").unwrap();
    assert!(open().is_ok(), "the operator gave the keys up");
}
