//! Reads the connection preface of HTTP/2 (RFC 9113, section 3.4) before hyper handles the connection.
//!
//! hyper waits for the preface without limit. This module sets a time limit, and closes a connection that
//! sends anything else immediately. After the preface, it limits the bytes that a connection's task reads
//! before other tasks run.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::budget;

/// The bytes that begin a connection.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes that count as one operation of tokio's budget, which allows a task 128 operations before it must
/// yield. A flood of small frames would otherwise be read in megabytes at a time. A normal peer rarely sends
/// more than the 32 KiB that this allows at a time; if it does, the rest waits for the next turn of the task.
const BYTES_PER_OPERATION: usize = 256;

/// A connection whose preface was read. hyper reads the preface from it once more.
pub(super) struct AfterPreface<Io> {
    io: Io,
    unread: &'static [u8],
}

/// Reads the preface; `None` if it does not arrive within `limit` or differs.
pub(super) async fn expect_preface<Io: AsyncRead + Unpin>(
    mut io: Io,
    limit: Duration,
) -> Option<AfterPreface<Io>> {
    let read = async {
        // Byte by byte, so that an HTTP/1 client is rejected at its first different byte.
        for expected in PREFACE {
            if io.read_u8().await.ok()? != *expected {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(limit, read).await.ok()??;
    Some(AfterPreface { io, unread: PREFACE })
}

impl<Io: AsyncRead + Unpin> AsyncRead for AfterPreface<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
            let bytes = buffer.filled().len().saturating_sub(before);
            budget::consume(context, bytes / BYTES_PER_OPERATION);
            return Poll::Ready(Ok(()));
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for AfterPreface<Io> {
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
