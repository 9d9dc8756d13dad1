//! Runs the calls of a connection in the connection's own task.
//!
//! hyper passes each HTTP/2 stream to an executor, which usually spawns a task of the runtime for it. These
//! tasks wake the connection one by one, so it writes each response with a system call of its own. Here, the
//! task of the connection also runs the calls that it has read, and writes their responses together.
//! Therefore a call must not block the thread that polls it. No call does, since password hashing and
//! database writes have their own threads.
//!
//! The task also reads what arrives for calls that were answered early ([`AcceptedStreams::run`]).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::rt::Executor;
use tokio::task::coop::{self, unconstrained};

use super::{
    peer_account::CountedCalls,
    wakes::{FlagWaker, Wakes},
};

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The executor to which hyper passes the streams that it has accepted. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct AcceptedStreams(Arc<Streams>);

#[derive(Default)]
struct Streams {
    waiting: Mutex<Vec<Stream>>,
    started: AtomicU64,
    finished: AtomicU64,
    wakes: Arc<Wakes>,
}

impl AcceptedStreams {
    /// Returns the number of streams that were started on this connection.
    pub(super) fn started(&self) -> u64 {
        self.0.started.load(Ordering::Relaxed)
    }

    /// Returns the number of streams in flight.
    pub(super) fn in_flight(&self) -> u64 {
        self.started().saturating_sub(self.0.finished.load(Ordering::Relaxed))
    }

    /// True if no stream is in flight, and none was started since [`AcceptedStreams::started`] returned
    /// `started`.
    pub(super) fn is_idle_since(&self, started: u64) -> bool {
        self.started() == started && self.0.finished.load(Ordering::Relaxed) == started
    }

    /// Runs a further future in the task of the connection. May be called from any task.
    pub(super) fn run(&self, stream: impl Future<Output = ()> + Send + 'static) {
        self.execute(stream);
        // The task takes the accepted streams after each poll of the connection.
        self.0.wakes.wake(&self.0.wakes.connection);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for AcceptedStreams {
    fn execute(&self, stream: F) {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

/// A stream whose panic does not affect the connection. The layers above answer a panic of a handler; this
/// catches a panic outside of the handlers.
struct CatchPanic(Stream);

impl Future for CatchPanic {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The budget of the task limits how much the connection reads from its peer. It does not apply to
        // calls: a call that yielded half-way would only be polled twice.
        let mut stream = unconstrained(self.0.as_mut());
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut stream).poll(context))).unwrap_or_else(|_| {
            tracing::error!("Call panicked outside of its handler");
            Poll::Ready(())
        })
    }
}

/// A connection together with its calls. When the connection closes, the unfinished calls are dropped, since
/// their responses cannot be delivered.
pub(super) struct WithStreams<C> {
    connection: Pin<Box<C>>,
    accepted: AcceptedStreams,
    running: FuturesUnordered<CatchPanic>,
    calls: CountedCalls,
    wakes: Arc<Wakes>,
    connection_waker: Waker,
    streams_waker: Waker,
}

/// The most rounds of a task before it lets other tasks run.
const ROUNDS_MAX: usize = 16;

/// The number of calls that may end in one turn of a task, before it lets other tasks run. The other
/// connections of the thread wait for the turn, and a stranger can cause refusals as fast as it can send.
const ENDED_CALLS_MAX: usize = 64;

impl<C> WithStreams<C> {
    /// Creates the task of a connection. `calls` counts its streams.
    pub(super) fn new(connection: C, accepted: AcceptedStreams, calls: CountedCalls) -> Self {
        let wakes = Arc::clone(&accepted.0.wakes);
        wakes.connection.store(true, Ordering::SeqCst);
        Self {
            connection: Box::pin(connection),
            accepted,
            running: FuturesUnordered::new(),
            calls,
            connection_waker: FlagWaker::waker(&wakes, |wakes| &wakes.connection),
            streams_waker: FlagWaker::waker(&wakes, |wakes| &wakes.streams),
            wakes,
        }
    }

    /// Applies `change` to the connection and schedules a poll of it.
    pub(super) fn change(&mut self, change: impl FnOnce(Pin<&mut C>)) {
        change(self.connection.as_mut());
        self.wakes.wake(&self.wakes.connection);
    }

    /// Moves the streams that hyper has accepted to the running ones.
    fn accept(&mut self) {
        let accepted =
            std::mem::take(&mut *self.accepted.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !accepted.is_empty() {
            self.running.extend(accepted.into_iter().map(CatchPanic));
            self.calls.set(self.running.len());
            self.wakes.streams.store(true, Ordering::SeqCst);
        }
    }
}

impl<C> Drop for WithStreams<C> {
    /// Drops all streams. hyper's streams own the executor, which owns those that wait. Without this, a
    /// stream that was accepted in the last poll of the connection would therefore stay in memory.
    fn drop(&mut self) {
        self.running.clear();
        let waiting =
            std::mem::take(&mut *self.accepted.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        drop(waiting);
    }
}

impl<C: Future> WithStreams<C> {
    /// Polls the connection and the streams that were woken, until no wake is pending, the budget is used up,
    /// `ROUNDS_MAX` rounds are done or `ENDED_CALLS_MAX` calls have ended.
    fn run_rounds(&mut self) -> Poll<C::Output> {
        let mut ended = 0;
        for _ in 0..ROUNDS_MAX {
            if self.wakes.connection.swap(false, Ordering::SeqCst) {
                let result = self.connection.as_mut().poll(&mut Context::from_waker(&self.connection_waker));
                if result.is_ready() {
                    return result;
                }
                self.accept();
            }
            if self.wakes.streams.swap(false, Ordering::SeqCst) {
                let context = &mut Context::from_waker(&self.streams_waker);
                while ended < ENDED_CALLS_MAX
                    && let Poll::Ready(Some(())) = self.running.poll_next_unpin(context)
                {
                    self.accepted.0.finished.fetch_add(1, Ordering::Relaxed);
                    ended += 1;
                }
                self.calls.set(self.running.len());
            }
            if ended >= ENDED_CALLS_MAX {
                // Further calls may be ready, which wake nothing again.
                self.wakes.streams.store(true, Ordering::SeqCst);
                break;
            }
            // Without budget, a poll of the connection makes no progress.
            if !self.wakes.are_pending() || !coop::has_budget_remaining() {
                break;
            }
        }
        Poll::Pending
    }
}

impl<C: Future> Future for WithStreams<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        self.wakes.task.register(context.waker());
        self.wakes.is_running.store(true, Ordering::SeqCst);
        let result = self.run_rounds();
        self.wakes.is_running.store(false, Ordering::SeqCst);
        if result.is_pending() && self.wakes.are_pending() {
            context.waker().wake_by_ref();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize, task::Wake};

