//! The two schemas against each other and against `src/store/schema.rs`.

use std::{collections::BTreeSet, fs};

use super::World;
use crate::support::{
    engine::{Engine, TestDatabase},
    tools::repository,
};

const SQLITE_COLUMNS: &str = "SELECT m.name || '.' || c.name || ' ' || c.type || CASE c.\"notnull\" WHEN 1 THEN '' ELSE ' NULL' END
    || coalesce(' DEFAULT ' || c.dflt_value, '') AS value
    FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name LIKE 'core_%' ORDER BY m.name, c.cid";

const POSTGRES_COLUMNS: &str = "SELECT table_name || '.' || column_name || ' ' || data_type
    || coalesce('(' || character_maximum_length || ')', '')
    || CASE is_nullable WHEN 'YES' THEN ' NULL' ELSE '' END || coalesce(' DEFAULT ' || column_default, '') AS value
    FROM information_schema.columns WHERE table_name LIKE 'core_%' ORDER BY table_name, ordinal_position";

const SQLITE_UNIQUE: &str = "SELECT m.name || ' ' || (SELECT group_concat(name, ',') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY name)) AS value
    FROM sqlite_master m, pragma_index_list(m.name) i WHERE m.type = 'table' AND m.name LIKE 'core_%' AND i.\"unique\" = 1";

const POSTGRES_UNIQUE: &str = "SELECT t.relname || ' ' || string_agg(a.attname, ',' ORDER BY a.attname COLLATE \"C\") AS value
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey)
    WHERE t.relname LIKE 'core_%' AND i.indisunique AND a.attname <> 'id' GROUP BY t.relname, i.indexrelid";

const SQLITE_FOREIGN: &str = "SELECT m.name || '.' || f.\"from\" || ' ' || f.\"table\" || '.' || f.\"to\" || ' ' || f.on_delete AS value
    FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'";

const POSTGRES_FOREIGN: &str =
    "SELECT conrelid::regclass || '.' || a.attname || ' ' || confrelid::regclass || '.' || b.attname || ' '
    || CASE confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'OTHER' END AS value
    FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]
    JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = confkey[1] WHERE contype = 'f'";

/// Columns, unique sets and foreign keys of a database in the words of its engine.
pub fn describe(database: &TestDatabase) -> Vec<String> {
    let queries = match database.engine() {
        Engine::Sqlite => [SQLITE_COLUMNS, SQLITE_UNIQUE, SQLITE_FOREIGN],
        Engine::Postgres => [POSTGRES_COLUMNS, POSTGRES_UNIQUE, POSTGRES_FOREIGN],
    };
    queries.iter().flat_map(|query| sorted(database.rows(query))).collect()
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// The columns in diesel's words, as `src/store/schema.rs` has them.
fn in_diesels_words(database: &TestDatabase) -> BTreeSet<String> {
    let columns = match database.engine() {
        Engine::Sqlite => SQLITE_COLUMNS,
        Engine::Postgres => POSTGRES_COLUMNS,
    };
    database.rows(columns).iter().map(|column| in_diesel(column)).collect()
}

fn in_diesel(column: &str) -> String {
    let (name, rest) = column.split_once(' ').unwrap();
    let declared = rest.split(" DEFAULT ").next().unwrap();
    let base = declared.trim_end_matches(" NULL");
    let is_id = name.ends_with("id") && base == "INTEGER";
    let sql_type = match base.split('(').next().unwrap() {
        "INTEGER" if is_id => "BigInt",
        "INTEGER" | "integer" => "Integer",
        "BIGINT" | "bigint" => "BigInt",
        "VARCHAR" | "character varying" => "Text",
        "BOOLEAN" | "boolean" => "Bool",
        "CHAR" | "uuid" => "SqlUuid",
        "DATETIME" | "timestamp with time zone" => "SqlTimestamp",
        "BLOB" | "bytea" => "Binary",
        other => panic!("{column}: what is {other}?"),
    };
    if declared.ends_with(" NULL") {
        format!("{name} Nullable<{sql_type}>")
    } else {
        format!("{name} {sql_type}")
    }
}

/// Reads `name -> Type,` out of the `table!`s.
fn in_schema_rs() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("src/store/schema.rs")).unwrap();
    let mut table = "";
    let mut columns = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with('{')) {
            table = name;
        }
        if let Some((name, sql_type)) = line.trim_end_matches(',').split_once(" -> ") {
            columns.insert(format!("{table}.{name} {sql_type}"));
        }
    }
    columns.retain(|column| !column.contains("joinable"));
    columns
}

on_both_engines! {
    async fn the_schema_is_the_one_that_the_queries_are_made_for(engine: Engine) {
        let world = World::new(engine).await;

        assert_eq!(in_diesels_words(&world.database), in_schema_rs());
    }

    async fn what_is_asked_often_has_an_index(engine: Engine) {
        let world = World::new(engine).await;
        for (condition, table, index) in [
            ("auth_token = '00000000-0000-0000-0000-000000000000'", "core_user", "core_user_auth_token_key"),
            ("email = 'x'", "core_user", "core_user_email_key"),
            ("username_key = 'x'", "core_user", "core_user_username_key_key"),
            ("next_attempt_at <= '2026-01-01 00:00:00.000000'", "core_mail_outbox", "core_mail_outbox_next_attempt_at_idx"),
        ] {
            let plan = world.database.plan(&format!("SELECT * FROM {table} WHERE {condition}"));
            let named = match engine {
                // SQLite numbers the indexes of constraints.
                Engine::Sqlite => format!("SEARCH {table} USING INDEX "),
                Engine::Postgres => index.to_owned(),
            };
            assert!(plan.contains(&named), "{condition}: {plan}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twins_have_the_same_unique_sets_and_foreign_keys() {
    let sqlite = World::new(Engine::Sqlite).await.database;
    let postgres = World::new(Engine::Postgres).await.database;

    assert_eq!(in_diesels_words(&sqlite), in_diesels_words(&postgres));
    assert_eq!(sorted(sqlite.rows(SQLITE_UNIQUE)), sorted(postgres.rows(POSTGRES_UNIQUE)));
    assert_eq!(sorted(sqlite.rows(SQLITE_FOREIGN)), sorted(postgres.rows(POSTGRES_FOREIGN)));
}
