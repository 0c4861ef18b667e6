//! The operator's checks of the audit trail.

use super::{AuditLogCommand, Exit, run::complain, run::print};
use anyhow::Context;
use isolarium_store::{AuditError, audit};

pub(super) fn audit_log(command: AuditLogCommand) -> anyhow::Result<Exit> {
    let AuditLogCommand::Verify { head, json, settings } = command;
    let config = settings.load(&[])?;
    let folder = config.data_dir.join("audit");
    let found = match audit::verify(&folder, head.as_deref()) {
        Ok(found) => found,
        Err(error @ (AuditError::Broken { .. } | AuditError::Unknown { .. })) => {
            complain(&format!("isolarium: {error}"));
            return Ok(Exit::Failure);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let text = if json {
        format!("{}\n", serde_json::to_string(&found)?)
    } else {
        let kept = found.head.events.saturating_sub(found.first);
        format!(
            "{kept} events in {} files, whole\nhead {}\n",
            found.files, found.head.hash
        )
    };
    print(&text)?;
    Ok(Exit::Success)
}
