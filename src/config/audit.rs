//! `[audit]`

use super::{
    number::{Count, Span},
    section::section,
};

/// The longest `audit.retention`, in milliseconds: ten years of 365 days.
pub const RETENTION_MILLIS_MAX: u64 = 315_360_000_000;

section! {
    /// The audit trail: decisions about authentication, authorization and accounts. `kairos-identity audit`
    /// lists the events; the log contains them with target `audit` (docs/AUDIT.md).
    AuditSettings in "audit" {
        /// How long events are kept in the database. They contain the addresses of end users: keep them no
        /// longer than you need them.
        retention: Span<3_600_000, RETENTION_MILLIS_MAX> = "90d",
        /// Maximum number of events in the database: about 5 GB with the default. Beyond it, events are
        /// deleted within minutes, whatever their age, the least valuable first: refusals of unauthenticated
        /// callers, other refusals about no account, refusals about an account, reads and completed actions.
        rows_max: Count<1_000, 1_000_000_000> = "20000000",
        /// Maximum number of different refusals of callers that did not authenticate that are recorded
        /// separately within a minute, by kind, reason and network; further ones are counted together by kind
        /// and reason. This bounds how much unknown callers can make the database write.
        strangers_max: Count<1, 1_000> = "100",
        /// Maximum number of different refusals and reads of one caller that are recorded separately within a
        /// minute and are about no account; further ones are counted together by kind and reason.
        refusals_max: Count<1, 1_000> = "100",
        /// Maximum number of different refusals (for example from different addresses) and of different reads
        /// about one account that are recorded separately within a minute; further ones are counted together
        /// by kind, reason and caller, but never with those about another account.
        account_max: Count<1, 1_000> = "20",
    }
}
