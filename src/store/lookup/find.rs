//! The look-ups of users by `auth_token`.

use super::pending::PendingLookup;
use crate::{
    database::DatabaseError,
    domain::{AuthToken, User},
    store::Store,
};

impl Store {
    /// Returns the user with this `auth_token`, if there is one.
    ///
    /// # Errors
    /// [`DatabaseError::Overloaded`] when too many look-ups wait; [`DatabaseError::Unavailable`] when the
    /// database does not answer.
    pub async fn find_user_by_auth_token(&self, token: AuthToken) -> Result<Option<User>, DatabaseError> {
        self.lookup.request(|reply| PendingLookup::One { token, reply }).await
    }

    /// Returns the users with these `auth_token`s, in the order of the tokens. A token without a user is
    /// skipped; a token that occurs twice returns its user twice.
    ///
    /// # Errors
    /// As [`Store::find_user_by_auth_token`].
    pub async fn find_users_by_auth_tokens(&self, tokens: &[AuthToken]) -> Result<Vec<User>, DatabaseError> {
        let request = |part: &[AuthToken]| {
            let tokens = part.to_vec();
            self.lookup.request(move |reply| PendingLookup::Many { tokens, reply })
        };
        let parts = tokens.chunks(self.lookup.batch_tokens_max).map(request);
        let users = futures_util::future::try_join_all(parts).await?;
        Ok(users.into_iter().flatten().collect())
    }
}
