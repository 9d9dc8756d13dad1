//! Where the requests of a connection of HTTP/1.1 begin and end.
//!
//! The connection adds each byte that it reads, and [`RequestFraming`] follows them as hyper does (RFC 9112,
//! sections 6 and 7). So the limits on a head that is not complete hold for every request, also for one that
//! begins in the packet in which the one before ends.
//!
//! hyper drops `content-length` from a request that also has `transfer-encoding`, and decodes no coding but
//! `chunked`. Servers that disagree about the end of such a request can be made to see different requests
//! (request smuggling), so it is refused (RFC 9112, section 6.1). So is a request without a `host`, which
//! hyper accepts, or with several (section 3.2): servers may disagree for which of them it is.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, uri::Authority};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

/// The most headers of a request of HTTP/1.1 on the API port. The HTTP port allows fewer (`http1.rs`).
pub(super) const HEADERS_MAX: usize = 100;

/// Fewer bytes than any request has. hyper reads no more than a buffer of requests before it begins their
/// calls, so more complete heads than fit into it would mean that it sees other requests.
const REQUEST_BYTES_MIN: usize = 4;

/// Why a request is refused by its head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The body is delimited by both `content-length` and `transfer-encoding`, or by neither in a valid form.
    Ambiguous,
    /// The body has a transfer coding other than `chunked`.
    UnknownCoding,
    /// HTTP/1.1 requires one `host`, which is empty or the authority of a URI.
    Host,
    /// The head has more bytes than the buffer of hyper, which compares only a head that is not complete with
    /// this limit.
    TooLong,
}

impl HeadError {
    /// Returns the answer to the request. Another server may see the next request at a different byte, so the
    /// answer closes the connection (RFC 9112, section 6.1).
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = match self {
            Self::Ambiguous | Self::Host => StatusCode::BAD_REQUEST,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        };
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Held while a call is answered. The limits of the next head begin when it is dropped.
pub(super) struct CallInProgress(RequestFraming);

impl CallInProgress {
    /// Returns the response, whose body holds the call until hyper has taken all of it.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Body::new(BodyOfCall { body, _in_progress: self }))
    }
}

/// The body of a response, which holds its call.
struct BodyOfCall {
    body: Body,
    _in_progress: CallInProgress,
}

impl http_body::Body for BodyOfCall {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CallInProgress {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls = state.calls.saturating_sub(1);
    }
}

/// The requests that have been read, shared by the connection and its calls.
#[derive(Clone)]
pub(super) struct RequestFraming(Arc<Mutex<State>>);

struct State {
    /// The size of hyper's buffer.
    buffer_bytes_max: usize,
    /// The part of a request to which the next byte belongs.
    part: Part,
    /// The bytes of the head that is not complete.
    head: Vec<u8>,
    /// The heads that are complete and whose calls have not begun, the oldest first.
    complete: VecDeque<Result<(), HeadError>>,
    /// The calls that are being answered.
    calls: usize,
    /// The number of heads that were complete so far.
    heads: u64,
}

enum Part {
    Head(BlankLine),
    Body {
        bytes_left: u64,
    },
    ChunkSize {
        bytes: u64,
    },
    ChunkExtension {
        bytes: u64,
    },
    Chunk {
        bytes_left: u64,
    },
    ChunkEnd,
    Trailers(Trailers),
    /// The bytes belong to no request: the connection is about to be closed.
    Closed,
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(BlankLine { is_line_blank: true, has_begun: false })
    }
}

