//! The audit events of commands. A command leaves the same events as the call of `AdminService` that does the
//! same: what it changes is recorded by the operation, and everything else here.

use super::{output::print_error, reason};
use crate::{
    accounts::Administration,
    callers::COMMAND_LINE,
    domain::{AuditEvent, AuditKind, AuthToken, CallNote, Origin, Timestamp},
};

/// Records an event of a command. If that fails, the command does not: its operator has access to the
/// database itself.
pub(super) async fn record(users: &Administration, event: AuditEvent) {
    event.origin.note.set_recorded();
    if let Err(error) = users.record_command(event).await {
        let warning = format!("warning: not recorded in the audit trail: {}", reason(error));
        // There is no other place to report to.
        let _ = print_error(warning);
    }
}

/// Returns the origin of a command for the audit trail, with the note of what its operations record.
pub(super) fn origin() -> Origin {
    Origin { note: CallNote::begin(), ..Origin::local(COMMAND_LINE) }
}

/// A `user` command, for the event that it leaves if its operation records none.
pub(super) struct CommandTrail {
    /// When the command began.
    pub(super) at: Timestamp,
    /// The origin that its operations get.
    pub(super) origin: Origin,
    /// The command, such as `user verify`.
    pub(super) command: &'static str,
    /// The kind of a refusal.
    pub(super) refusal: AuditKind,
    /// The user that the operator named by an `auth_token`, whether or not there is such a user.
    pub(super) named: Option<AuthToken>,
}

impl CommandTrail {
    /// Records the outcome, if the operation has recorded none: the reason of a refusal or, without one, that
    /// the command has read the user. It has if it shows the user, or if there was nothing to change.
    pub(super) async fn end(self, users: &Administration, reason: Option<&'static str>) {
        let Self { at, origin, command, refusal, named } = self;
        if origin.note.is_recorded() {
            return;
        }
        let found = origin.note.user();
        let event = |kind| AuditEvent::new(at, kind, origin).with_resource(command);
        match (reason, found) {
            (Some(reason), _) => {
                record(users, event(refusal).with_user(found.or(named)).with_reason(reason)).await;
            }
            (None, Some(_)) => record(users, event(AuditKind::SensitiveRead).with_user(found)).await,
            (None, None) => {}
        }
    }
}
