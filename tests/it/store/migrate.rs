//! Migrations.

use std::{fs, path::Path};

use kairos_identity::{
    database::{DatabaseError, DatabaseOptions},
    store::{MigrateError, Schema, Store},
};
use tokio::task::JoinSet;

use super::{World, open, schema::describe, sqlite_options};
use crate::support::{engine::TestDatabase, tools::repository};

on_both_engines! {
    async fn an_empty_database_is_migrated_once(engine: Engine) {
        let database = TestDatabase::new(engine);
        let store = open(database.url());

        assert!(matches!(store.schema().await.unwrap(), Schema::Behind(missing) if missing.len() == names(engine).len()));
        assert_eq!(store.migrate().await.unwrap().len(), names(engine).len());
        assert_eq!(store.schema().await.unwrap(), Schema::Current);
        assert!(store.migrate().await.unwrap().is_empty());
    }

    async fn eight_concurrent_instances_run_each_migration_once(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut instances = JoinSet::new();
        for _ in 0..8 {
            let store = open(database.url());
            instances.spawn(async move { store.migrate().await.unwrap().len() });
        }

        let ran = instances.join_all().await;

        assert_eq!(ran.iter().sum::<usize>(), names(engine).len(), "{ran:?}");
    }

    async fn a_later_release_decides_whether_this_one_may_use_its_database(engine: Engine) {
        let world = World::new(engine).await;
        let later = "99991231235959";
        let oldest = |version: &str| {
            let set = format!("UPDATE kairos_schema_compatibility SET oldest_compatible = '{version}'");
            world.database.execute(&set);
        };
        world.database.execute(&format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{later}')"));

        assert_eq!(world.store.schema().await.unwrap(), Schema::Compatible(vec![later.into()]));
        assert!(world.store.migrate().await.unwrap().is_empty());

        // The version of this release's last migration, and the next one.
        oldest(&version(names(engine).last().unwrap()));
        assert_eq!(world.store.schema().await.unwrap(), Schema::Compatible(vec![later.into()]));
        oldest(later);
        assert_eq!(world.store.schema().await.unwrap(), Schema::Ahead(vec![later.into()]));
        assert!(matches!(world.store.migrate().await, Err(MigrateError::Ahead(_))));

        world.database.execute("DELETE FROM kairos_schema_compatibility");
        assert_eq!(world.store.schema().await.unwrap(), Schema::Ahead(vec![later.into()]));
    }

    async fn down_and_up_migrations_restore_the_same_schema(engine: Engine) {
        let world = World::new(engine).await;
        let before = describe(&world.database);
        for name in names(engine).iter().rev() {
            world.database.execute(&fs::read_to_string(folder(engine).join(name).join("down.sql")).unwrap());
        }
        world.database.execute("DELETE FROM __diesel_schema_migrations");
        assert_ne!(describe(&world.database), before);

        world.store.migrate().await.unwrap();

        assert_eq!(describe(&world.database), before);
    }
}

/// The migrations before the first release, which no release has run beside.
const FIRST_RELEASE: &str = "2026-12-01";

#[test]
fn a_migration_with_which_the_release_before_cannot_serve_says_so_to_it() {
    use crate::support::engine::Engine;
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for name in names(engine).iter().filter(|name| name.as_str() >= FIRST_RELEASE) {
            let text = fs::read_to_string(folder(engine).join(name).join("up.sql")).unwrap();
            let is_safe = text.contains("-- Safe while the previous release runs: yes");
            let sets = format!("'{}'", version(name));
            let is_told = text.contains("kairos_schema_compatibility") && text.contains(&sets);
            assert!(is_safe || is_told, "{name} on {engine:?}");
        }
    }
}

/// Returns the version of a migration: the digits of the name of its folder.
fn version(name: &str) -> String {
    name.split('_').next().unwrap().replace('-', "")
}

#[test]
fn both_engines_have_the_same_migrations() {
    use crate::support::engine::Engine;
    assert_eq!(names(Engine::Sqlite), names(Engine::Postgres));
    for name in names(Engine::Sqlite) {
        let first_line = |engine| {
            let text = fs::read_to_string(folder(engine).join(&name).join("up.sql")).unwrap();
            text.lines().next().unwrap().to_owned()
        };
        assert_eq!(first_line(Engine::Sqlite), first_line(Engine::Postgres), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_application_is_refused_unchanged() {
    let database = TestDatabase::new(crate::support::engine::Engine::Sqlite);
    database.execute("CREATE TABLE recipe (id INTEGER PRIMARY KEY)");
    let store = open(database.url());

    assert!(matches!(store.migrate().await, Err(MigrateError::Foreign { application_id: 0 })));
    assert_eq!(database.rows("SELECT name AS value FROM sqlite_master"), ["recipe"]);

    database.execute("PRAGMA application_id = 42");
    assert!(matches!(store.schema().await, Err(MigrateError::Foreign { application_id: 42 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_a_database_is_refused_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "not a database at all, but long enough to be read as one".repeat(20)).unwrap();
    let before = fs::read(&path).unwrap();

    let refusal = open_or_create(&path).err().expect("opening fails");

    assert!(matches!(refusal, DatabaseError::Unavailable(_)));
    assert!(refusal.chain().contains("notes.txt"), "{}", refusal.chain());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_created_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.sqlite3");

    let refusal = open_existing(&path).err().expect("opening fails");

    assert!(refusal.chain().contains("missing.sqlite3"), "{}", refusal.chain());
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_readable_only_by_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.sqlite3");
    let store = open_or_create(&path).unwrap();
    store.migrate().await.unwrap();

    for entry in fs::read_dir(folder.path()).unwrap() {
        let mode = entry.as_ref().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.unwrap().path());
    }
}

fn open_or_create(path: &Path) -> Result<Store, DatabaseError> {
    open_file(path, true)
}

fn open_existing(path: &Path) -> Result<Store, DatabaseError> {
    open_file(path, false)
}

fn open_file(path: &Path, create: bool) -> Result<Store, DatabaseError> {
    let lookup = kairos_identity::store::LookupOptions { batch_tokens_max: 1, lanes: 1, waiting_max: 1 };
    let options = kairos_identity::database::SqliteOptions { create, ..sqlite_options(path) };
    Store::open(DatabaseOptions::Sqlite(options), lookup)
}

fn folder(engine: crate::support::engine::Engine) -> std::path::PathBuf {
    use crate::support::engine::Engine;
    repository().join("migrations").join(match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
    })
}

/// Returns the names of an engine's migrations in order.
fn names(engine: crate::support::engine::Engine) -> Vec<String> {
    let entries = fs::read_dir(folder(engine)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
