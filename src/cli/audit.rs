//! `kairos-identity audit`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use clap::{Args, builder::PossibleValuesParser};

use super::{
    Failure,
    arguments::{TimeFlag, parse_user_key, user_failure},
    command_events::{origin, record},
    list::{Field, FormatFlag, List, Record},
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
    #[command(flatten)]
    format: FormatFlag,
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
        let [since, until] = [self.since, self.until].map(|time| time.map(|time| time.resolve(now)));
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err("--until is not after --since: no event can match".to_owned());
        }
        let administration = Administration::new(store::open_usable(settings).await?, clock);
        let user = match &self.user {
            None => None,
            // Events are kept after their user is deleted, so the user need not exist.
            Some(UserKey::AuthToken(token)) => Some(*token),
            Some(key) => match administration.find_user(key).await {
                Ok(found) => Some(found.user.auth_token),
                Err(error) => {
                    let event = AuditEvent::new(now, AuditKind::SensitiveReadFail, origin());
                    let event = event.with_resource("audit").with_reason(error.audit_reason());
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
            since,
            until,
        };
        let listed = list(&administration, filter, self.format).await;
        let event =
            AuditEvent::new(now, AuditKind::SensitiveRead, origin()).with_user(user).with_resource("audit");
        record(&administration, event).await;
        listed
    }
}

/// Prints all matching events, which are read one page at a time.
async fn list(
    administration: &Administration,
    filter: AuditFilter,
    format: FormatFlag,
) -> Result<(), Failure> {
    let mut list = List::new(format, ["at", "kind", "outcome", "user", "caller", "address"]);
    let mut after = None;
    loop {
        let page =
            administration.list_audit_events(filter.clone(), after, AUDIT_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        after = Some(end.position());
        for event in &page {
            let reader_has_gone = list.add(record_of(event))?;
            if reader_has_gone {
                return list.finish();
            }
        }
    }
    list.finish()
}

/// Returns the fields of an event: time, kind, `OK` or the reason of the refusal, user, caller, and the
/// address of the end user or of the connection, then those that it has of the others.
fn record_of(event: &RecordedEvent) -> Record<6> {
    let from = event.client.as_ref().or(event.peer.as_ref());
    let mut more = Vec::new();
    let mut add = |name, value: Option<Field>| more.extend(value.map(|value| (name, value)));
    add("count", (event.count > 1).then(|| Field::number(event.count)));
    add("resource", event.resource.as_ref().map(Field::text));
    add("request_id", event.request_id.map(Field::text));
    add("agent", event.agent.as_ref().map(Field::text));
    let values = [
        Field::text(event.at),
        Field::text(&event.kind),
        Field::text(event.reason.as_deref().unwrap_or("OK")),
        Field::optional(event.user.as_ref()),
        Field::text(&event.caller),
        Field::optional(from),
    ];
    Record { values, more }
}
