//! The audit events of commands.

use super::{output::print_error, reason};
use crate::{
    accounts::Administration,
    callers::COMMAND_LINE,
    domain::{AuditEvent, Origin},
};

/// Records an event of a command. If that fails, the command does not: its operator has access to the
/// database itself.
pub(super) async fn record(users: &Administration, event: AuditEvent) {
    if let Err(error) = users.record_command(event).await {
        let warning = format!("warning: not recorded in the audit trail: {}", reason(error));
        // There is no other place to report to.
        let _ = print_error(warning);
    }
}

/// Returns the origin of the commands for the audit trail.
pub(super) fn origin() -> Origin {
    Origin::local(COMMAND_LINE)
}
