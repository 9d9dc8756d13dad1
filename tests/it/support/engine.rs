//! The two database engines, test databases, and the macro that runs a test on both engines.

use tempfile::TempDir;

use super::postgres::Postgres;

/// Database engine of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// SQLite, in a file.
    Sqlite,
    /// PostgreSQL, on the shared cluster of the tests.
    Postgres,
}

/// A new, empty database for one test. A SQLite file is removed when the value is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    engine: Engine,
    url: String,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    /// Creates an empty database on PostgreSQL, or chooses the path of a SQLite file that does not exist yet.
    pub fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", folder.path().join("test.sqlite3").display());
                Self { engine, url, _folder: Some(folder) }
            }
            Engine::Postgres => {
                let url = Postgres::shared().create_database().url().to_owned();
                Self { engine, url, _folder: None }
            }
        }
    }

    /// Returns the engine of the database.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Returns the value for `--database-url`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Turns each function that takes an [`Engine`] into two tests, `NAME::sqlite` and `NAME::postgres`.
///
/// ```text
/// on_both_engines! {
///     async fn a_name_that_is_a_sentence(engine: Engine) { ... }
/// }
/// ```
///
/// A test fails if it takes longer than [`with_time_limit`] allows.
macro_rules! on_both_engines {
    ($($(#[$about:meta])* async fn $name:ident($engine:ident: Engine) $body:block)+) => {
        $(
            $(#[$about])*
            async fn $name($engine: $crate::support::engine::Engine) $body

            mod $name {
                use $crate::support::engine::{Engine, with_time_limit};

                #[tokio::test(flavor = "multi_thread")]
                async fn sqlite() {
                    with_time_limit(super::$name(Engine::Sqlite)).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn postgres() {
                    with_time_limit(super::$name(Engine::Postgres)).await;
                }
            }
        )+
    };
}

/// Runs a test and panics after five minutes, or after two hours in a long run (see
/// [`is_long_run`](super::tools::is_long_run)). A test that hangs must fail; one on a slow and busy machine
/// must not.
pub async fn with_time_limit(test: impl Future<Output = ()>) {
    let minutes = if super::tools::is_long_run() { 120 } else { 5 };
    tokio::time::timeout(std::time::Duration::from_mins(minutes), test)
        .await
        .expect("the test ends within its time limit");
}
