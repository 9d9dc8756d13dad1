//! `[lookup]`

use super::{number::Count, section::section};

section! {
    /// Look-ups by `auth_token`. Look-ups that arrive while a query runs are combined into the next query.
    LookupSettings in "lookup" {
        /// Maximum number of tokens in one query.
        batch_tokens_max: Count<1, 1_000> = "256",
        /// Number of queries that run at the same time: on PostgreSQL this many on the primary, each with its
        /// own connection, and this many on the replicas together; on SQLite at most one for each thread
        /// that serves connections. 0 means one for each such thread (`server.threads`).
        lanes: Count<0, 256> = "0",
        /// Maximum number of look-ups that wait for a query; beyond it calls fail with `OVERLOADED`. The
        /// number is divided among the queues: one for each lane, but at most one for each thread. On
        /// PostgreSQL it applies to the primary and to the replicas separately.
        waiting_max: Count<1, 1_000_000> = "16384",
    }
}
