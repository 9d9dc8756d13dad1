//! Serves one connection: the TLS handshake, if TLS is configured, and then the protocol.

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
    metrics::CloseReason,
    peer_account::ConnectionAccount,
    tls::{CurrentTls, certificate_names},
    when_woken::WhenWoken,
    workers::Place,
};

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The socket address of the peer.
    pub address: SocketAddr,
    /// The names in the verified client certificate of the peer (`uri:...`, `dns:...`, `cn:...`); empty
    /// without one.
    pub names: Vec<String>,
    /// The account of what the connection holds.
    pub account: Arc<ConnectionAccount>,
}

impl Peer {
    /// Returns the IP address of the peer. An IPv4-mapped IPv6 address is converted to the IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// The protocol of a port.
pub(super) trait Protocol: Send + Sync + 'static {
    /// Serves one connection until it is closed. A cancelled `stop` makes the connection finish its calls and
    /// close.
    fn serve_connection<Io>(
        &self,
        io: Io,
        peer: Peer,
        stop: &CancellationToken,
    ) -> impl Future<Output = ()> + Send
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
}

/// The TLS configuration and the time limit of a handshake.
pub(super) struct Tls {
    pub(super) current: CurrentTls,
    pub(super) handshake_timeout: Duration,
}

/// The values that all connections of a port share.
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

    /// Serves one connection until it is closed or another one gets its slot, and then releases the slot and
    /// the place on the thread.
    pub(super) async fn run(self, socket: TcpStream, address: SocketAddr, slot: Slot, place: Place) {
        let displaced = WhenWoken::new(slot.account().displaced());
        tokio::select! {
            biased;
            () = displaced => {
                slot.metrics().closed(CloseReason::Displaced);
                tracing::debug!(peer = %address, "Connection closed: another one gets its place");
            }
            () = self.serve(socket, address, &slot) => {}
        }
        drop((slot, place));
    }

    async fn serve(&self, socket: TcpStream, address: SocketAddr, slot: &Slot) {
        // A small response is sent immediately instead of waiting for more data.
        let _ = socket.set_nodelay(true);
        let (protocol, tls) = &*self.shared;
        let peer = |names| Peer { address, names, account: Arc::clone(slot.account()) };
        match tls {
            None => protocol.serve_connection(socket, peer(Vec::new()), &self.stop).await,
            Some(tls) => {
                let handshake = tls.current.acceptor().accept(socket);
                let handshake = tokio::time::timeout(tls.handshake_timeout, handshake);
                match self.stop.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => {
                        let chain = stream.get_ref().1.peer_certificates();
                        let names = chain.and_then(<[_]>::first).map(certificate_names).unwrap_or_default();
                        protocol.serve_connection(stream, peer(names), &self.stop).await;
                    }
                    Some(Ok(Err(error))) => {
                        slot.metrics().closed(CloseReason::Handshake);
                        tracing::debug!(peer = %address, %error, "TLS handshake failed");
                    }
                    Some(Err(_)) => {
                        slot.metrics().closed(CloseReason::Handshake);
                        tracing::debug!(peer = %address, "TLS handshake timed out");
                    }
                    None => {} // At shutdown, a connection that has sent no call is closed.
                }
            }
        }
    }
}
