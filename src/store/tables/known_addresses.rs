//! Queries of `core_known_address`: the client addresses from which a user has begun a session.

use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    database::{
        DatabaseError,
        columns::{TimestampColumn, UuidColumn},
        read, statements,
    },
    domain::{AuthToken, ClientAddress, Email, Timestamp, User, UserId},
    store::{
        Store,
        schema::{core_known_address, core_user},
    },
};

/// A user and a client address, as the digest in `core_known_address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginAddress {
    user: UserId,
    auth_token: AuthToken,
    pub(super) digest: [u8; 32],
}

impl LoginAddress {
    /// Computes the digest for this user and client address.
    #[must_use]
    pub fn new(user: &User, client: ClientAddress) -> Self {
        Self { user: user.id, auth_token: user.auth_token, digest: digest(user.auth_token.as_uuid(), client) }
    }

    /// Returns the identifier of the user.
    #[must_use]
    pub const fn auth_token(&self) -> AuthToken {
        self.auth_token
    }
}

/// Returns the digest of a client address. The user is part of it, so one precomputed table of all addresses
/// does not reverse the digests of all users.
fn digest(auth_token: &Uuid, client: ClientAddress) -> [u8; 32] {
    Sha256::new().chain_update(auth_token.as_bytes()).chain_update(client.octets()).finalize().into()
}

#[derive(Insertable)]
#[diesel(table_name = core_known_address)]
struct KnownAddressRow {
    user_id: i64,
    address: Vec<u8>,
    expires_at: TimestampColumn,
}

statements! {
    /// Statements on known addresses that are part of larger transactions.
    pub(crate) trait KnownAddressStatements {
        /// Records the address as known to its user until this time.
        async fn record_known_address(&mut self, address: LoginAddress, until: Timestamp) -> Result<(), DatabaseError> {
            let expires_at = TimestampColumn(until);
            let row =
                KnownAddressRow { user_id: address.user.as_i64(), address: address.digest.to_vec(), expires_at };
            diesel::insert_into(core_known_address::table)
                .values(row)
                .on_conflict((core_known_address::user_id, core_known_address::address))
                .do_update()
                .set(core_known_address::expires_at.eq(expires_at))
                .execute(self)
                .await?;
            Ok(())
        }

        /// Deletes the known addresses of a user. To be called with every change after which an earlier
        /// session no longer shows that its client belonged to the owner.
        async fn delete_known_addresses(&mut self, user: UserId) -> Result<(), DatabaseError> {
            let of_user = core_known_address::table.filter(core_known_address::user_id.eq(user.as_i64()));
            diesel::delete(of_user).execute(self).await?;
            Ok(())
        }

        /// Returns the digests of the known addresses of a user, expired ones included.
        async fn address_digests(&mut self, user: UserId) -> Result<Vec<Vec<u8>>, DatabaseError> {
            let of_user = core_known_address::table.filter(core_known_address::user_id.eq(user.as_i64()));
            Ok(of_user.select(core_known_address::address).load(self).await?)
        }
    }
}

impl Store {
    /// Returns the client address if the user with this email has begun a session from it and the record has
    /// not expired. Makes the same queries for an unknown email, so that the response time does not show
    /// whether it exists.
    pub async fn find_known_address(
        &self,
        email: &Email,
        client: ClientAddress,
        now: Timestamp,
    ) -> Result<Option<LoginAddress>, DatabaseError> {
        let email = email.as_str().to_owned();
        read!(&self.connections, connection => {
            let owner: Option<(i64, UuidColumn)> = core_user::table
                .filter(core_user::email.eq(email))
                .select((core_user::id, core_user::auth_token))
                .get_result(connection)
                .await
                .optional()?;
            // An unknown email has values that no user has.
            let (user, auth_token) = owner.map_or((0, Uuid::nil()), |(id, token)| (id, token.0));
            let digest = digest(&auth_token, client);
            let live = core_known_address::table
                .find((user, digest.to_vec()))
                .filter(core_known_address::expires_at.gt(TimestampColumn(now)));
            let is_known: bool = diesel::select(diesel::dsl::exists(live)).get_result(connection).await?;
            let (user, auth_token) = (UserId::from_i64(user), AuthToken::from_uuid(auth_token));
            Ok(is_known.then_some(LoginAddress { user, auth_token, digest }))
        })
    }
}
