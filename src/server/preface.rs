//! The first bytes of HTTP/2 (RFC 9113, section 3.4), read before hyper sees the connection.
//!
//! hyper waits for them without limit. Here they have a time limit, and whoever says anything else is gone at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface has been read, and is read once more by hyper.
pub(super) struct Http2<Io> {
    io: Io,
    unread: &'static [u8],
}

/// Reads the preface; `None` when it does not come in time or is another one.
pub(super) async fn expect_preface<Io: AsyncRead + Unpin>(mut io: Io, limit: Duration) -> Option<Http2<Io>> {
    let mut first = [0; PREFACE.len()];
    let read = async {
        // Byte by byte, so that an HTTP/1 client is not waited for once it has shown what it is.
        for (place, expected) in first.iter_mut().zip(PREFACE) {
            *place = io.read_u8().await.ok()?;
            if *place != *expected {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(limit, read).await.ok()??;
    Some(Http2 { io, unread: PREFACE })
}

impl<Io: AsyncRead + Unpin> AsyncRead for Http2<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Http2<Io> {
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
