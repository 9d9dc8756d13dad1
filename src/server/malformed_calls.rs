//! Logs the calls that h2 resets because they are malformed (RFC 9113, section 8.1.1). They reach no layer
//! that could answer them, and their clients see no more than the error code.

use std::net::SocketAddr;

use super::{
    frames::{FrameHead, RST_STREAM},
    peer_log::PeerLog,
    resets::PROTOCOL_ERROR,
};

/// What equal lines have in common. It names the one cause that a correct client has: a list of addresses.
const TEXT: &str = "A call that breaks the rules of HTTP/2 was reset (PROTOCOL_ERROR). If its client is gRPC \
    with several addresses, or with a socket, set its option grpc.default_authority: `:authority` must be HOST \
    or HOST:PORT";

/// True if the server sends this frame because a call is malformed.
pub(super) fn is_reset_of_malformed_call(frame: FrameHead) -> bool {
    frame.kind == RST_STREAM && frame.code == PROTOCOL_ERROR
}

/// Logs the malformed calls of one connection, within the limits of a [`PeerLog`].
#[derive(Debug)]
pub(super) struct MalformedCalls {
    peer_log: PeerLog,
    peer: SocketAddr,
}

impl MalformedCalls {
    pub(super) const fn new(peer_log: PeerLog, peer: SocketAddr) -> Self {
        Self { peer_log, peer }
    }

    /// Logs that a call of the connection was reset.
    pub(super) fn log(&self) {
        if self.peer_log.admits(self.peer.ip().to_canonical(), TEXT.to_owned()) {
            tracing::info!(target: "rpc", peer = %self.peer, "{TEXT}");
        }
    }
}
