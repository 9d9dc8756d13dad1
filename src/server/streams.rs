//! The calls of one connection, run in the connection's own task.
//!
//! hyper hands each stream of HTTP/2 to an executor, which usually makes it a task of the runtime. Those tasks wake their
//! connection one by one, and it writes their answers one by one: a system call each. Here the task that has read a
//! handful of calls also runs them, and writes what they answered at once. A call therefore must not hold up the thread
//! that polls it; none does, since hashing and writing have threads of their own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{StreamExt, stream::FuturesUnordered, task::AtomicWaker};
use hyper::rt::Executor;
use tokio::task::coop::{self, unconstrained};

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper leaves the streams that it has accepted.
#[derive(Clone, Default)]
pub(super) struct Accepted(Arc<Streams>);

#[derive(Default)]
struct Streams {
    waiting: Mutex<Vec<Stream>>,
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Accepted {
    /// How many streams have begun.
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Whether none is under way, and none has begun since there were so many.
    pub(super) fn is_idle_since(&self, begun: u64) -> bool {
        self.begun() == begun && self.0.ended.load(Ordering::Relaxed) == begun
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Accepted {
    fn execute(&self, stream: F) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

/// A stream that keeps a panic to itself. Handlers' panics are answered; this is for what stands around them.
struct Running(Stream);

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The limit on what one poll of a task may do counts for the connection, which reads what its peer sends; calls
        // that gave way to it half-way would only be polled twice.
        let mut stream = unconstrained(self.0.as_mut());
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut stream).poll(context))).unwrap_or_else(|_| {
            tracing::error!("The end of a call panicked");
            Poll::Ready(())
        })
    }
}

/// A connection and its calls; when it ends, calls that are left are dropped, since nobody hears their answers.
pub(super) struct WithStreams<C> {
    connection: Pin<Box<C>>,
    accepted: Accepted,
    running: FuturesUnordered<Running>,
    wakes: Arc<Wakes>,
    connection_waker: Waker,
    streams_waker: Waker,
}

/// Whose turn it is. A task that wakes itself while it runs goes through the run queue, for which the runtime wakes an idle
/// thread; h2 does so for each answer, and `FuturesUnordered` after each round. Here the task goes round once more.
#[derive(Default)]
struct Wakes {
    connection: AtomicBool,
    streams: AtomicBool,
    is_running: AtomicBool,
    task: AtomicWaker,
}

/// How often a task goes round before it lets others run.
const ROUNDS_MAX: usize = 16;

impl Wakes {
    // The flag first, and then whether the task runs; at its end the task says that it does not run, and then looks at the
    // flags: in one order for all threads, so that one of them sees the other.
    fn wake(&self, whose: &AtomicBool) {
        whose.store(true, Ordering::SeqCst);
        if !self.is_running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }

    fn are_pending(&self) -> bool {
        self.connection.load(Ordering::SeqCst) || self.streams.load(Ordering::SeqCst)
    }
}

/// The waker of one of the two: it says whose turn it is.
struct Turn {
    wakes: Arc<Wakes>,
    whose: fn(&Wakes) -> &AtomicBool,
}

impl Turn {
    fn waker(wakes: &Arc<Wakes>, whose: fn(&Wakes) -> &AtomicBool) -> Waker {
        Arc::new(Self { wakes: Arc::clone(wakes), whose }).into()
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.wake((self.whose)(&self.wakes));
    }
}

impl<C> WithStreams<C> {
    pub(super) fn new(connection: C, accepted: Accepted) -> Self {
        let wakes = Arc::new(Wakes::default());
        wakes.connection.store(true, Ordering::SeqCst);
        Self {
            connection: Box::pin(connection),
            accepted,
            running: FuturesUnordered::new(),
            connection_waker: Turn::waker(&wakes, |wakes| &wakes.connection),
            streams_waker: Turn::waker(&wakes, |wakes| &wakes.streams),
            wakes,
        }
    }

    /// Changes the connection from outside; it is polled next.
    pub(super) fn change(&mut self, change: impl FnOnce(Pin<&mut C>)) {
        change(self.connection.as_mut());
        self.wakes.wake(&self.wakes.connection);
    }

    /// Takes over what the connection has accepted.
    fn accept(&mut self) {
        let accepted =
            std::mem::take(&mut *self.accepted.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !accepted.is_empty() {
            self.running.extend(accepted.into_iter().map(Running));
            self.wakes.streams.store(true, Ordering::SeqCst);
        }
    }
}

impl<C: Future> WithStreams<C> {
    /// Runs whoever was woken, until nobody is.
    fn go_round(&mut self) -> Poll<C::Output> {
        for _ in 0..ROUNDS_MAX {
            if self.wakes.connection.swap(false, Ordering::SeqCst) {
                let ended = self.connection.as_mut().poll(&mut Context::from_waker(&self.connection_waker));
                if ended.is_ready() {
                    return ended;
                }
                self.accept();
            }
            if self.wakes.streams.swap(false, Ordering::SeqCst) {
                let context = &mut Context::from_waker(&self.streams_waker);
                while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {
                    self.accepted.0.ended.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Without a budget the connection would only say that it has none.
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
        let ended = self.go_round();
        self.wakes.is_running.store(false, Ordering::SeqCst);
        if ended.is_pending() && self.wakes.are_pending() {
            context.waker().wake_by_ref();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use futures_util::future::{join_all, pending};
    use tokio::sync::oneshot;

    use super::*;

    /// How often the task itself was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_while_the_task_runs_is_another_round_and_no_wake_of_the_task() {
        let accepted = Accepted::default();
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
        let mut both = WithStreams::new(connection, accepted);
        let woken = Arc::new(Woken::default());
        let (task, polls) = (Waker::from(Arc::clone(&woken)), || polls.load(Ordering::SeqCst));
        let mut poll = || Pin::new(&mut both).poll(&mut Context::from_waker(&task)).is_pending();

        assert!(poll());
        assert_eq!((polls(), woken.0.load(Ordering::SeqCst)), (1, 0));
        answer.send(()).unwrap();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(poll());
        // The stream ran first, and the connection once, to write its answer.
        assert_eq!((polls(), woken.0.load(Ordering::SeqCst)), (2, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        const STREAMS: usize = 2_000;
        let accepted = Accepted::default();
        let (answers, asked): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| oneshot::channel::<()>()).unzip();
        let ended = Arc::new(AtomicUsize::new(0));
        for asked in asked {
            let ended = Arc::clone(&ended);
            accepted.execute(async move {
                let _ = asked.await;
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        let connection = tokio::spawn(WithStreams::new(pending::<()>(), accepted));
        join_all(answers.into_iter().map(|answer| tokio::spawn(async { answer.send(()) }))).await;
        while ended.load(Ordering::SeqCst) < STREAMS {
            tokio::task::yield_now().await;
        }
        connection.abort();
    }

    #[tokio::test]
    async fn a_change_from_outside_is_seen() {
        let mut both = WithStreams::new(Changed(false), Accepted::default());
        assert!(futures_util::poll!(&mut both).is_pending());
        both.change(|mut connection| connection.0 = true);
        both.await;
    }

    /// Ends once it is changed.
    struct Changed(bool);

    impl Future for Changed {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0 { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}
