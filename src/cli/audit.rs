//! `kairos-identity audit`

#![expect(clippy::doc_markdown, reason = "clap shows these comments on a terminal, where marks are noise")]

use std::{
    fmt::Display,
    io::{self, Write},
};

use clap::{Args, builder::PossibleValuesParser};

use super::{Failure, reason, store, user};
use crate::{
    accounts::{Administration, UserKey},
    clock::Clock,
    config::{RETENTION_MILLIS_MAX, Settings, Span, Value},
    domain::{AuditKind, Timestamp},
    store::{AUDIT_PAGE_MAX, AuditFilter, RecordedEvent},
};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only events about this user: an auth_token, also of a user who is deleted, or the email or username of one who is not
    #[arg(long)]
    user: Option<String>,
    /// Only what this caller asked for: a name of the file of callers, `anybody` where there is none, `nobody` for callers who
    /// proved nothing, `pages`, `service`, `callers-file` or `command-line`
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only events of this kind; may be given more than once
    #[arg(long = "kind", value_name = "KIND", value_parser = kinds())]
    kinds: Vec<String>,
    /// Only events from then on: a time such as 2026-11-24T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

fn kinds() -> PossibleValuesParser {
    AuditKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().into()
}

impl Audit {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let clock = Clock::system();
        let now = clock.now();
        let administration = Administration::new(store::open_current(settings).await?, clock);
        let user = match &self.user {
            None => None,
            Some(user) => Some(match user::key(user)? {
                // Events stay when their user goes.
                UserKey::AuthToken(token) => token,
                key => administration.find_user(&key).await.map_err(reason)?.user.auth_token,
            }),
        };
        let is_asked_for = |kind: &AuditKind| self.kinds.iter().any(|name| name == kind.as_str());
        let filter = AuditFilter {
            user,
            caller: self.caller,
            kinds: AuditKind::ALL.iter().copied().filter(is_asked_for).collect(),
            since: moment("--since", self.since.as_deref(), now)?,
            until: moment("--until", self.until.as_deref(), now)?,
        };
        list(&administration, filter).await
    }
}

/// A time, or how long before `now`.
pub(super) fn moment(flag: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let ago = |text| Span::<0, RETENTION_MILLIS_MAX>::parse(text).map(|ago| now.minus(ago.get()));
    let parsed = Timestamp::parse(text).or_else(|| ago(text));
    let expected = || {
        format!(
            "{flag}: expected a time such as 2026-11-24T08:00:00Z or 2h for two hours ago, not \"{text}\""
        )
    };
    parsed.map(Some).ok_or_else(expected)
}

/// As much as there is, a page at a time.
async fn list(administration: &Administration, filter: AuditFilter) -> Result<(), Failure> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut last = None;
    loop {
        let page =
            administration.list_audit_events(filter.clone(), last, AUDIT_PAGE_MAX).await.map_err(reason)?;
        let Some(end) = page.last() else { break };
        last = Some(end.place());
        for event in &page {
            if super::was_closed(writeln!(output, "{}", line(event)))? {
                return Ok(());
            }
        }
    }
    super::was_closed(output.flush()).map(|_| ())
}

/// Time, kind, how it ended, user, caller, end user's address or that of the connection, and the rest by name.
fn line(event: &RecordedEvent) -> String {
    let outcome = event.reason.as_deref().unwrap_or("OK");
    let from = event.client.as_ref().or(event.peer.as_ref());
    let mut line = format!(
        "{}\t{}\t{outcome}\t{}\t{}\t{}",
        event.at,
        event.kind,
        shown(event.user.as_ref()),
        event.caller,
        shown(from)
    );
    let mut rest = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line = format!("{line}\t{name}={value}");
        }
    };
    rest("count", (event.count > 1).then(|| event.count.to_string()));
    rest("resource", event.resource.clone());
    rest("request_id", event.request_id.map(|id| id.to_string()));
    rest("agent", event.agent.clone());
    line
}

fn shown(value: Option<&impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}
