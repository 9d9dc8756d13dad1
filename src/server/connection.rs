//! The life of a connection: TLS if there is any, then what its protocol makes of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::{
    listener::Slot,
    tls::{CurrentTls, certificate_names},
};

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// What the certificate that they showed, and somebody trusted vouches for, calls them: `uri:…`, `dns:…`, `cn:…`.
    pub names: Vec<String>,
}

impl Peer {
    /// Their address without the port; an IPv4 address in IPv6's clothes is the IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// What is spoken on a connection.
pub(super) trait Protocol: Send + Sync + 'static {
    /// Serves one connection to its end, which a stop brings about.
    fn converse<Io>(&self, io: Io, peer: Peer, stop: &CancellationToken) -> impl Future<Output = ()> + Send
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
}

/// The offer of TLS, and how long a handshake may take.
pub(super) struct Tls {
    pub(super) current: CurrentTls,
    pub(super) handshake_timeout: Duration,
}

/// What connections have in common.
pub(super) struct Connections<P> {
    shared: Arc<(P, Option<Tls>)>,
    stop: CancellationToken,
}

impl<P> Clone for Connections<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), stop: self.stop.clone() }
    }
}

impl<P: Protocol> Connections<P> {
    pub(super) fn new(protocol: P, tls: Option<Tls>, stop: CancellationToken) -> Self {
        Self { shared: Arc::new((protocol, tls)), stop }
    }

    /// Serves one connection to its end; `slot` is free for another then.
    pub(super) async fn run(self, socket: TcpStream, address: SocketAddr, slot: Slot) {
        // Small answers must not wait for more to send.
        let _ = socket.set_nodelay(true);
        let (protocol, tls) = &*self.shared;
        match tls {
            None => protocol.converse(socket, Peer { address, names: Vec::new() }, &self.stop).await,
            Some(tls) => {
                let handshake = tls.current.acceptor().accept(socket);
                let handshake = tokio::time::timeout(tls.handshake_timeout, handshake);
                match self.stop.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => {
                        let shown = stream.get_ref().1.peer_certificates();
                        let names = shown.and_then(<[_]>::first).map(certificate_names).unwrap_or_default();
                        protocol.converse(stream, Peer { address, names }, &self.stop).await;
                    }
                    Some(Ok(Err(error))) => {
                        tracing::debug!(peer = %address, %error, "A TLS handshake failed");
                    }
                    Some(Err(_)) => tracing::debug!(peer = %address, "A TLS handshake took too long"),
                    None => {} // A stop owes nothing to a peer that has not asked for anything.
                }
            }
        }
        drop(slot);
    }
}
