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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderValue, Response, StatusCode, header, uri::Authority};
use tonic::body::Body;

/// The most headers of a request of HTTP/1.1 on the API port. The HTTP port allows fewer (`http1.rs`).
pub(super) const HEADERS_MAX: usize = 100;

/// The most complete heads whose calls have not begun. hyper reads no more than a buffer of requests before
/// it begins their calls, so more would mean that it sees other requests.
const COMPLETE_MAX: usize = 4_096;

/// Why a request is refused by its head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The body is delimited by both `content-length` and `transfer-encoding`, or by neither in a valid form.
    Ambiguous,
    /// The body has a transfer coding other than `chunked`.
    UnknownCoding,
    /// HTTP/1.1 requires one `host`, which is empty or the authority of a URI.
    Host,
}

impl HeadError {
    /// Returns the answer to the request. Another server may see the next request at a different byte, so the
    /// answer closes the connection (RFC 9112, section 6.1).
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = match self {
            Self::Ambiguous | Self::Host => StatusCode::BAD_REQUEST,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
        };
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Held while a call is answered. The limits of the next head begin when it is dropped.
pub(super) struct CallInProgress(RequestFraming);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls = state.calls.saturating_sub(1);
    }
}

/// The requests that have been read, shared by the connection and its calls.
#[derive(Clone, Default)]
pub(super) struct RequestFraming(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes that were read. Returns true if they complete a head.
    pub(super) fn add(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let heads = state.heads;
        state.add(bytes);
        state.heads != heads
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
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.part {
                Part::Head(end) => {
                    let Some((of_head, rest)) = end.split(bytes) else {
                        return self.head.extend_from_slice(bytes);
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
                    let Some((byte, rest)) = bytes.split_first() else { return };
                    match trailers.after(*byte) {
                        Ok(None) => self.part = Part::default(),
                        Ok(Some(next)) => *trailers = next,
                        Err(NotCrlf) => self.part = Part::Closed,
                    }
                    rest
                }
                Part::ChunkSize { bytes: size } => {
                    let Some((byte, rest)) = bytes.split_first() else { return };
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
                    let Some(rest) = after_line(bytes) else { return };
                    self.part = after_chunk_size(*size);
                    rest
                }
                Part::ChunkEnd => {
                    let Some(rest) = after_line(bytes) else { return };
                    self.part = Part::ChunkSize { bytes: 0 };
                    rest
                }
                Part::Closed => return,
            };
        }
    }

    /// Decides how the body after a complete head is delimited.
    fn complete_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.heads = self.heads.wrapping_add(1);
        if self.complete.len() >= COMPLETE_MAX {
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
    let is_valid =
        |host: &[u8]| host.is_empty() || (Authority::try_from(host).is_ok() && !host.contains(&b'@'));
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version == Some(0) => Ok(()),
        (Some(host), None) if is_valid(host) => Ok(()),
        _ => Err(HeadError::Host),
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

/// The trailers of a chunked body, which end with an empty line. Unlike in a head, each line ends with CRLF:
/// for hyper, an LF alone is part of a line, so that it must not end one here.
enum Trailers {
    LineBegin,
    /// Within a line.
    Line,
    /// After the CR of a line.
    LineCr,
    /// After the CR of the empty line.
    EndCr,
}

/// A CR without an LF, which hyper refuses.
struct NotCrlf;

impl Trailers {
    /// Returns the state after this byte; `None` after the last byte of the trailers.
    const fn after(&self, byte: u8) -> Result<Option<Self>, NotCrlf> {
        match (self, byte) {
            (Self::LineBegin, b'\r') => Ok(Some(Self::EndCr)),
            (Self::Line, b'\r') => Ok(Some(Self::LineCr)),
            (Self::LineBegin | Self::Line, _) => Ok(Some(Self::Line)),
            (Self::LineCr, b'\n') => Ok(Some(Self::LineBegin)),
            (Self::EndCr, b'\n') => Ok(None),
            (Self::LineCr | Self::EndCr, _) => Err(NotCrlf),
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
        let framing = RequestFraming::default();
        for part in requests.as_bytes().chunks(size) {
            framing.add(part);
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
            // An LF alone ends no line of the trailers: no request begins there.
            &format!("{CHUNKED}0\r\n\nGET /fake HTTP/1.1\r\nfoo: bar\r\n\r\n"),
            &format!("{CHUNKED}0\r\nx: y\n\nGET /fake HTTP/1.1\r\n\r\n"),
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
            ("HTTP/1.1\r\nHost: a, b\r\n", Some(HeadError::Host)),
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