impl RequestFraming {
    /// Begins before the first request. `buffer_bytes_max` is the size of hyper's buffer, and the most bytes
    /// of a head.
    pub(super) fn new(buffer_bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            buffer_bytes_max,
            part: Part::default(),
            head: Vec::new(),
            complete: VecDeque::new(),
            calls: 0,
            heads: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes that were read. Returns true if they complete a head.
    ///
    /// # Errors
    /// If a line of the trailers does not end with CRLF. hyper accepts such a line, but another server may
    /// see the next request in it.
    pub(super) fn add(&self, bytes: &[u8]) -> Result<bool, NotCrlf> {
        let mut state = self.lock();
        let heads = state.heads;
        state.add(bytes)?;
        Ok(state.heads != heads)
    }

    /// Returns the number of bytes of the head that is not complete.
    pub(super) fn head_bytes(&self) -> usize {
        self.lock().head.len()
    }

    /// Returns true if a head has begun and is not complete, and every request before it was answered.
    pub(super) fn waits_for_head(&self) -> bool {
        let state = self.lock();
        !state.head.is_empty() && state.complete.is_empty() && state.calls == 0
    }

    /// Begins the call of the oldest complete head.
    ///
    /// # Errors
    ///
    /// If the request is refused. Its answer is [`HeadError::response`].
    pub(super) fn begin_call(&self) -> Result<CallInProgress, HeadError> {
        let mut state = self.lock();
        // A request that hyper has seen and this file has not would end at different bytes.
        state.complete.pop_front().unwrap_or(Err(HeadError::Ambiguous))?;
        state.calls = state.calls.saturating_add(1);
        Ok(CallInProgress(self.clone()))
    }
}

impl State {
    fn add(&mut self, mut bytes: &[u8]) -> Result<(), NotCrlf> {
        while !bytes.is_empty() {
            bytes = match &mut self.part {
                Part::Head(end) => {
                    let Some((of_head, rest)) = end.split(bytes) else {
                        self.head.extend_from_slice(bytes);
                        return Ok(());
                    };
                    self.head.extend_from_slice(of_head);
                    self.complete_head();
                    rest
                }
                Part::Body { bytes_left } => {
                    let rest = skip(bytes, bytes_left);
                    if *bytes_left == 0 {
                        self.part = Part::default();
                    }
                    rest
                }
                Part::Chunk { bytes_left } => {
                    let rest = skip(bytes, bytes_left);
                    if *bytes_left == 0 {
                        self.part = Part::ChunkEnd;
                    }
                    rest
                }
                Part::Trailers(trailers) => {
                    let Some((byte, rest)) = bytes.split_first() else { break };
                    match trailers.after(*byte)? {
                        None => self.part = Part::default(),
                        Some(next) => *trailers = next,
                    }
                    rest
                }
                Part::ChunkSize { bytes: size } => {
                    let Some((byte, rest)) = bytes.split_first() else { break };
                    let digit = char::from(*byte).to_digit(16);
                    self.part = match digit.map(|digit| push_digit(*size, digit)) {
                        Some(Some(bytes)) => Part::ChunkSize { bytes },
                        Some(None) => Part::Closed,
                        None if *byte == b'\n' => after_chunk_size(*size),
                        None => Part::ChunkExtension { bytes: *size },
                    };
                    rest
                }
                Part::ChunkExtension { bytes: size } => {
                    let Some(rest) = after_line(bytes) else { break };
                    self.part = after_chunk_size(*size);
                    rest
                }
                Part::ChunkEnd => {
                    let Some(rest) = after_line(bytes) else { break };
                    self.part = Part::ChunkSize { bytes: 0 };
                    rest
                }
                Part::Closed => break,
            };
        }
        Ok(())
    }

    /// Decides how the body after a complete head is delimited.
    fn complete_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.heads = self.heads.wrapping_add(1);
        if self.complete.len() >= self.buffer_bytes_max / REQUEST_BYTES_MIN {
            self.part = Part::Closed;
            return;
        }
        if head.len() > self.buffer_bytes_max {
            self.complete.push_back(Err(HeadError::TooLong));
            self.part = Part::Closed;
            return;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        // hyper parses the same bytes with the same library, refuses what it cannot parse, and closes.
        self.part = match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let body = check_host(&request).and_then(|()| body_of(request.headers));
                self.complete.push_back(body.as_ref().map(|_| ()).map_err(|error| *error));
                body.unwrap_or(Part::Closed)
            }
            Ok(httparse::Status::Partial) | Err(_) => Part::Closed,
        };
    }
}

/// Returns the values of the headers with this name.
fn values<'a>(
    headers: &'a [httparse::Header<'a>],
    name: &'a header::HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let has_name = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name.as_str());
    headers.iter().filter(has_name).map(|header| header.value.trim_ascii())
}

/// Refuses a request of HTTP/1.1 without a `host`, with several, or with an invalid one (RFC 9112, section
/// 3.2). HTTP/1.0 does not require it.
fn check_host(request: &httparse::Request<'_, '_>) -> Result<(), HeadError> {
    let mut hosts = values(request.headers, &header::HOST);
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version == Some(0) => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(HeadError::Host),
    }
}

/// True if these bytes are empty or a host with an optional port (RFC 3986, sections 3.2.2 and 3.2.3).
fn is_host(bytes: &[u8]) -> bool {
    let is_ip_literal = bytes.first() == Some(&b'[');
    let end = if is_ip_literal {
        bytes.iter().position(|byte| *byte == b']').map(|last| last.saturating_add(1))
    } else {
        bytes.iter().position(|byte| *byte == b':')
    };
    let (host, port) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
    let is_port =
        port.is_empty() || (port.first() == Some(&b':') && port.iter().skip(1).all(u8::is_ascii_digit));
    is_port
        && if is_ip_literal {
            Authority::try_from(host).is_ok()
        } else {
            host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte))
        }
}

