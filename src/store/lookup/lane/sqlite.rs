//! A lane on SQLite: answers its batch where it runs, on the runtime's own thread, inside one read transaction.
//!
//! A query on pages that are in memory takes about 3 µs, less than it costs to wake up another thread and be woken by it.
//! Pages that must be read from the disk hold up that thread of the runtime for as long: the file had best fit into memory.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SelectableHelper, SqliteConnection,
    connection::SimpleConnection,
};

use super::super::queue::{Answered, Queue, Waiting};
use crate::{
    domain::{AuthToken, User},
    store::{
        StoreError,
        columns::UuidColumn,
        connection::sqlite::{SqliteOptions, open_reader},
        schema::core_user,
        users::UserRow,
    },
};

/// How long a look-up may wait for another process, since a thread of the runtime waits with it. Readers wait for nobody but
/// whoever mends the file after a crash.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_millis(100);

/// A connection of its own, and how to open another.
pub(in super::super) struct Lane {
    connection: SqliteConnection,
    options: SqliteOptions,
}

impl Lane {
    pub(in super::super) fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        let options =
            SqliteOptions { busy_timeout: options.busy_timeout.min(BUSY_TIMEOUT_MAX), ..options.clone() };
        Ok(Self { connection: open_reader(&options)?, options })
    }
}

/// Answers for as long as it is not aborted.
pub(in super::super) async fn run(mut lane: Lane, queue: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        let answer = AssertUnwindSafe(|| answer(&mut lane.connection, batch));
        if catch_unwind(answer).is_err() {
            // Its callers are told by their dropped replies. The transaction may be open: its connection is not used again.
            tracing::error!("A look-up on SQLite panicked; its connection is replaced");
            match open_reader(&lane.options) {
                Ok(fresh) => lane.connection = fresh,
                Err(error) => tracing::error!(%error, "The connection to SQLite could not be replaced"),
            }
        }
    }
}

fn answer(connection: &mut SqliteConnection, batch: Vec<Waiting>) {
    // One transaction for all: a statement of its own would lock and unlock the file each time.
    let begun = connection.batch_execute("BEGIN").map_err(StoreError::from);
    let mut find = |token| begun.clone().and_then(|()| find_one(connection, token));
    let answers: Vec<Answered> = batch.into_iter().map(|caller| caller.answer(&mut find)).collect();
    let ended = begun.and_then(|()| connection.batch_execute("COMMIT").map_err(StoreError::from));
    if let Err(error) = ended {
        tracing::warn!(error = %error.chain(), "A read transaction on SQLite did not begin or end cleanly");
        // Whatever is still open, or the next batch could not begin its own.
        let _ = connection.batch_execute("ROLLBACK");
    }
    // All at the end: callers of one connection wake up together, and their answers leave in one packet.
    answers.into_iter().for_each(Answered::send);
}

fn find_one(connection: &mut SqliteConnection, token: AuthToken) -> Result<Option<User>, StoreError> {
    // `get_result` and not `first`: the LIMIT would have the statement prepared anew each time.
    let query = core_user::table
        .filter(core_user::auth_token.eq(UuidColumn(*token.as_uuid())))
        .select(UserRow::as_select());
    Ok(query.get_result(connection).optional()?.map(User::from))
}
