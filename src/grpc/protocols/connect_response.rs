//! A gRPC response as a unary response of Connect.

use std::{future::poll_fn, pin::Pin};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, header};
use http_body::Body as _;
use http_body_util::Full;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

use super::{
    connect_error,
    frames::PREFIX_BYTES,
    json,
    kind::Codec,
    schema::{Method, Schema},
};

/// Headers and trailers that have a meaning in gRPC only, or that describe the original body.
pub(super) const REMOVED: [HeaderName; 7] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
];

/// Returns the response of Connect.
pub(super) async fn from_grpc(
    response: Response<Body>,
    codec: Codec,
    method: &Method,
    schema: &Schema,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let outcome = match Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        Some(status) => Err(status),
        None => receive(body).await,
    };
    for name in REMOVED {
        head.headers.remove(name);
    }
    let outcome = outcome.and_then(|(message, trailers)| {
        add_trailers(&mut head.headers, &trailers);
        let message = check_status(&trailers).and_then(|()| unframed(message))?;
        encode(codec, message, method)
    });
    let body = match outcome {
        Ok(message) => {
            head.headers.insert(header::CONTENT_TYPE, codec.content_type());
            message
        }
        Err(status) => {
            head.status = connect_error::http_status(&status);
            head.headers.insert(header::CONTENT_TYPE, Codec::Json.content_type());
            if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
                // The header has whole seconds, so a part of a second counts as one.
                let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
                head.headers.insert(header::RETRY_AFTER, seconds.into());
            }
            connect_error::json(&status, Some(schema)).into()
        }
    };
    Response::from_parts(head, Body::new(Full::new(body)))
}

/// Returns the data and the trailers of a response.
async fn receive(mut body: Body) -> Result<(Bytes, HeaderMap), Status> {
    let (mut received, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame?.into_data() {
            Ok(data) if received.is_empty() => received = data.into(),
            Ok(data) => received.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((received.freeze(), trailers))
}

/// Returns the error in the trailers, if there is one.
fn check_status(trailers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(trailers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

/// Adds the trailers as headers with the prefix of Connect.
fn add_trailers(headers: &mut HeaderMap, trailers: &HeaderMap) {
    for (name, value) in trailers {
        if !REMOVED.contains(name)
            && let Ok(name) = HeaderName::try_from(format!("trailer-{name}"))
        {
            headers.append(name, value.clone());
        }
    }
}

/// Removes the prefix of gRPC from the one message of a response.
fn unframed(mut received: Bytes) -> Result<Bytes, Status> {
    if received.len() < PREFIX_BYTES {
        return Err(Status::internal("the response has no message"));
    }
    received.advance(PREFIX_BYTES);
    Ok(received)
}

/// Returns the protobuf message in this codec.
fn encode(codec: Codec, message: Bytes, method: &Method) -> Result<Bytes, Status> {
    match (codec, method) {
        (Codec::Json, Method::Unary { response, .. }) => to_json(response, message),
        _ => Ok(message),
    }
}

fn to_json(descriptor: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
    let message = DynamicMessage::decode(descriptor.clone(), message);
    let message = message.map_err(|_| Status::internal("the response cannot be decoded"))?;
    json::encode(&message).map(Bytes::from)
}
