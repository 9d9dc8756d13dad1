//! A temporary database with the rows of a source, used while the import decides what to do with each.
//!
//! It is an unnamed SQLite database. Only its own connection can see it, and SQLite deletes it when the
//! connection closes. Memory use therefore does not grow with the number of rows, and an index finds
//! duplicates. It holds digests of passwords, but no passwords.

mod candidates;
mod duplicates;
mod findings;
mod tables;

use diesel::{
    Connection, QueryableByName, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Text},
};

use self::tables::TABLES;
pub use self::{
    duplicates::{Duplicates, SurveyField},
    findings::Finding,
};
use crate::database::DatabaseError;

#[derive(QueryableByName)]
struct Tally {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The rows of a source, and the findings about them.
pub struct Survey {
    connection: SqliteConnection,
}

impl Survey {
    /// Creates an empty survey.
    ///
    /// # Errors
    /// [`DatabaseError`] when the temporary database cannot be created.
    pub fn begin() -> Result<Self, DatabaseError> {
        // With an empty name SQLite creates a private file on disk, unlinked from the start.
        let mut connection = SqliteConnection::establish("").map_err(DatabaseError::unavailable)?;
        connection.batch_execute(TABLES)?;
        Ok(Self { connection })
    }

    fn tally(&mut self, query: &str) -> Result<Vec<(String, u64)>, DatabaseError> {
        let rows: Vec<Tally> = sql_query(query).load(&mut self.connection)?;
        Ok(rows.into_iter().map(|row| (row.name, u64::try_from(row.count).unwrap_or_default())).collect())
    }
}
