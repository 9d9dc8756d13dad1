//! `[client]`

use super::{
    number::{Count, Span},
    section::section,
};

section! {
    /// Limits for each address of an end user. They apply only where the caller sends that address in
    /// `kairos-client-ip` (docs/CALLERS.md). Without it all users of a BFF have the address of the BFF, and
    /// these limits do not apply.
    ClientSettings in "client" {
        /// Maximum number of wrong passwords from one address within `client.window`, for all accounts
        /// together.
        failures_max: Count<1, 1_000_000> = "100",
        /// Maximum number of registrations from one address within `client.window`, refused ones included:
        /// also those whose password is too easy to guess.
        registrations_max: Count<1, 1_000_000> = "20",
        /// Maximum number of requests for a mailed link from one address within `client.window`.
        resends_max: Count<1, 1_000_000> = "20",
        /// The time window of the limits in `[client]` and of `password.judged-max`. Consider that an office
        /// or a school may share one address.
        window: Span<1_000, 86_400_000> = "1h",
        /// How long an address stays known for a user after a session has begun from it. Wrong passwords from
        /// other addresses do not delay logins from a known address. All known addresses of a user together
        /// may cause twice `login.failures-max` failures in a row; then they count like other addresses. A
        /// change or reset of the password, a new email and a verification remove the known addresses of the
        /// user.
        known_lifetime: Span<1_000, 31_536_000_000> = "90d",
        /// Mails a notice to the user after a login from an address that is not known for the account, the
        /// first login included. Off by default: the address of a phone changes several times a day, and
        /// users ignore a notice that comes with every login. Turn it on if your users have stable addresses.
        notify_new_address: bool = "false",
    }
}
