//! The calls of one connection, run in the connection's own task.
//!
//! hyper hands each stream of HTTP/2 to an executor, which usually makes it a task of the runtime. Those tasks wake their
//! connection one by one, and it writes their answers one by one: a system call each. Here the task that has read a
//! handful of calls also runs them, and writes what they answered at once. A call therefore must not hold up the thread
//! that polls it; none does, since hashing and writing have threads of their own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::rt::Executor;
use tokio::task::coop::unconstrained;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper leaves the streams that it has accepted.
#[derive(Clone, Default)]
pub(super) struct Accepted(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Accepted {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
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
    pub(super) connection: Pin<Box<C>>,
    accepted: Accepted,
    running: FuturesUnordered<Running>,
}

impl<C> WithStreams<C> {
    pub(super) fn new(connection: C, accepted: Accepted) -> Self {
        Self { connection: Box::pin(connection), accepted, running: FuturesUnordered::new() }
    }
}

impl<C: Future> Future for WithStreams<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let ended = self.connection.as_mut().poll(context);
        let accepted = std::mem::take(&mut *self.accepted.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.running.extend(accepted.into_iter().map(Running));
        // Whoever has an answer wakes the connection, which writes it when it is polled next.
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
        ended
    }
}
