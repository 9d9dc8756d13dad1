//! A lane on SQLite. It answers its batch on the thread of its callers, inside one read transaction.
//!
//! A query on cached pages takes about 3 µs, less than a switch to another thread and back. A page that must
//! be read from disk blocks the thread for as long, so the database file should fit into memory.

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

use super::super::pending::{PendingLookup, Queue, ReadyAnswer};
use crate::{
    database::{
        DatabaseError,
        columns::{SqlUuid, UuidColumn},
        sqlite::SqliteThreads,
        sqlite_close::OpenConnection,
        sqlite_file::DatabaseFile,
        sqlite_open::{SqliteOptions, open_reader},
    },
    domain::{AuthToken, User},
    store::tables::users::UserRow,
};

/// Longest time that a look-up waits for a lock of another process, since all connections of its thread wait
/// with it. A reader only waits while another process recovers the file after a crash.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_millis(100);

/// The lane's own connection, the options to replace it, and the open file, which must still be at its path.
pub(in super::super) struct Lane {
    connection: OpenConnection<SqliteConnection>,
    options: SqliteOptions,
    file: Arc<DatabaseFile>,
}

impl Lane {
    pub(in super::super) fn open(threads: &SqliteThreads) -> Result<Self, DatabaseError> {
        let options = threads.options();
        let options =
            SqliteOptions { busy_timeout: options.busy_timeout.min(BUSY_TIMEOUT_MAX), ..options.clone() };
        Ok(Self { connection: open_reader(&options)?, options, file: Arc::clone(threads.file()) })
    }
}

/// Answers batches until the task is aborted. Between the batches of a long queue, the connections of the
/// thread read, write and notice their deadlines.
pub(in super::super) async fn run(mut lane: Lane, queue: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        let answer = AssertUnwindSafe(|| answer(&mut lane.connection, &lane.file, batch));
        if catch_unwind(answer).is_err() {
            // The callers receive an error, since their reply channels are dropped. The transaction may still
            // be open, so the connection is replaced, or at least the transaction ended.
            tracing::error!("SQLite look-up panicked; replacing its connection");
            match open_reader(&lane.options) {
                Ok(replacement) => lane.connection = replacement,
                Err(error) => {
                    tracing::error!(%error, "SQLite connection could not be replaced");
                    let _ = execute(&mut lane.connection, "ROLLBACK");
                }
            }
        }
        if queue.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn answer(connection: &mut SqliteConnection, file: &DatabaseFile, batch: Vec<PendingLookup>) {
    // One transaction for the whole batch, since each statement outside a transaction locks and unlocks the
    // file. A single look-up needs none.
    let is_one = matches!(batch.as_slice(), [PendingLookup::One { .. }]);
    let begun = file.require_present();
    let begun = if is_one { begun } else { begun.and_then(|()| execute(connection, "BEGIN")) };
    let mut find = |token| begun.clone().and_then(|()| find_one(connection, token));
    let answers: Vec<ReadyAnswer> = batch.into_iter().map(|lookup| lookup.answer(&mut find)).collect();
    if !is_one && let Err(error) = begun.and_then(|()| execute(connection, "COMMIT")) {
        tracing::warn!(error = %error.chain(), "SQLite read transaction did not begin or end cleanly");
        // Ends what is still open; otherwise the next batch could not begin its transaction.
        let _ = execute(connection, "ROLLBACK");
    }
    // Sent together at the end: the callers on one connection wake up together, and their answers leave in
    // one packet.
    answers.into_iter().for_each(ReadyAnswer::send);
}

/// A transaction statement that is prepared only once; `batch_execute` would prepare it each time.
struct Command(&'static str);

fn execute(connection: &mut SqliteConnection, command: &'static str) -> Result<(), DatabaseError> {
    RunQueryDsl::execute(Command(command), connection)?;
    Ok(())
}

impl QueryFragment<Sqlite> for Command {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}

/// The statement cache uses the SQL text as the key.
impl QueryId for Command {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for Command {}

fn find_one(connection: &mut SqliteConnection, token: AuthToken) -> Result<Option<User>, DatabaseError> {
    // `get_result`, not `first`: because of the LIMIT diesel would prepare the statement each time.
    let query = FindByAuthToken { token: UuidColumn(*token.as_uuid()) };
    let row: Option<UserRow> = query.get_result(connection).optional()?;
    Ok(row.map(User::from))
}

/// The query that diesel would generate, written out: for the generated one diesel walks through the columns
/// twice per execution, which takes a fifth of a look-up.
#[derive(QueryId)]
struct FindByAuthToken {
    token: UuidColumn,
}

const FIND_BY_AUTH_TOKEN: &str = "SELECT `core_user`.`id`, `core_user`.`username`, `core_user`.`username_key`, \
    `core_user`.`email`, `core_user`.`is_verified`, `core_user`.`auth_token`, `core_user`.`created_at`, \
    `core_user`.`updated_at`, EXISTS (SELECT `core_disabled_user`.`user_id`, \
    `core_disabled_user`.`disabled_at` FROM `core_disabled_user` WHERE (`core_disabled_user`.`user_id` = \
    `core_user`.`id`)) FROM `core_user` WHERE (`core_user`.`auth_token` = ";

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
    fn the_written_out_query_equals_the_one_that_diesel_generates() {
        let token = UuidColumn(uuid::Uuid::from_u128(7));
        let by_diesel = core_user::table.filter(core_user::auth_token.eq(token)).select(UserRow::as_select());
        assert_eq!(
            debug_query::<Sqlite, _>(&FindByAuthToken { token }).to_string(),
            debug_query::<Sqlite, _>(&by_diesel).to_string()
        );
    }
}
