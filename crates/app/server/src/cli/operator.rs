//! Commands that ask a running server.

use super::{AccountCommand, Exit, ProductCommand, UserCommand, run::print};
use crate::layout::{DEFAULT_PROFILE, profile_text};
use crate::operator::client::{AskError, ask};
use crate::operator::message::{AccountLine, Answer, Ask};
use anyhow::{Context, anyhow};
use std::fmt::Write as _;

/// Asks, and tells a missing server from every other failure.
pub(super) fn asked(data_dir: &std::path::Path, question: &Ask) -> anyhow::Result<Result<Answer, Exit>> {
    match ask(data_dir, question) {
        Ok(answer) => Ok(Ok(answer)),
        Err(error @ AskError::NoServer { .. }) => {
            super::run::complain(&format!("isolarium: {:#}", anyhow!(error)));
            Ok(Err(Exit::NoServer))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn account(command: AccountCommand) -> anyhow::Result<Exit> {
    match command {
        AccountCommand::Create {
            account,
            alias,
            settings,
        } => {
            let config = settings.load(&[])?;
            key(asked(&config.data_dir, &Ask::CreateAccount { account, alias })?)
        }
        AccountCommand::Key { account, settings } => {
            let config = settings.load(&[])?;
            key(asked(&config.data_dir, &Ask::CreateRootKey { account })?)
        }
        AccountCommand::List { json, settings } => {
            let config = settings.load(&[])?;
            match asked(&config.data_dir, &Ask::Accounts)? {
                Err(exit) => Ok(exit),
                Ok(Answer::Accounts { accounts }) => {
                    print(&listing(&accounts, json)?)?;
                    Ok(Exit::Success)
                }
                Ok(_) => Err(other_question()),
            }
        }
    }
}

fn listing(accounts: &[AccountLine], json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(accounts)?));
    }
    let mut text = String::new();
    for line in accounts {
        let created = jiff::Timestamp::from_millisecond(line.created.0)?;
        let keys = line.root_keys.join(",");
        let mark = if line.default { "  default" } else { "" };
        let alias = line.alias.as_deref().unwrap_or("-");
        writeln!(text, "{}  {alias}  {created}  {keys}{mark}", line.account)?;
    }
    Ok(text)
}

fn other_question() -> anyhow::Error {
    anyhow!("the server answered another question; is it another version?")
}

pub(super) fn user(command: UserCommand) -> anyhow::Result<Exit> {
    let UserCommand::Create {
        name,
        policy,
        account,
        settings,
    } = command;
    let config = settings.load(&[])?;
    let policy = policy
        .map(|path| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display())))
        .transpose()?;
    key(asked(&config.data_dir, &Ask::CreateUser { account, name, policy })?)
}

pub(super) fn product(command: ProductCommand) -> anyhow::Result<Exit> {
    let ProductCommand::Import {
        target,
        product_id,
        settings,
    } = command;
    let config = settings.load(&[])?;
    match asked(&config.data_dir, &Ask::ImportProduct { target, product_id })? {
        Err(exit) => Ok(exit),
        Ok(Answer::Product { arn }) => {
            print(&format!("{arn}\n"))?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(other_question()),
    }
}

fn key(answer: Result<Answer, Exit>) -> anyhow::Result<Exit> {
    match answer {
        Err(exit) => Ok(exit),
        Ok(Answer::Key {
            account,
            access_key_id,
            secret_access_key,
        }) => {
            let text = profile_text(DEFAULT_PROFILE, &access_key_id, &secret_access_key);
            print(&format!("# account {account}\n{text}"))?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(other_question()),
    }
}
