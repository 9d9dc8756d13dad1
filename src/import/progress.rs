//! Telling an operator how far a long work is.

use crate::store::Written;

/// What shows it: a bar on a terminal, lines in a log.
pub trait Progress {
    /// A part of the work begins, of `total` rows as far as is known.
    fn begin(&mut self, what: &'static str, total: u64);
    /// So many rows more are done.
    fn advance(&mut self, rows: u64);
    /// The part is done.
    fn end(&mut self);
    /// All is taken over for now, this much since the start; so many rows wait for a decision.
    fn follows(&mut self, written: Written, open: u64);
}

/// Tells nobody.
pub(super) struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &'static str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn follows(&mut self, _: Written, _: u64) {}
}
