//! Recognizes the schema of the table `core_user` of a Django backend by its columns.

use std::fmt;

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::RunQueryDsl;

use super::DjangoError;
use crate::database::{DatabaseError, session::Session};

/// Columns that every schema has, each with the names that it has had.
const REQUIRED_COLUMNS: [&[&str]; 6] = [
    &["id"],
    &["username", "name"],
    &["email"],
    &["password"],
    &["is_verified"],
    &["auth_token", "verification_token"],
];
/// Columns that only some schemas have.
const TIME_COLUMNS: [&str; 2] = ["created_at", "updated_at"];

/// The schema of a table `core_user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DjangoSchema {
    pub(super) username: &'static str,
    pub(super) auth_token: &'static str,
    pub(super) has_created_at: bool,
    pub(super) has_updated_at: bool,
}

impl DjangoSchema {
    /// Recognizes the schema by its columns.
    pub(super) fn of(columns: &[String]) -> Result<Self, DjangoError> {
        let has = |name: &str| columns.iter().any(|column| column == name);
        let mut differences = Vec::new();
        for names in REQUIRED_COLUMNS {
            match names.iter().filter(|name| has(name)).count() {
                0 => differences.push(format!("it has no column {}", names.join(" or "))),
                1 => {}
                _ => differences.push(format!("it has both columns {}", names.join(" and "))),
            }
        }
        let is_known = |name: &str| {
            REQUIRED_COLUMNS.iter().any(|names| names.contains(&name)) || TIME_COLUMNS.contains(&name)
        };
        let unknown: Vec<&str> = columns.iter().map(String::as_str).filter(|name| !is_known(name)).collect();
        if !unknown.is_empty() {
            differences.push(format!("it has unknown columns ({})", unknown.join(", ")));
        }
        if !differences.is_empty() {
            return Err(DjangoError::OtherTable(differences.join("; ")));
        }
        Ok(Self {
            username: if has("username") { "username" } else { "name" },
            auth_token: if has("auth_token") { "auth_token" } else { "verification_token" },
            has_created_at: has("created_at"),
            has_updated_at: has("updated_at"),
        })
    }

    /// True if rows have the times of their creation and of their last change.
    #[must_use]
    pub const fn has_times(&self) -> bool {
        self.has_created_at && self.has_updated_at
    }
}

/// The name of the schema, for the operator.
impl fmt::Display for DjangoSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.username, self.auth_token, self.has_created_at, self.has_updated_at) {
            ("username", "auth_token", true, true) => "documented (with created_at and updated_at)",
            ("username", "auth_token", false, false) => "without timestamps",
            ("name", "verification_token", _, _) => "older (name and verification_token)",
            _ => "between two migrations",
        };
        f.write_str(name)
    }
}

#[derive(QueryableByName)]
pub(super) struct TextRow {
    #[diesel(sql_type = Text)]
    pub(super) value: String,
}

/// Returns the names of the table's columns; none if there is no such table.
pub(super) async fn columns(session: &mut Session) -> Result<Vec<String>, DatabaseError> {
    let rows: Vec<TextRow> = match session {
        Session::Sqlite(connection) => {
            let query = "SELECT name AS value FROM pragma_table_info('core_user') ORDER BY cid";
            sql_query(query).load(connection).await?
        }
        Session::Postgres(connection) => {
            let query = "SELECT attname::text AS value FROM pg_attribute \
                WHERE attrelid = to_regclass('core_user') AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
            sql_query(query).load(&mut **connection).await?
        }
    };
    Ok(rows.into_iter().map(|row| row.value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: &str) -> Result<String, String> {
        let columns: Vec<String> = columns.split(' ').map(str::to_owned).collect();
        DjangoSchema::of(&columns).map(|schema| schema.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_schema_that_the_backend_has_had_is_recognized() {
        for (columns, name) in [
            ("id username email password is_verified auth_token created_at updated_at", "documented"),
            ("id username email password is_verified auth_token", "without timestamps"),
            ("id name email password is_verified verification_token created_at", "older"),
            ("id username email password is_verified auth_token created_at", "between"),
        ] {
            assert!(schema(columns).unwrap().starts_with(name), "{columns}");
        }
    }

    #[test]
    fn a_table_with_other_columns_is_refused_and_the_error_names_them() {
        let error = schema("id username password last_login is_superuser").unwrap_err();
        for word in
            ["no column email", "no column auth_token or verification_token", "last_login, is_superuser"]
        {
            assert!(error.contains(word), "{error}");
        }
        assert!(
            schema("id name username email password is_verified auth_token").unwrap_err().contains("both")
        );
    }
}
