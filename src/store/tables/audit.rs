//! Queries of `core_audit_event`. The event of a change is recorded in the transaction of the change, by the
//! other files of this module.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::domain::{AuditEvent, AuditKind, AuthToken, Email, Timestamp};
use crate::{
    database::{
        DatabaseError,
        audit_log::RecordedEvents,
        columns::{TimestampColumn, UuidColumn},
        read, statements, write,
    },
    store::{
        Store,
        schema::{core_audit_event, core_user},
    },
};

/// Maximum number of events that [`Store::list_audit_events`] returns: a page of 1,000, and one more that
/// shows whether there is another page.
pub const AUDIT_PAGE_MAX: i64 = 1_001;

/// Maximum length of a stored resource in characters. A longer one, such as a list of many caller names, is
/// truncated.
const RESOURCE_CHARACTERS_MAX: usize = 256;

/// Maximum number of emails in one query. On SQLite each email is a bound parameter, and a statement may have
/// at most 32,766 of them.
const EMAILS_MAX: usize = 500;

/// Which events to list. An event must match every condition that is set.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only events about this user, who may have been deleted.
    pub user: Option<AuthToken>,
    /// Only events of calls by this caller.
    pub caller: Option<String>,
    /// Only events of these kinds; empty means all kinds.
    pub kinds: Vec<AuditKind>,
    /// Only events at this time or later.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
}

/// The position of an event in the list, which is ordered by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPosition {
    at: Timestamp,
    id: i64,
}

impl EventPosition {
    /// Creates a position from the numbers that [`EventPosition::as_numbers`] returned.
    #[must_use]
    pub const fn from_numbers([micros, id]: [i64; 2]) -> Self {
        Self { at: Timestamp::from_unix_micros(micros), id }
    }

    /// Returns the time in microseconds since the Unix epoch, and the id of the event.
    #[must_use]
    pub const fn as_numbers(self) -> [i64; 2] {
        [self.at.unix_micros(), self.id]
    }
}

impl RecordedEvent {
    /// Returns the position of this event; the next page begins after it.
    #[must_use]
    pub const fn position(&self) -> EventPosition {
        EventPosition { at: self.at, id: self.id }
    }
}

/// A stored event. Another release may have recorded it, so `kind` and `reason` are text that this release
/// may not define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The id of the row. Of events with the same time, the one with the smaller id was recorded first.
    pub id: i64,
    /// The time of the event; for merged events, the time of the first one.
    pub at: Timestamp,
    /// The event name, as [`AuditKind::as_str`] returns it.
    pub kind: String,
    /// The reason of a refusal; `None` for an action that was done.
    pub reason: Option<String>,
    /// The user that the event concerns.
    pub user: Option<AuthToken>,
    /// The object of the action, where `kind` does not name it, such as a method or a session id.
    pub resource: Option<String>,
    /// The calling service.
    pub caller: String,
    /// The IP address of the connection.
    pub peer: Option<String>,
    /// The end user's IP address or network.
    pub client: Option<String>,
    /// The end user's client program (user agent).
    pub agent: Option<String>,
    /// The id of the call.
    pub request_id: Option<Uuid>,
    /// Number of equal events that this row represents.
    pub count: i32,
}

/// The columns of an event except its id, for inserts and queries.
#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = core_audit_event)]
pub(super) struct AuditRow {
    at: TimestampColumn,
    kind: String,
    reason: Option<String>,
    auth_token: Option<UuidColumn>,
    resource: Option<String>,
    caller: String,
    peer: Option<String>,
    client: Option<String>,
    agent: Option<String>,
    request_id: Option<UuidColumn>,
    count: i32,
}

impl From<AuditEvent> for AuditRow {
    fn from(event: AuditEvent) -> Self {
        let origin = event.origin;
        let truncate = |text: String| text.chars().take(RESOURCE_CHARACTERS_MAX).collect();
        Self {
            at: TimestampColumn(event.at),
            kind: event.kind.as_str().to_owned(),
            reason: event.reason.map(str::to_owned),
            auth_token: event.user.map(|user| UuidColumn(*user.as_uuid())),
            resource: event.resource.map(truncate),
            caller: origin.caller.to_string(),
            peer: origin.peer.map(|peer| peer.to_string()),
            client: origin.client.map(|client| client.to_string()),
            agent: origin.agent.map(|agent| agent.as_str().to_owned()),
            request_id: origin.request_id.map(UuidColumn),
            count: i32::try_from(event.count).unwrap_or(i32::MAX),
        }
    }
}

impl From<(i64, AuditRow)> for RecordedEvent {
    fn from((id, row): (i64, AuditRow)) -> Self {
        Self {
            id,
            at: row.at.0,
            kind: row.kind,
            reason: row.reason,
            user: row.auth_token.map(|user| AuthToken::from_uuid(user.0)),
            resource: row.resource,
            caller: row.caller,
            peer: row.peer,
            client: row.client,
            agent: row.agent,
            request_id: row.request_id.map(|id| id.0),
            count: row.count,
        }
    }
}

