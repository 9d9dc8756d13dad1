//! Copies a whole store into another one, of the same engine or the other: every table row by row, with a
//! checksum over each.
//!
//! In the target, `core_copy` records that rows are still missing. A copy that was stopped resumes after the
//! last row of each table. A table that the engines do not sort in the same order is small, and is copied
//! again from the start.

mod checksum;
mod rows;

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use self::rows::CopiedRow;
use crate::{
    domain::Timestamp,
    store::{
        Store, StoreError, StoreOptions,
        columns::TimestampColumn,
        connection::{
            read,
            session::{Session, on_session},
        },
        schema::{core_audit_event, core_copy, core_session, core_user},
    },
};

/// Reasons why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the stores does not answer, or rejected a statement.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target has rows, but no unfinished copy.
    #[error("the target is not empty: its table {0} has rows; nothing was written")]
    NotEmpty(&'static str),
    /// A table of the target has other rows than that of the source.
    #[error(
        "table {0} differs between source and target: the source has changed since an earlier copy was stopped, \
        or another process writes to one of them; start again with an empty target"
    )]
    Different(&'static str),
}

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A table that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// Name of the table.
    pub name: &'static str,
    /// Number of its rows.
    pub rows: u64,
    /// Sum of the SHA-256 of its rows modulo 2^256: the same on both engines and for any order of the rows.
    pub checksum: [u8; 32],
}

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
        source: &StoreOptions,
        target: &StoreOptions,
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
    /// [`CopyError::Different`] or [`CopyError::Store`]. The target cannot be served then, and another copy
    /// resumes.
    pub async fn run(
        mut self,
        now: Timestamp,
        mut progress: impl FnMut(&'static str, u64),
    ) -> Result<Vec<CopiedTable>, CopyError> {
        let tables = rows::copy_all(&mut self, &mut progress).await?;
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

    /// Copies the missing rows of a table and returns the table with its checksum.
    async fn copy_table<R: CopiedRow>(
        &mut self,
        progress: &mut impl FnMut(&'static str, u64),
    ) -> Result<CopiedTable, CopyError> {
        if !R::HAS_SAME_ORDER {
            R::clear(&mut self.target).await?;
        }
        let mut after = R::last(&mut self.target).await?;
        loop {
            let rows = R::page(&mut self.source, after.as_ref()).await?;
            if rows.is_empty() {
                break;
            }
            self.target.begin().await?;
            R::write(&mut self.target, &rows).await?;
            self.target.commit().await?;
            progress(R::TABLE, rows.len() as u64);
            after = rows.last().cloned();
        }
        let copied = table_checksum::<R>(&mut self.target).await?;
        if copied == table_checksum::<R>(&mut self.source).await? {
            Ok(copied)
        } else {
            Err(CopyError::Different(R::TABLE))
        }
    }
}

async fn table_checksum<R: CopiedRow>(session: &mut Session) -> Result<CopiedTable, StoreError> {
    let mut table = CopiedTable { name: R::TABLE, rows: 0, checksum: [0; 32] };
    let mut after: Option<R> = None;
    loop {
        let rows = R::page(session, after.as_ref()).await?;
        if rows.is_empty() {
            return Ok(table);
        }
        for row in &rows {
            table.rows += 1;
            checksum::add(&mut table.checksum, &row.digest());
        }
        after = rows.last().cloned();
    }
}

impl Store {
    /// True if a copy into this store has not finished, so that rows are missing.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn has_unfinished_copy(&self) -> Result<bool, StoreError> {
        read!(&self.connections, connection => {
            let unfinished = core_copy::table.filter(core_copy::finished_at.is_null());
            Ok(diesel::select(diesel::dsl::exists(unfinished)).get_result(connection).await?)
        })
    }
}
