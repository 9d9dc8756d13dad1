//! The versions of migrations, and the table that records them.

use std::collections::BTreeSet;

use diesel::{
    backend::Backend,
    migration::{Migration, MigrationSource},
};

use super::error::MigrateError;
use crate::database::Cause;

diesel::table! {
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

diesel::table! {
    kairos_schema_compatibility (id) {
        id -> Integer,
        oldest_compatible -> Text,
    }
}

/// Versions of migrations. They sort in the order in which the migrations run.
pub(super) type Versions = BTreeSet<String>;

/// Returns the versions of these migrations.
pub(super) fn versions<B: Backend>(migrations: &impl MigrationSource<B>) -> Result<Versions, MigrateError> {
    let migrations = migrations.migrations().map_err(|error| MigrateError::Broken(Cause::new(error)))?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).collect())
}
