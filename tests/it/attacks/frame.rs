//! Hand-made HTTP/2 frames (RFC 9113, section 6).

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// The flag of SETTINGS and PING that acknowledges one from the peer.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The error code CANCEL of the frame `RST_STREAM` (RFC 9113, section 7).
pub const CANCEL: u32 = 8;

/// Returns the bytes of a frame.
pub fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the bytes that a client connection starts with: the preface and an empty SETTINGS frame.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &bytes(SETTINGS, 0, 0, &[])].concat()
}

/// Returns a header field as an HPACK literal without indexing (RFC 7541, section 6.2.2).
pub fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0x00][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Returns the header block of a POST request with this content type.
pub fn headers(path: &str, content_type: &str) -> Vec<u8> {
    headers_to(&["localhost"], path, content_type)
}

/// Returns the header block of a POST request with a field `:authority` for each of `authorities`.
pub fn headers_to(authorities: &[&str], path: &str, content_type: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` from the static table; then `:path`, `:authority` and
    // `content-type`, whose names are in it (RFC 7541, appendix A).
    let begin = [&[0x83, 0x86, 0x04][..], &text(path)].concat();
    let authorities = authorities.iter().flat_map(|authority| [&[0x01][..], &text(authority)].concat());
    let end = [&[0x0f, 0x10][..], &text(content_type), &header("te", "trailers")].concat();
    begin.into_iter().chain(authorities).chain(end).collect()
}

/// Returns the header block of a call of the method at `path`.
pub fn headers_of_a_call(path: &str) -> Vec<u8> {
    headers(path, "application/grpc")
}

/// Returns the HEADERS frame that begins a call, with `END_HEADERS` and these further flags.
pub fn call(path: &str, stream: u32, flags: u8) -> Vec<u8> {
    bytes(HEADERS, END_HEADERS | flags, stream, &headers_of_a_call(path))
}
