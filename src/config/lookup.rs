//! `[lookup]`

use super::{setting::section, value::Count};

section! {
    /// Look-ups by `auth_token`: those that arrive while a query runs travel together in the next one.
    LookupSettings in "lookup" {
        /// How many tokens one query holds at most.
        batch_tokens_max: Count<1, 1_000> = "256",
        /// How many queries run at once: on SQLite at most one for each thread that serves connections, on PostgreSQL as
        /// many on the primary and as many on the replicas.
        lanes: Count<1, 16> = "2",
        /// How many look-ups may wait before calls are `OVERLOADED`.
        waiting_max: Count<1, 1_000_000> = "16384",
    }
}
