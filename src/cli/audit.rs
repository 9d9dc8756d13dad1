//! `kairos-identity audit`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::fmt::Display;

use clap::{Args, builder::PossibleValuesParser};

use super::{
    Failure,
    arguments::{TimeFlag, parse_user_key, user_failure},
    command_events::{audit_reason, origin, record},
    output::Lines,
    printable::field,
    reason, store,
};
use crate::{
    accounts::{Administration, UserKey},
    clock::Clock,
    config::Settings,
    domain::{AuditEvent, AuditKind},
    store::{AUDIT_PAGE_MAX, AuditFilter, RecordedEvent},
};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only events about this user: an auth_token, also of a deleted user, or the email or username of an
    /// existing user
    #[arg(long, value_parser = parse_user_key)]
    user: Option<UserKey>,
    /// Only events of this caller: a name in the callers file, `anybody` (any client, if there is no callers
    /// file), `nobody` (a caller that did not authenticate), `pages`, `service`, `callers-file` or
    /// `command-line`
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only events of this kind; can be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = kinds())]
    kinds: Vec<String>,
    /// Only events at or after this time: a time such as 2026-11-24T08:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    since: Option<TimeFlag>,
    /// Only events before this time
    #[arg(long, value_name = "TIME")]
    until: Option<TimeFlag>,
}

/// Accepts the name of a kind of event.
fn kinds() -> PossibleValuesParser {
    AuditKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().into()
}

impl Audit {
    /// Prints the matching events, and records that they were read.
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let now = clock.now();
        let administration = Administration::new(store::open_current(settings).await?, clock);
        let user = match &self.user {
            None => None,
            // Events are kept after their user is deleted, so the user need not exist.
            Some(UserKey::AuthToken(token)) => Some(*token),
            Some(key) => match administration.find_user(key).await {
                Ok(found) => Some(found.user.auth_token),
                Err(error) => {
                    let event = AuditEvent::new(now, AuditKind::SensitiveReadFail, origin());
                    let event = event.with_resource("audit").with_reason(audit_reason(&error));
                    record(&administration, event).await;
                    return Err(user_failure(key, error));
                }
            },
        };
        let is_selected = |kind: &AuditKind| self.kinds.iter().any(|name| name == kind.as_str());
        let filter = AuditFilter {
            user,
            caller: self.caller,
            kinds: AuditKind::ALL.iter().copied().filter(is_selected).collect(),
            since: self.since.map(|time| time.resolve(now)),
            until: self.until.map(|time| time.resolve(now)),
        };
        let listed = list(&administration, filter).await;
        let event =
            AuditEvent::new(now, AuditKind::SensitiveRead, origin()).with_user(user).with_resource("audit");
        record(&administration, event).await;
        listed
    }
}

/// Prints all matching events, which are read one page at a time.
async fn list(administration: &Administration, filter: AuditFilter) -> Result<(), Failure> {
    let mut output = Lines::new();
    let mut last = None;
    loop {
        let page =
            administration.list_audit_events(filter.clone(), last, AUDIT_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        last = Some(end.position());
        for event in &page {
            if output.line(line(event))? {
                return Ok(());
            }
        }
    }
    output.finish()
}

/// Formats an event as tab-separated fields: time, kind, `OK` or the reason of the refusal, user, caller, and
/// the address of the end user or of the connection, then the optional fields as `name=value`.
fn line(event: &RecordedEvent) -> String {
    let outcome = event.reason.as_deref().unwrap_or("OK");
    let from = event.client.as_ref().or(event.peer.as_ref());
    let mut line = format!(
        "{}\t{}\t{outcome}\t{}\t{}\t{}",
        event.at,
        event.kind,
        or_dash(event.user.as_ref()),
        field(&event.caller),
        or_dash(from)
    );
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line = format!("{line}\t{name}={}", field(&value));
        }
    };
    add("count", (event.count > 1).then(|| event.count.to_string()));
    add("resource", event.resource.clone());
    add("request_id", event.request_id.map(|id| id.to_string()));
    add("agent", event.agent.clone());
    line
}

/// Formats a value, or `-` if there is none.
fn or_dash(value: Option<&impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}
