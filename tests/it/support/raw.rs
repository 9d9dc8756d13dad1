//! Calls whose messages are raw bytes or are built from field names.

use bytes::{Buf, BufMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    api::{number_of, request_of},
    server::TestServer,
    sessions::with_bearer,
};

/// A codec that sends and returns messages as raw bytes.
#[derive(Clone, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(bytes.to_vec()))
    }
}

/// Value of a field.
#[derive(Debug, Clone)]
pub enum Value {
    /// A `string`.
    Text(String),
    /// A `bool`.
    Flag(bool),
}

/// Calls the method at `path` with these fields and the optional bearer token; returns the bytes of the
/// response.
pub async fn call(
    server: &TestServer,
    path: &str,
    fields: &[(&str, Value)],
    bearer: Option<&str>,
) -> Result<Vec<u8>, Status> {
    call_with(server, path, fields, bearer, &[]).await
}

/// Like [`call`], with more metadata.
pub async fn call_with(
    server: &TestServer,
    path: &str,
    fields: &[(&str, Value)],
    bearer: Option<&str>,
    metadata: &[(&'static str, &str)],
) -> Result<Vec<u8>, Status> {
    let message = request_of(path);
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let number = number_of(message, name);
        match value {
            Value::Text(text) => {
                encode_key(number, WireType::LengthDelimited, &mut bytes);
                encode_varint(text.len() as u64, &mut bytes);
                bytes.put_slice(text.as_bytes());
            }
            Value::Flag(flag) => {
                encode_key(number, WireType::Varint, &mut bytes);
                encode_varint(u64::from(*flag), &mut bytes);
            }
        }
    }
    call_encoded(server, path, bytes, bearer, metadata).await
}

/// Like [`call_with`], with an encoded message.
pub async fn call_encoded(
    server: &TestServer,
    path: &str,
    message: Vec<u8>,
    bearer: Option<&str>,
    metadata: &[(&'static str, &str)],
) -> Result<Vec<u8>, Status> {
    let mut request = Request::new(message);
    if let Some(token) = bearer {
        request = with_bearer(token, request);
    }
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let mut grpc = Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    grpc.unary(request, path.parse().unwrap(), Raw).await.map(tonic::Response::into_inner)
}
