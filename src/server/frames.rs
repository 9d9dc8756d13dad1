//! Reads the heads of HTTP/2 frames (RFC 9113, section 4.1) from the bytes of a connection, without copying
//! the payloads.

use super::preface::PREFACE;

/// The length of the head of a frame.
const HEAD_BYTES: usize = 9;

/// The length of a whole `RST_STREAM` frame.
const RESET_BYTES: usize = HEAD_BYTES + 4;

/// The kind of a frame with bytes of a message (RFC 9113, section 6.1).
pub(super) const DATA: u8 = 0;

/// The flag of the last frame of DATA or HEADERS that its sender sends on a stream (RFC 9113, section 6.1).
pub(super) const END_STREAM: u8 = 1;

/// The kind of a frame that begins a call or its answer (RFC 9113, section 6.2).
pub(super) const HEADERS: u8 = 1;

/// The kind of a frame that continues the headers of the frame before (RFC 9113, section 6.10).
pub(super) const CONTINUATION: u8 = 9;

/// The flag of the last frame of headers (RFC 9113, section 6.2).
pub(super) const END_HEADERS: u8 = 4;

/// The kind of a frame that resets a stream (RFC 9113, section 6.4).
pub(super) const RST_STREAM: u8 = 3;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The error code of an `RST_STREAM` frame, and 0 for other frames.
    pub(super) code: u32,
}

/// The position within a sequence of frames.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: [u8; RESET_BYTES],
    filled: usize,
    payload_left: usize,
}

impl FrameReader {
    /// Creates a reader of what a client sends, which begins with the preface.
    pub(super) fn after_preface() -> Self {
        Self { payload_left: PREFACE.len(), ..Self::default() }
    }

    /// Calls `each` for each frame whose head ends within `bytes`, which follow the bytes of the last call.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            let (_, rest) = bytes.split_at(skipped);
            let wanted = self.head_bytes() - self.filled;
            let (part, rest) = rest.split_at(wanted.min(rest.len()));
            for (to, from) in self.head.iter_mut().skip(self.filled).zip(part) {
                *to = *from;
            }
            self.filled += part.len();
            bytes = rest;
            if self.filled == self.head_bytes() {
                let head = self.take_head();
                each(head);
            }
        }
    }

    /// Returns the length of the head. That of an `RST_STREAM` frame includes the error code.
    fn head_bytes(&self) -> usize {
        let is_reset = self.filled >= HEAD_BYTES && matches!(self.head, [0, 0, 4, RST_STREAM, ..]);
        if is_reset { RESET_BYTES } else { HEAD_BYTES }
    }

    fn take_head(&mut self) -> FrameHead {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4, c1, c2, c3, c4] = self.head;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        let is_reset = self.filled == RESET_BYTES;
        self.payload_left = if is_reset { 0 } else { length };
        self.filled = 0;
        FrameHead {
            length,
            kind,
            flags,
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
            code: if is_reset { u32::from_be_bytes([c1, c2, c3, c4]) } else { 0 },
        }
    }

    /// Returns the number of missing payload bytes of the frame whose head was read last.
    pub(super) const fn payload_left(&self) -> usize {
        self.payload_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_found_however_their_bytes_are_split() {
        let bytes = [
            vec![b'x'; PREFACE.len()],
            frame(4, 0, 0, &[]),
            frame(1, 5, 1, &[3; 40]),
            frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
            // Not a valid RST_STREAM frame.
            frame(RST_STREAM, 0, 3, &[1; 5]),
            frame(0, 1, 0x7fff_ffff, &[0; 300]),
        ]
        .concat();
        let head = |length, kind, flags, stream, code| FrameHead { length, kind, flags, stream, code };
        let expected = [
            head(0, 4, 0, 0, 0),
            head(40, 1, 5, 1, 0),
            head(4, RST_STREAM, 0, 1, 8),
            head(5, RST_STREAM, 0, 3, 0),
            head(300, 0, 1, 0x7fff_ffff, 0),
        ];
        for size in 1..=bytes.len() {
            let (mut reader, mut found) = (FrameReader::after_preface(), Vec::new());
            for part in bytes.chunks(size) {
                reader.read(part, |head| found.push(head));
            }
            assert_eq!(found, expected, "parts of {size} bytes");
            assert_eq!(reader.payload_left(), 0);
        }
    }
}