    use futures_util::future::{join_all, pending};
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::{
        super::peer_account::{ConnectionAccount, PeerLimits},
        *,
    };

    fn calls() -> CountedCalls {
        CountedCalls::new(Arc::new(ConnectionAccount::of_only_connection(PeerLimits::of_connections(1))))
    }

    /// Counts how often the task was woken.
    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_while_the_task_runs_causes_a_round_and_no_wake_of_the_task() {
        let accepted = AcceptedStreams::default();
        let (answer, is_answered) = oneshot::channel::<()>();
        let polls = Arc::new(AtomicUsize::new(0));
        let (counted, executor) = (Arc::clone(&polls), accepted.clone());
        let mut is_answered = Some(is_answered);
        let connection = poll_fn(move |context| {
            counted.fetch_add(1, Ordering::SeqCst);
            if let Some(is_answered) = is_answered.take() {
                let connection = context.waker().clone();
                executor.execute(async move {
                    let _ = is_answered.await;
                    connection.wake();
                });
            }
            Poll::<()>::Pending
        });
        let mut with_streams = WithStreams::new(connection, accepted, calls());
        let woken = Arc::new(WakeCounter::default());
        let (task, polls) = (Waker::from(Arc::clone(&woken)), || polls.load(Ordering::SeqCst));
        let mut poll = || Pin::new(&mut with_streams).poll(&mut Context::from_waker(&task)).is_pending();

        assert!(poll());
        assert_eq!((polls(), woken.0.load(Ordering::SeqCst)), (1, 0));
        answer.send(()).unwrap();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(poll());
        // The stream ran first; then the connection was polled once, to write the response.
        assert_eq!((polls(), woken.0.load(Ordering::SeqCst)), (2, 1));
    }

    #[test]
    fn other_tasks_run_between_calls_that_end_at_once() {
        let accepted = AcceptedStreams::default();
        for _ in 0..=(2 * ENDED_CALLS_MAX) {
            accepted.execute(std::future::ready(()));
        }
        let ended = accepted.clone();
        let mut with_streams = WithStreams::new(pending::<()>(), accepted, calls());
        let woken = Arc::new(WakeCounter::default());
        let task = Waker::from(Arc::clone(&woken));
        let mut turn = || {
            assert!(Pin::new(&mut with_streams).poll(&mut Context::from_waker(&task)).is_pending());
            (ended.0.finished.load(Ordering::SeqCst), woken.0.load(Ordering::SeqCst))
        };

        let max = ENDED_CALLS_MAX as u64;
        assert_eq!(turn(), (max, 1));
        assert_eq!(turn(), (2 * max, 2));
        assert_eq!(turn(), (2 * max + 1, 2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        const STREAMS: usize = 2_000;
        let accepted = AcceptedStreams::default();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| oneshot::channel::<()>()).unzip();
        let finished = Arc::new(AtomicUsize::new(0));
        for receiver in receivers {
            let finished = Arc::clone(&finished);
            accepted.execute(async move {
                let _ = receiver.await;
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        let connection = tokio::spawn(WithStreams::new(pending::<()>(), accepted, calls()));
        join_all(senders.into_iter().map(|sender| tokio::spawn(async { sender.send(()) }))).await;
        while finished.load(Ordering::SeqCst) < STREAMS {
            tokio::task::yield_now().await;
        }
        connection.abort();
    }

    #[tokio::test]
    async fn a_stream_that_was_never_polled_is_dropped_with_its_connection() {
        let accepted = AcceptedStreams::default();
        let (owned, mut is_dropped) = oneshot::channel::<()>();
        let (executor, mut owned) = (accepted.clone(), Some(owned));
        let connection = poll_fn(move |_| {
            // As in hyper, the stream owns the executor.
            let owned = (executor.clone(), owned.take());
            executor.execute(async move {
                pending::<()>().await;
                drop(owned);
            });
            Poll::Ready(())
        });
        WithStreams::new(connection, accepted, calls()).await;
        assert_eq!(is_dropped.try_recv(), Err(TryRecvError::Closed));
    }

    #[tokio::test]
    async fn a_change_schedules_a_poll_of_the_connection() {
        let mut with_streams = WithStreams::new(Changed(false), AcceptedStreams::default(), calls());
        assert!(futures_util::poll!(&mut with_streams).is_pending());
        with_streams.change(|mut connection| connection.0 = true);
        with_streams.await;
    }

    /// A future that is ready once its flag is set.
    struct Changed(bool);

    impl Future for Changed {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0 { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}
