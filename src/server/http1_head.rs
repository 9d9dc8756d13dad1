//! The head of the request that a connection of HTTP/1.1 reads.
//!
//! The connection adds what it reads, and the calls say when the head was complete and when the next one may
//! begin: once the call is answered, and the last byte of its body was read or discarded. The bytes show what
//! hyper hides: it drops `content-length` from a request that also has `transfer-encoding`. Servers that
//! disagree about the end of such a request can be made to see different requests (request smuggling), so it
//! is refused (RFC 9112, section 6.1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, header};

/// Held by a call and by its body. When both have dropped it, the next head may begin.
pub(super) struct NextHead(CurrentHead);

impl Drop for NextHead {
    fn drop(&mut self) {
        self.0.lock().is_complete = false;
    }
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By `content-length` or by chunks, not by both; or there is no body.
    Clear,
    /// By chunks. The head was read together with an earlier request, so it is unknown whether it has a
    /// `content-length` too.
    Unseen,
    /// By both.
    Ambiguous,
}

/// The head, shared by the connection and its calls.
#[derive(Clone, Default)]
pub(super) struct CurrentHead(Arc<Mutex<Head>>);

#[derive(Default)]
struct Head {
    /// True while what is read is the rest of a body.
    is_complete: bool,
    bytes: Vec<u8>,
}

impl CurrentHead {
    fn lock(&self) -> MutexGuard<'_, Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes that were read.
    pub(super) fn add(&self, bytes: &[u8]) {
        let mut head = self.lock();
        if !head.is_complete {
            head.bytes.extend_from_slice(bytes);
        }
    }

    /// Returns the number of bytes of a head that is not complete.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Marks the head as complete: its call begins. Returns how its body is delimited.
    pub(super) fn complete(&self, headers: &HeaderMap) -> (Framing, Arc<NextHead>) {
        let mut head = self.lock();
        head.is_complete = true;
        let bytes = std::mem::take(&mut head.bytes);
        let has_chunks = headers.contains_key(header::TRANSFER_ENCODING);
        let framing = if has_chunks { framing_of_chunks(&bytes) } else { Framing::Clear };
        (framing, Arc::new(NextHead(self.clone())))
    }
}

/// Returns the framing of a chunked request. `bytes` are those that were read for its head; if they do not
/// hold all of the head, the framing is unseen.
fn framing_of_chunks(bytes: &[u8]) -> Framing {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // The request line comes first; an empty line ends the head.
    lines.next();
    for line in lines {
        if line.is_empty() {
            return Framing::Clear;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(header::CONTENT_LENGTH.as_str().as_bytes()) {
            return Framing::Ambiguous;
        }
    }
    Framing::Unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(parts: &[&str], headers: &[&'static str]) -> Framing {
        let head = CurrentHead::default();
        for part in parts {
            head.add(part.as_bytes());
        }
        let headers = headers.iter().map(|name| (name.parse().unwrap(), "x".parse().unwrap()));
        head.complete(&headers.collect()).0
    }

    #[test]
    fn a_request_with_a_length_and_chunks_is_ambiguous() {
        let chunked = ["transfer-encoding"];
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\nTransfer-Encoding: chunked\nCONTENT-LENGTH:5\n\n",
        ] {
            assert_eq!(framing(&[head], &chunked), Framing::Ambiguous, "{head}");
            let (first, second) = head.split_at(30);
            assert_eq!(framing(&[first, second], &chunked), Framing::Ambiguous, "{head}");
        }
        let clear =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n17\r\ncontent-length: 5\r\n\r\n\r\n";
        assert_eq!(framing(&[clear], &chunked), Framing::Clear);
        assert_eq!(
            framing(&["POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"], &["content-length"]),
            Framing::Clear
        );
        assert_eq!(framing(&[], &chunked), Framing::Unseen);
    }

    #[test]
    fn the_bytes_of_a_body_are_not_part_of_a_head() {
        let head = CurrentHead::default();
        head.add(b"POST / HT");
        assert_eq!(head.waiting_bytes(), 9);
        let (_, of_call) = head.complete(&HeaderMap::new());
        let of_body = Arc::clone(&of_call);
        drop(of_call);
        head.add(b"body");
        assert_eq!(head.waiting_bytes(), 0);
        drop(of_body);
        head.add(b"P");
        assert_eq!(head.waiting_bytes(), 1);
    }
}
