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
    OptionalExtension, QueryResult, RunQueryDsl, SqliteConnection,
    dsl::{AsSelect, SqlTypeOf},
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sqlite::Sqlite,
};

use super::super::queue::{Answered, Queue, Waiting};
use crate::{
    domain::{AuthToken, User},
    store::{
        StoreError,
        columns::{SqlUuid, UuidColumn},
        connection::sqlite::{SqliteOptions, open_reader},
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
    // One transaction for all: each statement of its own would lock and unlock the file. For one it is its own.
    let is_one = matches!(batch.as_slice(), [Waiting::One { .. }]);
    let begun = if is_one { Ok(()) } else { execute(connection, Command::Begin) };
    let mut find = |token| begun.clone().and_then(|()| find_one(connection, token));
    let answers: Vec<Answered> = batch.into_iter().map(|caller| caller.answer(&mut find)).collect();
    if !is_one && let Err(error) = begun.and_then(|()| execute(connection, Command::Commit)) {
        tracing::warn!(error = %error.chain(), "A read transaction on SQLite did not begin or end cleanly");
        // Whatever is still open, or the next batch could not begin its own.
        let _ = execute(connection, Command::Rollback);
    }
    // All at the end: callers of one connection wake up together, and their answers leave in one packet.
    answers.into_iter().for_each(Answered::send);
}

/// A statement of transactions, which is prepared once: `batch_execute` would do so each time.
#[derive(Clone, Copy)]
enum Command {
    Begin,
    Commit,
    Rollback,
}

fn execute(connection: &mut SqliteConnection, command: Command) -> Result<(), StoreError> {
    RunQueryDsl::execute(command, connection)?;
    Ok(())
}

impl QueryFragment<Sqlite> for Command {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(match self {
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
        });
        Ok(())
    }
}

/// Its text is its key in the cache of statements.
impl QueryId for Command {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for Command {}

fn find_one(connection: &mut SqliteConnection, token: AuthToken) -> Result<Option<User>, StoreError> {
    // `get_result` and not `first`: the LIMIT would have the statement prepared anew each time.
    let query = FindByAuthToken { token: UuidColumn(*token.as_uuid()) };
    let row: Option<UserRow> = query.get_result(connection).optional()?;
    Ok(row.map(User::from))
}

/// The query as diesel would write it, written out: walking through its columns twice each time costs a fifth of a look-up.
#[derive(QueryId)]
struct FindByAuthToken {
    token: UuidColumn,
}

const FIND_BY_AUTH_TOKEN: &str = "SELECT `core_user`.`id`, `core_user`.`username`, `core_user`.`username_key`, \
    `core_user`.`email`, `core_user`.`is_verified`, `core_user`.`auth_token`, `core_user`.`created_at`, \
    `core_user`.`updated_at` FROM `core_user` WHERE (`core_user`.`auth_token` = ";

impl QueryFragment<Sqlite> for FindByAuthToken {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(FIND_BY_AUTH_TOKEN);
        out.push_bind_param::<SqlUuid, _>(&self.token)?;
        out.push_sql(")");
        Ok(())
    }
}

impl Query for FindByAuthToken {
    type SqlType = SqlTypeOf<AsSelect<UserRow, Sqlite>>;
}

impl RunQueryDsl<SqliteConnection> for FindByAuthToken {}

#[cfg(test)]
mod tests {
    use diesel::{ExpressionMethods, QueryDsl, SelectableHelper, debug_query};

    use super::*;
    use crate::store::schema::core_user;

    #[test]
    fn what_is_written_out_is_what_diesel_would_write() {
        let token = UuidColumn(uuid::Uuid::from_u128(7));
        let by_diesel = core_user::table.filter(core_user::auth_token.eq(token)).select(UserRow::as_select());
        assert_eq!(
            debug_query::<Sqlite, _>(&FindByAuthToken { token }).to_string(),
            debug_query::<Sqlite, _>(&by_diesel).to_string()
        );
    }
}
