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
        /// Maximum number of different refusals that are recorded separately within a second; further ones
        /// are counted together by kind, reason and caller. This bounds how much refused requests can make
        /// the database write.
        refusals_max: Count<1, 1_000> = "100",
    }
}
