//! The timeline of a PostgreSQL server, by which a former primary is recognized.
//!
//! Each promotion of a standby begins a timeline with a higher number
//! (<https://www.postgresql.org/docs/15/continuous-archiving.html#BACKUP-TIMELINES>). A primary that was
//! frozen or cut off meanwhile stays on the earlier one. Until it is demoted, it accepts connections, and
//! lacks what the new primary has acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The newest timeline on which a primary was seen. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct NewestTimeline(Arc<AtomicI64>);

impl NewestTimeline {
    /// Takes the timeline of a primary.
    ///
    /// # Errors
    /// A text, if a primary was seen on a newer one.
    pub(super) fn admit(&self, timeline: i64) -> Result<(), String> {
        let newest = self.0.fetch_max(timeline, Ordering::Relaxed);
        if timeline < newest {
            return Err(format!(
                "the server is a former primary: its timeline is {timeline}, and another server was promoted \
                 and began timeline {newest}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_on_an_earlier_timeline_is_refused() {
        let newest = NewestTimeline::default();
        let of_another_pool = newest.clone();
        assert_eq!(newest.admit(1), Ok(()));
        assert_eq!(newest.admit(1), Ok(()));
        assert_eq!(of_another_pool.admit(2), Ok(()));
        assert!(newest.admit(1).unwrap_err().contains("timeline 2"));
        assert_eq!(newest.admit(2), Ok(()));
    }
}
