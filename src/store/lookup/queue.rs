//! Look-ups that wait for a lane.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use tokio::sync::{Notify, oneshot};

use crate::{
    domain::{AuthToken, User},
    store::StoreError,
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A waiting look-up: its tokens, and the channel for the answer. Most look-ups are for one token and need no
/// list.
pub(super) enum PendingLookup {
    One {
        token: AuthToken,
        reply: Reply<Option<User>>,
    },
    /// Look-up of the users with these tokens, in the order of the tokens.
    Many {
        tokens: Vec<AuthToken>,
        reply: Reply<Vec<User>>,
    },
}

impl PendingLookup {
    pub(super) fn tokens(&self) -> &[AuthToken] {
        match self {
            Self::One { token, .. } => std::slice::from_ref(token),
            Self::Many { tokens, .. } => tokens,
        }
    }

    /// True if the caller has gone.
    fn is_cancelled(&self) -> bool {
        match self {
            Self::One { reply, .. } => reply.is_closed(),
            Self::Many { reply, .. } => reply.is_closed(),
        }
    }

    /// Looks up each token with `find`. [`ReadyAnswer::send`] sends the answer later.
    pub(super) fn answer(
        self,
        mut find: impl FnMut(AuthToken) -> Result<Option<User>, StoreError>,
    ) -> ReadyAnswer {
        match self {
            Self::One { token, reply } => ReadyAnswer::One(reply, find(token)),
            Self::Many { tokens, reply } => {
                let users = tokens.into_iter().filter_map(|token| find(token).transpose());
                ReadyAnswer::Many(reply, users.collect())
            }
        }
    }
}

/// An answer that is ready to be sent.
pub(super) enum ReadyAnswer {
    One(Reply<Option<User>>, Result<Option<User>, StoreError>),
    Many(Reply<Vec<User>>, Result<Vec<User>, StoreError>),
}

impl ReadyAnswer {
    /// Sends the answer. If the caller has gone meanwhile, the answer is dropped.
    pub(super) fn send(self) {
        match self {
            Self::One(reply, answer) => drop(reply.send(answer)),
            Self::Many(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// A first-in, first-out queue. `arrived` is notified when the queue becomes non-empty, and when a lane
/// leaves look-ups in it; the lane that is notified takes as many as fit into a batch.
pub(super) struct Queue {
    waiting: Mutex<VecDeque<PendingLookup>>,
    arrived: Notify,
    /// Number of consecutive batches with a single look-up.
    single_batches: AtomicUsize,
    batch_tokens_max: usize,
    waiting_max: usize,
}

/// After this many single batches in a row the next one is probably single too, so the lane takes it without
/// yielding first.
const SINGLE_BATCHES_MIN: usize = 4;

/// Every this many single batches the lane yields all the same, to notice that more look-ups arrive together.
const SINGLE_BATCHES_PER_YIELD: usize = 16;

impl Queue {
    pub(super) fn new(batch_tokens_max: usize, waiting_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            single_batches: AtomicUsize::new(0),
            batch_tokens_max,
            waiting_max,
        }
    }

    /// Enqueues a look-up.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when too many look-ups wait.
    pub(super) fn push(&self, caller: PendingLookup) -> Result<(), StoreError> {
        self.try_push(caller).map_err(|(_, error)| error)
    }

    fn try_push(&self, caller: PendingLookup) -> Result<(), (PendingLookup, StoreError)> {
        let mut waiting = self.lock();
        if waiting.len() >= self.waiting_max {
            return Err((caller, StoreError::Overloaded));
        }
        waiting.push_back(caller);
        let was_empty = waiting.len() == 1;
        drop(waiting);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Enqueues look-ups of another queue. Those that exceed the limit are answered with
    /// [`StoreError::Overloaded`].
    pub(super) fn push_all(&self, callers: Vec<PendingLookup>) {
        for caller in callers {
            if let Err((caller, error)) = self.try_push(caller) {
                caller.answer(|_| Err(error.clone())).send();
            }
        }
    }

    /// Waits for look-ups and takes those that fit into one query, without those whose callers have gone.
    pub(super) async fn batch(&self) -> Vec<PendingLookup> {
        loop {
            self.arrived.notified().await;
            let single_batches = self.single_batches.load(Ordering::Relaxed);
            if single_batches < SINGLE_BATCHES_MIN || single_batches.is_multiple_of(SINGLE_BATCHES_PER_YIELD)
            {
                yield_to_ready_tasks().await;
            }
            let batch = self.take();
            if !batch.is_empty() {
                // Lanes may overwrite each other's count; the guess is then worse for a moment.
                let single_batches = if batch.len() == 1 { single_batches.wrapping_add(1) } else { 0 };
                self.single_batches.store(single_batches, Ordering::Relaxed);
                return batch;
            }
        }
    }

    fn take(&self) -> Vec<PendingLookup> {
        let mut waiting = self.lock();
        let mut batch = Vec::with_capacity(waiting.len().min(self.batch_tokens_max));
        let mut tokens = 0;
        while let Some(caller) = waiting.front() {
            let fits = tokens == 0 || tokens + caller.tokens().len() <= self.batch_tokens_max;
            if !fits {
                break;
            }
            let Some(caller) = waiting.pop_front() else { break };
            if !caller.is_cancelled() {
                tokens += caller.tokens().len();
                batch.push(caller);
            }
        }
        let is_non_empty = !waiting.is_empty();
        drop(waiting);
        if is_non_empty {
            self.arrived.notify_one();
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<PendingLookup>> {
        // No code that holds the lock can leave the queue half changed, so a poisoned lock is usable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the tasks that are ready on this thread run first. `yield_now` is not used: it polls the I/O driver
/// each time, which cost a tenth of the look-ups at 32 calls in flight. Even this yield wakes an idle thread
/// of the runtime, a cost that a single caller would pay for nothing.
async fn yield_to_ready_tasks() {
    let mut have_run = false;
    poll_fn(|context| {
        if std::mem::replace(&mut have_run, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;

    type Answer = Receiver<Result<Option<User>, StoreError>>;

    fn one(number: u128) -> (PendingLookup, Answer) {
        let (reply, answer) = oneshot::channel();
        (PendingLookup::One { token: AuthToken::from_uuid(uuid::Uuid::from_u128(number)), reply }, answer)
    }

    fn many(tokens: usize) -> (PendingLookup, Receiver<Result<Vec<User>, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (PendingLookup::Many { tokens: vec![AuthToken::from_random([7; 16]); tokens], reply }, answer)
    }

    fn lengths(batch: &[PendingLookup]) -> Vec<usize> {
        batch.iter().map(|caller| caller.tokens().len()).collect()
    }

    #[tokio::test]
    async fn a_batch_takes_what_fits_in_the_order_of_arrival() {
        let queue = Queue::new(10, 100);
        let answers: Vec<_> = [6, 4, 1, 10, 3]
            .map(many)
            .map(|(caller, answer)| {
                queue.push(caller).unwrap();
                answer
            })
            .into();

        assert_eq!(lengths(&queue.batch().await), [6, 4]);
        assert_eq!(lengths(&queue.batch().await), [1]);
        assert_eq!(lengths(&queue.batch().await), [10]);
        assert_eq!(lengths(&queue.batch().await), [3]);
        drop(answers);
    }

    #[tokio::test]
    async fn lookups_of_gone_callers_are_dropped_and_the_queue_empties() {
        let queue = Queue::new(256, 10_000);
        let mut answers = Vec::new();
        for number in 0..10_000 {
            let (caller, answer) = one(number);
            queue.push(caller).unwrap();
            // Three of ten callers go away before a lane takes their look-up.
            if number % 10 >= 3 {
                answers.push(answer);
            }
        }

        let mut taken = 0;
        while taken < answers.len() {
            let batch = queue.batch().await;
            taken += batch.len();
            for caller in batch {
                caller.answer(|_| Ok(None)).send();
            }
        }

        assert!(queue.lock().is_empty());
        for answer in &mut answers {
            assert!(matches!(answer.try_recv(), Ok(Ok(None))));
        }
    }

    #[tokio::test]
    async fn lookups_of_another_queue_are_enqueued_or_refused() {
        let queue = Queue::new(10, 2);
        let (callers, mut answers): (Vec<_>, Vec<_>) = (0..3).map(one).unzip();

        queue.push_all(callers);

        assert!(matches!(answers[2].try_recv(), Ok(Err(StoreError::Overloaded))));
        assert_eq!(queue.batch().await.len(), 2);
    }
}
