//! Writes the SQLSTATE of each error of PostgreSQL before its message, while the answers of the server are
//! read.
//!
//! diesel passes on the message of an error and not its code, and the message is in the language of the
//! server. The stream below changes nothing but the messages of errors: other bytes are only counted.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll, ready as ready_or_wait},
};

use futures_util::{TryFutureExt, future::MapOk};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Socket,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql_state::SqlState;

/// Largest error of a server that keeps to the protocol; a message is at most a few kilobytes long. What
/// claims to be longer is not an error of this protocol, and is passed on as it is.
const ERROR_BYTES_MAX: usize = 1024 * 1024;

/// Bytes before the body of a message: its type and its length.
const HEADER_BYTES: usize = 5;

/// The type of the message that reports an error.
const ERROR: u8 = b'E';

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// A stream from a server whose errors begin with their SQLSTATE.
pub(super) struct WithStates<S> {
    stream: S,
    errors: ErrorFilter,
    channel_binding: fn(&S) -> ChannelBinding,
}

impl<S> WithStates<S> {
    /// Wraps a stream without TLS.
    pub(super) fn plain(stream: S) -> Self {
        Self { stream, errors: ErrorFilter::default(), channel_binding: |_| ChannelBinding::none() }
    }
}

impl<S: TlsStream> WithStates<S> {
    fn encrypted(stream: S) -> Self {
        Self { stream, errors: ErrorFilter::default(), channel_binding: S::channel_binding }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithStates<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if buffer.remaining() == 0 || this.errors.give(buffer) {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready_or_wait!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let received = buffer.filled().get(before..).unwrap_or_default();
            if received.is_empty() && !this.errors.end() {
                return Poll::Ready(Ok(()));
            }
            let kept = this.errors.pass(received);
            buffer.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithStates<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for WithStates<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.channel_binding)(&self.stream)
    }
}

/// Opens plain connections. The driver lets only TLS wrap its stream, so this type acts as TLS and leaves the
/// bytes as they are. With `SslNegotiation::Direct`, the driver does not ask the server for TLS first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain;

impl MakeTlsConnect<Socket> for Plain {
    type Stream = WithStates<Socket>;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _: &str) -> Result<Self, Infallible> {
        Ok(*self)
    }
}

impl TlsConnect<Socket> for Plain {
    type Stream = WithStates<Socket>;
    type Error = Infallible;
    type Future = Ready<Result<WithStates<Socket>, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(WithStates::plain(socket)))
    }
}

/// Opens connections with TLS.
#[derive(Clone)]
pub(super) struct Encrypted(pub(super) MakeRustlsConnect);

/// Opens one connection with TLS.
pub(super) struct EncryptedConnect(RustlsConnect);

impl MakeTlsConnect<Socket> for Encrypted {
    type Stream = WithStates<RustlsStream>;
    type TlsConnect = EncryptedConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<EncryptedConnect, Self::Error> {
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host).map(EncryptedConnect)
    }
}

impl TlsConnect<Socket> for EncryptedConnect {
    type Stream = WithStates<RustlsStream>;
    type Error = <RustlsConnect as TlsConnect<Socket>>::Error;
    type Future =
        MapOk<<RustlsConnect as TlsConnect<Socket>>::Future, fn(RustlsStream) -> WithStates<RustlsStream>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.0.connect(socket).map_ok(WithStates::encrypted)
    }
}

/// Finds the errors among the messages of a server. It holds an error until it is complete; other messages
/// stay where they are.
#[derive(Default)]
struct ErrorFilter {
    /// The header of a message of which only a part has arrived.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the current message that are still to come.
    body_left: usize,
    /// Bytes from the beginning of an error that is not complete yet.
    held: Vec<u8>,
    /// Bytes to give to the reader before any others.
    ready: Vec<u8>,
    /// True after bytes that are not of this protocol.
    is_off: bool,
}

