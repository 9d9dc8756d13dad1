//! The options with which SQLite is compiled (`.cargo/config.toml`).

use crate::support::engine::{Engine, TestDatabase};

#[test]
fn sqlite_is_compiled_with_the_options_of_the_project() {
    let database = TestDatabase::new(Engine::Sqlite);
    let options = database.rows("SELECT compile_options AS value FROM pragma_compile_options");
    let has = |option: &str| options.iter().any(|found| found == option);
    for option in [
        "THREADSAFE=2",
        "DEFAULT_MEMSTATUS=0",
        "DQS=0",
        "LIKE_DOESNT_MATCH_BLOBS",
        "OMIT_SHARED_CACHE",
        "OMIT_DEPRECATED",
    ] {
        assert!(has(option), "{option} is missing: {options:#?}");
    }
    for option in ["ENABLE_MEMORY_MANAGEMENT", "ENABLE_API_ARMOR", "ENABLE_LOAD_EXTENSION"] {
        assert!(!has(option), "{option}: {options:#?}");
    }
}
