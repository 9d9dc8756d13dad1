//! Copies the rows of one table and compares both sides.

use super::{checksum, error::CopyError};
use crate::database::{DatabaseError, session::Session};

/// A row of a table that is copied.
pub(super) trait CopiedRow: Clone {
    /// Name of the table.
    const TABLE: &'static str;
    /// True if both engines sort the rows in the same order, so that a copy can resume after the last row of
    /// the target.
    const HAS_SAME_ORDER: bool;

    /// Returns the next rows after `after` in the order of the key.
    async fn page(session: &mut Session, after: Option<&Self>) -> Result<Vec<Self>, DatabaseError>;
    /// Returns the last row in the order of the key.
    async fn last(session: &mut Session) -> Result<Option<Self>, DatabaseError>;
    /// Deletes all rows.
    async fn clear(session: &mut Session) -> Result<(), DatabaseError>;
    /// Inserts rows.
    async fn write(session: &mut Session, rows: &[Self]) -> Result<(), DatabaseError>;
    /// Returns the SHA-256 of all values.
    fn digest(&self) -> [u8; 32];
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

/// Copies the missing rows of a table, or all rows again if both engines sort them differently
/// ([`CopiedRow::HAS_SAME_ORDER`]). Returns the table with its checksum.
///
/// # Errors
/// [`CopyError::Different`] if the checksums of both sides differ; or a database error.
pub(super) async fn copy_table<R: CopiedRow>(
    source: &mut Session,
    target: &mut Session,
    progress: &mut impl FnMut(&'static str, u64),
) -> Result<CopiedTable, CopyError> {
    if !R::HAS_SAME_ORDER {
        R::clear(target).await?;
    }
    let mut after = R::last(target).await?;
    loop {
        let rows = R::page(source, after.as_ref()).await?;
        if rows.is_empty() {
            break;
        }
        target.begin().await?;
        R::write(target, &rows).await?;
        target.commit().await?;
        progress(R::TABLE, rows.len() as u64);
        after = rows.last().cloned();
    }
    let copied = table_checksum::<R>(target).await?;
    if copied == table_checksum::<R>(source).await? {
        Ok(copied)
    } else {
        Err(CopyError::Different(R::TABLE))
    }
}

/// Returns the table with the checksum of its rows.
async fn table_checksum<R: CopiedRow>(session: &mut Session) -> Result<CopiedTable, DatabaseError> {
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
