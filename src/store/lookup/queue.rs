//! The callers that wait for a lane.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
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
    batch_tokens_max: usize,
    waiting_max: usize,
}

impl Queue {
    pub(super) fn new(batch_tokens_max: usize, waiting_max: usize) -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), batch_tokens_max, waiting_max }
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
            let_others_ask().await;
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    /// Fails all who wait.
    pub(super) fn fail(&self, error: &StoreError) {
        let waiting = std::mem::take(&mut *self.lock());
        for caller in waiting {
            caller.answer(|_| Err(error.clone())).send();
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

/// Lets the tasks that are ready on this thread run first. Not `yield_now`, which also waits for what the system has to say.
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
