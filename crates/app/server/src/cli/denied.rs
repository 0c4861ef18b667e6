//! `explain-denied`: a denial as a table or JSON.

use super::{Exit, Settings, run::complain, run::print};
use crate::operator::denial::DenialReport;
use crate::operator::message::{Answer, Ask};
use anyhow::anyhow;
use std::fmt::Write;

pub(super) fn explain(request_id: &str, json: bool, settings: &Settings) -> anyhow::Result<Exit> {
    let config = settings.load(&[])?;
    let ask = Ask::ExplainDenied {
        request_id: request_id.into(),
    };
    match super::operator::asked(&config.data_dir, &ask)? {
        Err(exit) => Ok(exit),
        Ok(Answer::Denials { denials }) if denials.is_empty() => {
            complain(&format!(
                "isolarium: no denial of a request {request_id:?} is in the audit trail; the id is the x-amzn-RequestId or \
                 x-amz-request-id of the error"
            ));
            Ok(Exit::Failure)
        }
        Ok(Answer::Denials { denials }) => {
            let text = if json {
                format!("{}\n", serde_json::to_string_pretty(&denials)?)
            } else {
                denials.iter().map(table).collect::<Vec<_>>().join("\n")
            };
            print(&text)?;
            Ok(Exit::Success)
        }
        Ok(_) => Err(anyhow!("the server answered another question; is it another version?")),
    }
}

/// The table people read.
fn table(denial: &DenialReport) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11}{}", printable(value));
    };
    row("TIME", &denial.time);
    row("REQUEST", &denial.request_id);
    row("OPERATION", &format!("{} {}", denial.event_source, denial.event_name));
    row("WHO", &denial.principal);
    if let Some(owner) = &denial.acted_for {
        row("FOR", owner);
    }
    row("FROM", &denial.source);
    row("ACTION", &denial.action);
    row("RESOURCE", &denial.resource);
    for cited in &denial.denied_by {
        row("DENIED BY", cited);
    }
    if let Some(missing) = &denial.missing_allow {
        row("MISSING", missing);
    }
    for cited in &denial.allowed_by {
        row("ALLOWED BY", cited);
    }
    for (key, values) in &denial.context {
        row("KEY", &format!("{key} = {}", values.join(", ")));
    }
    row("REMEDY", &denial.remedy);
    text
}

/// Names, tags and user agents come from callers: nothing in them may steer the operator's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_cannot_steer_the_terminal() {
        let denial = DenialReport {
            principal: "\x1b[2Jmallory".into(),
            ..DenialReport::default()
        };
        let text = table(&denial);
        assert!(text.contains("mallory") && !text.contains('\x1b'));
    }
}
