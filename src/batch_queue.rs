//! A first-in, first-out queue from which consumers take batches: all requests that wait, up to a limit.
//!
//! No timer delays a batch. Requests whose callers have gone are dropped.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// A request that can wait in a [`BatchQueue`].
pub(crate) trait Batched {
    /// Returns the size of the request, in the unit of the size of a batch.
    fn size(&self) -> usize;

    /// True if the caller has gone.
    fn is_cancelled(&self) -> bool;
}

/// The queue. `arrived` is notified when the queue becomes non-empty, and when a consumer leaves requests in
/// the queue. The notified consumer takes as many requests as fit into a batch.
pub(crate) struct BatchQueue<T> {
    waiting: Mutex<VecDeque<T>>,
    arrived: Notify,
    batch_size_max: usize,
    waiting_max: usize,
    /// Number of batches that were taken, and of the requests in them.
    batches: AtomicU64,
    requests: AtomicU64,
}

impl<T: Batched> BatchQueue<T> {
    /// Creates a queue for `waiting_max` requests, whose batches have at most the size `batch_size_max`. A
    /// larger request forms a batch of its own.
    pub(crate) fn new(batch_size_max: usize, waiting_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            batch_size_max,
            waiting_max,
            batches: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Returns the number of batches that were taken so far, and of the requests in them.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }

    /// Returns the number of requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Enqueues a request.
    ///
    /// # Errors
    /// The request, if the queue is full.
    pub(crate) fn push(&self, request: T) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.len() >= self.waiting_max {
            return Err(request);
        }
        waiting.push_back(request);
        let was_empty = waiting.len() == 1;
        drop(waiting);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for requests and takes those that fit into one batch, without those whose callers have gone.
    pub(crate) async fn batch(&self) -> Vec<T> {
        loop {
            self.arrived.notified().await;
            let batch = self.take();
            if !batch.is_empty() {
                self.batches.fetch_add(1, Ordering::Relaxed);
                self.requests.fetch_add(batch.len() as u64, Ordering::Relaxed);
                return batch;
            }
        }
    }

    fn take(&self) -> Vec<T> {
        let mut waiting = self.lock();
        let mut batch = Vec::with_capacity(waiting.len().min(self.batch_size_max));
        let mut size = 0;
        let fits = |request: &T, size| size == 0 || size + request.size() <= self.batch_size_max;
        while let Some(request) = waiting.pop_front_if(|request| fits(request, size)) {
            if !request.is_cancelled() {
                size += request.size();
                batch.push(request);
            }
        }
        let is_non_empty = !waiting.is_empty();
        drop(waiting);
        if is_non_empty {
            self.arrived.notify_one();
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // No code that holds the lock can leave the queue half changed, so a poisoned lock is usable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{self, Receiver, Sender};

    use super::*;

    struct Request {
        size: usize,
        reply: Sender<()>,
    }

    impl Batched for Request {
        fn size(&self) -> usize {
            self.size
        }

        fn is_cancelled(&self) -> bool {
            self.reply.is_closed()
        }
    }

    fn push(queue: &BatchQueue<Request>, size: usize) -> Receiver<()> {
        let (reply, answer) = oneshot::channel();
        assert!(queue.push(Request { size, reply }).is_ok());
        answer
    }

    fn sizes(batch: &[Request]) -> Vec<usize> {
        batch.iter().map(Request::size).collect()
    }

    #[tokio::test]
    async fn a_batch_takes_what_fits_in_the_order_of_arrival() {
        let queue = BatchQueue::new(10, 100);
        let answers = [6, 4, 1, 10, 3].map(|size| push(&queue, size));

        assert_eq!(sizes(&queue.batch().await), [6, 4]);
        assert_eq!(sizes(&queue.batch().await), [1]);
        assert_eq!(sizes(&queue.batch().await), [10]);
        assert_eq!(sizes(&queue.batch().await), [3]);
        drop(answers);
    }

    #[tokio::test]
    async fn requests_of_gone_callers_are_dropped_and_the_queue_empties() {
        let queue = BatchQueue::new(256, 10_000);
        let mut answers = Vec::new();
        for number in 0..10_000 {
            let answer = push(&queue, 1);
            // Three of ten callers go away before their request is taken.
            if number % 10 >= 3 {
                answers.push(answer);
            }
        }

        let mut taken = 0;
        while taken < answers.len() {
            let batch = queue.batch().await;
            taken += batch.len();
            for request in batch {
                request.reply.send(()).unwrap();
            }
        }

        assert!(queue.lock().is_empty());
        for answer in &mut answers {
            assert_eq!(answer.try_recv(), Ok(()));
        }
    }
}
