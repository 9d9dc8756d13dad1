//! Shows the operator how far a long command has come.

use super::records::WrittenUsers;

/// A display of the progress: a bar on a terminal, or lines in a log.
pub trait Progress {
    /// Starts a phase of the work with about `total` rows.
    fn begin(&mut self, what: &'static str, total: u64);
    /// Reports that this many more rows are done.
    fn advance(&mut self, rows: u64);
    /// Ends the phase.
    fn end(&mut self);
    /// Reports after a round of `--follow`: the users written since the start, and the number of open
    /// conflicts.
    fn report_round(&mut self, written: WrittenUsers, open: u64);
}

/// Shows nothing.
pub(super) struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &'static str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn report_round(&mut self, _: WrittenUsers, _: u64) {}
}
