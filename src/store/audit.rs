//! Queries of `core_audit_event`. What was done is written in the transaction that does it, by the files beside this one.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Store, StoreError,
    columns::{TimestampColumn, UuidColumn},
    connection::{read, write},
    schema::core_audit_event,
};
use crate::domain::{AuditEvent, AuditKind, AuthToken, Timestamp};

/// The most events that one page of [`Store::list_audit_events`] holds: a thousand, and one that tells whether there are more.
pub const AUDIT_PAGE_MAX: i64 = 1_001;

/// The most characters of a resource; the names of many callers are cut.
const RESOURCE_CHARACTERS_MAX: usize = 256;

/// Which events are asked for; every condition that is there must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// About this user, who may be gone.
    pub user: Option<AuthToken>,
    /// Of what this caller asked.
    pub caller: Option<String>,
    /// Of one of these kinds; of every kind when there is none.
    pub kinds: Vec<AuditKind>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// The place of an event in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    at: Timestamp,
    id: i64,
}

impl EventPlace {
    /// As it was given by [`EventPlace::as_numbers`].
    #[must_use]
    pub const fn from_numbers([micros, id]: [i64; 2]) -> Self {
        Self { at: Timestamp::from_unix_micros(micros), id }
    }

    /// As two numbers.
    #[must_use]
    pub const fn as_numbers(self) -> [i64; 2] {
        [self.at.unix_micros(), self.id]
    }
}

impl RecordedEvent {
    /// Where the next page begins.
    #[must_use]
    pub const fn place(&self) -> EventPlace {
        EventPlace { at: self.at, id: self.id }
    }
}

/// An event as it was written, by this release or another: the words are as they were then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its number: of several of one moment, the smaller was written first.
    pub id: i64,
    /// When it was; of several alike, the first.
    pub at: Timestamp,
    /// [`AuditKind::as_str`]
    pub kind: String,
    /// Why it was refused; nothing for what was done.
    pub reason: Option<String>,
    /// Whom it is about.
    pub user: Option<AuthToken>,
    /// What was asked for.
    pub resource: Option<String>,
    /// Who asked.
    pub caller: String,
    /// The address of the connection.
    pub peer: Option<String>,
    /// The end user's address or network.
    pub client: Option<String>,
    /// The end user's program.
    pub agent: Option<String>,
    /// The id of the call.
    pub request_id: Option<Uuid>,
    /// How many alike came within a moment.
    pub count: i32,
}

/// The columns of an event but its number, written and read.
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
        let cut = |text: String| text.chars().take(RESOURCE_CHARACTERS_MAX).collect();
        Self {
            at: TimestampColumn(event.at),
            kind: event.kind.as_str().to_owned(),
            reason: event.reason.map(str::to_owned),
            auth_token: event.user.map(|user| UuidColumn(*user.as_uuid())),
            resource: event.resource.map(cut),
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

/// Writes an event within a transaction.
macro_rules! record {
    ($connection:expr, $event:expr) => {
        diesel::insert_into($crate::store::schema::core_audit_event::table)
            .values($crate::store::audit::AuditRow::from($event))
            .execute($connection)
            .await?
    };
}

pub(super) use record;

impl Store {
    /// Writes events that no other transaction writes, all of them or none.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn record_audit_events(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        write!(&self.connections, connection => {
            for event in events {
                record!(connection, event);
            }
            Ok(())
        })
    }

    /// At most `limit` events (and [`AUDIT_PAGE_MAX`]) in the order of their time, after `after`.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn list_audit_events(
        &self,
        filter: AuditFilter,
        after: Option<EventPlace>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
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
            if let Some(EventPlace { at, id }) = after {
                let at = TimestampColumn(at);
                // The first condition is what an index helps with.
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
