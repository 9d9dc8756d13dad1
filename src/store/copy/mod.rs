//! A whole store into another one, of either engine: every table, row by row, and a checksum over each.
//!
//! `core_copy` says in the target that rows are still missing. A copy that was stopped goes on behind the last row of each table; in tables
//! whose order the engines do not share, and which are small, it begins anew.

mod checksum;
mod rows;

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use self::rows::CopiedRow;
use super::{
    Store, StoreError, StoreOptions,
    columns::TimestampColumn,
    connection::{
        read,
        session::{Session, on_session},
    },
    schema::{core_audit_event, core_copy, core_session, core_user},
};
use crate::domain::Timestamp;

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of them does not answer, or refused a statement.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are rows in the target that no copy has begun to write.
    #[error("the target is not empty: its table {0} has rows, and nothing was written")]
    NotEmpty(&'static str),
    /// The target holds something else than the source.
    #[error(
        "the table {0} of the target is not that of the source: the source has changed since an earlier copy was stopped, or somebody writes to one \
         of them; begin anew with an empty target"
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
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// The sum of the SHA-256 of its rows modulo 2^256: the same on both engines, in whatever order the rows are.
    pub checksum: [u8; 32],
}

/// Tables whose rows get their key from the database.
const NUMBERED: [&str; 4] = ["core_user", "core_mail_token", "core_mail_outbox", "core_audit_event"];

/// Two stores of this release's schema.
pub struct StoreCopy {
    source: Session,
    target: Session,
}

impl StoreCopy {
    /// Connects to both, and begins to fill the target or goes on; a source that is written to meanwhile is copied as it is now.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`] when the target has rows that no unfinished copy has written; or [`CopyError::Store`].
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

    /// How many rows the largest tables of the source have, for the progress.
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

    /// Copies all tables, compares both sides, and lets the target be served; tells of each batch of rows by its table.
    ///
    /// # Errors
    /// [`CopyError::Different`], or [`CopyError::Store`]: the target is not to be served then, and another copy goes on with it.
    pub async fn run(
        mut self,
        now: Timestamp,
        mut progress: impl FnMut(&'static str, u64),
    ) -> Result<Vec<CopiedTable>, CopyError> {
        let tables = rows::copy_all(&mut self, &mut progress).await?;
        for table in NUMBERED {
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

    /// Copies what is missing in a table, and gives it with its checksum.
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
        let copied = sum_up::<R>(&mut self.target).await?;
        if copied == sum_up::<R>(&mut self.source).await? {
            Ok(copied)
        } else {
            Err(CopyError::Different(R::TABLE))
        }
    }
}

async fn sum_up<R: CopiedRow>(session: &mut Session) -> Result<CopiedTable, StoreError> {
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
    /// Whether rows are missing that a copy into this store has not written yet.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn is_half_copied(&self) -> Result<bool, StoreError> {
        read!(&self.connections, connection => {
            let unfinished = core_copy::table.filter(core_copy::finished_at.is_null());
            Ok(diesel::select(diesel::dsl::exists(unfinished)).get_result(connection).await?)
        })
    }
}
