//! The first bytes of HTTP/2 (RFC 9113, section 3.4), read before hyper sees the connection.
//!
//! hyper waits for them without limit. Here they have a time limit, and whoever says anything else is gone at once. What comes
//! after them is read in turns.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    task::coop,
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes cost as much as one operation, of which a task may do 128 before others have their turn. A flood of small frames
/// would otherwise be read by the megabyte at a time; what honest peers send at once is less than the 32 KiB that this allows, or
/// waits a turn.
const BYTES_OF_AN_OPERATION: usize = 256;

/// A connection whose preface has been read, and is read once more by hyper.
pub(super) struct AfterPreface<Io> {
    io: Io,
    unread: &'static [u8],
}

/// Reads the preface; `None` when it does not come in time or is another one.
pub(super) async fn expect_preface<Io: AsyncRead + Unpin>(
    mut io: Io,
    limit: Duration,
) -> Option<AfterPreface<Io>> {
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
            spend(context, buffer.filled().len().saturating_sub(before));
            return Poll::Ready(Ok(()));
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

/// Takes from the task's turn what reading so many bytes costs; the next read then waits for another turn.
fn spend(context: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / BYTES_OF_AN_OPERATION {
        match coop::poll_proceed(context) {
            Poll::Ready(operation) => operation.made_progress(),
            Poll::Pending => break,
        }
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
