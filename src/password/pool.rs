//! Runs jobs on threads with a bounded queue.
//!
//! The steps of a job: [`Pool::reserve`] reserves a slot in the queue or fails immediately. [`Pool::run_in`]
//! enqueues the job. A thread dequeues it, which frees the slot, and skips it if the caller no longer waits
//! for the result. Otherwise the thread runs the job and sends the result. Dropping the pool closes the
//! queue: the threads finish the queued jobs and exit.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    clock::Clock,
    metrics::{self, Durations, Registry},
};

type Job = Box<dyn FnOnce() + Send>;

/// Why a password was not hashed or checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// The queue is full; nothing was computed.
    #[error("the password hashing queue is full; try again in {retry_after:?}")]
    QueueFull {
        /// The approximate time in which a full queue empties.
        retry_after: Duration,
    },
    /// The job waited in the queue until it was no longer of use; nothing was computed.
    #[error("the password waited too long to be hashed; try again in {retry_after:?}")]
    NotDue {
        /// The approximate time in which a full queue empties.
        retry_after: Duration,
    },
    /// The threads have exited, because the service shuts down.
    #[error("password hashing has stopped: the service is shutting down")]
    Stopped,
    /// The computation panicked. Its thread continues with the next job.
    #[error("password hashing panicked")]
    Broken,
}

/// A slot in the queue. It becomes free when it is dropped or a thread dequeues its job.
#[derive(Debug)]
pub struct QueueSlot {
    _permit: OwnedSemaphorePermit,
}

/// How long jobs wait for a thread, and how long they take.
#[derive(Debug, Clone, Default)]
struct JobTimes {
    waits: Durations,
    runs: Durations,
}

pub(super) struct Pool {
    /// The queue, bounded by `slots`: each queued job holds one.
    jobs: Sender<(QueueSlot, Job)>,
    slots: Arc<Semaphore>,
    queue_length: usize,
    retry_after: Duration,
    times: JobTimes,
    clock: Clock,
}

impl Pool {
    /// Starts `threads` threads with a queue of `queue_length` slots; both are at least 1.
    pub(super) fn start(
        threads: usize,
        queue_length: usize,
        retry_after: Duration,
        clock: Clock,
    ) -> io::Result<Self> {
        let (jobs, queue) = async_channel::unbounded();
        for number in 0..threads {
            let queue = queue.clone();
            thread::Builder::new().name(format!("hash-{number}")).spawn(move || run_jobs(&queue))?;
        }
        let (slots, times) = (Arc::new(Semaphore::new(queue_length)), JobTimes::default());
        Ok(Self { jobs, slots, queue_length, retry_after, times, clock })
    }

    /// Adds the metrics of the queue and of the threads to a registry.
    pub(super) fn register_metrics(&self, registry: &mut Registry) {
        let (slots, length) = (Arc::clone(&self.slots), self.queue_length);
        metrics::register_gauge(
            registry,
            "hashing_queue_length",
            "Number of passwords that wait for a thread",
            None,
            move || length.saturating_sub(slots.available_permits()),
        );
        metrics::register_gauge(
            registry,
            "hashing_queue_limit",
            "Number of waiting passwords at which further ones are refused (password.queue-length)",
            None,
            move || length,
        );
        self.times.waits.register(registry, "hashing_wait", "Time that a password waited for a thread");
        self.times.runs.register(registry, "hashing_duration", "Time that a thread worked on a password");
    }

    /// Returns the approximate time in which a full queue empties.
    pub(super) const fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Reserves a slot for a job that is not prepared yet, so that no job is prepared and then rejected
    /// because the queue is full.
    pub(super) fn reserve(&self) -> Result<QueueSlot, HashingError> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map(|permit| QueueSlot { _permit: permit })
            .map_err(|_| HashingError::QueueFull { retry_after: self.retry_after })
    }

    /// Reserves a slot and runs `work` in it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        self.run_in(self.reserve()?, work).await
    }

    /// Runs `work` on one of the threads, unless the caller drops this future before a thread is free.
    pub(super) async fn run_in<T: Send + 'static>(
        &self,
        slot: QueueSlot,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        let (reply, answer) = oneshot::channel();
        let (times, clock, queued) = (self.times.clone(), self.clock.clone(), self.clock.instant());
        let job = move || {
            if reply.is_closed() {
                return;
            }
            let began = clock.instant();
            times.waits.observe(began.duration_since(queued), None);
            let result = catch_unwind(AssertUnwindSafe(work));
            times.runs.observe(clock.instant().duration_since(began), None);
            // Sending fails if the caller dropped its future while the work ran.
            let _ = reply.send(result);
        };

        self.jobs.try_send((slot, Box::new(job))).map_err(|_closed| HashingError::Stopped)?;

        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_panic)) => Err(HashingError::Broken),
            Err(_dropped) => Err(HashingError::Stopped),
        }
    }
}