statements! {
    /// Statements of the audit trail.
    pub(crate) trait AuditStatements {
        /// Inserts an event, which is not logged.
        async fn insert_event(&mut self, event: AuditEvent) -> Result<(), DatabaseError> {
            let row = AuditRow::from(event);
            diesel::insert_into(core_audit_event::table).values(row).execute(self).await?;
            Ok(())
        }

        /// Adds the count of an event to a row, or inserts the event if there is no such row (any more).
        /// Returns the id of the row.
        async fn count_event(&mut self, event: AuditEvent, row: Option<i64>) -> Result<i64, DatabaseError> {
            let new = AuditRow::from(event);
            if let Some(id) = row {
                let counted = diesel::update(core_audit_event::table.find(id))
                    .set(core_audit_event::count.eq(core_audit_event::count + new.count))
                    .execute(self)
                    .await?;
                if counted > 0 {
                    return Ok(id);
                }
            }
            let inserted = diesel::insert_into(core_audit_event::table).values(new);
            Ok(inserted.returning(core_audit_event::id).get_result(self).await?)
        }

        /// Records the event of a change in the transaction of the change, to be logged after the commit.
        async fn record(&mut self, event: AuditEvent, recorded: &mut RecordedEvents) -> Result<(), DatabaseError> {
            self.insert_event(event.clone()).await?;
            recorded.push(event);
            Ok(())
        }
    }
}

impl Store {
    /// Records events that do not belong to another transaction: all of them, or none. Does not log them: the
    /// caller does, also if the database is unavailable.
    pub async fn record_audit_events(&self, events: Vec<AuditEvent>) -> Result<(), DatabaseError> {
        write!(&self.connections, connection => {
            for event in events {
                connection.insert_event(event).await?;
            }
            Ok(())
        })
    }

    /// Records events. An event with the id of a row is added to the count of that row; an event without one,
    /// or whose row is deleted, gets a new row. Returns the id of the row of each event. Records all of them,
    /// or none. Does not log them; the caller does.
    pub async fn record_counted_audit_events(
        &self,
        events: Vec<(AuditEvent, Option<i64>)>,
    ) -> Result<Vec<i64>, DatabaseError> {
        write!(&self.connections, connection => {
            let mut rows = Vec::with_capacity(events.len());
            for (event, row) in events {
                rows.push(connection.count_event(event, row).await?);
            }
            Ok(rows)
        })
    }

    /// Returns the `auth_token` of the user with each of these emails, whatever form the store has of it.
    /// Emails without a user are left out. Queries at most 500 emails at a time.
    pub async fn find_auth_tokens_by_email(
        &self,
        emails: Vec<Email>,
    ) -> Result<HashMap<Email, AuthToken>, DatabaseError> {
        let forms = emails.into_iter().flat_map(|email| {
            let forms = email.stored_forms().into_iter();
            forms.map(move |form| (form.into_string(), email.clone()))
        });
        let forms: HashMap<String, Email> = forms.collect();
        read!(&self.connections, connection => {
            let mut tokens = HashMap::new();
            let stored: Vec<&str> = forms.keys().map(String::as_str).collect();
            for chunk in stored.chunks(EMAILS_MAX) {
                let chunk = chunk.to_vec();
                let rows: Vec<(String, UuidColumn)> = core_user::table
                    .filter(core_user::email.eq_any(chunk))
                    .select((core_user::email, core_user::auth_token))
                    .load(connection)
                    .await?;
                let rows = rows.into_iter();
                tokens.extend(rows.filter_map(|(form, UuidColumn(uuid))| {
                    Some((forms.get(&form)?.clone(), AuthToken::from_uuid(uuid)))
                }));
            }
            Ok(tokens)
        })
    }

    /// Returns the events that match the filter and come after `after`, ordered by time. Returns at most
    /// `limit` events, and never more than [`AUDIT_PAGE_MAX`].
    pub async fn list_audit_events(
        &self,
        filter: AuditFilter,
        after: Option<EventPosition>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, DatabaseError> {
        use core_audit_event as event;
        read!(&self.connections, connection => {
            let kinds: Vec<&str> = filter.kinds.iter().map(|kind| kind.as_str()).collect();
            let user = filter.user.map(|user| UuidColumn(*user.as_uuid()));
            let (since, until) = (filter.since.map(TimestampColumn), filter.until.map(TimestampColumn));
            let mut query = event::table
                .order((event::at, event::id))
                .limit(limit.clamp(0, AUDIT_PAGE_MAX))
                .select((event::id, AuditRow::as_select()))
                .into_boxed();
            if let Some(EventPosition { at, id }) = after {
                let at = TimestampColumn(at);
                // The first condition lets the database use the index on (at, id).
                query = query.filter(event::at.ge(at)).filter(event::at.gt(at).or(event::id.gt(id)));
            }
            if !kinds.is_empty() {
                query = query.filter(event::kind.eq_any(kinds));
            }
            if let Some(user) = user {
                query = query.filter(event::auth_token.eq(user));
            }
            if let Some(caller) = filter.caller {
                query = query.filter(event::caller.eq(caller));
            }
            if let Some(since) = since {
                query = query.filter(event::at.ge(since));
            }
            if let Some(until) = until {
                query = query.filter(event::at.lt(until));
            }
            let rows: Vec<(i64, AuditRow)> = query.load(connection).await?;
            Ok(rows.into_iter().map(RecordedEvent::from).collect())
        })
    }
}
