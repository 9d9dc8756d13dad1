//! The protocols, and the content types by which requests choose one.

use http::{HeaderValue, Request, header};

/// The encoding of the messages of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

impl Codec {
    pub(super) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        })
    }
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    GrpcWeb,
    /// A unary call of Connect.
    Connect(Codec),
    /// A streaming call of Connect, with protobuf.
    ConnectStream,
    /// None of them. The layers reject the request.
    Other,
}

impl Protocol {
    /// Returns the protocol of a request, by its content type.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let content_type =
            request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match content_type {
            // The content type of nearly every call.
            b"application/grpc" => Self::Grpc,
            other => Self::of_content_type(str::from_utf8(other).unwrap_or_default()),
        }
    }

    fn of_content_type(content_type: &str) -> Self {
        let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let is = |name: &str| essence.trim().eq_ignore_ascii_case(name);
        let is_utf8 = parameters.trim().is_empty() || parameters.trim().eq_ignore_ascii_case("charset=utf-8");
        if is("application/json") && is_utf8 {
            Self::Connect(Codec::Json)
        } else if is("application/proto") {
            Self::Connect(Codec::Proto)
        } else if is("application/connect+proto") {
            Self::ConnectStream
        } else if is("application/grpc-web") || is("application/grpc-web+proto") {
            Self::GrpcWeb
        } else if is("application/grpc") || is("application/grpc+proto") {
            Self::Grpc
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_chooses_the_protocol() {
        for (content_type, protocol) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("Application/gRPC; charset=utf-8", Protocol::Grpc),
            ("application/grpc-web", Protocol::GrpcWeb),
            ("application/grpc-web+proto", Protocol::GrpcWeb),
            ("application/json", Protocol::Connect(Codec::Json)),
            ("application/JSON ; Charset=UTF-8", Protocol::Connect(Codec::Json)),
            ("application/proto", Protocol::Connect(Codec::Proto)),
            ("application/json; charset=latin1", Protocol::Other),
            ("application/grpc+json", Protocol::Other),
            ("application/grpc-web-text", Protocol::Other),
            ("application/connect+proto", Protocol::ConnectStream),
            ("application/connect+json", Protocol::Other),
            ("application/x-www-form-urlencoded", Protocol::Other),
            ("", Protocol::Other),
        ] {
            let request = Request::post("/").header(header::CONTENT_TYPE, content_type).body(()).unwrap();
            assert_eq!(Protocol::of(&request), protocol, "{content_type}");
        }
        assert_eq!(Protocol::of(&Request::new(())), Protocol::Other);
    }
}
