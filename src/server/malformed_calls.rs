//! Logs the calls that h2 resets before they are answered, because they are malformed (RFC 9113, section
//! 8.1.1). They reach no layer that could answer them, and their clients see no more than the error code.
//!
//! A call that was answered may be reset too, for example because its client sends more than it has announced
//! after an early answer. Its client has its answer, so it is not logged.

use std::net::SocketAddr;

use super::{
    frames::{FrameHead, HEADERS, RST_STREAM},
    peer_log::PeerLog,
    resets::PROTOCOL_ERROR,
};

/// What equal lines have in common. It names the usual cause with a correct client: a list of addresses.
const TEXT: &str = "A call that breaks the rules of HTTP/2 was reset (PROTOCOL_ERROR). If its client is gRPC \
    with several addresses, or with a socket, set its option grpc.default_authority: `:authority` must be HOST \
    or HOST:PORT";

/// The streams of which it is remembered whether they were answered. Far more than a connection has open at a
/// time by default; beyond it, two of them share a place, and a line may be missing or too many.
const STREAMS: usize = 1_024;

/// Logs the malformed calls of one connection, within the limits of a [`PeerLog`].
#[derive(Debug)]
pub(super) struct MalformedCalls {
    peer_log: PeerLog,
    peer: SocketAddr,
    /// A bit for each stream: whether the server has sent headers on it.
    answered: [u64; STREAMS / 64],
    /// The last stream on which the peer began a call.
    last_stream: u32,
}

impl MalformedCalls {
    pub(super) const fn new(peer_log: PeerLog, peer: SocketAddr) -> Self {
        Self { peer_log, peer, answered: [0; STREAMS / 64], last_stream: 0 }
    }

    /// Notes a frame that the peer sends.
    pub(super) fn received(&mut self, frame: FrameHead) {
        // Later headers of a call are trailers.
        if frame.kind == HEADERS && frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            if let (Some(word), bit) = self.place(frame.stream) {
                *word &= !bit;
            }
        }
    }

    /// Notes a frame that the server sends, and logs the reset of a malformed call.
    pub(super) fn sent(&mut self, frame: FrameHead) {
        let is_reset = frame.kind == RST_STREAM && frame.code == PROTOCOL_ERROR;
        if frame.kind != HEADERS && !is_reset {
            return;
        }
        let (Some(word), bit) = self.place(frame.stream) else { return };
        let was_answered = *word & bit != 0;
        *word |= bit;
        if is_reset && !was_answered {
            self.log();
        }
    }

    /// Returns the word with the bit of a stream, and the bit. Clients use the odd numbers.
    fn place(&mut self, stream: u32) -> (Option<&mut u64>, u64) {
        let number = stream as usize / 2 % STREAMS;
        (self.answered.get_mut(number / 64), 1 << (number % 64))
    }

    fn log(&self) {
        if self.peer_log.admits(self.peer.ip().to_canonical(), TEXT.to_owned()) {
            tracing::info!(target: "rpc", peer = %self.peer, "{TEXT}");
        }
    }
}
