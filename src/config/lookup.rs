//! `[lookup]`

use super::{number::Count, section::section};

section! {
    /// Look-ups by `auth_token`. Look-ups that arrive while a query runs are combined into the next query.
    LookupSettings in "lookup" {
        /// Maximum number of tokens in one query.
        batch_tokens_max: Count<1, 1_000> = "256",
        /// Number of queries that run at the same time: on SQLite at most one for each thread that serves
        /// connections; on PostgreSQL this many on the primary, and this many on the replicas together.
        lanes: Count<1, 16> = "2",
        /// Maximum number of look-ups that wait for a query; beyond it calls fail with `OVERLOADED`. On
        /// SQLite the number is divided among the lanes; on PostgreSQL it applies to the primary and to the
        /// replicas separately.
        waiting_max: Count<1, 1_000_000> = "16384",
    }
}
