//! A unary call without the machinery of streams, for what is called so often that a box counts.
//!
//! tonic's generated server reads and writes each unary call as a stream: two buffers of 8 KiB, some seven boxes. Here the
//! one message is read from the frames of the body and answered in one frame. Format: the gRPC specification's
//! "Length-Prefixed-Message" (doc/PROTOCOL-HTTP2.md). Compressed requests ([`is_plain`]) are left to tonic.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use prost::Message;
use tonic::{Status, body::Body};

/// The compressed-flag and the length before a message.
const PREFIX_BYTES: usize = 5;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether the messages of the request are not compressed.
pub(super) fn is_plain(request: &Request<Body>) -> bool {
    request.headers().get("grpc-encoding").is_none_or(|encoding| encoding == "identity")
}

/// Reads the request, at most `message_bytes_max` long, and answers with what `handler` makes of it.
pub(super) async fn answer<In, Out, Handled>(
    body: Body,
    message_bytes_max: usize,
    handler: impl FnOnce(In) -> Handled,
) -> Response<Body>
where
    In: Message + Default,
    Out: Message,
    Handled: Future<Output = Result<Out, Status>>,
{
    let outcome = match read(body, message_bytes_max).await {
        Ok(message) => handler(message).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(message) => success(&message),
        Err(refusal) => refusal.into_http(),
    }
}

async fn read<In: Message + Default>(mut body: Body, message_bytes_max: usize) -> Result<In, Status> {
    // Nearly always one piece, which is read where it lies; many are gathered by appending.
    let (mut first, mut gathered) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream()
        && let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let Ok(piece) = frame?.into_data() else { continue };
        if first.is_empty() {
            first = piece;
        } else {
            if gathered.is_empty() {
                gathered.extend_from_slice(&first);
            }
            gathered.extend_from_slice(&piece);
        }
        refuse_long(if gathered.is_empty() { &first } else { &gathered }, message_bytes_max)?;
    }
    let mut received = if gathered.is_empty() { first } else { gathered.freeze() };
    if received.is_empty() {
        return Err(Status::internal("Missing request message."));
    }
    let is_plain = received.first() == Some(&0);
    if !is_plain || length(&received) != Some(received.len().saturating_sub(PREFIX_BYTES)) {
        return Err(Status::internal("the body is not one message that is not compressed"));
    }
    received.advance(PREFIX_BYTES);
    In::decode(received).map_err(|error| Status::internal(error.to_string()))
}

/// Refuses a message that says it is too long before it is here, and bytes that nobody announced.
fn refuse_long(received: &[u8], message_bytes_max: usize) -> Result<(), Status> {
    let bytes = length(received).unwrap_or_default().max(received.len().saturating_sub(PREFIX_BYTES));
    if bytes > message_bytes_max {
        let rule = format!("a request has at most {message_bytes_max} bytes, not {bytes}");
        return Err(Status::out_of_range(rule));
    }
    Ok(())
}

/// What the prefix, once it is here, says about the message behind it.
fn length(received: &[u8]) -> Option<usize> {
    let (_, rest) = received.split_first()?;
    usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()
}

fn success(message: &impl Message) -> Response<Body> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("an answer is shorter than 4 GiB"));
    message.encode(&mut bytes).expect("the buffer has room for the message");
    let body = OneMessage { message: Some(bytes.freeze()), is_ended: false };
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message, then `grpc-status: 0`.
struct OneMessage {
    message: Option<Bytes>,
    is_ended: bool,
}

impl http_body::Body for OneMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.is_ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        // Not exact: hyper would announce a content-length.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tonic::Code;

    use super::*;
    use crate::proto::ResolveTokenRequest;

    const BYTES_MAX: usize = 64;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn message(auth_token: &str) -> Vec<u8> {
        let message = ResolveTokenRequest { auth_token: auth_token.to_owned() }.encode_to_vec();
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()].concat()
    }

    async fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, Code> {
        let body = Pieces(pieces.into_iter().map(Bytes::copy_from_slice).collect());
        let read = read::<ResolveTokenRequest>(Body::new(body), BYTES_MAX).await;
        read.map(|message| message.auth_token).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_message_is_read_in_whatever_pieces_it_comes() {
        let bytes = message("some-token");
        for size in 1..=bytes.len() {
            assert_eq!(read_pieces(bytes.chunks(size)).await.as_deref(), Ok("some-token"), "{size}");
        }
        assert_eq!(read_pieces([&[0, 0, 0, 0, 0][..]]).await.as_deref(), Ok(""));
    }

    #[tokio::test]
    async fn what_is_not_one_plain_message_is_internal_as_grpc_asks() {
        let bytes = message("some-token");
        let flagged = |flag| [&[flag], &bytes[1..]].concat();
        let (compressed, unknown) = (flagged(1), flagged(2));
        let twice = bytes.repeat(2);
        let not_utf8 = [0, 0, 0, 0, 3, 0x0a, 1, 0xff];
        for faulty in
            [&[][..], &bytes[..3], &bytes[..bytes.len() - 1], &compressed, &unknown, &twice, &not_utf8]
        {
            assert_eq!(read_pieces([faulty]).await, Err(Code::Internal), "{faulty:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_by_its_announcement() {
        assert_eq!(read_pieces([&[0, 0, 0, 0, 65][..]]).await, Err(Code::OutOfRange));
        assert_eq!(read_pieces([&[0, 0xff, 0xff, 0xff, 0xff][..]]).await, Err(Code::OutOfRange));
        assert_eq!(read_pieces([[0; 80].as_slice()]).await, Err(Code::OutOfRange));
    }
}
