//! What the running server answers to its operator.

use super::message::{Answer, Ask};
use super::report;
use crate::http::door::Engine;
use indexmap::IndexMap;
use isolarium_model::ecr::is_repository_name;
use isolarium_model::iam::{Account, KeyOwner, User};
use isolarium_model::{AccountId, Principal, Scope};
use isolarium_runtime::EgressReport;
use isolarium_services::iam::operator;
use isolarium_services::{Caller, Source};
use isolarium_wire::Document;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Answers the operator's questions. All calls block.
pub struct Operator {
    pub engine: Arc<Engine>,
    pub egress: Arc<dyn EgressReport>,
    /// Default account and region.
    pub home: Scope,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Operator {
    /// Answers; failures come as an answer too.
    pub fn answer(&self, ask: Ask) -> Answer {
        let answered = match ask {
            Ask::Report { target } => self.report(&target),
            Ask::Push { repository } => self.push(&repository),
            Ask::CreateAccount { account } => self.create_account(account),
            Ask::CreateUser { account, name, policy } => self.create_user(account, &name, policy),
        };
        answered.unwrap_or_else(|error| {
            let mut reason = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                reason.push_str(": ");
                reason.push_str(&cause.to_string());
                next = cause.source();
            }
            Answer::Failed { reason }
        })
    }

    fn report(&self, target: &str) -> Result<Answer, Failure> {
        let store = self.engine.store.as_ref();
        let report = report::gather(store, self.egress.as_ref(), &self.home, target)?;
        Ok(Answer::Report { report })
    }

    fn push(&self, repository: &str) -> Result<Answer, Failure> {
        if !is_repository_name(repository) {
            return Err(format!("{repository} is not the name of a repository").into());
        }
        let caller = self.root(&self.home.account);
        let members = IndexMap::from([("repositoryName".to_owned(), Document::String(repository.to_owned()))]);
        match self
            .engine
            .call("ecr", "CreateRepository", Document::Map(members), &caller)
        {
            Some(Err(error)) if error.code != "RepositoryAlreadyExistsException" => return Err(Box::new(error)),
            _ => {}
        }
        let registry = &self.engine.registry;
        let login = registry.key.login(&caller, self.engine.clock.now());
        let (authorization_token, _expires) = login.ok_or("no authorization token could be made")?;
        let Scope { account, region } = &self.home;
        Ok(Answer::Push {
            endpoint: registry.endpoint.clone(),
            authorization_token,
            repository_uri: format!("{account}.dkr.ecr.{region}.amazonaws.com/{repository}"),
        })
    }

    fn exists(&self, account: &AccountId) -> Result<bool, Failure> {
        Ok(self.engine.store.get::<Account>(&Account::key(account))?.is_some())
    }

    fn create_account(&self, wanted: Option<AccountId>) -> Result<Answer, Failure> {
        let account = match wanted {
            Some(account) if self.exists(&account)? => return Err(format!("account {account} exists already").into()),
            Some(account) => account,
            None => loop {
                let account = random_account()?;
                if !self.exists(&account)? {
                    break account;
                }
            },
        };
        let engine = &self.engine;
        let key = operator::create_root_key(
            engine.store.as_ref(),
            engine.clock.as_ref(),
            engine.ids.as_ref(),
            &account,
        )?;
        Ok(Answer::Key {
            account,
            access_key_id: key.id,
            secret_access_key: key.secret.expose().to_owned(),
        })
    }

    fn create_user(&self, account: Option<AccountId>, name: &str, policy: Option<String>) -> Result<Answer, Failure> {
        let account = account.unwrap_or_else(|| self.home.account.clone());
        if !self.exists(&account)? {
            return Err(format!("there is no account {account}; make it with `isolarium account create`").into());
        }
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
        if !fits {
            return Err("a user name has 1 to 64 letters, digits and characters of _+=,.@-".into());
        }
        if self.engine.store.get::<User>(&User::key(&account, name))?.is_some() {
            return Err(format!("account {account} has a user {name} already").into());
        }
        let text = |value: &str| Document::String(value.to_owned());
        let user = ("UserName".to_owned(), text(name));
        self.as_root(&account, "CreateUser", IndexMap::from([user.clone()]))?;
        if let Some(policy) = policy {
            let members = [
                user,
                ("PolicyName".to_owned(), text("operator")),
                ("PolicyDocument".to_owned(), text(&policy)),
            ];
            if let Err(error) = self.as_root(&account, "PutUserPolicy", IndexMap::from(members)) {
                // Half a user would be in the way of the next try.
                self.as_root(
                    &account,
                    "DeleteUser",
                    IndexMap::from([("UserName".to_owned(), text(name))]),
                )?;
                return Err(error);
            }
        }
        let engine = &self.engine;
        let owner = KeyOwner::User { name: name.to_owned() };
        let key = operator::create_key(
            engine.store.as_ref(),
            engine.clock.as_ref(),
            engine.ids.as_ref(),
            &account,
            &owner,
        )?;
        Ok(Answer::Key {
            account,
            access_key_id: key.id,
            secret_access_key: key.secret.expose().to_owned(),
        })
    }

    fn root(&self, account: &AccountId) -> Caller {
        Caller {
            principal: Principal::Root {
                account: account.clone(),
            },
            scope: Scope {
                account: account.clone(),
                region: self.home.region.clone(),
            },
            source: Source::Public {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                secure: true,
            },
            session: None,
            request_id: crate::clock::request_id(),
            user_agent: "isolarium operator".into(),
        }
    }

    /// An IAM operation as the account's root: the same gate and checks as for every caller.
    fn as_root(
        &self,
        account: &AccountId,
        operation: &str,
        members: IndexMap<String, Document>,
    ) -> Result<(), Failure> {
        let caller = self.root(account);
        match self.engine.call("iam", operation, Document::Map(members), &caller) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Box::new(error)),
            None => Err(format!("{operation} is not served").into()),
        }
    }
}

fn random_account() -> Result<AccountId, Failure> {
    let number = u64::from_ne_bytes(crate::clock::random()) % 900_000_000_000 + 100_000_000_000;
    Ok(number.to_string().parse()?)
}