/// The priority of a hashing thread among those from 0 to 99, which is a nice value of 10 on Linux. Beside
/// threads that serve without pause, it gets a tenth of a core: look-ups keep most of the time, and logins go
/// on during a flood of requests. With the lowest priority (19), a flood on two connections stopped them.
const PRIORITY: u8 = 22;

/// Lowers the priority of the calling thread.
fn lower_priority() -> Result<(), String> {
    let priority = ThreadPriorityValue::try_from(PRIORITY)?;
    set_current_thread_priority(ThreadPriority::Crossplatform(priority)).map_err(|error| format!("{error:?}"))
}

fn run_jobs(queue: &Receiver<(QueueSlot, Job)>) {
    if let Err(error) = lower_priority() {
        tracing::debug!(error, "Lowering the priority of a hashing thread failed");
    }
    while let Ok((slot, job)) = queue.recv_blocking() {
        drop(slot);
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const RETRY_AFTER: Duration = Duration::from_secs(3);
    /// The longest wait for what happens at once unless it is broken.
    const WAIT_MAX: Duration = Duration::from_secs(10);

    fn pool(threads: usize, queue_length: usize) -> Pool {
        Pool::start(threads, queue_length, RETRY_AFTER, Clock::system()).unwrap()
    }

    /// Keeps the pool's only thread busy until the returned sender is dropped.
    fn occupy(pool: &Pool) -> mpsc::Sender<()> {
        let (gate, closed) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let job = move || {
            started.send(()).unwrap();
            let _ = closed.recv();
        };
        pool.jobs.try_send((pool.reserve().unwrap(), Box::new(job))).unwrap();
        has_started.recv_timeout(WAIT_MAX).unwrap();
        gate
    }

    #[tokio::test]
    async fn work_runs_on_named_threads() {
        let name = pool(1, 1).run(|| thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("hash-0"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn threads_have_a_low_priority_but_not_the_lowest() {
        let stat =
            pool(1, 1).run(|| std::fs::read_to_string("/proc/thread-self/stat").unwrap()).await.unwrap();
        // proc(5): the first field after the name in parentheses is field 3; the nice value is field 19.
        let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap();
        assert_eq!(nice, "10");
    }

    #[tokio::test]
    async fn a_full_queue_is_reported_immediately_and_recovers() {
        let pool = pool(1, 1);
        let gate = occupy(&pool);
        let slot = pool.reserve().unwrap();

        let refusal = pool.run(|| ()).await;
        assert_eq!(refusal, Err(HashingError::QueueFull { retry_after: RETRY_AFTER }));

        drop(gate);
        assert_eq!(pool.run_in(slot, || 7).await, Ok(7));
        assert_eq!(pool.run(|| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_dropped_slot_is_free_again() {
        let pool = pool(1, 1);
        drop(pool.reserve().unwrap());
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_is_skipped_if_its_caller_drops_the_future() {
        let pool = pool(1, 4);
        let gate = occupy(&pool);
        let (ran, has_run) = mpsc::channel();

        let mut abandoned = Box::pin(pool.run(move || ran.send(()).unwrap()));
        assert!(poll_once(abandoned.as_mut()).is_pending());
        drop(abandoned);
        drop(gate);

        pool.run(|| ()).await.unwrap();
        assert_eq!(has_run.recv_timeout(WAIT_MAX), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_its_thread_survives() {
        let pool = pool(1, 1);
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(HashingError::Broken));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn threads_exit_when_the_pool_is_dropped() {
        struct ExitSignal(mpsc::Sender<()>);
        impl Drop for ExitSignal {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        thread_local!(static EXIT_SIGNAL: std::cell::RefCell<Option<ExitSignal>> = const { std::cell::RefCell::new(None) });

        let (exited, has_exited) = mpsc::channel();
        let pool = pool(1, 1);
        pool.run(move || EXIT_SIGNAL.set(Some(ExitSignal(exited)))).await.unwrap();
        assert_eq!(has_exited.try_recv(), Err(mpsc::TryRecvError::Empty));

        drop(pool);
        assert_eq!(has_exited.recv_timeout(WAIT_MAX), Ok(()));
    }
}
