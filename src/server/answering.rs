//! Counts the calls of a connection that are being answered, so that answers that the peer does not read
//! delay no stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How long, at shutdown, a peer may take to read the answers of its calls.
pub(super) const READING_TIME: Duration = Duration::from_secs(5);

/// The time between two looks at the count, after that time.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The calls of one connection that are being answered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering(Arc<AtomicUsize>);

impl Answering {
    /// Counts a call until the returned value is dropped.
    pub(super) fn begin(&self) -> AnswerInProgress<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        AnswerInProgress(&self.0)
    }

    /// Waits until the peer had this time to read, and then until no call is being answered.
    pub(super) async fn is_over_after(&self, reading_time: Duration) {
        tokio::time::sleep(reading_time).await;
        while self.0.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A call that is being answered.
#[derive(Debug)]
pub(super) struct AnswerInProgress<'a>(&'a AtomicUsize);

impl Drop for AnswerInProgress<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_being_answered_has_all_the_time_and_its_answer_has_some() {
        let answering = Answering::default();
        let call = answering.begin();
        let reading_time = Duration::from_millis(10);
        let mut is_over = std::pin::pin!(answering.is_over_after(reading_time));
        let more_time = LOOK_INTERVAL * 2;
        assert!(timeout(more_time, is_over.as_mut()).await.is_err());
        drop(call);
        is_over.await;
    }
}
