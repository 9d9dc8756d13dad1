//! `[audit]`

use super::{
    setting::section,
    value::{Count, Span},
};

/// Ten years.
pub const RETENTION_MILLIS_MAX: u64 = 315_360_000_000;

section! {
    /// What is written down of decisions about authentication, authorization and accounts, for `kairos-identity audit` and, with
    /// target `audit`, in the log (docs/AUDIT.md).
    AuditSettings in "audit" {
        /// How long events are kept in the database. They tell where people were: no longer than you need them.
        retention: Span<3_600_000, RETENTION_MILLIS_MAX> = "90d",
        /// How many different refusals are kept apart within a second; further ones are counted together by kind, reason and
        /// caller. Bounds what somebody who is turned away can make the database write.
        refusals_max: Count<1, 1_000> = "100",
    }
}
