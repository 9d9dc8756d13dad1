//! The findings about rows, which the operator must see.

use diesel::{ExpressionMethods, QueryDsl, Queryable, RunQueryDsl, Selectable, SelectableHelper};

use super::{Survey, tables::finding};
use crate::database::DatabaseError;

/// Something about rows that the operator must see.
#[derive(Clone, Queryable, Selectable)]
#[diesel(table_name = finding)]
pub struct Finding {
    /// Sequence number.
    pub number: i64,
    /// Kind of the finding.
    pub kind: String,
    /// Ids of the rows, separated by commas. The last one is the row that is stopped or changed.
    pub rows: String,
    /// Description of the finding.
    pub words: String,
    /// True if this is a conflict that the operator has not decided.
    pub is_open: bool,
}

impl Survey {
    /// Records a finding about rows. An open finding of the first round stops the import.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn add_finding(
        &mut self,
        kind: &str,
        rows: &str,
        words: &str,
        is_open: bool,
    ) -> Result<(), DatabaseError> {
        diesel::insert_into(finding::table)
            .values((
                finding::kind.eq(kind),
                finding::rows.eq(rows),
                finding::words.eq(words),
                finding::is_open.eq(is_open),
            ))
            .execute(&mut self.connection)?;
        Ok(())
    }

    /// Returns at most `limit` findings in the order in which they were recorded, after the one with the
    /// number `after`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn findings(&mut self, after: i64, limit: i64) -> Result<Vec<Finding>, DatabaseError> {
        let query = finding::table
            .filter(finding::number.gt(after))
            .order(finding::number)
            .limit(limit)
            .select(Finding::as_select());
        Ok(query.load(&mut self.connection)?)
    }

    /// Returns the number of findings of each kind.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn count_findings(&mut self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.tally("SELECT kind AS name, count(*) AS count FROM finding GROUP BY kind ORDER BY kind")
    }

    /// Returns the number of open findings of each kind.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn count_open_findings(&mut self) -> Result<Vec<(String, u64)>, DatabaseError> {
        self.tally(
            "SELECT kind AS name, count(*) AS count FROM finding WHERE is_open GROUP BY kind ORDER BY kind",
        )
    }
}
