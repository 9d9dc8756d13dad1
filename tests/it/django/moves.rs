//! An import of many users needs little memory.

use std::{fs, process::Stdio, time::Duration};

use super::{Django, Model};
use crate::support::{
    engine::{Engine, TestDatabase},
    program::program,
};

/// Number of users in the test suite; `scripts/bench` imports 100,000.
const USERS: &str = "20000";

/// Memory in MiB that an import of 20,000 users may need beyond that of an import of 2,000 users.
const MEMORY_MIB_MAX: u64 = 24;

/// Runs an import, and returns its peak anonymous memory in KiB (Linux only).
async fn peak_of_import(django: &Django, engine: Engine) -> u64 {
    let store = TestDatabase::new(engine);
    let arguments = ["import", "django", "--from", django.url(), "--to", store.url()];
    let mut import = program(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/status", import.id()))
            && let Some(line) = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))
        {
            peak = peak.max(line.split_whitespace().next().unwrap().parse().unwrap());
        }
        if let Some(status) = import.try_wait().unwrap() {
            assert!(status.success());
            assert_eq!(store.count("core_user"), django.truth.len());
            return peak;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

on_both_engines! {
    async fn memory_does_not_grow_with_the_number_of_rows(engine: Engine) {
        let made = |count| Django::fresh(Engine::Sqlite, Model::Documented, &["--only-bulk", "--bulk-password", "pool", "--count", count]);
        let few = peak_of_import(&made("2000"), engine).await;
        let many = peak_of_import(&made(USERS), engine).await;
        println!("{few} and {many} KiB");
        assert!(many < few + MEMORY_MIB_MAX * 1024, "{few} and {many} KiB");
    }
}
