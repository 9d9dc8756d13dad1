//! Threads that work on a bounded queue.
//!
//! Life of a job: [`Pool::reserve`] gives it a place in the queue or refuses at once; [`Pool::run_in`] puts it there; a thread
//! takes it up, which frees the place, drops it if nobody waits for the answer any more, runs it, and sends the answer. The
//! queue is closed when the pool is dropped: the threads finish what is in it and end.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use async_channel::{Receiver, Sender};
use thread_priority::{ThreadPriority, set_current_thread_priority};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Why a password was not hashed or checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// As many passwords wait as may; nothing was computed.
    #[error("too many passwords wait to be checked; try again in {retry_after:?}")]
    QueueFull {
        /// About when a full queue is empty.
        retry_after: Duration,
    },
    /// The threads have ended, as the service stops.
    #[error("passwords are no longer checked: the service is stopping")]
    Stopped,
    /// The computation panicked. Its thread lives on.
    #[error("checking the password broke")]
    Broken,
}

/// A place in the queue, free for another when it is dropped or its job is taken up.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

pub(super) struct Pool {
    /// Bounded by the places: without one nothing is put in.
    jobs: Sender<(Place, Job)>,
    places: Arc<Semaphore>,
    retry_after: Duration,
}

impl Pool {
    /// Starts `threads` threads on a queue of `queue_length`; both at least 1.
    pub(super) fn start(threads: usize, queue_length: usize, retry_after: Duration) -> io::Result<Self> {
        let (jobs, queue) = async_channel::unbounded();
        for number in 0..threads {
            let queue = queue.clone();
            thread::Builder::new().name(format!("hash-{number}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs, places: Arc::new(Semaphore::new(queue_length)), retry_after })
    }

    /// A place for a job that is still to be prepared: who would be refused spares the preparation.
    pub(super) fn reserve(&self) -> Result<Place, HashingError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place
            .map(|permit| Place { _permit: permit })
            .map_err(|_| HashingError::QueueFull { retry_after: self.retry_after })
    }

    /// Runs `work` in a place of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        self.run_in(self.reserve()?, work).await
    }

    /// Runs `work` on one of the threads, unless the caller drops this future before a thread is free.
    pub(super) async fn run_in<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashingError> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                // A caller who left while the work ran no longer wants the answer.
                let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
            }
        };

        self.jobs.try_send((place, Box::new(job))).map_err(|_closed| HashingError::Stopped)?;

        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_panic)) => Err(HashingError::Broken),
            Err(_dropped) => Err(HashingError::Stopped),
        }
    }
}

fn work(queue: &Receiver<(Place, Job)>) {
    if let Err(error) = set_current_thread_priority(ThreadPriority::Min) {
        tracing::debug!(?error, "Could not lower the priority of a hashing thread");
    }
    while let Ok((place, job)) = queue.recv_blocking() {
        drop(place);
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const RETRY_AFTER: Duration = Duration::from_secs(3);
    const SOON: Duration = Duration::from_secs(10);

    fn pool(threads: usize, queue_length: usize) -> Pool {
        Pool::start(threads, queue_length, RETRY_AFTER).unwrap()
    }

    /// Keeps the pool's only thread busy until the returned sender is dropped.
    fn occupy(pool: &Pool) -> mpsc::Sender<()> {
        let (gate, closed) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let job = move || {
            begun.send(()).unwrap();
            let _ = closed.recv();
        };
        pool.jobs.try_send((pool.reserve().unwrap(), Box::new(job))).unwrap();
        has_begun.recv_timeout(SOON).unwrap();
        gate
    }

    #[tokio::test]
    async fn work_is_done_on_named_threads() {
        let name = pool(1, 1).run(|| thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("hash-0"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn threads_yield_to_everything_else() {
        let stat =
            pool(1, 1).run(|| std::fs::read_to_string("/proc/thread-self/stat").unwrap()).await.unwrap();
        // proc(5): the fields after the name in parentheses begin with the third; nice is the nineteenth.
        let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap();
        assert_eq!(nice, "19");
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once_and_recovers() {
        let pool = pool(1, 1);
        let gate = occupy(&pool);
        let place = pool.reserve().unwrap();

        let refusal = pool.run(|| ()).await;
        assert_eq!(refusal, Err(HashingError::QueueFull { retry_after: RETRY_AFTER }));

        drop(gate);
        assert_eq!(pool.run_in(place, || 7).await, Ok(7));
        assert_eq!(pool.run(|| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_is_free_again() {
        let pool = pool(1, 1);
        drop(pool.reserve().unwrap());
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn work_is_skipped_when_its_caller_has_gone() {
        let pool = pool(1, 4);
        let gate = occupy(&pool);
        let (ran, has_run) = mpsc::channel();

        let mut abandoned = Box::pin(pool.run(move || ran.send(()).unwrap()));
        assert!(futures_poll_once(abandoned.as_mut()).is_pending());
        drop(abandoned);
        drop(gate);

        pool.run(|| ()).await.unwrap();
        assert_eq!(has_run.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn a_panic_reaches_its_caller_and_leaves_the_thread_alive() {
        let pool = pool(1, 1);
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(HashingError::Broken));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn threads_end_with_the_pool() {
        struct Farewell(mpsc::Sender<()>);
        impl Drop for Farewell {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        thread_local!(static FAREWELL: std::cell::RefCell<Option<Farewell>> = const { std::cell::RefCell::new(None) });

        let (ended, has_ended) = mpsc::channel();
        let pool = pool(1, 1);
        pool.run(move || FAREWELL.set(Some(Farewell(ended)))).await.unwrap();
        assert_eq!(has_ended.try_recv(), Err(mpsc::TryRecvError::Empty));

        drop(pool);
        assert_eq!(has_ended.recv_timeout(SOON), Ok(()));
    }
}
