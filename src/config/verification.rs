//! `[verification]`

use super::{
    setting::section,
    value::{Count, Span},
};
use crate::domain::Timestamp;

section! {
    /// Proving an address.
    VerificationSettings in "verification" {
        /// How long a mailed link is good for.
        token_lifetime: Span<1_000, 604_800_000> = "24h",
        /// How long somebody who does not prove their address stays registered, after their registration and the last link that was
        /// mailed to them. Once a link has ended unopened, somebody else may register with the address.
        unverified_kept: Span<1_000, 31_536_000_000> = "30d",
        /// Until when links count that the Django backend has mailed: they hold the user's `auth_token`, which is no secret, so that whoever knows it
        /// can verify the address of an imported user who has not done it. Each use is logged. Empty: they do not count.
        accept_auth_token_until: Option<Timestamp> = "",
        /// How often another link may be asked for, for one address within `verification.resends-window`, before callers get
        /// `TOO_MANY_ATTEMPTS`: nobody's mailbox is to be filled.
        resends_max: Count<1, 1_000> = "3",
        /// What `verification.resends-max` counts within.
        resends_window: Span<1_000, 86_400_000> = "1h",
    }
}