/// Returns what follows a head with these headers (RFC 9112, section 6.3).
fn body_of(headers: &[httparse::Header<'_>]) -> Result<Part, HeadError> {
    let mut codings = values(headers, &header::TRANSFER_ENCODING);
    let mut lengths = values(headers, &header::CONTENT_LENGTH);
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Part::default()),
        (Some(_), Some(_)) => Err(HeadError::Ambiguous),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => {
            Ok(Part::ChunkSize { bytes: 0 })
        }
        (Some(_), None) => Err(HeadError::UnknownCoding),
        (None, Some(length)) => {
            let is_repeated = lengths.all(|other| other == length);
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            match length.filter(|_| is_repeated) {
                Some(0) => Ok(Part::default()),
                Some(bytes_left) => Ok(Part::Body { bytes_left }),
                None => Err(HeadError::Ambiguous),
            }
        }
    }
}

/// Returns what follows the line with the size of a chunk. The last chunk has size 0.
const fn after_chunk_size(bytes: u64) -> Part {
    match bytes {
        0 => Part::Trailers(Trailers::LineBegin),
        _ => Part::Chunk { bytes_left: bytes },
    }
}

/// Appends a hexadecimal digit. Returns `None` if the number does not fit.
fn push_digit(number: u64, digit: u32) -> Option<u64> {
    number.checked_mul(16)?.checked_add(digit.into())
}

/// Returns the bytes after the next `left` bytes, and reduces `left` by those that were skipped.
fn skip<'a>(bytes: &'a [u8], left: &mut u64) -> &'a [u8] {
    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left = left.saturating_sub(u64::try_from(skipped).unwrap_or(u64::MAX));
    bytes.get(skipped..).unwrap_or_default()
}

/// Returns the bytes after the end of the line; `None` if the line does not end in `bytes`.
fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    parts.next();
    parts.next()
}

/// The trailers of a chunked body, which end with an empty line. Each line ends with CRLF. For hyper, an LF
/// alone is part of a line. Other servers end a line at it.
enum Trailers {
    LineBegin,
    /// Within a line.
    Line,
    /// After the CR of a line.
    LineCr,
    /// After the CR of the empty line.
    EndCr,
}

/// A CR without an LF, or an LF without a CR.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotCrlf;

impl Trailers {
    /// Returns the state after this byte; `None` after the last byte of the trailers.
    const fn after(&self, byte: u8) -> Result<Option<Self>, NotCrlf> {
        match (self, byte) {
            (Self::LineBegin, b'\r') => Ok(Some(Self::EndCr)),
            (Self::Line, b'\r') => Ok(Some(Self::LineCr)),
            (Self::LineCr, b'\n') => Ok(Some(Self::LineBegin)),
            (Self::EndCr, b'\n') => Ok(None),
            (Self::LineCr | Self::EndCr, _) | (_, b'\n') => Err(NotCrlf),
            (Self::LineBegin | Self::Line, _) => Ok(Some(Self::Line)),
        }
    }
}

/// Finds the blank line that ends a head. A line ends with CRLF or LF.
struct BlankLine {
    /// Whether the line that is being read has no byte yet.
    is_line_blank: bool,
    /// Whether a line that is not blank was read. Blank lines before a head are ignored.
    has_begun: bool,
}

