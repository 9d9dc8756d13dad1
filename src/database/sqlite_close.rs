//! Closes the connections to SQLite, one after the other.
//!
//! SQLite moves the WAL into the file and deletes it when the only connection to the file is closed. Of two
//! that are closed at the same time, each finds the other, and the WAL stays.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Number of [`OpenConnection`]s in this process.
static OPEN_CONNECTIONS: Mutex<usize> = Mutex::new(0);

/// Locked while a connection is closed.
static CLOSING: Mutex<()> = Mutex::new(());

/// Notified when a connection was closed.
static CLOSED: Condvar = Condvar::new();

/// A connection that is closed when it is dropped, while no other one of this process is being closed.
/// [`wait_until_closed`] waits for it.
pub struct OpenConnection<C> {
    /// `None` only while the value is dropped, and after [`Self::map`] or [`Self::leave_open`] took it.
    connection: Option<C>,
}

impl<C> OpenConnection<C> {
    const IS_OPEN: &'static str = "a connection is open until its value is dropped";

    /// Takes a connection that was just opened.
    pub(super) fn new(connection: C) -> Self {
        *OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self { connection: Some(connection) }
    }

    /// Wraps the connection.
    pub(super) fn map<D>(mut self, wrap: impl FnOnce(C) -> D) -> OpenConnection<D> {
        OpenConnection::new(wrap(self.connection.take().expect(Self::IS_OPEN)))
    }

    /// Drops this value, and leaves its connection open until the process ends.
    pub(super) fn leave_open(mut self) {
        mem::forget(self.connection.take());
    }
}

impl<C> Deref for OpenConnection<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.connection.as_ref().expect(Self::IS_OPEN)
    }
}

impl<C> DerefMut for OpenConnection<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect(Self::IS_OPEN)
    }
}

impl<C> Drop for OpenConnection<C> {
    fn drop(&mut self) {
        {
            let _one_at_a_time = CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.connection.take());
        }
        *OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_all();
    }
}

/// Blocks until no connection to SQLite is open in this process, except those that stay open until it ends.
/// Returns false if this takes longer than `limit`. The threads of a `SqliteThreads` close their connections
/// after its last clone was dropped.
#[must_use]
pub fn wait_until_closed(limit: Duration) -> bool {
    let open = OPEN_CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = CLOSED.wait_timeout_while(open, limit, |open| *open > 0);
    let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *open == 0
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    /// Counts how many connections are being closed at the same time.
    struct SlowToClose<'a> {
        closing: &'a AtomicUsize,
        most: &'a AtomicUsize,
    }

    impl Drop for SlowToClose<'_> {
        fn drop(&mut self) {
            let closing = self.closing.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(closing, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            self.closing.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn connections_are_closed_one_after_the_other() {
        let (closing, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                let connection = OpenConnection::new(SlowToClose { closing: &closing, most: &most });
                scope.spawn(move || drop(connection.map(|connection| (connection, "wrapped"))));
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        OpenConnection::new(SlowToClose { closing: &closing, most: &most }).leave_open();
        assert_eq!(closing.load(Ordering::SeqCst), 0);
    }
}
