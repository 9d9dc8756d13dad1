//! Forgetting what is of no more use, so that no table but `core_user` grows for ever.

use std::time::Duration;

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    Store, StoreError,
    columns::{TimestampColumn, UuidColumn},
    connection::write,
    schema::{
        core_known_address, core_mail_outbox, core_mail_token, core_registration_request, core_throttle,
    },
};
use crate::domain::Timestamp;

/// At most this many rows of a table go in one transaction: the writer is not held for longer than some milliseconds.
const ROWS_MAX: i64 = 1_000;

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Mailed tokens, after they have expired: so long a used link says "verified already".
    pub expired_tokens: Duration,
    /// Mails, after they were sent or given up.
    pub finished_mails: Duration,
    /// Request ids of registrations, after the registration.
    pub request_ids: Duration,
}

/// How many rows were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// In all tables together.
    pub rows: usize,
    /// Whether a table had more of them than one transaction deletes: call again.
    pub is_more: bool,
}

impl Store {
    /// Deletes some of what is older than `kept` allows.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; nothing was deleted.
    pub async fn purge(&self, kept: Kept, now: Timestamp) -> Result<Purged, StoreError> {
        let tokens_before = TimestampColumn(now.minus(kept.expired_tokens));
        let mails_before = TimestampColumn(now.minus(kept.finished_mails));
        let requests_before = TimestampColumn(now.minus(kept.request_ids));
        write!(&self.connections, connection => {
            let old_tokens: Vec<i64> = core_mail_token::table
                .filter(core_mail_token::expires_at.lt(tokens_before))
                .select(core_mail_token::id)
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let tokens = core_mail_token::table.filter(core_mail_token::id.eq_any(old_tokens));
            let tokens = diesel::delete(tokens).execute(connection).await?;
            let old_mails: Vec<i64> = core_mail_outbox::table
                .filter(core_mail_outbox::next_attempt_at.is_null())
                .filter(core_mail_outbox::sent_at.lt(mails_before).or(core_mail_outbox::gave_up_at.lt(mails_before)))
                .select(core_mail_outbox::id)
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let mails = core_mail_outbox::table.filter(core_mail_outbox::id.eq_any(old_mails));
            let mails = diesel::delete(mails).execute(connection).await?;
            let old_requests: Vec<UuidColumn> = core_registration_request::table
                .filter(core_registration_request::created_at.lt(requests_before))
                .select(core_registration_request::request_id)
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let requests = core_registration_request::table
                .filter(core_registration_request::request_id.eq_any(old_requests));
            let requests = diesel::delete(requests).execute(connection).await?;
            let old_attempts: Vec<(String, Vec<u8>)> = core_throttle::table
                .filter(core_throttle::expires_at.le(TimestampColumn(now)))
                .select((core_throttle::kind, core_throttle::subject))
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let mut attempts = 0;
            for key in old_attempts {
                // One may have been counted meanwhile.
                let row = core_throttle::table.find(key).filter(core_throttle::expires_at.le(TimestampColumn(now)));
                attempts += diesel::delete(row).execute(connection).await?;
            }
            let old_addresses: Vec<(Vec<u8>, Vec<u8>)> = core_known_address::table
                .filter(core_known_address::expires_at.le(TimestampColumn(now)))
                .select((core_known_address::account, core_known_address::address))
                .limit(ROWS_MAX)
                .load(connection)
                .await?;
            let mut addresses = 0;
            for key in old_addresses {
                let row = core_known_address::table
                    .find(key)
                    .filter(core_known_address::expires_at.le(TimestampColumn(now)));
                addresses += diesel::delete(row).execute(connection).await?;
            }
            let is_more = [tokens, mails, requests, attempts, addresses].iter().any(|&rows| i64::try_from(rows) == Ok(ROWS_MAX));
            Ok(Purged { rows: tokens + mails + requests + attempts + addresses, is_more })
        })
    }
}
