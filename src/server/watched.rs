//! A connection whose frames are counted as they pass: resets (`resets.rs`), and the bytes of frames that are
//! not complete.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    budget,
    frames::{CONTINUATION, END_HEADERS, FrameReader, HEADERS},
    held_bytes::HeldBytes,
    malformed_calls::MalformedCalls,
    peer_account::ConnectionAccount,
    resets::{ReceivedFrames, Resets, weight_of_sent},
};
use crate::clock::Clock;

/// An unfinished frame is counted only from this many received bytes on: nearly every read ends before them,
/// or between two frames.
const UNCOUNTED_FRAME_BYTES: usize = 1_024;

/// The most bytes of an unfinished frame. The server accepts the default `SETTINGS_MAX_FRAME_SIZE`.
const FRAME_BYTES_MAX: usize = 16_384;

/// The memory that headers occupy for each of their bytes in the frames: h2 decodes them as they arrive.
const HEADER_MEMORY_FACTOR: usize = 4;

/// The operations of tokio's budget that a new call counts as: a turn of the task begins few calls, so that
/// the calls of other connections need not wait long.
const OPERATIONS_PER_CALL: usize = 2;

/// The operations of reads after which the connection writes before it reads again: half of tokio's budget of
/// a task. Without budget it cannot write, so reads alone must not use it up.
const OPERATIONS_BEFORE_WRITE_MAX: usize = 64;

/// The number of calls of one read after which the next read is short: more than a client with the default
/// number of streams usually begins at once.
const MANY_CALLS: usize = 128;

/// The most bytes that are read at a time after frames that reset streams, or that began many calls, and
/// until a call of the connection has succeeded: the calls of one read occupy memory together before the
/// first of them is refused.
const SHORT_READ_BYTES: usize = 1_024;

/// A connection with counted frames.
pub(super) struct WatchedIo<Io> {
    io: Io,
    received: FrameReader,
    /// The payload length of the frame that was received last.
    received_length: usize,
    /// The bytes that the received frames of headers announce, if the last one of them is still missing.
    unfinished_headers: usize,
    sent: FrameReader,
    resets: Resets,
    malformed_calls: MalformedCalls,
    account: Arc<ConnectionAccount>,
    held: HeldBytes,
    clock: Clock,
    /// Whether streams were reset since the last read.
    has_resets: bool,
    /// Whether the last read began many calls.
    has_many_calls: bool,
    /// The operations of the reads since the last write.
    unwritten_operations: usize,
    /// Whether the connection writes before it reads again.
    is_paused: bool,
}

impl<Io> WatchedIo<Io> {
    /// Watches a connection that sends and receives from the preface on.
    pub(super) fn new(
        io: Io,
        resets: Resets,
        malformed_calls: MalformedCalls,
        account: Arc<ConnectionAccount>,
    ) -> Self {
        Self {
            io,
            received: FrameReader::after_preface(),
            received_length: 0,
            unfinished_headers: 0,
            sent: FrameReader::default(),
            resets,
            malformed_calls,
            held: HeldBytes::new(Arc::clone(&account)),
            account,
            clock: Clock::system(),
            has_resets: false,
            has_many_calls: false,
            unwritten_operations: 0,
            is_paused: false,
        }
    }

    /// Counts received frames. Returns the number of calls that begin with them.
    fn count_received(&mut self, bytes: &[u8]) -> usize {
        let (mut frames, mut length) = (ReceivedFrames::default(), self.received_length);
        self.received.read(bytes, |head| {
            length = head.length;
            if matches!(head.kind, HEADERS | CONTINUATION) {
                let is_last = head.flags & END_HEADERS != 0;
                self.unfinished_headers =
                    if is_last { 0 } else { self.unfinished_headers.saturating_add(head.length) };
            }
            frames.add(head);
            self.malformed_calls.received(head);
        });
        self.received_length = length;
        self.has_resets |= self.resets.received(&frames, || self.clock.instant());
        frames.calls()
    }

    fn count_sent(&mut self, bytes: &[u8]) {
        self.unwritten_operations = 0;
        let mut resets = 0;
        self.sent.read(bytes, |head| {
            resets += weight_of_sent(head);
            self.malformed_calls.sent(head);
        });
        self.has_resets |= self.resets.sent(resets, || self.clock.instant());
    }

