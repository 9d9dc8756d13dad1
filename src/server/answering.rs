//! Counts the calls of a connection that are being answered, so that answers that the peer does not read
//! delay no stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// How long, at shutdown, a peer may take to read the answer of its last call.
const READING_TIME: Duration = Duration::from_secs(5);

/// The time between two checks of the count.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The calls of one connection that are being answered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Answering(Arc<AtomicUsize>);

impl Answering {
    /// Counts a call until the returned value is dropped.
    pub(super) fn begin(&self) -> AnswerInProgress<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        AnswerInProgress(&self.0)
    }

    /// Waits for the stop, and then until the peer has had 5 s to read the answer of its last call.
    pub(super) async fn reading_time_over(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        self.without_call_for(READING_TIME).await;
    }

    /// Waits until no call has been answered for `time`.
    async fn without_call_for(&self, time: Duration) {
        let mut without_call = Duration::ZERO;
        while without_call < time {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let is_answering = self.0.load(Ordering::Relaxed) > 0;
            without_call = if is_answering { Duration::ZERO } else { without_call + CHECK_INTERVAL };
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
    use crate::clock::Clock;

    #[tokio::test]
    async fn the_time_to_read_an_answer_begins_when_the_call_is_answered() {
        let answering = Answering::default();
        let call = answering.begin();
        let reading_time = CHECK_INTERVAL * 3;
        let mut is_over = std::pin::pin!(answering.without_call_for(reading_time));
        assert!(timeout(reading_time * 2, is_over.as_mut()).await.is_err());
        let (clock, answered) = (Clock::system(), Clock::system().instant());
        drop(call);
        is_over.await;
        assert!(clock.instant() - answered + CHECK_INTERVAL >= reading_time);
    }
}
