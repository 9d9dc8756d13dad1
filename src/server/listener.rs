//! Accepts the connections of a port within limits: a backlog for waiting connections, a limit on open
//! connections in total and per peer, and a backoff while the system refuses to accept.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    metrics::{CloseReason, OpenConnection, PortMetrics},
    open_files::{self, files_of_threads},
    peer_account::{ConnectionAccount, PeerLimits},
    peers::{PeerSlot, Peers},
};
use crate::clock::Clock;

/// The most connections that wait to be accepted. Linux limits it to `net.core.somaxconn`.
const BACKLOG: u32 = 1_024;

/// The most new connections that are accepted while there is no place, in order to see whose they are. Their
/// file descriptors are taken from [`DESCRIPTORS_RESERVED`], if there are no others.
const WAITING_MAX: usize = 32;

/// A new connection that gets no place of another one waits only while fewer than this many wait. Otherwise
/// it is closed, so that the next connection of another peer is seen.
const WAITING_WITHOUT_PLACE_MAX: usize = 16;

/// File descriptors that are reserved for other uses: [`WAITING_MAX`] for each of the three ports and for the
/// connections of that of the metrics, and twice as many for the database, the log, mail, and changed files.
const DESCRIPTORS_RESERVED: usize = 6 * WAITING_MAX;

/// The part of a lowered limit of connections that one peer leaves to the others, as a divisor.
const PART_FOR_OTHER_PEERS: usize = 8;

/// The shortest time between two warnings of a port; their causes may recur many times a second.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The first and the longest wait before accepting is retried. While file descriptors are exhausted, `accept`
/// fails immediately each time, so without a wait the loop would spin.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Opens a listening socket.
///
/// # Errors
/// The error of the system, for example if the port is in use or the process may not open it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    bound(address)?.listen(BACKLOG)
}

/// Checks that [`bind`] could open a listening socket. No client can connect to it.
///
/// # Errors
/// As [`bind`].
pub fn check_bind(address: SocketAddr) -> io::Result<()> {
    bound(address).map(drop)
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // After a restart, the port can be opened before the connections of the previous process have timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The share of a port in the connections that the process may open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// The API port, with its threads: three quarters.
    Calls { threads: usize },
    /// The HTTP port: one quarter, so that connections to the pages cannot use the slots of the API port.
    Pages,
}

impl Share {
    /// Returns the number of connections under a limit of `files` open files.
    fn of_files(self, files: usize) -> usize {
        let of_pages = |slots: usize| (slots / 4).max(1);
        match self {
            Self::Calls { threads } => {
                let slots = slots_within(files, threads);
                slots.saturating_sub(of_pages(slots)).max(1)
            }
            Self::Pages => of_pages(slots_within(files, 0)),
        }
    }
}

/// The right to one open connection, in total and of its peer. Dropping it releases the slot.
pub(super) struct Slot {
    _of_all: OwnedSemaphorePermit,
    of_peer: PeerSlot,
    _open: OpenConnection,
    metrics: PortMetrics,
}

impl Slot {
    pub(super) const fn account(&self) -> &Arc<ConnectionAccount> {
        self.of_peer.account()
    }

    /// Returns the metrics of the port.
    pub(super) const fn metrics(&self) -> &PortMetrics {
        &self.metrics
    }
}

