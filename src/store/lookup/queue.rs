//! The callers that wait for a lane.

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

/// A caller: what they ask for, and where the answer goes. The one who asks for one token, which is nearly everybody,
/// costs no list.
pub(super) enum Waiting {
    One {
        token: AuthToken,
        reply: Reply<Option<User>>,
    },
    /// The users that have these tokens, in the order of the tokens.
    Many {
        tokens: Vec<AuthToken>,
        reply: Reply<Vec<User>>,
    },
}

impl Waiting {
    pub(super) fn tokens(&self) -> &[AuthToken] {
        match self {
            Self::One { token, .. } => std::slice::from_ref(token),
            Self::Many { tokens, .. } => tokens,
        }
    }

    /// Whether the caller has gone.
    fn is_left(&self) -> bool {
        match self {
            Self::One { reply, .. } => reply.is_closed(),
            Self::Many { reply, .. } => reply.is_closed(),
        }
    }

    /// Looks each token up with `find`; the answer is sent later, by [`Answered::send`].
    pub(super) fn answer(
        self,
        mut find: impl FnMut(AuthToken) -> Result<Option<User>, StoreError>,
    ) -> Answered {
        match self {
            Self::One { token, reply } => Answered::One(reply, find(token)),
            Self::Many { tokens, reply } => {
                let users = tokens.into_iter().filter_map(|token| find(token).transpose());
                Answered::Many(reply, users.collect())
            }
        }
    }
}

/// An answer on its way.
pub(super) enum Answered {
    One(Reply<Option<User>>, Result<Option<User>, StoreError>),
    Many(Reply<Vec<User>>, Result<Vec<User>, StoreError>),
}

impl Answered {
    /// A caller who has gone meanwhile does not take it.
    pub(super) fn send(self) {
        match self {
            Self::One(reply, answer) => drop(reply.send(answer)),
            Self::Many(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// First come, first served. Whoever finds it not empty is told by `arrived`: the one who fills it and the one who leaves
/// something in it say so, and a lane that hears it takes all it may.
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    arrived: Notify,
    /// How many batches in a row held one caller.
    alone: AtomicUsize,
    batch_tokens_max: usize,
    waiting_max: usize,
}

/// After so many batches of one caller the next comes alone too, most likely, and is not made to wait for others.
const ALONE_MIN: usize = 4;

/// How often it is made to wait all the same, to see whether others come by now.
const ALONE_BETWEEN_PROBES: usize = 16;

impl Queue {
    pub(super) fn new(batch_tokens_max: usize, waiting_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            alone: AtomicUsize::new(0),
            batch_tokens_max,
            waiting_max,
        }
    }

    /// # Errors
    /// [`StoreError::Overloaded`] when too many wait.
    pub(super) fn push(&self, caller: Waiting) -> Result<(), StoreError> {
        self.try_push(caller).map_err(|(_, error)| error)
    }

    fn try_push(&self, caller: Waiting) -> Result<(), (Waiting, StoreError)> {
        let mut waiting = self.lock();
        if waiting.len() >= self.waiting_max {
            return Err((caller, StoreError::Overloaded));
        }
        waiting.push_back(caller);
        let fills = waiting.len() == 1;
        drop(waiting);
        if fills {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes over callers from another queue; those for whom there is no room are turned away.
    pub(super) fn pass_on(&self, callers: Vec<Waiting>) {
        for caller in callers {
            if let Err((caller, error)) = self.try_push(caller) {
                caller.answer(|_| Err(error.clone())).send();
            }
        }
    }

    /// Waits for callers and takes those whose tokens fit into one query, without those who have gone.
    pub(super) async fn batch(&self) -> Vec<Waiting> {
        loop {
            self.arrived.notified().await;
            let alone = self.alone.load(Ordering::Relaxed);
            if alone < ALONE_MIN || alone.is_multiple_of(ALONE_BETWEEN_PROBES) {
                let_others_ask().await;
            }
            let batch = self.take();
            if !batch.is_empty() {
                // Lanes that overwrite each other's count only guess worse for a moment.
                let alone = if batch.len() == 1 { alone.wrapping_add(1) } else { 0 };
                self.alone.store(alone, Ordering::Relaxed);
                return batch;
            }
        }
    }

    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.lock();
        let mut batch = Vec::with_capacity(waiting.len().min(self.batch_tokens_max));
        let mut tokens = 0;
        while let Some(caller) = waiting.front() {
            let fits = tokens == 0 || tokens + caller.tokens().len() <= self.batch_tokens_max;
            if !fits {
                break;
            }
            let Some(caller) = waiting.pop_front() else { break };
            if !caller.is_left() {
                tokens += caller.tokens().len();
                batch.push(caller);
            }
        }
        let leaves_some = !waiting.is_empty();
        drop(waiting);
        if leaves_some {
            self.arrived.notify_one();
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Nothing that could leave the queue half changed happens under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the tasks that are ready on this thread run first. Not `yield_now`, which asks the system for news each time: at 32
/// calls in flight that cost a tenth of the look-ups. Even so an idle thread of the runtime is woken for it, which a lone caller
/// would pay for.
async fn let_others_ask() {
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

    fn one(number: u128) -> (Waiting, Answer) {
        let (reply, answer) = oneshot::channel();
        (Waiting::One { token: AuthToken::from_uuid(uuid::Uuid::from_u128(number)), reply }, answer)
    }

    fn many(tokens: usize) -> (Waiting, Receiver<Result<Vec<User>, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Waiting::Many { tokens: vec![AuthToken::from_random([7; 16]); tokens], reply }, answer)
    }

    fn lengths(batch: &[Waiting]) -> Vec<usize> {
        batch.iter().map(|caller| caller.tokens().len()).collect()
    }

    #[tokio::test]
    async fn a_batch_holds_what_fits_in_the_order_of_arrival() {
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
    async fn who_has_gone_is_not_asked_for_and_leaves_nothing_behind() {
        let queue = Queue::new(256, 10_000);
        let mut answers = Vec::new();
        for number in 0..10_000 {
            let (caller, answer) = one(number);
            queue.push(caller).unwrap();
            // Three of ten go away, before a lane has taken them.
            if number % 10 >= 3 {
                answers.push(answer);
            }
        }

        let mut asked = 0;
        while asked < answers.len() {
            let batch = queue.batch().await;
            asked += batch.len();
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
    async fn who_is_passed_on_waits_here_or_is_turned_away() {
        let queue = Queue::new(10, 2);
        let (callers, mut answers): (Vec<_>, Vec<_>) = (0..3).map(one).unzip();

        queue.pass_on(callers);

        assert!(matches!(answers[2].try_recv(), Ok(Err(StoreError::Overloaded))));
        assert_eq!(queue.batch().await.len(), 2);
    }
}
