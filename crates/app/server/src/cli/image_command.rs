//! `isolarium image`: from files into the registry of a running server.

use super::image::{HttpSink, PackOptions, import, pack};
use super::run::{complain, print};
use super::{Exit, ImageCommand, PackArgs, Settings};
use crate::operator::message::{Answer, Ask};
use anyhow::{Context, anyhow};
use isolarium_model::AccountId;

pub(super) fn image(command: ImageCommand) -> anyhow::Result<Exit> {
    match command {
        ImageCommand::Import {
            path,
            name,
            account,
            settings,
        } => push(&settings, account, &name, |tag, sink| {
            import(&path, tag, sink).with_context(|| format!("{} was not imported", path.display()))?;
            Ok(())
        }),
        ImageCommand::Pack(args) => {
            let PackArgs {
                rootfs,
                name,
                entrypoint,
                cmd,
                env,
                label,
                workdir,
                user,
                scratch,
                account,
                settings,
            } = args;
            let labels = label.iter().map(|entry| pair(entry)).collect::<anyhow::Result<_>>()?;
            for entry in &env {
                pair(entry)?;
            }
            let options = PackOptions {
                entrypoint,
                cmd,
                env,
                workdir,
                user,
                labels,
                architecture: None,
            };
            push(&settings, account, &name, |tag, sink| {
                let (_, left_out) = pack(&rootfs, tag, &options, &scratch, sink)
                    .with_context(|| format!("{} was not packed", rootfs.display()))?;
                for path in left_out {
                    complain(&format!(
                        "isolarium: left out {}: not a file, folder or link",
                        path.display()
                    ));
                }
                Ok(())
            })
        }
    }
}

fn pair(entry: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = entry
        .split_once('=')
        .ok_or_else(|| anyhow!("{entry:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `repo/with/slashes:tag`; the tag is `latest` where none is given.
fn repository_and_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

fn push(
    settings: &Settings,
    account: Option<AccountId>,
    name: &str,
    put: impl FnOnce(&str, &mut HttpSink) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let (repository, tag) = repository_and_tag(name);
    let question = Ask::Push {
        account,
        repository: repository.to_owned(),
    };
    match super::operator::asked(&config.data_dir, &question)? {
        Err(exit) => Ok(exit),
        Ok(Answer::Push {
            endpoint,
            host,
            authorization_token,
            repository_uri,
        }) => {
            let mut sink = HttpSink::new(&endpoint, repository, &authorization_token)?.for_host(host);
            put(tag, &mut sink)?;
            print(&format!("{repository_uri}:{tag}\n"))?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(anyhow!("the server answered another question; is it another version?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_repository_and_a_tag() {
        assert_eq!(repository_and_tag("digits:1"), ("digits", "1"));
        assert_eq!(repository_and_tag("team/digits"), ("team/digits", "latest"));
        assert_eq!(repository_and_tag("team/digits:v1.2"), ("team/digits", "v1.2"));
    }
}
