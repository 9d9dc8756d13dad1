//! Polls a future only after it was woken.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::task::coop::unconstrained;

/// A future that is polled at first, and then only after it was woken. So it must not rely on other polls.
///
/// `select!` polls all its branches at each wake of the task. The branches that end a connection, such as the
/// timer of its age, would thus cost time at each call.
pub(super) struct WhenWoken<F> {
    future: Pin<Box<F>>,
    wake: Arc<FlagAndTask>,
    /// The waker of `wake`.
    waker: Waker,
    /// The waker of the task that polled this future last.
    task: Waker,
}

struct FlagAndTask {
    is_woken: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for FlagAndTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // First the flag: the task that is woken must see it.
        self.is_woken.store(true, Ordering::SeqCst);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

impl<F> WhenWoken<F> {
    pub(super) fn new(future: F) -> Self {
        let task = Waker::noop().clone();
        let wake = Arc::new(FlagAndTask { is_woken: AtomicBool::new(true), task: Mutex::new(task.clone()) });
        Self { future: Box::pin(future), waker: Arc::clone(&wake).into(), wake, task }
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // First the task, then the flag: once the task is set, a wake reaches it.
        if !self.task.will_wake(context.waker()) {
            self.task.clone_from(context.waker());
            self.wake.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.task);
        }
        // A read does not take the cache line from other threads, as a swap does.
        if !self.wake.is_woken.load(Ordering::SeqCst) || !self.wake.is_woken.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        // A connection with much input uses up the budget of the task. It must end all the same.
        pin!(unconstrained(future.as_mut())).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize, time::Duration};

    use tokio::{sync::oneshot, task::coop};

    use super::{super::budget, *};

    #[tokio::test]
    async fn the_future_is_polled_once_until_it_is_woken() {
        let (sender, mut receiver) = oneshot::channel();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let mut future = WhenWoken::new(poll_fn(move |context| {
            counted.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut receiver).poll(context)
        }));

        for _ in 0..3 {
            assert!(futures_util::poll!(&mut future).is_pending());
        }
        assert_eq!(polls.load(Ordering::SeqCst), 1);

        sender.send(7).unwrap();
        assert_eq!(future.await, Ok(7));
        assert_eq!(polls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_future_ends_although_the_budget_of_the_task_is_used_up() {
        let (sender, mut receiver) = oneshot::channel();
        sender.send(()).unwrap();
        let is_ready = poll_fn(move |context| {
            while coop::has_budget_remaining() {
                budget::consume(context, 1);
            }
            assert!(Pin::new(&mut receiver).poll(context).is_pending(), "without budget it is not ready");
            let (sender, receiver) = oneshot::channel();
            sender.send(()).unwrap();
            Poll::Ready(pin!(WhenWoken::new(receiver)).poll(context).is_ready())
        });
        assert!(is_ready.await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_in_another_task_or_thread() {
        for round in 0..2_000 {
            let (sender, receiver) = oneshot::channel();
            let mut future = WhenWoken::new(receiver);
            // The first poll is one of this task, the others are those of the new one.
            assert!(futures_util::poll!(&mut future).is_pending());
            let waiting = tokio::spawn(future);
            tokio::spawn(async move { sender.send(round) });
            let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await;
            assert_eq!(ended.expect("the wake arrives").unwrap(), Ok(round));
        }
    }
}