    /// Counts the received bytes of the unfinished frame, and of unfinished headers, as memory that the peer
    /// holds. False if headers exceed its limit: their call never begins, so nothing else could refuse it.
    fn hold_unfinished_frame(&mut self) -> bool {
        let left = self.received.payload_left();
        let received = if left == 0 { 0 } else { self.received_length.saturating_sub(left) };
        let counted = if received < UNCOUNTED_FRAME_BYTES { 0 } else { received.min(FRAME_BYTES_MAX) };
        let headers = self.unfinished_headers.saturating_mul(HEADER_MEMORY_FACTOR);
        // A single frame is needed to answer the calls of the connection, so it may exceed the limits.
        let is_within_limits = self.held.set(counted.max(headers));
        is_within_limits || self.unfinished_headers == 0
    }
}

/// Reads at most `bytes_max` bytes.
fn read_at_most(
    bytes_max: usize,
    io: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(bytes_max.min(buffer.remaining())));
    ready!(Pin::new(io).poll_read(context, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

impl<Io: AsyncRead + Unpin> AsyncRead for WatchedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_paused) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        // A peer that resets streams or floods the connection with calls gets shorter turns than others, as
        // does one whose calls have all failed.
        let (has_resets, has_many_calls) =
            (std::mem::take(&mut self.has_resets), std::mem::take(&mut self.has_many_calls));
        let read = if has_resets || has_many_calls || !self.account.has_served() {
            read_at_most(SHORT_READ_BYTES, &mut self.io, context, buffer)
        } else {
            Pin::new(&mut self.io).poll_read(context, buffer)
        };
        let calls = self.count_received(buffer.filled().get(before..).unwrap_or_default());
        if read.is_pending() && !self.hold_unfinished_frame() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.has_many_calls = calls > MANY_CALLS;
        let operations =
            if self.has_resets { OPERATIONS_BEFORE_WRITE_MAX } else { calls * OPERATIONS_PER_CALL };
        self.unwritten_operations = self.unwritten_operations.saturating_add(operations);
        self.is_paused = self.unwritten_operations >= OPERATIONS_BEFORE_WRITE_MAX;
        if self.is_paused {
            self.unwritten_operations = 0;
        }
        budget::consume(context, operations.min(OPERATIONS_BEFORE_WRITE_MAX));
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for WatchedIo<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.count_sent(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, parts))?;
        let mut left = written;
        for part in parts {
            let (sent, _) = part.split_at(left.min(part.len()));
            left -= sent.len();
            self.count_sent(sent);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{
        super::{
            peer_account::PeerLimits,
            peer_log::PeerLog,
            preface::PREFACE,
            resets::{Resets, SharedVerdict},
        },
        *,
    };

    /// Returns a connection whose calls have all failed, the other end of it, and its account.
    fn unserved() -> (WatchedIo<DuplexStream>, DuplexStream, Arc<ConnectionAccount>) {
        let account = Arc::new(ConnectionAccount::of_only_connection(PeerLimits::of_connections(1)));
        let (client, io) = duplex(64 * 1_024);
        let resets = Resets::new(1, 1, SharedVerdict::default());
        let peer_log = PeerLog::new(Clock::system());
        let malformed_calls = MalformedCalls::new(peer_log, SocketAddr::from(([127, 0, 0, 1], 1)));
        (WatchedIo::new(io, resets, malformed_calls, Arc::clone(&account)), client, account)
    }

    #[tokio::test]
    async fn reads_are_short_until_a_call_has_succeeded() {
        const READ_BYTES_MAX: usize = 8 * 1_024;
        let (mut watched, mut client, account) = unserved();
        client.write_all(PREFACE).await.unwrap();
        // Frames of a kind that is not counted, so that only the rule of the test makes a read short.
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
        client.write_all(&ping.repeat(2_000)).await.unwrap();

        let mut buffer = vec![0; READ_BYTES_MAX];
        assert_eq!(watched.read(&mut buffer).await.unwrap(), SHORT_READ_BYTES);
        account.set_served();
        assert_eq!(watched.read(&mut buffer).await.unwrap(), READ_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_connection_with_many_short_reads_can_write() {
        let (mut watched, mut client, _account) = unserved();
        client.write_all(PREFACE).await.unwrap();
        // About ten calls for each short read.
        let call = [&[0, 0, 91, 1, 5, 0, 0, 0, 1][..], &[0; 91]].concat();
        client.write_all(&call.repeat(600)).await.unwrap();

        let mut bytes = vec![0; SHORT_READ_BYTES];
        poll_fn(|context| {
            let mut reads = 0;
            while Pin::new(&mut watched).poll_read(context, &mut ReadBuf::new(&mut bytes)).is_ready() {
                reads += 1;
            }
            assert!(reads > 1, "{reads}");
            assert!(
                Pin::new(&mut watched).poll_write(context, &[0]).is_ready(),
                "no budget after {reads} reads"
            );
            Poll::Ready(())
        })
        .await;
    }
}
