//! The wakes of a connection and of its calls, which share one task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Flags that show whether the connection or the streams must be polled. A task that wakes itself while it
/// runs goes through the run queue, for which the runtime wakes an idle thread; h2 does this for each
/// response, and `FuturesUnordered` after each round. With these flags, the running task does another round
/// instead.
#[derive(Default)]
pub(super) struct Wakes {
    pub(super) connection: AtomicBool,
    pub(super) streams: AtomicBool,
    pub(super) is_running: AtomicBool,
    pub(super) task: AtomicWaker,
}

impl Wakes {
    /// Sets `flag`, and wakes the task if it is not running.
    ///
    /// This sets the flag and then reads `is_running`. The task clears `is_running` and then reads the flags.
    /// All these accesses are sequentially consistent, so at least one of the two threads sees the change of
    /// the other, and no wake is lost.
    pub(super) fn wake(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::SeqCst);
        if !self.is_running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }

    /// True if the connection or the streams must be polled.
    pub(super) fn are_pending(&self) -> bool {
        self.connection.load(Ordering::SeqCst) || self.streams.load(Ordering::SeqCst)
    }
}

/// The waker of the connection or of the streams: it sets one flag.
pub(super) struct FlagWaker {
    wakes: Arc<Wakes>,
    flag: fn(&Wakes) -> &AtomicBool,
}

impl FlagWaker {
    /// Returns the waker that sets this flag.
    pub(super) fn waker(wakes: &Arc<Wakes>, flag: fn(&Wakes) -> &AtomicBool) -> Waker {
        Arc::new(Self { wakes: Arc::clone(wakes), flag }).into()
    }
}

impl Wake for FlagWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.wake((self.flag)(&self.wakes));
    }
}
