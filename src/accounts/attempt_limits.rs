//! The limits on an attempt at a password: the subjects that it is counted for, and the rules that may refuse
//! it.

use std::time::Duration;

use super::{AccountError, Accounts, throttle::Rule};
use crate::{
    domain::{ClientAddress, Email, Timestamp, User},
    store::{CLOCK_DIFFERENCE_MAX, LoginAddress, Subject},
};

/// Time after which a reservation expires that is not settled, for example because its instance has died.
pub(super) const RESERVED_MAX: Duration = Duration::from_mins(1);

/// The account whose password is attempted.
#[derive(Clone, Copy)]
pub(super) enum AttemptedAccount<'a> {
    /// The account that a login names. Every caller can attempt its password.
    Named(&'a Email),
    /// The account of a user with a verified access token. It has its own limits, so that failed logins of
    /// strangers do not refuse the user.
    Acting(&'a User),
}

impl AttemptedAccount<'_> {
    /// Returns the email of the account.
    pub(super) const fn email(&self) -> &Email {
        match self {
            Self::Named(email) => email,
            Self::Acting(user) => &user.email,
        }
    }
}

/// What an attempt counts for.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) subject: Subject,
    pub(super) rule: Rule,
    /// True if the rule can refuse the attempt; otherwise the attempt is only counted.
    pub(super) is_limited: bool,
}

impl Counted {
    const fn limited(subject: Subject, rule: Rule) -> Self {
        Self { subject, rule, is_limited: true }
    }
}

/// The limits on an attempt.
pub(super) struct Limits {
    pub(super) counted: Vec<Counted>,
    /// The subjects of the account alone, whose failures a correct password clears.
    pub(super) cleared: Vec<Subject>,
    /// True if the login is from a known address that [`Accounts::usable_known_address`] returned. Always
    /// false for an acting user.
    pub(super) is_from_known_address: bool,
}

impl Accounts {
    /// Returns the limits on an attempt at the password of this account.
    ///
    /// # Errors
    /// A database error.
    pub(super) async fn limits_on_attempt(
        &self,
        account: AttemptedAccount<'_>,
        client: Option<ClientAddress>,
        now: Timestamp,
    ) -> Result<Limits, AccountError> {
        match account {
            AttemptedAccount::Named(email) => {
                let known = self.usable_known_address(email, client, now).await?;
                Ok(self.limits_on_login(email, client, known.as_ref()))
            }
            AttemptedAccount::Acting(user) => Ok(self.limits_on_acting_user(user, client)),
        }
    }

    /// Returns the client address if it is a known address of the account; `None` if it is not, or if the
    /// account's known addresses together have used up their common limit. Beyond that limit, a known address
    /// counts like any other.
    async fn usable_known_address(
        &self,
        email: &Email,
        client: Option<ClientAddress>,
        now: Timestamp,
    ) -> Result<Option<LoginAddress>, AccountError> {
        let Some(client) = client else { return Ok(None) };
        let Some(known) = self.deps.store.find_known_address(email, client, now).await? else {
            return Ok(None);
        };
        let common = Subject::account_password_at_known_addresses(known.auth_token());
        let tallies = self.deps.store.tallies(vec![common], now, latest_expiry(now)).await?;
        let rule = Rule::at_all_known_addresses(self.options.throttle);
        let is_usable = tallies.iter().all(|tally| rule.admit(*tally, now).is_ok());
        Ok(is_usable.then_some(known))
    }

    /// Returns the limits on a login. A login from a known address has its own limits, so neither wrong
    /// passwords from other addresses nor the limit over all accounts block the owner there.
    fn limits_on_login(
        &self,
        email: &Email,
        client: Option<ClientAddress>,
        known: Option<&LoginAddress>,
    ) -> Limits {
        let options = self.options.throttle;
        let mut counted = match known {
            Some(known) => vec![
                Counted::limited(
                    Subject::account_password_at_address(known),
                    Rule::ConsecutiveFailures(options),
                ),
                Counted::limited(
                    Subject::account_password_at_known_addresses(known.auth_token()),
                    Rule::at_all_known_addresses(options),
                ),
            ],
            None => {
                vec![Counted::limited(Subject::account_password(email), Rule::ConsecutiveFailures(options))]
            }
        };
        let cleared = counted.iter().map(|counted| counted.subject).collect();
        counted.extend(
            client.map(|client| {
                Counted::limited(Subject::address_passwords(client), Rule::per_address(options))
            }),
        );
        // The total last, because all logins share its row: each login locks it for the shortest time.
        if known.is_none() {
            counted.push(Counted::limited(Subject::all_passwords(), Rule::PerWindow(options.total)));
        }
        Limits { counted, cleared, is_from_known_address: known.is_some() }
    }

    /// Returns the limits on an attempt at the current password by a user with a verified access token. Only
    /// the count of this user's own attempts refuses one. A failure is also counted for logins to the account
    /// and for the client address, so a thief of the token gains few guesses. Those two counts never refuse
    /// the user here, because strangers can use them up. Users at one client address may have as many
    /// attempts in progress as logins from it, so that they leave threads for the logins of others.
    fn limits_on_acting_user(&self, user: &User, client: Option<ClientAddress>) -> Limits {
        let options = self.options.throttle;
        let of_user = Subject::acting_user_password(user.auth_token);
        let of_address = client.map(|client| Counted {
            subject: Subject::address_passwords(client),
            rule: Rule::per_address(options),
            is_limited: false,
        });
        let mut counted = vec![
            Counted::limited(of_user, Rule::ConsecutiveFailures(options)),
            Counted {
                subject: Subject::account_password(&user.email),
                rule: Rule::ConsecutiveFailures(options),
                is_limited: false,
            },
        ];
        counted.extend(of_address);
        counted.extend(client.map(|client| {
            let subject = Subject::address_acting_users(client);
            Counted::limited(subject, Rule::of_acting_users_per_address(options))
        }));
        Limits { counted, cleared: vec![of_user], is_from_known_address: false }
    }
}

/// Returns the latest expiry of the reservations that exist at `now`. A reservation that expires later was
/// made with a wrong clock.
pub(super) fn latest_expiry(now: Timestamp) -> Timestamp {
    now.plus(RESERVED_MAX).plus(CLOCK_DIFFERENCE_MAX)
}
