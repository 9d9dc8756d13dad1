//! `[verification]`

use super::{
    number::{Count, Span},
    section::section,
};
use crate::domain::Timestamp;

section! {
    /// Email verification.
    VerificationSettings in "verification" {
        /// Lifetime of a mailed link that verifies an email or confirms a new one. It is also the time for
        /// which an unverified registration holds its email. The time runs from the registration, however
        /// many further links are requested. After it, a new registration with the same email replaces the
        /// user.
        token_lifetime: Span<1_000, 604_800_000> = "24h",
        /// Lifetime of the link that undoes an email change, which is mailed to the old email after the
        /// change.
        undo_lifetime: Span<1_000, 2_592_000_000> = "72h",
        /// How long a user who never verified their email is kept after the registration and after the last
        /// link that was created for them; then the user is deleted. Users who are disabled or were imported
        /// are kept. A new registration with the same email replaces such a user earlier:
        /// `verification.token-lifetime` after the registration.
        unverified_kept: Span<1_000, 31_536_000_000> = "30d",
        /// Time until which links are accepted that the Django backend has mailed. They contain the user's
        /// `auth_token`, which is not a secret: every client that knows it can verify the email of an
        /// imported user who has not done so. Each use is logged. The page `/verify` takes them too, also as
        /// `/api/verify/UUID/`. If unset, these links are refused.
        accept_auth_token_until: Option<Timestamp> = "",
        /// Number of links that requests without a proof of identity mail to one mailbox within
        /// `verification.resends-window`, so that a mailbox cannot be flooded. Links to verify an email,
        /// links to reset a password and notices of attempted registrations are counted separately. A further
        /// request gets the same answer, so that others cannot use up the limit of the owner, but it mails a
        /// new link only if the last one of this kind is no longer valid, or is older than half its lifetime.
        /// A user can also change the username, and request an email change, this many times within the
        /// window; beyond that callers get `TOO_MANY_ATTEMPTS`.
        resends_max: Count<1, 1_000> = "3",
        /// The time window of `verification.resends-max`.
        resends_window: Span<1_000, 86_400_000> = "1h",
    }
}