/// Accepts connections while slots are free. When no slot is free, a new connection of a peer that has few
/// gets the place of one whose peer has many; a new connection of the peer that has the most waits.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// The connections that were accepted and wait for a slot, the next one first.
    waiting: VecDeque<(TcpStream, SocketAddr)>,
    slots: Arc<Semaphore>,
    peers: Peers,
    /// The time of the last warning.
    warned_at: Option<Instant>,
    metrics: PortMetrics,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        connections_max: usize,
        mut peer_limits: PeerLimits,
        share: Share,
        metrics: PortMetrics,
    ) -> Self {
        let slots =
            open_files::limit().map_or(connections_max, |files| connections_max.min(share.of_files(files)));
        if slots < connections_max {
            // Otherwise one peer could take all slots, also those of the health checks at its address.
            let for_one_peer = slots - slots / PART_FOR_OTHER_PEERS;
            peer_limits.connections_max = peer_limits.connections_max.min(for_one_peer);
            let address = listener.local_addr().map_or_else(|_| "a port".to_owned(), |at| at.to_string());
            tracing::warn!(
                "Connection limit of {address} lowered from {connections_max} to {slots}, and to {} for one peer: the \
                 open file limit (ulimit -n, LimitNOFILE= of systemd) is too low",
                peer_limits.connections_max
            );
        }
        let peers = Peers::new(peer_limits, slots);
        let slots = Arc::new(Semaphore::new(slots));
        Self { listener, waiting: VecDeque::new(), slots, peers, warned_at: None, metrics }
    }

    /// Returns the next connection with its slot, which must be held until the connection is closed. A
    /// connection of a peer that has too many is closed immediately. Returns `None` only if the semaphore of
    /// slots is closed, which never happens.
    pub(super) async fn accept(&mut self) -> Option<(TcpStream, SocketAddr, Slot)> {
        let of_all = self.free_slot().await?;
        loop {
            let (socket, peer) = match self.waiting.pop_front() {
                Some(waiting) => waiting,
                None => self.next().await,
            };
            if let Some(of_peer) = self.peers.take(peer.ip()) {
                let (open, metrics) = (self.metrics.opened(), self.metrics.clone());
                return Some((socket, peer, Slot { _of_all: of_all, of_peer, _open: open, metrics }));
            }
            self.metrics.closed(CloseReason::TooManyOfPeer);
            self.warn(&format!("Connection from {} closed: it has too many", peer.ip()));
        }
    }

    /// Waits for a free slot. Meanwhile accepts connections, and closes open ones in favor of them.
    async fn free_slot(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.slots.available_permits() == 0 {
            self.warn("Connection limit reached; new connections wait until one closes");
        }
        loop {
            let slots = Arc::clone(&self.slots);
            let may_accept = self.waiting.len() < WAITING_MAX;
            let (socket, peer) = tokio::select! {
                biased;
                of_all = slots.acquire_owned() => return of_all.ok(),
                accepted = self.next(), if may_accept => accepted,
            };
            if self.peers.displace_for(peer.ip()) {
                self.waiting.push_front((socket, peer));
            } else if self.waiting.len() < WAITING_WITHOUT_PLACE_MAX {
                self.waiting.push_back((socket, peer));
            } else {
                self.metrics.closed(CloseReason::NoPlace);
                self.warn(&format!("Connection from {} closed: no place is free", peer.ip()));
            }
        }
    }

    /// Accepts the next connection.
    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        let mut wait = BACKOFF_FIRST;
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_peer_error(&error) => {}
                Err(error) => {
                    self.metrics.closed(CloseReason::AcceptFailed);
                    self.warn(&format!("Accepting a connection failed; retrying: {error}"));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Logs a warning, unless the last one was logged less than `WARNING_INTERVAL` ago.
    fn warn(&mut self, warning: &str) {
        let now = Clock::system().instant();
        if self.warned_at.is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL) {
            tracing::warn!("{warning}");
            self.warned_at = Some(now);
        }
    }
}

/// True if the error concerns only one peer, for example one that closed its connection before it was
/// accepted. The next connection is then accepted without a wait.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Returns the number of files that the process must be able to open, so that neither limit of connections,
/// that of the API port and that of the HTTP port, is lowered. `threads` serve the API port.
#[must_use]
pub fn open_files_needed(api_connections_max: usize, http_connections_max: usize, threads: usize) -> usize {
    let slots = api_connections_max.saturating_mul(4).div_ceil(3).max(http_connections_max.saturating_mul(4));
    slots.saturating_add(DESCRIPTORS_RESERVED + files_of_threads(threads))
}

/// Returns the number of connections under a limit of `files` open files. Of those that the threads leave,
/// `DESCRIPTORS_RESERVED` are reserved for other uses, or half if there are few.
fn slots_within(files: usize, threads: usize) -> usize {
    let files = files.saturating_sub(files_of_threads(threads));
    (files - DESCRIPTORS_RESERVED.min(files / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_descriptors_are_reserved_for_other_uses() {
        assert_eq!(slots_within(1_024, 2), 1_024 - 192 - 12);
        assert_eq!(slots_within(64, 2), 26);
        assert_eq!(slots_within(0, 2), 1);
        for (api, http) in [(10_000, 1_000), (100, 1_000), (1, 1)] {
            let files = open_files_needed(api, http, 16);
            let (calls, pages) = (Share::Calls { threads: 16 }.of_files(files), Share::Pages.of_files(files));
            assert!(calls >= api && pages >= http, "{api} {http}");
        }
    }
}
