//! A request of Connect as a gRPC request (<https://connectrpc.com/docs/protocol>).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header, request::Parts};
use http_body::Frame;
use prost::Message;
use prost_reflect::MessageDescriptor;
use tonic::{Status, body::Body};

use super::{
    super::{
        layer::{CONNECT_TIMEOUT, GRPC_TIMEOUT},
        request_rule::{CONNECT_TIMEOUT_DIGITS_MAX, RequestRule},
        rule::Violation,
        status::invalid_field,
    },
    frames::{MESSAGE, frame},
    json,
    kind::Codec,
    schema::Method,
};

const CONNECT_PROTOCOL_VERSION: &str = "connect-protocol-version";

/// The compression of the messages of a stream.
const STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");

/// The longest timeout that gRPC expresses in milliseconds: 8 digits.
const GRPC_TIMEOUT_MILLIS_MAX: u64 = 99_999_999;

/// Headers that have a meaning in gRPC and none in Connect, or that describe the original body.
const REMOVED: [HeaderName; 5] = [
    GRPC_TIMEOUT,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
];

/// Returns the gRPC request of a unary call. Its body is read and translated when the handler reads it. An
/// error of the protocol is an error of the body. So only an authorized caller gets it, and it is logged and
/// recorded in the audit trail.
pub(super) fn to_grpc(request: Request<Body>, codec: Codec, method: Method) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let state = match (check(&head.headers, &header::CONTENT_ENCODING), method) {
        (Err(status), _) => State::Refused(Box::new(status)),
        (Ok(()), Method::Unary { request, .. }) => State::Reading(BytesMut::new(), request),
        // No handler reads the body: `Protocols` passes no streaming method, and an unknown one is refused.
        (Ok(()), Method::Streaming | Method::Unknown) => State::Ended,
    };
    rewrite(&mut head);
    Request::from_parts(head, Body::new(TranslatedBody { body, codec, state }))
}

/// Returns the gRPC request of a streaming call with protobuf. Its body has the frames of gRPC already and is
/// passed on unchanged, unless the headers are refused.
pub(super) fn stream_to_grpc(request: Request<Body>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let body = match check(&head.headers, &STREAM_ENCODING) {
        Ok(()) => body,
        Err(status) => {
            let state = State::Refused(Box::new(status));
            Body::new(TranslatedBody { body, codec: Codec::Proto, state })
        }
    };
    rewrite(&mut head);
    Request::from_parts(head, body)
}

/// Replaces the headers of Connect with those of gRPC.
fn rewrite(head: &mut Parts) {
    for name in REMOVED {
        head.headers.remove(name);
    }
    if let Some(timeout) = head.headers.get(CONNECT_TIMEOUT).map(grpc_timeout) {
        head.headers.insert(GRPC_TIMEOUT, timeout);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.version = Version::HTTP_2;
}

/// Checks the version of the protocol, and that the header `encoding` announces no compression.
///
/// # Errors
/// `INVALID_FIELDS` or `UNIMPLEMENTED`.
fn check(headers: &HeaderMap, encoding: &HeaderName) -> Result<(), Status> {
    if headers.get(CONNECT_PROTOCOL_VERSION).is_some_and(|version| version != "1") {
        return Err(invalid_field(Violation::new(CONNECT_PROTOCOL_VERSION, &RequestRule::ConnectVersion)));
    }
    // A header may have several values.
    if headers.get_all(encoding).iter().any(|encoding| encoding != "identity") {
        let message = format!("a request must not be compressed: the only supported {encoding} is identity");
        return Err(Status::unimplemented(message));
    }
    Ok(())
}

/// Returns the `grpc-timeout` of a `connect-timeout-ms`: in milliseconds, or in whole seconds if the digits
/// do not suffice. A malformed one stays malformed, and the layer of deadlines refuses it.
fn grpc_timeout(millis: &HeaderValue) -> HeaderValue {
    let text = millis.to_str().unwrap_or_default();
    let is_valid =
        text.len() <= CONNECT_TIMEOUT_DIGITS_MAX && text.bytes().all(|digit| digit.is_ascii_digit());
    let timeout = match text.parse::<u64>() {
        Ok(millis) if is_valid && millis <= GRPC_TIMEOUT_MILLIS_MAX => format!("{millis}m"),
        Ok(millis) if is_valid => format!("{}S", millis / 1_000),
        _ => return HeaderValue::from_static("malformed"),
    };
    HeaderValue::try_from(timeout).unwrap_or(HeaderValue::from_static("malformed"))
}

/// The body of the gRPC request.
struct TranslatedBody {
    body: Body,
    codec: Codec,
    state: State,
}

enum State {
    /// The headers are refused: the body is this error.
    Refused(Box<Status>),
    /// The bytes received so far, and the type of the message that they encode.
    Reading(BytesMut, MessageDescriptor),
    Ended,
}

impl http_body::Body for TranslatedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while let State::Reading(received, _) = &mut this.state {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => received.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(status)) => {
                    this.state = State::Ended;
                    return Poll::Ready(Some(Err(status)));
                }
                None => break,
            }
        }
        Poll::Ready(match std::mem::replace(&mut this.state, State::Ended) {
            State::Ended => None,
            State::Refused(status) => Some(Err(*status)),
            State::Reading(received, message) => {
                Some(translate(this.codec, &received, &message).map(Frame::data))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

/// Returns the gRPC message of a body.
fn translate(codec: Codec, received: &[u8], message: &MessageDescriptor) -> Result<Bytes, Status> {
    match codec {
        Codec::Proto => Ok(frame(MESSAGE, received)),
        Codec::Json => {
            json::decode(message, received).map(|message| frame(MESSAGE, &message.encode_to_vec()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_translated_or_stays_malformed() {
        for (millis, timeout) in [
            ("1", "1m"),
            ("0", "0m"),
            ("99999999", "99999999m"),
            ("100000000", "100000S"),
            ("9999999999", "9999999S"),
            ("", "malformed"),
            ("-1", "malformed"),
            ("+1", "malformed"),
            ("1.5", "malformed"),
            ("5s", "malformed"),
            ("00000000001", "malformed"),
        ] {
            assert_eq!(grpc_timeout(&HeaderValue::from_static(millis)), timeout, "{millis}");
        }
    }
}
