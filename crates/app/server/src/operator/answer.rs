//! What the running server answers to its operator.

use super::message::{AccountLine, Answer, Ask, HostLine, VpcLine};
use super::server::Reply;
use super::{profiles, report};
use crate::http::door::Engine;
use crate::proxy::refusals::Refusals;
use indexmap::IndexMap;
use isolarium_model::ecr::is_repository_name;
use isolarium_model::iam::{Account, KeyOwner, User};
use isolarium_model::{AccountId, Principal, Scope};
use isolarium_node::NodeHost;
use isolarium_reconcile::Scheduler;
use isolarium_reconcile::network::Networks;
use isolarium_runtime::EgressReport;
use isolarium_services::iam::operator;
use isolarium_services::{Caller, Source};
use isolarium_store::state::{Batch, Expect};
use isolarium_wire::Document;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers the operator's questions. All calls block.
pub struct Operator {
    pub engine: Arc<Engine>,
    pub egress: Arc<dyn EgressReport>,
    pub networks: Arc<Networks>,
    pub scheduler: Arc<Scheduler>,
    /// Where the proxy listens, if it does, and what it refused.
    pub proxy: Option<SocketAddr>,
    pub refusals: Arc<Refusals>,
    /// Default account and region.
    pub home: Scope,
    /// Writes `DIR/credentials`.
    pub host: Arc<dyn NodeHost>,
    /// Held while the file is written, so that the last one written knows every account.
    pub credentials: Mutex<()>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Operator {
    /// Answers; failures come as an answer too. What lasts as long as the conversation comes with what ends it.
    pub fn reply(&self, ask: Ask) -> Reply {
        match ask {
            Ask::EnterSubnet { subnet, groups } => match self.enter_subnet(&subnet, &groups) {
                Ok(reply) => reply,
                Err(error) => failed(&*error).into(),
            },
            other => self.answer(other).into(),
        }
    }

    fn answer(&self, ask: Ask) -> Answer {
        let answered = match ask {
            Ask::Report { target } => self.report(&target),
            Ask::Flows { target } => self.flows(&target),
            Ask::ExplainDenied { request_id } => self.explain(&request_id),
            Ask::Push { account, repository } => self.push(account, &repository),
            Ask::CreateAccount { account, alias } => self.create_account(account, alias),
            Ask::CreateRootKey { account } => self.create_root_key(&account),
            Ask::Accounts => self.accounts(),
            Ask::Vpcs => self.vpcs(),
            Ask::Usage => Ok(Answer::Usage {
                usage: self.scheduler.usage(),
            }),
            Ask::Refusals => Ok(Answer::Refusals {
                proxy: self.proxy,
                listed: self.refusals.listed(),
            }),
            Ask::ImportProduct { target, product_id } => self.import_product(&target, &product_id),
            Ask::CreateUser { account, name, policy } => self.create_user(account, &name, policy),
            Ask::EnterSubnet { .. } => Err("a place in a subnet is given by a conversation alone".into()),
        };
        answered.unwrap_or_else(|error| failed(&*error))
    }

    /// A host's interface, until the conversation ends (PL-5).
    fn enter_subnet(&self, subnet: &str, groups: &[String]) -> Result<Reply, Failure> {
        let Engine { clock, ids, .. } = self.engine.as_ref();
        let place = self
            .networks
            .place_program(clock.as_ref(), ids.as_ref(), subnet, groups)?;
        let host = HostLine {
            account: place.scope.account.clone(),
            region: place.scope.region.to_string(),
            vpc_id: place.vpc.to_string(),
            interface_id: place.interface.to_string(),
            address: place.address,
            name_servers: place.name_servers.clone(),
            search: place.search.clone(),
        };
        let networks = self.networks.clone();
        let end = move || {
            if let Err(error) = networks.remove_program(&place) {
                tracing::warn!(
                    interface = %place.interface,
                    error = &error as &dyn Error,
                    "a host's interface is not given back yet; trying again"
                );
            }
        };
        Ok(Reply {
            answer: Answer::Entered { host },
            end: Some(Box::new(end)),
        })
    }

    fn report(&self, target: &str) -> Result<Answer, Failure> {
        let store = self.engine.store.as_ref();
        let report = report::gather(store, self.egress.as_ref(), &self.home, target)?;
        Ok(Answer::Report { report })
    }

    fn flows(&self, target: &str) -> Result<Answer, Failure> {
        let flows = report::flows(self.engine.store.as_ref(), &self.home, target)?;
        Ok(Answer::Flows { flows })
    }

    fn vpcs(&self) -> Result<Answer, Failure> {
        let compared = self.networks.compare()?.into_iter().map(|one| VpcLine {
            vpc_id: one.vpc.to_string(),
            differences: one.differences,
        });
        Ok(Answer::Vpcs {
            vpcs: compared.collect(),
        })
    }

    fn explain(&self, request_id: &str) -> Result<Answer, Failure> {
        let denials = super::denial::of_request(&self.engine.audit, request_id)?;
        Ok(Answer::Denials { denials })
    }

    fn push(&self, account: Option<AccountId>, repository: &str) -> Result<Answer, Failure> {
        if !is_repository_name(repository) {
            return Err(format!("{repository} is not the name of a repository").into());
        }
        let account = self.known(account)?;
        let caller = self.root(&account);
        let members = IndexMap::from([("repositoryName".to_owned(), Document::String(repository.to_owned()))]);
        match self
            .engine
            .call("ecr", "CreateRepository", Document::Map(members), &caller)
        {
            Err(error) if error.code != "RepositoryAlreadyExistsException" => return Err(Box::new(error)),
            _ => {}
        }
        let registry = &self.engine.registry;
        let login = registry.key.login(&caller, self.engine.clock.now());
        let (authorization_token, _expires) = login.ok_or("no authorization token could be made")?;
        let host = format!("{account}.dkr.ecr.{}.amazonaws.com", self.home.region);
        Ok(Answer::Push {
            endpoint: registry.endpoint.clone(),
            authorization_token,
            repository_uri: format!("{host}/{repository}"),
            host,
        })
    }

    /// The account named, which exists, or the default one.
    fn known(&self, account: Option<AccountId>) -> Result<AccountId, Failure> {
        let account = account.unwrap_or_else(|| self.home.account.clone());
        if self.exists(&account)? {
            return Ok(account);
        }
        Err(format!("there is no account {account}; make it with `isolarium account create`").into())
    }

    fn exists(&self, account: &AccountId) -> Result<bool, Failure> {
        Ok(self.engine.store.get::<Account>(&Account::key(account))?.is_some())
    }

    fn create_account(&self, wanted: Option<AccountId>, alias: Option<String>) -> Result<Answer, Failure> {
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
        if account.as_str().bytes().all(|digit| digit == b'0') {
            return Err("the account id 000000000000 is nobody's".into());
        }
        let store = self.engine.store.as_ref();
        operator::create_account(store, self.engine.clock.as_ref(), &account)?;
        if let Some(alias) = alias {
            let members = IndexMap::from([("AccountAlias".to_owned(), Document::String(alias))]);
            if let Err(error) = self.as_root(&account, "CreateAccountAlias", members) {
                // Half an account would be in the way of the next try.
                store.commit(Batch::default().delete::<Account>(&Account::key(&account), Expect::Any))?;
                return Err(error);
            }
        }
        self.root_key(&account)
    }

    fn create_root_key(&self, account: &AccountId) -> Result<Answer, Failure> {
        self.root_key(&self.known(Some(account.clone()))?)
    }

    /// One more root key, and the credentials file with every account's.
    fn root_key(&self, account: &AccountId) -> Result<Answer, Failure> {
        let Engine { store, clock, ids, .. } = self.engine.as_ref();
        let key = operator::create_root_key(store.as_ref(), clock.as_ref(), ids.as_ref(), account)?;
        {
            let _writing = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
            let text = profiles::text(store.as_ref(), &self.home.account)?;
            self.host.write_credentials(&text)?;
        }
        Ok(Answer::Key {
            account: account.clone(),
            access_key_id: key.id,
            secret_access_key: key.secret.expose().to_owned(),
        })
    }

    fn accounts(&self) -> Result<Answer, Failure> {
        let mut accounts = Vec::new();
        for stored in self.engine.store.all::<Account>()? {
            let Account {
                id,
                created,
                access_keys,
                ..
            } = stored.record;
            accounts.push(AccountLine {
                alias: self.alias(&id)?,
                default: id == self.home.account,
                account: id,
                created,
                root_keys: access_keys,
            });
        }
        accounts.sort_by(|a, b| a.account.cmp(&b.account));
        Ok(Answer::Accounts { accounts })
    }

    /// The account's alias, as ListAccountAliases tells it.
    fn alias(&self, account: &AccountId) -> Result<Option<String>, Failure> {
        let caller = self.root(account);
        let empty = Document::Map(IndexMap::new());
        let answered = self.engine.call("iam", "ListAccountAliases", empty, &caller);
        let Document::Map(mut members) = answered? else {
            return Ok(None);
        };
        let Some(Document::List(aliases)) = members.swap_remove("AccountAliases") else {
            return Ok(None);
        };
        Ok(aliases.into_iter().find_map(|alias| match alias {
            Document::String(alias) => Some(alias),
            _ => None,
        }))
    }

    fn import_product(&self, target: &str, product_id: &str) -> Result<Answer, Failure> {
        let store = self.engine.store.as_ref();
        let arn = isolarium_services::sagemaker::import_product(store, &self.home, target, product_id)?;
        Ok(Answer::Product { arn: arn.to_string() })
    }

    fn create_user(&self, account: Option<AccountId>, name: &str, policy: Option<String>) -> Result<Answer, Failure> {
        let account = self.known(account)?;
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
            inquiry: Default::default(),
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
            Ok(_) => Ok(()),
            Err(error) => Err(Box::new(error)),
        }
    }
}

fn failed(error: &dyn Error) -> Answer {
    let mut reason = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        next = cause.source();
    }
    Answer::Failed { reason }
}

fn random_account() -> Result<AccountId, Failure> {
    let number = u64::from_ne_bytes(crate::clock::random()) % 900_000_000_000 + 100_000_000_000;
    Ok(number.to_string().parse()?)
}
