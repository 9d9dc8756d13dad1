//! SQL that bypasses the service: reads what the service wrote, and damages data on purpose.

use diesel::{
    Connection, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query,
    sql_types::Text,
};

use super::{
    engine::{Engine, TestDatabase},
    postgres::Postgres,
};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct PlanStep {
    #[diesel(sql_type = Text)]
    detail: String,
}

impl TestDatabase {
    /// Runs SQL statements; panics if one fails.
    pub fn execute(&self, sql: &str) {
        self.try_execute(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }

    /// Runs SQL statements; returns the error message of the engine if one fails.
    pub fn try_execute(&self, sql: &str) -> Result<(), String> {
        match self.engine() {
            Engine::Sqlite => self.sqlite().batch_execute(sql).map_err(|error| error.to_string()),
            Engine::Postgres => Postgres::shared().try_psql(self.name(), sql).map(drop),
        }
    }

    /// Returns the rows of a query with one text column named `value`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        match self.engine() {
            Engine::Sqlite => {
                let rows: Vec<Row> = sql_query(sql).load(&mut self.sqlite()).unwrap();
                rows.into_iter().map(|row| row.value).collect()
            }
            Engine::Postgres => {
                let rows = Postgres::shared().psql(self.name(), sql);
                rows.lines().map(str::to_owned).collect()
            }
        }
    }

    /// Returns the content of all tables as text. Bytes are in hexadecimal digits.
    pub fn dump(&self) -> String {
        let tables = match self.engine() {
            Engine::Sqlite => "SELECT name AS value FROM sqlite_master WHERE type = 'table'",
            Engine::Postgres => {
                "SELECT quote_ident(table_name) AS value FROM information_schema.tables WHERE table_schema = 'public'"
            }
        };
        let rows_of = |table: String| match self.engine() {
            Engine::Sqlite => {
                let columns = self.rows(&format!("SELECT name AS value FROM pragma_table_info('{table}')"));
                let quoted: Vec<_> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
                self.rows(&format!("SELECT {} AS value FROM {table}", quoted.join(" || ',' || ")))
            }
            Engine::Postgres => self.rows(&format!("SELECT t::text AS value FROM {table} t")),
        };
        self.rows(tables).into_iter().flat_map(rows_of).collect::<Vec<_>>().join("\n")
    }

    /// Returns the number of rows of a table.
    pub fn count(&self, table: &str) -> usize {
        let counted = self.rows(&format!("SELECT CAST(count(*) AS VARCHAR(20)) AS value FROM {table}"));
        counted[0].parse().unwrap()
    }

    /// Returns the query plan of the engine for a large table: on PostgreSQL, sequential and bitmap scans are
    /// disabled.
    pub fn plan(&self, query: &str) -> String {
        match self.engine() {
            Engine::Sqlite => {
                let steps: Vec<PlanStep> =
                    sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(&mut self.sqlite()).unwrap();
                steps.into_iter().map(|step| step.detail).collect()
            }
            Engine::Postgres => {
                let query = format!("SET enable_seqscan = off; SET enable_bitmapscan = off; EXPLAIN {query}");
                Postgres::shared().psql(self.name(), &query)
            }
        }
    }

    fn sqlite(&self) -> SqliteConnection {
        let path = self.url().strip_prefix("sqlite://").expect("the URL is SQLite's");
        let mut connection = SqliteConnection::establish(path).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON").unwrap();
        connection
    }

    /// Returns the name of the database on the shared cluster.
    fn name(&self) -> &str {
        let path = self.url().split('?').next().unwrap_or_default();
        path.rsplit('/').next().expect("the URL names a database")
    }
}
