//! A connection of HTTP/1.1 with the limits that hyper does not have: the time and the memory of a head that
//! is not complete, and the time for which a peer may read nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{held_bytes::HeldBytes, http1_framing::RequestFraming};

/// The memory of each byte of a head that is not complete: hyper's buffer, which grows by doubling, and the
/// copy in [`RequestFraming`].
const MEMORY_PER_BYTE: usize = 4;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Http1Times {
    /// The time in which a head must be complete, from its first byte or from the answer to the request
    /// before it.
    pub(super) head: Duration,
    /// The time for which a peer may read nothing of a response.
    pub(super) write: Duration,
}

/// A connection with limits.
pub(super) struct LimitedIo<Io> {
    io: Io,
    framing: RequestFraming,
    memory: HeldBytes,
    times: Http1Times,
    /// The deadline of the head, once it has begun.
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// The deadline of a write that waits for the peer.
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl<Io> LimitedIo<Io> {
    pub(super) const fn new(io: Io, framing: RequestFraming, memory: HeldBytes, times: Http1Times) -> Self {
        Self { io, framing, memory, times, head_deadline: None, write_deadline: None }
    }

    /// Says when the first byte of the first head was read, if that was before.
    pub(super) fn with_first_byte_at(mut self, first_byte_at: Instant) -> Self {
        self.head_deadline = Some(Box::pin(tokio::time::sleep_until(first_byte_at + self.times.head)));
        self
    }

    /// Checks the limits of a head that waits for more bytes.
    fn check_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.memory.set(self.framing.head_bytes().saturating_mul(MEMORY_PER_BYTE)) {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        check_deadline(self.framing.waits_for_head(), &mut self.head_deadline, self.times.head, context)
    }

    /// Checks the time limit of a write.
    fn check_write<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let waits = written.is_pending();
        match check_deadline(waits, &mut self.write_deadline, self.times.write, context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => written,
        }
    }
}

/// Starts the deadline when something begins to wait, and removes it when nothing waits. Returns an error
/// once the deadline has passed.
fn check_deadline(
    waits: bool,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if !waits {
        *deadline = None;
        return Poll::Pending;
    }
    let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
    deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
}

impl<Io: AsyncRead + Unpin> AsyncRead for LimitedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let added = self.framing.add(buffer.filled().get(before..).unwrap_or_default());
        if added.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
            // The next head has its own time.
            self.head_deadline = None;
        }
        if read.is_pending() { self.check_head(context) } else { read }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for LimitedIo<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.check_write(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.check_write(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.io).poll_shutdown(context);
        self.check_write(shut_down, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.check_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