impl ErrorFilter {
    /// Moves bytes that are ready into the buffer. True if there were any.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let count = self.ready.len().min(buffer.remaining());
        buffer.put_slice(self.ready.get(..count).unwrap_or_default());
        self.ready.drain(..count);
        count > 0
    }

    /// Takes received bytes. Returns how many of them can stay where they are; the others are held.
    fn pass(&mut self, received: &[u8]) -> usize {
        let kept = if self.held.is_empty() { self.skip(received) } else { 0 };
        self.held.extend_from_slice(received.get(kept..).unwrap_or_default());
        while self.release() {}
        kept
    }

    /// Makes the bytes of an incomplete error ready, at the end of the stream. True if there were any.
    fn end(&mut self) -> bool {
        let has_held = !self.held.is_empty();
        self.ready.append(&mut self.held);
        has_held
    }

    /// Returns the number of bytes before the next error, and all of them if there is none.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        if self.is_off {
            return bytes.len();
        }
        let mut rest = bytes;
        loop {
            let body = self.body_left.min(rest.len());
            self.body_left -= body;
            rest = rest.get(body..).unwrap_or_default();
            let Some((&first, after)) = rest.split_first() else { return bytes.len() };
            if self.header_bytes == 0 && first == ERROR {
                return bytes.len() - rest.len();
            }
            if let Some(place) = self.header.get_mut(self.header_bytes) {
                *place = first;
            }
            self.header_bytes += 1;
            rest = after;
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                self.body_left = (message_bytes(&self.header) + 1).saturating_sub(HEADER_BYTES);
            }
        }
    }

    /// Makes the first held error ready if it is complete, and also the bytes after it up to the next error.
    /// True if another error is held.
    fn release(&mut self) -> bool {
        if self.held.len() < HEADER_BYTES {
            return false;
        }
        let bytes = message_bytes(&self.held) + 1;
        if bytes > ERROR_BYTES_MAX {
            self.is_off = true;
            self.ready.append(&mut self.held);
            return false;
        }
        if self.held.len() < bytes {
            return false;
        }
        let mut after = self.held.split_off(bytes);
        self.ready.extend(with_state(&self.held).unwrap_or_else(|| self.held.clone()));
        let others = self.skip(&after);
        self.held = after.split_off(others);
        self.ready.append(&mut after);
        !self.held.is_empty()
    }
}

/// Returns the length that a message states after its type: the bytes of the length and of the body.
fn message_bytes(message: &[u8]) -> usize {
    let length = message.get(1..HEADER_BYTES).and_then(|bytes| bytes.try_into().ok());
    length.map_or(0, u32::from_be_bytes).try_into().unwrap_or(usize::MAX)
}

/// Returns the error with its SQLSTATE before its message; `None` if it has none. The fields of an error are
/// texts that begin with their type and end with NUL.
fn with_state(error: &[u8]) -> Option<Vec<u8>> {
    let fields: Vec<(u8, &[u8])> = error
        .get(HEADER_BYTES..)?
        .split(|byte| *byte == 0)
        .filter_map(|field| field.split_first().map(|(kind, value)| (*kind, value)))
        .collect();
    let field = |kind| fields.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
    // `V` is the severity in English, which poolers may leave out.
    let state = SqlState::new(field(b'C')?, field(b'V').or_else(|| field(b'S'))?)?;
    // 32 bytes suffice for the prefix.
    let mut body = Vec::with_capacity(error.len() + 32);
    for (kind, value) in &fields {
        body.push(*kind);
        if *kind == b'M' {
            body.extend(state.prefix());
            // Before the client is known, a server may write in another encoding than UTF-8.
            body.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
        } else {
            body.extend_from_slice(value);
        }
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + HEADER_BYTES - 1).ok()?;
    Some([&[ERROR], length.to_be_bytes().as_slice(), &body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    fn error(text: &str) -> Vec<u8> {
        message(ERROR, format!("SFEHLER\0VERROR\0C53100\0M{text}\0Fmd.c\0\0").as_bytes())
    }

    /// Sends `bytes` through the filter in parts of `size` bytes.
    fn filtered(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut filter, mut seen) = (ErrorFilter::default(), Vec::new());
        for part in bytes.chunks(size) {
            let kept = filter.pass(part);
            seen.extend_from_slice(&part[..kept]);
            seen.append(&mut filter.ready);
        }
        filter.end();
        seen.append(&mut filter.ready);
        seen
    }

    #[test]
    fn errors_get_their_code_and_other_messages_stay_however_they_are_cut() {
        let row = message(b'D', b"E\0\0\0\x05E");
        let ready_for_query = message(b'Z', b"I");
        let sent = [&row, &error("kein Platz"), &error("encore"), &ready_for_query, &row]
            .map(Vec::as_slice)
            .concat();
        let wanted = [
            &row,
            &error("SQLSTATE 53100: kein Platz"),
            &error("SQLSTATE 53100: encore"),
            &ready_for_query,
            &row,
        ]
        .map(Vec::as_slice)
        .concat();
        for size in 1..=sent.len() {
            assert_eq!(filtered(&sent, size), wanted, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_complete_error_is_passed_on_as_it_is() {
        let cut = &error("kein Platz")[..20];
        let old_protocol = b"Ecould not fork new process for connection\n\0";
        let without_code = message(ERROR, b"SERROR\0Mtext\0\0");
        for bytes in [cut, old_protocol, &without_code] {
            for size in [1, 7, 100] {
                assert_eq!(filtered(bytes, size), bytes);
            }
        }
    }
}