impl BlankLine {
    /// Splits the bytes after the blank line; returns `None` if it does not end in `bytes`.
    fn split<'a>(&mut self, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let last = bytes.iter().position(|byte| self.ends_with(*byte))?;
        bytes.split_at_checked(last.saturating_add(1))
    }

    /// Adds a byte. Returns true if it ends the blank line.
    const fn ends_with(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' if self.is_line_blank && self.has_begun => return true,
            b'\n' => self.is_line_blank = true,
            b'\r' => {}
            _ => (self.is_line_blank, self.has_begun) = (false, true),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Adds the bytes in parts of `size`.
    fn framing(requests: &str, size: usize) -> RequestFraming {
        let framing = RequestFraming::new(1_000);
        for part in requests.as_bytes().chunks(size) {
            framing.add(part).unwrap();
        }
        framing
    }

    #[test]
    fn every_request_is_found_however_its_bytes_arrive() {
        let next = "GET / HT";
        for body in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\nhost: x\n\n",
            "POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHOST: x:1\r\ncontent-length: 5\r\n\r\n\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost:\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nGET",
            &format!("{CHUNKED}0\r\n\r\n"),
            &format!("{CHUNKED}18;name=\"x\"\r\nGET / HTTP/1.1\r\nx: y\r\n\r\n\r\n0\r\n\r\n"),
            &format!("{CHUNKED}2 \r\n\r\n\r\n00\r\ntrailer: x\r\nother: y\r\n\r\n"),
        ] {
            let requests = format!("{body}{body}{next}");
            for size in 1..=requests.len() {
                let framing = framing(&requests, size);
                assert_eq!(framing.head_bytes(), next.len(), "{requests:?} in parts of {size}");
                assert!(!framing.waits_for_head(), "two calls have not begun");
                let calls = [framing.begin_call(), framing.begin_call()];
                assert!(calls.iter().all(Result::is_ok), "{requests:?} in parts of {size}");
                assert!(!framing.waits_for_head(), "two calls are in progress");
                drop(calls);
                assert!(framing.waits_for_head());
                assert_eq!(framing.begin_call().err(), Some(HeadError::Ambiguous));
            }
        }
    }

    #[test]
    fn a_request_whose_end_is_not_certain_is_refused() {
        let (ambiguous, unknown) = (HeadError::Ambiguous, HeadError::UnknownCoding);
        for (headers, expected) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ambiguous),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", ambiguous),
            ("Transfer-Encoding: chunked\nCONTENT-LENGTH:5\n", ambiguous),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", ambiguous),
            ("Content-Length: x\r\n", ambiguous),
            ("Transfer-Encoding: gzip, chunked\r\n", unknown),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", unknown),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", unknown),
        ] {
            let request =
                format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            let first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            for size in 1..=request.len() {
                let framing = framing(&format!("{first}{request}"), size);
                assert!(framing.begin_call().is_ok());
                assert_eq!(framing.begin_call().err(), Some(expected), "{headers:?} in parts of {size}");
                assert_eq!(framing.begin_call().err(), Some(ambiguous), "nothing follows");
                assert_eq!(framing.head_bytes(), 0);
            }
        }
    }

    #[test]
    fn a_line_of_trailers_without_crlf_is_refused() {
        for trailers in [
            "\nGET /fake HTTP/1.1\r\nfoo: bar\r\n\r\n",
            "x: y\n\nGET /fake HTTP/1.1\r\n\r\n",
            "x: y\r\n\n",
            "x: y\rz\r\n\r\n",
        ] {
            let framing = RequestFraming::new(1_000);
            assert_eq!(
                framing.add(format!("{CHUNKED}0\r\n{trailers}").as_bytes()),
                Err(NotCrlf),
                "{trailers:?}"
            );
        }
    }

    #[test]
    fn a_head_beyond_the_buffer_is_refused_behind_others_too() {
        let one = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let long =
            |bytes: usize| format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", "y".repeat(bytes - 32));
        assert_eq!(long(1_000).len(), 1_000);
        for (bytes, expected) in [(1_000, None), (1_001, Some(HeadError::TooLong))] {
            let framing = framing(&format!("{}{}", one.repeat(20), long(bytes)), 700);
            for _ in 0..20 {
                assert!(framing.begin_call().is_ok());
            }
            assert_eq!(framing.begin_call().err(), expected);
        }
    }

    #[test]
    fn a_request_of_http_1_1_names_one_host() {
        for (headers, expected) in [
            ("HTTP/1.1\r\nHost: kairos.example:50051\r\n", None),
            ("HTTP/1.1\r\nHost: [::1]:50051\r\n", None),
            ("HTTP/1.1\r\nHost:\r\n", None),
            ("HTTP/1.0\r\n", None),
            ("HTTP/1.1\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: a\r\nHost: a\r\n", Some(HeadError::Host)),
            ("HTTP/1.0\r\nHost: a\r\nhost: b\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: a b\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: user@a\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: %2Frun%2Fx.sock\r\n", None),
            ("HTTP/1.1\r\nHost: a, b\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: x:y\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: [::1\r\n", Some(HeadError::Host)),
            ("HTTP/1.1\r\nHost: a/b\r\n", Some(HeadError::Host)),
        ] {
            let framing = framing(&format!("GET / {headers}\r\n"), 7);
            assert_eq!(framing.begin_call().err(), expected, "{headers:?}");
        }
    }

    #[test]
    fn numbers_beyond_range_end_the_connection() {
        let too_large = "1".repeat(17);
        let chunk = framing(&format!("{CHUNKED}{too_large}\r\nGET / HTTP/1.1\r\n"), 7);
        assert_eq!(chunk.head_bytes(), 0);
        let length = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\nGET", u64::MAX);
        assert_eq!(framing(&length, 7).head_bytes(), 0, "what follows is the body");
        assert_eq!(framing("POST\r\n\r\nGET / HTTP/1.1\r\n", 7).head_bytes(), 0);
    }
}
