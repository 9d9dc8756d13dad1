//! Copies a whole store into another one, of the same engine or the other: every table row by row, with a
//! checksum over each.
//!
//! In the target, `core_copy` records that rows are still missing. A copy that was stopped resumes after the
//! last row of each table. A table that the engines do not sort in the same order is small, and is copied
//! again from the start.

mod checksum;
mod error;
mod rows;
mod table;

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

pub use self::{error::CopyError, table::CopiedTable};
use crate::{
    database::{
        DatabaseError, DatabaseOptions,
        columns::TimestampColumn,
        read,
        session::{Session, on_session},
    },
    domain::Timestamp,
    store::{
        Store,
        schema::{core_audit_event, core_copy, core_session, core_user},
    },
};

/// Tables whose `id` the database generates.
const TABLES_WITH_GENERATED_ID: [&str; 4] =
    ["core_user", "core_mail_token", "core_mail_outbox", "core_audit_event"];

/// A copy between two stores with the schema of this release.
pub struct StoreCopy {
    source: Session,
    target: Session,
}

impl StoreCopy {
    /// Connects to both stores, and starts a copy or resumes an unfinished one. The source is copied as it is
    /// now, even if it is written to meanwhile.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`] when the target has rows but no unfinished copy; [`CopyError::Store`].
    pub async fn begin(
        source: &DatabaseOptions,
        target: &DatabaseOptions,
        now: Timestamp,
    ) -> Result<Self, CopyError> {
        let mut source = Session::read_only(source).await?;
        source.begin_snapshot().await?;
        let mut target = Session::read_write(target).await?;
        let unfinished: bool = on_session!(&mut target, connection => {
            let unfinished = core_copy::table.filter(core_copy::finished_at.is_null());
            diesel::select(diesel::dsl::exists(unfinished)).get_result(connection).await?
        });
        if !unfinished {
            rows::refuse_rows(&mut target).await?;
            on_session!(&mut target, connection => {
                let row = core_copy::started_at.eq(TimestampColumn(now));
                diesel::insert_into(core_copy::table).values(row).execute(connection).await?;
            });
        }
        Ok(Self { source, target })
    }

    /// Returns the number of rows in the largest tables of the source, for the progress display.
    ///
    /// # Errors
    /// [`CopyError::Store`]
    pub async fn count(&mut self) -> Result<u64, CopyError> {
        let mut rows = 0;
        on_session!(&mut self.source, connection => {
            let counts: [i64; 3] = [
                core_user::table.count().get_result(connection).await?,
                core_session::table.count().get_result(connection).await?,
                core_audit_event::table.count().get_result(connection).await?,
            ];
            rows += counts.iter().sum::<i64>();
        });
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    /// Copies all tables, compares both sides, and marks the copy as finished, so that the target can be
    /// served. Calls `progress` after each batch with the table and the number of rows.
    ///
    /// # Errors
    /// [`CopyError::Different`] or [`CopyError::Store`]. The target cannot be served then. After
    /// [`CopyError::Store`], another copy resumes.
    pub async fn run(
        mut self,
        now: Timestamp,
        mut progress: impl FnMut(&'static str, u64),
    ) -> Result<Vec<CopiedTable>, CopyError> {
        let tables = rows::copy_all(&mut self.source, &mut self.target, &mut progress).await?;
        for table in TABLES_WITH_GENERATED_ID {
            self.target.advance_id(table).await?;
        }
        on_session!(&mut self.target, connection => {
            let unfinished = core_copy::table.filter(core_copy::finished_at.is_null());
            diesel::update(unfinished)
                .set(core_copy::finished_at.eq(Some(TimestampColumn(now))))
                .execute(connection)
                .await?;
        });
        Ok(tables)
    }
}

impl Store {
    /// True if a copy into this store has not finished, so that rows are missing.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn has_unfinished_copy(&self) -> Result<bool, DatabaseError> {
        read!(&self.connections, connection => {
            let unfinished = core_copy::table.filter(core_copy::finished_at.is_null());
            Ok(diesel::select(diesel::dsl::exists(unfinished)).get_result(connection).await?)
        })
    }
}
