//! Coalesced look-ups by `auth_token`: look-ups that arrive while a batch is looked up form the next batch.
//!
//! There is no cache, so nothing needs invalidation. Only a replica may be behind. A lane takes the waiting
//! look-ups up to a limit and answers each with its own rows. On PostgreSQL a batch is one query, on SQLite
//! one statement per token in one transaction. No timer delays a batch, so a single look-up starts
//! immediately.

mod find;
mod lane;
mod metrics;
mod pending;

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
    pending::{PendingLookup, Queue, Reply},
};
use crate::database::{Connections, DatabaseError, ReplicaState, replicas::Replicas};

thread_local! {
    /// Number of the thread, in the order in which threads made their first look-up.
    static THREAD_NUMBER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// Limits of coalescing.
#[derive(Debug, Clone, Copy)]
pub struct LookupOptions {
    /// Largest number of tokens in one batch.
    pub batch_tokens_max: usize,
    /// Number of lanes, each of which looks up one batch at a time. SQLite uses at most one per thread of the
    /// runtime. If there are replicas, they get the same number of lanes in addition.
    pub lanes: usize,
    /// Largest number of look-ups that wait for a lane. Beyond it, calls fail with
    /// [`DatabaseError::Overloaded`]. On SQLite the lanes share the number equally.
    pub waiting_max: usize,
}

/// The queues and their lanes. The lanes end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Lookup {
    /// On SQLite one queue per lane: callers on the same thread of the runtime share a queue, and its lane
    /// usually runs on that thread. On PostgreSQL one queue for all callers, since a query costs a round trip
    /// however few tokens it has.
    queues: Arc<[Arc<Queue>]>,
    /// The replicas, and the queue for callers while at least one of them is in use.
    replicas: Option<(Arc<Replicas>, Arc<Queue>)>,
    /// Time limit on waiting for a lane and for its query; `None` on SQLite, which has no server that may not
    /// answer.
    answer_timeout: Option<Duration>,
    batch_tokens_max: usize,
    _lanes: Arc<JoinSet<()>>,
}

impl Lookup {
    /// Starts the lanes. Must be called within a runtime.
    pub(super) fn start(
        connections: &Connections,
        replicas: Option<Replicas>,
        options: LookupOptions,
    ) -> Result<Self, DatabaseError> {
        let mut lanes = JoinSet::new();
        let queue = |waiting_max| Arc::new(Queue::new(options.batch_tokens_max, waiting_max));
        let replicas = replicas.map(|replicas| (Arc::new(replicas), queue(options.waiting_max)));
        let (queues, answer_timeout) = match connections {
            Connections::Sqlite(threads) => {
                let count = options.lanes.clamp(1, Handle::current().metrics().num_workers());
                let queues: Arc<[_]> =
                    (0..count).map(|_| queue(options.waiting_max.div_ceil(count))).collect();
                for queue in &*queues {
                    lanes.spawn(sqlite::run(sqlite::Lane::open(threads)?, Arc::clone(queue)));
                }
                (queues, None)
            }
            Connections::Postgres(pool) => {
                let primary = queue(options.waiting_max);
                for _ in 0..options.lanes {
                    lanes.spawn(postgres::run(pool.clone(), Arc::clone(&primary)));
                }
                if let Some((replicas, queue)) = &replicas {
                    let watched = Arc::clone(replicas);
                    lanes.spawn(async move { watched.watch().await });
                    for _ in 0..options.lanes {
                        let (replicas, queue) = (Arc::clone(replicas), Arc::clone(queue));
                        lanes.spawn(replica::run(replicas, queue, Arc::clone(&primary)));
                    }
                }
                (Arc::from([primary]), Some(pool.answer_timeout()))
            }
        };
        let batch_tokens_max = options.batch_tokens_max;
        Ok(Self { queues, replicas, answer_timeout, batch_tokens_max, _lanes: Arc::new(lanes) })
    }

    /// Waits until the replicas had time to be found current, and returns the state of each.
    pub(super) async fn replicas_after_start(&self) -> Vec<ReplicaState> {
        match &self.replicas {
            Some((replicas, _)) => replicas.states_after_start().await,
            None => Vec::new(),
        }
    }

    /// Returns the queue for a caller on the current thread: that of the replicas while one of them is in
    /// use.
    fn queue(&self) -> &Queue {
        if let Some((replicas, queue)) = &self.replicas
            && replicas.any_in_use()
        {
            return queue;
        }
        let number = THREAD_NUMBER.with(|number| *number) % self.queues.len();
        self.queues.get(number).expect("a remainder is smaller than its divisor")
    }

    /// Queues a look-up and waits for its answer. `to_lookup` creates the look-up with the channel for the
    /// answer.
    async fn request<T>(
        &self,
        to_lookup: impl FnOnce(Reply<T>) -> PendingLookup,
    ) -> Result<T, DatabaseError> {
        let (reply, receiver) = oneshot::channel();
        self.queue().push(to_lookup(reply)).map_err(|_| DatabaseError::Overloaded)?;
        let answer = match self.answer_timeout {
            Some(limit) => timeout(limit, receiver).await.map_err(DatabaseError::unavailable)?,
            None => receiver.await,
        };
        answer.map_err(|_| DatabaseError::unavailable("the look-up panicked"))?
    }
}
