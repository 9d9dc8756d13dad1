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
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use self::{
    lane::{postgres, replica, sqlite},
    pending::{PendingLookup, Queue, Reply},
};
use crate::database::{
    DatabaseError, PostgresOptions, ReplicaState, postgres::PostgresPool, replicas::Replicas,
    sqlite::SqliteThreads,
};

thread_local! {
    /// Number of the queue that callers on this thread use, modulo the number of queues: that of the thread's
    /// own lane, or the next one in turn.
    static QUEUE_NUMBER: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed))
    };
}

/// Queues of look-ups: on SQLite one for each lane, on PostgreSQL one for each runtime that has lanes.
type Queues = Arc<[Arc<Queue>]>;

/// Limits of coalescing.
#[derive(Debug, Clone, Copy)]
pub struct LookupOptions {
    /// Largest number of tokens in one batch.
    pub batch_tokens_max: usize,
    /// Number of lanes, each of which looks up one batch at a time. 0 means one for each runtime, on SQLite
    /// one for each of their threads, which is the most that SQLite uses. If there are replicas, they get the
    /// same number of lanes in addition.
    pub lanes: usize,
    /// Largest number of look-ups that wait for a lane. Beyond it, calls fail with
    /// [`DatabaseError::Overloaded`]. The queues share the number equally; those of the replicas have as many
    /// in addition.
    pub waiting_max: usize,
}

impl LookupOptions {
    /// Returns the number of lanes on PostgreSQL.
    pub(super) fn lanes_on_postgres(&self, runtimes: &[Handle]) -> usize {
        if self.lanes == 0 { runtimes.len() } else { self.lanes }
    }

    /// Returns `count` queues, which share `waiting_max`.
    fn queues(&self, count: usize) -> Queues {
        let waiting_max = self.waiting_max.div_ceil(count);
        (0..count).map(|_| Arc::new(Queue::new(self.batch_tokens_max, waiting_max))).collect()
    }
}

/// The queues and their lanes. The lanes end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Lookup {
    /// Callers on the same thread share a queue. If each thread that serves connections has a lane, it
    /// answers the callers of its thread, and no look-up crosses to another thread.
    queues: Queues,
    /// The replicas, and the queues for callers while at least one of them is in use.
    replicas: Option<(Arc<Replicas>, Queues)>,
    /// Time limit on waiting for a lane and for its query; `None` on SQLite, which has no server that may not
    /// answer.
    answer_timeout: Option<Duration>,
    batch_tokens_max: usize,
    _lanes: Arc<JoinSet<()>>,
}

impl Lookup {
    /// Starts the lanes of SQLite, which are distributed among the runtimes.
    pub(super) fn on_sqlite(
        threads: &SqliteThreads,
        options: LookupOptions,
        runtimes: &[Handle],
    ) -> Result<Self, DatabaseError> {
        let workers = runtimes.iter().map(|runtime| runtime.metrics().num_workers()).sum();
        let count = if options.lanes == 0 { workers } else { options.lanes.min(workers) };
        let (queues, mut lanes) = (options.queues(count), JoinSet::new());
        for (number, (queue, runtime)) in queues.iter().zip(runtimes.iter().cycle()).enumerate() {
            let (lane, queue) = (sqlite::Lane::open(threads)?, Arc::clone(queue));
            spawn_lane(&mut lanes, runtime, number, sqlite::run(lane, queue));
        }
        let batch_tokens_max = options.batch_tokens_max;
        Ok(Self { queues, replicas: None, answer_timeout: None, batch_tokens_max, _lanes: Arc::new(lanes) })
    }

    /// Starts the lanes of PostgreSQL, which are distributed among the runtimes. The lanes of each runtime
    /// have a pool of their own beside `pool`. Their connections are opened, and so served, on that runtime.
    pub(super) fn on_postgres(
        pool: &PostgresPool,
        pool_options: &PostgresOptions,
        replicas: Option<Replicas>,
        options: LookupOptions,
        runtimes: &[Handle],
    ) -> Result<Self, DatabaseError> {
        let count = options.lanes_on_postgres(runtimes);
        let (queues, mut lanes) = (options.queues(count.min(runtimes.len())), JoinSet::new());
        let replicas = replicas.map(|replicas| (Arc::new(replicas), options.queues(queues.len())));
        for (number, (primary, runtime)) in queues.iter().zip(runtimes).enumerate() {
            // The first runtimes have one lane more if the lanes cannot be divided equally.
            let lanes_here = (count - number).div_ceil(queues.len());
            // The pool has room for more connections, which replace lost ones before those are closed.
            let beside = PostgresOptions { pool_size: lanes_here, ..pool_options.clone() };
            let pool = pool.open_beside(&beside)?;
            for _ in 0..lanes_here {
                spawn_lane(&mut lanes, runtime, number, postgres::run(pool.clone(), Arc::clone(primary)));
                if let Some((replicas, queues)) = &replicas {
                    let queue = queues.get(number).expect("the replicas have as many queues as the primary");
                    let lane = replica::run(Arc::clone(replicas), Arc::clone(queue), Arc::clone(primary));
                    spawn_lane(&mut lanes, runtime, number, lane);
                }
            }
        }
        if let Some((replicas, _)) = &replicas {
            let watched = Arc::clone(replicas);
            lanes.spawn(async move { watched.watch().await });
        }
        let (answer_timeout, batch_tokens_max) = (Some(pool.answer_timeout()), options.batch_tokens_max);
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
        let queues = match &self.replicas {
            Some((replicas, queues)) if replicas.any_in_use() => queues,
            _ => &self.queues,
        };
        let number = QUEUE_NUMBER.get() % queues.len();
        queues.get(number).expect("a remainder is smaller than its divisor")
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
        answer.map_err(|_| DatabaseError::unavailable("the look-up has no answer: its lane ended"))?
    }
}

/// Starts a lane that answers the queue of this number. If its runtime has one thread, the callers on that
/// thread use this queue.
fn spawn_lane(
    lanes: &mut JoinSet<()>,
    runtime: &Handle,
    number: usize,
    lane: impl Future<Output = ()> + Send + 'static,
) {
    let is_only_thread = runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
    lanes.spawn_on(
        async move {
            if is_only_thread {
                QUEUE_NUMBER.set(number);
            }
            lane.await;
        },
        runtime,
    );
}
