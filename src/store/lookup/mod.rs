//! Look-ups by `auth_token`, coalesced: those that arrive while a query runs travel together in the next one.
//!
//! There is no cache, so there is nothing to invalidate and no answer is stale. A lane takes what waits, up to a limit,
//! asks the database once and gives each caller their own rows; it waits for nobody, so that a lone call leaves at once.

mod lane;
mod queue;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use self::{
    lane::{postgres, replica, sqlite},
    queue::{Queue, Reply, Waiting},
};
use super::{
    Store, StoreError,
    connection::{Connections, replicas::Replicas},
};
use crate::domain::{AuthToken, User};

thread_local! {
    /// Threads by the order in which they first looked something up.
    static THREAD_NUMBER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// How look-ups are gathered.
#[derive(Debug, Clone, Copy)]
pub struct LookupOptions {
    /// How many tokens one query holds at most.
    pub batch_tokens_max: usize,
    /// How many queries run at once.
    pub lanes: usize,
    /// How many look-ups may wait for a lane before callers are turned away; on SQLite shared out among the lanes.
    pub waiting_max: usize,
}

/// The queues and their lanes, which end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Lookup {
    queues: Queues,
    /// How long a caller waits for a lane and its query together, where the server may be silent.
    answer_timeout: Option<Duration>,
    batch_tokens_max: usize,
    _lanes: Arc<JoinSet<()>>,
}

#[derive(Clone)]
enum Queues {
    /// One for the callers of each thread of the runtime, and for each a lane, which as a rule runs on that thread.
    Sqlite(Arc<[Arc<Queue>]>),
    /// One for all, since a query costs a trip to the server however few it carries; and one for the replicas.
    Postgres { primary: Arc<Queue>, replicas: Option<(Arc<Replicas>, Arc<Queue>)> },
}

impl Lookup {
    /// Starts the lanes; call within a runtime.
    pub(super) fn start(
        connections: &Connections,
        replicas: Option<Replicas>,
        options: LookupOptions,
    ) -> Result<Self, StoreError> {
        let mut lanes = JoinSet::new();
        let queue = |waiting_max| Arc::new(Queue::new(options.batch_tokens_max, waiting_max));
        let (queues, answer_timeout) = match connections {
            Connections::Sqlite(threads) => {
                let count = options.lanes.clamp(1, Handle::current().metrics().num_workers());
                let queues: Arc<[_]> =
                    (0..count).map(|_| queue(options.waiting_max.div_ceil(count))).collect();
                for queue in &*queues {
                    lanes.spawn(sqlite::run(sqlite::Lane::open(threads.options())?, Arc::clone(queue)));
                }
                (Queues::Sqlite(queues), None)
            }
            Connections::Postgres(pool) => {
                let primary = queue(options.waiting_max);
                let replicas = replicas.map(|replicas| (Arc::new(replicas), queue(options.waiting_max)));
                for _ in 0..options.lanes {
                    lanes.spawn(postgres::run(pool.clone(), Arc::clone(&primary)));
                }
                if let Some((replicas, queue)) = &replicas {
                    let (watched, primary_pool) = (Arc::clone(replicas), pool.clone());
                    lanes.spawn(async move { watched.watch(&primary_pool).await });
                    for _ in 0..options.lanes {
                        let (replicas, queue) = (Arc::clone(replicas), Arc::clone(queue));
                        lanes.spawn(replica::run(replicas, queue, Arc::clone(&primary)));
                    }
                }
                (Queues::Postgres { primary, replicas }, Some(pool.answer_timeout()))
            }
        };
        let batch_tokens_max = options.batch_tokens_max;
        Ok(Self { queues, answer_timeout, batch_tokens_max, _lanes: Arc::new(lanes) })
    }

    /// Where a caller of this thread waits.
    fn queue(&self) -> &Queue {
        match &self.queues {
            Queues::Sqlite(queues) => {
                let number = THREAD_NUMBER.with(|number| *number) % queues.len();
                queues.get(number).expect("a remainder is smaller than its divisor")
            }
            Queues::Postgres { replicas: Some((replicas, queue)), .. } if replicas.any() => queue,
            Queues::Postgres { primary, .. } => primary,
        }
    }

    async fn ask<T>(&self, caller: impl FnOnce(Reply<T>) -> Waiting) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue().push(caller(reply))?;
        let answer = match self.answer_timeout {
            Some(limit) => timeout(limit, answer).await.map_err(StoreError::unavailable)?,
            None => answer.await,
        };
        answer.map_err(|_| StoreError::unavailable("the look-up panicked"))?
    }
}

impl Store {
    /// The user with this `auth_token`.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when too many wait; [`StoreError::Unavailable`] when the database does not answer.
    pub async fn find_user_by_auth_token(&self, token: AuthToken) -> Result<Option<User>, StoreError> {
        self.lookup.ask(|reply| Waiting::One { token, reply }).await
    }

    /// The users with these `auth_token`s in their order; a token that nobody has is left out, one that comes twice gives
    /// its user twice.
    ///
    /// # Errors
    /// As [`Store::find_user_by_auth_token`].
    pub async fn find_users_by_auth_tokens(&self, tokens: &[AuthToken]) -> Result<Vec<User>, StoreError> {
        let ask = |part: &[AuthToken]| {
            let tokens = part.to_vec();
            self.lookup.ask(move |reply| Waiting::Many { tokens, reply })
        };
        let parts = tokens.chunks(self.lookup.batch_tokens_max).map(ask);
        let users = futures_util::future::try_join_all(parts).await?;
        Ok(users.into_iter().flatten().collect())
    }
}
