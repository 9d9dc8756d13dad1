//! Compares the schemas of the two engines with each other and with `src/store/schema.rs`.

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

/// Returns the columns, unique sets and foreign keys of a database as its engine names them.
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

/// Returns the columns of a database with diesel's types, in the form `table.column Type`.
fn database_columns(database: &TestDatabase) -> BTreeSet<String> {
    let columns = match database.engine() {
        Engine::Sqlite => SQLITE_COLUMNS,
        Engine::Postgres => POSTGRES_COLUMNS,
    };
    database.rows(columns).iter().map(|column| diesel_column(column)).collect()
}

fn diesel_column(column: &str) -> String {
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
        other => panic!("{column}: no diesel type is known for {other}"),
    };
    if declared.ends_with(" NULL") {
        format!("{name} Nullable<{sql_type}>")
    } else {
        format!("{name} {sql_type}")
    }
}

/// Returns the columns that the `table!` macros of `src/store/schema.rs` declare, in the same form.
fn declared_columns() -> BTreeSet<String> {
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
    // `joinable!(TABLE -> OTHER (COLUMN))` has an arrow too.
    columns.retain(|column| !column.contains("joinable"));
    columns
}

on_both_engines! {
    async fn the_schema_matches_the_diesel_tables(engine: Engine) {
        let world = World::new(engine).await;

        assert_eq!(database_columns(&world.database), declared_columns());
    }

    async fn frequent_queries_use_an_index(engine: Engine) {
        let world = World::new(engine).await;
        for (condition, table, index) in [
            ("auth_token = '00000000-0000-0000-0000-000000000000'", "core_user", "core_user_auth_token_key"),
            ("email = 'x'", "core_user", "core_user_email_key"),
            ("username_key = 'x'", "core_user", "core_user_username_key_key"),
            ("next_attempt_at <= '2026-01-01 00:00:00.000000'", "core_mail_outbox", "core_mail_outbox_next_attempt_at_idx"),
        ] {
            let plan = world.database.plan(&format!("SELECT * FROM {table} WHERE {condition}"));
            let expected = match engine {
                // SQLite names the indexes of unique constraints itself.
                Engine::Sqlite => format!("SEARCH {table} USING INDEX "),
                Engine::Postgres => index.to_owned(),
            };
            assert!(plan.contains(&expected), "{condition}: {plan}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_have_the_same_columns_unique_sets_and_foreign_keys() {
    let sqlite = World::new(Engine::Sqlite).await.database;
    let postgres = World::new(Engine::Postgres).await.database;

    assert_eq!(database_columns(&sqlite), database_columns(&postgres));
    assert_eq!(sorted(sqlite.rows(SQLITE_UNIQUE)), sorted(postgres.rows(POSTGRES_UNIQUE)));
    assert_eq!(sorted(sqlite.rows(SQLITE_FOREIGN)), sorted(postgres.rows(POSTGRES_FOREIGN)));
}
