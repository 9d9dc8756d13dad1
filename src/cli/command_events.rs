//! The audit events of commands.

use super::reason;
use crate::{
    accounts::Administration,
    callers::COMMAND_LINE,
    domain::{AuditEvent, Origin},
};

/// Records an event of a command. If that fails, the command does not: its operator has access to the
/// database itself.
pub(super) async fn record(users: &Administration, event: AuditEvent) {
    if let Err(error) = users.record_command(event).await {
        eprintln!("warning: not recorded in the audit trail: {}", reason(error));
    }
}

/// Returns the origin of the commands for the audit trail.
pub(super) fn origin() -> Origin {
    Origin::local(COMMAND_LINE)
}
