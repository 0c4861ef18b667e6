//! Keys and policies that are kept in memory are those of this moment, on the store that the engine uses.

use super::*;
use crate::ecr::fixture::root;
use crate::{Caller, iam};
use isolarium_model::iam::{Attachments, Policies};
use isolarium_store::state::SqliteState;
use isolarium_store::{Batch, Database, Expect, state};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

struct Lab {
    store: Arc<dyn StateStore>,
    _dir: tempfile::TempDir,
}

fn account() -> isolarium_model::AccountId {
    "123456789012".parse().unwrap()
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("state.db"), &[state::sqlite::SCHEMA]).unwrap();
        Self {
            store: Arc::new(SqliteState::new(Arc::new(database))),
            _dir: dir,
        }
    }

    fn put_user(&self, policy: Option<&str>) {
        let inline = policy.map(|text| ("p".to_owned(), text.to_owned()));
        let user = User {
            account: account(),
            path: "/".into(),
            name: "ann".into(),
            id: "AIDA00000000000000001".into(),
            created: NOW,
            access_keys: vec![KEY.into()],
            groups: Default::default(),
            attachments: Attachments {
                policies: Policies {
                    inline: inline.into_iter().collect(),
                    ..Policies::default()
                },
                ..Attachments::default()
            },
        };
        let key = User::key(&account(), "ann");
        self.store
            .commit(Batch::default().put(&key, Expect::Any, &user).unwrap())
            .unwrap();
    }

    fn put_key(&self, active: bool, secret: &str) {
        let key = AccessKey {
            id: KEY.into(),
            secret: Secret::new(secret),
            account: account(),
            owner: KeyOwner::User { name: "ann".into() },
            active,
            created: NOW,
        };
        let place = AccessKey::key(KEY);
        self.store
            .commit(Batch::default().put(&place, Expect::Any, &key).unwrap())
            .unwrap();
    }

    fn find(&self) -> Result<Credential, ResolveError> {
        resolve(self.store.as_ref(), &MasterKey::new([7; 32]), KEY, None, NOW)
    }

    fn allowed(&self) -> bool {
        let found = self.find().unwrap();
        let caller = Caller {
            principal: found.principal,
            session: found.session,
            ..root("123456789012")
        };
        let authority = iam::authority_of(self.store.as_ref(), &caller, NOW).unwrap();
        let arn: Arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e".parse().unwrap();
        let question = Question::on("sagemaker:InvokeEndpoint", &arn);
        decide(&authority, &question, &ResourceSide::default()).is_ok()
    }
}

const KEY: &str = "AKIA0000000000000001";
const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sagemaker:*","Resource":"*"}}"#;

fn unknown(found: &Result<Credential, ResolveError>) -> bool {
    matches!(found, Err(ResolveError::Fault(AuthFault::UnknownKey)))
}

/// Proves: IAM-26
#[test]
fn the_next_request_meets_the_key_as_it_was_left() {
    let lab = Lab::new();
    assert!(unknown(&lab.find()));
    lab.put_user(None);
    lab.put_key(true, "one");
    for _ in 0..2 {
        assert_eq!(
            lab.find().unwrap().secret.expose(),
            "one",
            "control: it is known, and read from memory"
        );
    }
    lab.put_key(true, "two");
    assert_eq!(lab.find().unwrap().secret.expose(), "two");
    lab.put_key(false, "two");
    assert!(unknown(&lab.find()), "inactive");
    lab.put_key(true, "two");
    assert!(lab.find().is_ok(), "control");
    let user = User::key(&account(), "ann");
    lab.store
        .commit(Batch::default().delete::<User>(&user, Expect::Any))
        .unwrap();
    assert!(unknown(&lab.find()), "its user is gone");
    lab.put_user(None);
    assert!(lab.find().is_ok(), "control");
    lab.store
        .commit(Batch::default().delete::<AccessKey>(&AccessKey::key(KEY), Expect::Any))
        .unwrap();
    assert!(unknown(&lab.find()), "deleted");
}

/// Proves: IAM-26
#[test]
fn the_next_request_meets_the_policies_as_they_were_left() {
    let lab = Lab::new();
    lab.put_user(None);
    lab.put_key(true, "one");
    for _ in 0..3 {
        assert!(!lab.allowed() && !lab.allowed());
        lab.put_user(Some(ALLOW));
        assert!(lab.allowed() && lab.allowed(), "control");
        lab.put_user(Some(&ALLOW.replace("Allow", "Deny")));
        assert!(!lab.allowed() && !lab.allowed());
        lab.put_user(Some(ALLOW));
        assert!(lab.allowed(), "control");
        lab.put_user(None);
    }
}
