//! The two engines, and one way to say that a test runs on both.

use tempfile::TempDir;

use super::postgres::Postgres;

/// What keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The built-in one, in a file.
    Sqlite,
    /// The tests' own cluster.
    Postgres,
}

/// A fresh, empty database that nothing else uses; a SQLite file is removed with it.
#[derive(Debug)]
pub struct TestDatabase {
    engine: Engine,
    url: String,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    /// A new one.
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

    /// The engine it is on.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The value of `--database-url`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Makes two tests, `NAME::sqlite` and `NAME::postgres`, of each function that takes an [`Engine`].
///
/// ```text
/// on_both_engines! {
///     async fn a_name_that_is_a_sentence(engine: Engine) { … }
/// }
/// ```
///
/// A test that takes longer than two minutes has failed, unless it was asked for more than the suite asks.
macro_rules! on_both_engines {
    ($($(#[$about:meta])* async fn $name:ident($engine:ident: Engine) $body:block)+) => {
        $(
            $(#[$about])*
            async fn $name($engine: $crate::support::engine::Engine) $body

            mod $name {
                use $crate::support::engine::{Engine, within_two_minutes};

                #[tokio::test(flavor = "multi_thread")]
                async fn sqlite() {
                    within_two_minutes(super::$name(Engine::Sqlite)).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn postgres() {
                    within_two_minutes(super::$name(Engine::Postgres)).await;
                }
            }
        )+
    };
}

/// Runs a test, which fails when it hangs; one that was asked for more than the suite asks may take longer.
pub async fn within_two_minutes(test: impl Future<Output = ()>) {
    let minutes = if super::tools::is_campaign() { 120 } else { 2 };
    tokio::time::timeout(std::time::Duration::from_mins(minutes), test).await.expect("a test ends in time");
}
