//! Reads the first bytes of a connection, which say whether it is HTTP/2 or HTTP/1.1.
//!
//! A connection of HTTP/2 begins with the preface (RFC 9113, section 3.4), one of HTTP/1.1 with a method.
//! hyper waits for them without limit. This module sets a time limit, and immediately closes a connection
//! that sends anything else. After the first bytes, it limits the bytes that a connection's task reads
//! before other tasks run.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::budget;
use crate::clock::Clock;

/// The bytes that begin a connection of HTTP/2.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes that count as one operation of tokio's budget, which allows a task 128 operations before it must
/// yield. A flood of small frames would otherwise be read in megabytes at a time. A normal peer rarely sends
/// more than the 32 KiB that this allows at a time; if it does, the rest waits for the next turn of the task.
const BYTES_PER_OPERATION: usize = 256;

/// A connection whose first bytes were read. hyper reads them from it once more.
pub(super) struct AfterStart<Io> {
    io: Io,
    /// The bytes of the preface that `read_start` has read and hyper has not.
    unread: &'static [u8],
    /// The byte after them, which differs from the preface.
    different: Option<u8>,
    first_byte_at: Instant,
}

impl<Io> AfterStart<Io> {
    /// Returns when the first byte was read.
    pub(super) const fn first_byte_at(&self) -> Instant {
        self.first_byte_at
    }
}

/// A connection, with the protocol that it begins with.
pub(super) enum Start<Io> {
    Http2(AfterStart<Io>),
    Http1(AfterStart<Io>),
}

/// Reads the first bytes. Returns `None` if they do not arrive within `limit`, or begin neither the preface
/// nor a request of HTTP/1.1.
pub(super) async fn read_start<Io: AsyncRead + Unpin>(mut io: Io, limit: Duration) -> Option<Start<Io>> {
    // The time of the first byte, with `None` after the whole preface, or with the first byte that differs
    // from it and the number of bytes before.
    let read = async {
        // Byte by byte, so that another protocol is rejected at its first byte.
        let mut first_byte_at = None;
        for (same, expected) in PREFACE.iter().enumerate() {
            let byte = io.read_u8().await.ok()?;
            let first_byte_at =
                *first_byte_at.get_or_insert_with(|| Instant::from_std(Clock::system().instant()));
            if byte != *expected {
                // A method begins with an upper-case letter; `POST` and `PUT` begin like the preface.
                let begins_request = same > 0 || byte.is_ascii_uppercase();
                return begins_request.then_some((first_byte_at, Some((same, byte))));
            }
        }
        Some((first_byte_at?, None))
    };
    let (first_byte_at, different) = tokio::time::timeout(limit, read).await.ok()??;
    Some(match different {
        None => Start::Http2(AfterStart { io, unread: PREFACE, different: None, first_byte_at }),
        Some((same, byte)) => {
            let unread = PREFACE.get(..same).unwrap_or_default();
            Start::Http1(AfterStart { io, unread, different: Some(byte), first_byte_at })
        }
    })
}

impl<Io: AsyncRead + Unpin> AsyncRead for AfterStart<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() && self.different.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
            let bytes = buffer.filled().len().saturating_sub(before);
            budget::consume(context, bytes / BYTES_PER_OPERATION);
            return Poll::Ready(Ok(()));
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        if buffer.remaining() > 0
            && let Some(byte) = self.different.take()
        {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for AfterStart<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
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
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
