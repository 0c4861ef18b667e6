//! Commands that ask a running server.

use super::{AccountCommand, Exit, UserCommand, run::print};
use crate::operator::client::{AskError, ask};
use crate::operator::message::{Answer, Ask};
use anyhow::{Context, anyhow};

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
    let AccountCommand::Create { account, settings } = command;
    let config = settings.load(&[])?;
    let account = account.map(|text| text.parse()).transpose()?;
    key(asked(&config.data_dir, &Ask::CreateAccount { account })?)
}

pub(super) fn user(command: UserCommand) -> anyhow::Result<Exit> {
    let UserCommand::Create {
        name,
        policy,
        account,
        settings,
    } = command;
    let config = settings.load(&[])?;
    let account = account.map(|text| text.parse()).transpose()?;
    let policy = policy
        .map(|path| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display())))
        .transpose()?;
    key(asked(&config.data_dir, &Ask::CreateUser { account, name, policy })?)
}

fn key(answer: Result<Answer, Exit>) -> anyhow::Result<Exit> {
    match answer {
        Err(exit) => Ok(exit),
        Ok(Answer::Key {
            account,
            access_key_id,
            secret_access_key,
        }) => {
            let text = crate::layout::credentials_text(&access_key_id, &secret_access_key);
            print(&format!("# account {account}\n{text}"))?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(anyhow!("the server answered another question; is it another version?")),
    }
}
