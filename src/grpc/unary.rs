//! A fast path for unary calls, with fewer allocations than tonic's generated server.
//!
//! tonic handles each unary call as a stream: two buffers of 8 KiB and about seven boxes. Here the one
//! message is read from the frames of the body, and the response is sent in one frame. The format is
//! "Length-Prefixed-Message" of the gRPC specification (doc/PROTOCOL-HTTP2.md). Compressed requests do not
//! arrive here (see [`super::compression`]).

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use prost::Message;
use tonic::{Status, body::Body};

/// The length of the prefix of a message: one byte for the compressed flag, four for the length.
const PREFIX_BYTES: usize = 5;

/// The compressed flag in the prefix of a message that is not compressed.
const UNCOMPRESSED: u8 = 0;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Reads the request message, of at most `message_bytes_max` bytes, calls `handler` and returns the response.
pub(super) async fn respond<In, Out, Handled>(
    body: Body,
    message_bytes_max: usize,
    handler: impl FnOnce(In) -> Handled,
) -> Response<Body>
where
    In: Message + Default,
    Out: Message,
    Handled: Future<Output = Result<Out, Status>>,
{
    let outcome = match receive(body, message_bytes_max).await.and_then(decode) {
        Ok(message) => handler(message).await,
        Err(status) => Err(status),
    };
    match outcome {
        Ok(message) => success(&message),
        Err(status) => status.into_http(),
    }
}

/// Returns the data of the body. Nearly every body is one frame, which is not copied; the data of several
/// frames is copied into one buffer.
///
/// # Errors
/// `OUT_OF_RANGE` as soon as the message is too long, or the error of the body.
async fn receive(mut body: Body, message_bytes_max: usize) -> Result<Bytes, Status> {
    let (mut received, mut is_copied) = (Bytes::new(), false);
    while !body.is_end_stream()
        && let Some(frame) = poll_fn(|context| {
            let frame = Pin::new(&mut body).poll_frame(context);
            if frame.is_pending() && !received.is_empty() && !is_copied {
                // A frame shares its memory with all bytes that were read together with it. It is copied if
                // it has to wait for the next one.
                received = Bytes::copy_from_slice(&received);
                is_copied = true;
            }
            frame
        })
        .await
    {
        let Ok(data) = frame?.into_data() else { continue };
        received = if received.is_empty() { data } else { concatenate(received, &data) };
        check_length(&received, message_bytes_max)?;
    }
    Ok(received)
}

/// Appends `data`. Copies `received` only the first time, when other frames of the connection share its
/// buffer.
fn concatenate(received: Bytes, data: &[u8]) -> Bytes {
    let mut buffer = BytesMut::from(received);
    buffer.extend_from_slice(data);
    buffer.freeze()
}

/// Decodes the message of a body.
///
/// # Errors
/// `INTERNAL` for anything but one complete, uncompressed message.
fn decode<In: Message + Default>(mut received: Bytes) -> Result<In, Status> {
    let Some(&flag) = received.first() else {
        return Err(Status::internal("the request message is missing"));
    };
    let length = received.len().saturating_sub(PREFIX_BYTES);
    if flag != UNCOMPRESSED || announced_length(&received) != Some(length) {
        return Err(Status::internal("the body must be one uncompressed message"));
    }
    received.advance(PREFIX_BYTES);
    In::decode(received).map_err(|error| Status::internal(error.to_string()))
}

/// Returns `OUT_OF_RANGE` if the announced or the received length exceeds the limit. A message that is
/// announced as too long is refused before it is received.
fn check_length(received: &[u8], message_bytes_max: usize) -> Result<(), Status> {
    let announced = announced_length(received).unwrap_or_default();
    let bytes = announced.max(received.len().saturating_sub(PREFIX_BYTES));
    if bytes > message_bytes_max {
        let rule = format!("a request must have at most {message_bytes_max} bytes, not {bytes}");
        return Err(Status::out_of_range(rule));
    }
    Ok(())
}

/// Returns the message length in the prefix, or `None` if the prefix is not complete.
fn announced_length(received: &[u8]) -> Option<usize> {
    let (_, rest) = received.split_first()?;
    usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()
}

/// Returns the response with this message and the status OK.
fn success(message: &impl Message) -> Response<Body> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(UNCOMPRESSED);
    bytes.put_u32(u32::try_from(length).expect("a response is shorter than 4 GiB"));
    message.encode(&mut bytes).expect("the buffer has the size of the message");
    let body = UnaryBody { message: Some(bytes.freeze()), is_ended: false };
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A response body: one message, then the trailer `grpc-status: 0`.
struct UnaryBody {
    message: Option<Bytes>,
    is_ended: bool,
}

impl http_body::Body for UnaryBody {
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
        // Not exact, because hyper would send a content-length header for an exact size.
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

    /// A body of these data frames.
    struct Frames(VecDeque<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn message(auth_token: &str) -> Vec<u8> {
        let message = ResolveTokenRequest { auth_token: auth_token.to_owned() }.encode_to_vec();
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()].concat()
    }

    async fn read_frames<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Result<String, Code> {
        let body = Frames(frames.into_iter().map(Bytes::copy_from_slice).collect());
        let received = receive(Body::new(body), BYTES_MAX).await;
        let message = received.and_then(decode::<ResolveTokenRequest>);
        message.map(|message| message.auth_token).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_message_may_be_split_into_frames_anywhere() {
        let bytes = message("some-token");
        for size in 1..=bytes.len() {
            assert_eq!(read_frames(bytes.chunks(size)).await.as_deref(), Ok("some-token"), "{size}");
        }
        assert_eq!(read_frames([&[0, 0, 0, 0, 0][..]]).await.as_deref(), Ok(""));
    }

    #[tokio::test]
    async fn anything_but_one_uncompressed_message_is_internal() {
        let bytes = message("some-token");
        let flagged = |flag| [&[flag], &bytes[1..]].concat();
        let (compressed, unknown) = (flagged(1), flagged(2));
        let twice = bytes.repeat(2);
        let not_utf8 = [0, 0, 0, 0, 3, 0x0a, 1, 0xff];
        for invalid in
            [&[][..], &bytes[..3], &bytes[..bytes.len() - 1], &compressed, &unknown, &twice, &not_utf8]
        {
            assert_eq!(read_frames([invalid]).await, Err(Code::Internal), "{invalid:?}");
        }
    }

    #[tokio::test]
    async fn a_message_announced_as_too_long_is_refused_before_it_is_received() {
        assert_eq!(read_frames([&[0, 0, 0, 0, 65][..]]).await, Err(Code::OutOfRange));
        assert_eq!(read_frames([&[0, 0xff, 0xff, 0xff, 0xff][..]]).await, Err(Code::OutOfRange));
        assert_eq!(read_frames([[0; 80].as_slice()]).await, Err(Code::OutOfRange));
    }
}
