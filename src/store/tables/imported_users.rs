//! Queries of `core_imported_user`: the users that came from a Django backend.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{audit::AuditStatements, links::Verification, users::UserStatements};
use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read, write,
    },
    domain::{AuditEvent, AuthToken, UserId},
    store::{Store, schema::core_imported_user},
};

impl Store {
    /// Marks an imported user with this `auth_token` as verified, at the time of the event, deletes the known
    /// addresses and records the event. The user must be unchanged since the import and not disabled.
    pub async fn verify_imported(
        &self,
        token: AuthToken,
        event: AuditEvent,
    ) -> Result<Verification, DatabaseError> {
        let now = event.at;
        let token = UuidColumn(*token.as_uuid());
        // Finds the row that the Django backend mailed this link for. If several rows share the `auth_token`,
        // the link is ambiguous and therefore invalid. Checked with a read, so that a token that was never
        // imported does not cost a write transaction.
        let rows: Vec<(Option<i64>, TimestampColumn)> = read!(&self.connections, connection => {
            let imported = core_imported_user::table.filter(core_imported_user::auth_token.eq(token));
            let query = imported.select((core_imported_user::user_id, core_imported_user::updated_at));
            Ok(query.load(connection).await?)
        })?;
        let &[(Some(id), written_at)] = rows.as_slice() else { return Ok(Verification::Invalid) };
        write!(&self.connections, connection, recorded => {
            let Some(user) = connection.lock_user(UserId::from_i64(id)).await? else {
                return Ok(Verification::Invalid);
            };
            if user.auth_token.as_uuid() != &token.0 {
                return Ok(Verification::Invalid);
            }
            if user.is_verified {
                return Ok(Verification::AlreadyVerified);
            }
            if connection.is_user_disabled(user.id).await? || user.updated_at != written_at.0 {
                return Ok(Verification::Invalid);
            }
            let verified = connection.set_verified(user.id, true, now).await?;
            connection.record(event, recorded).await?;
            Ok(Verification::Verified(verified))
        })
    }
}
