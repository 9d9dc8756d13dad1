//! The port: a queue for those who wait, a cap on those who are in, and patience when the system has no more to give.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::clock::Clock;

/// Connections that may wait to be accepted; the system cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 1_024;

/// File descriptors for all that is not a connection: the database, logs, the outbox.
const DESCRIPTORS_KEPT: usize = 64;

/// Between two warnings about the same trouble, which may come back many times a second.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The waits between tries while the system refuses to accept, which it does at once and would do for ever.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Opens the port.
///
/// # Errors
/// What the system says: the port is taken, or not this user's to open.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart need not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A port's part of the connections that the process may have open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// Of calls: three quarters.
    Calls,
    /// Of pages: a quarter, so that whoever opens pages takes no place from calls.
    Pages,
}

impl Share {
    fn of(self, slots: usize) -> usize {
        let of_pages = (slots / 4).max(1);
        match self {
            Self::Calls => slots.saturating_sub(of_pages).max(1),
            Self::Pages => of_pages,
        }
    }
}

/// A connection's place among all, and among those of its peer; free for another when it is dropped.
pub(super) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_peer: PeerSlot,
}

/// How many connections each peer has open.
#[derive(Clone)]
struct Peers {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

struct PeerSlot {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn new(max: usize) -> Self {
        Self { open: Arc::default(), max }
    }

    /// A slot, unless the peer has all that it may have.
    fn take(&self, peer: IpAddr) -> Option<PeerSlot> {
        // An IPv4 address in IPv6's clothes is the IPv4 address.
        let peer = peer.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = open.entry(peer).or_default();
        if *of_peer >= self.max {
            return None;
        }
        *of_peer += 1;
        Some(PeerSlot { peers: self.clone(), peer })
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_peer) = open.entry(self.peer) {
            *of_peer.get_mut() -= 1;
            if *of_peer.get() == 0 {
                of_peer.remove();
            }
        }
    }
}

/// Accepts connections while there are slots for them.
pub(super) struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    peers: Peers,
    warned: Option<Instant>,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        connections_max: usize,
        connections_per_peer_max: usize,
        share: Share,
    ) -> Self {
        let slots = open_files_max()
            .map_or(connections_max, |files| connections_max.min(share.of(slots_within(files))));
        if slots < connections_max {
            tracing::warn!("At most {slots} connections: the process may not open more files (ulimit -n)");
        }
        let peers = Peers::new(connections_per_peer_max);
        Self { listener, slots: Arc::new(Semaphore::new(slots)), peers, warned: None }
    }

    /// The next connection with its slot, which it holds until it is closed. One of a peer that has too many is closed at
    /// once. `None` never comes while this lives.
    pub(super) async fn accept(&mut self) -> Option<(TcpStream, SocketAddr, Slot)> {
        if self.slots.available_permits() == 0 {
            self.warn("All connections are taken: others wait until one closes");
        }
        let of_all = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let mut wait = BACK_OFF_FIRST;
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => match self.peers.take(peer.ip()) {
                    Some(of_peer) => {
                        return Some((socket, peer, Slot { _of_all: of_all, _of_peer: of_peer }));
                    }
                    None => self.warn(&format!("{} has too many connections: another is closed", peer.ip())),
                },
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.warn(&format!("A connection could not be accepted: {error}"));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Says so, unless something was said lately.
    fn warn(&mut self, trouble: &str) {
        let now = Clock::system().instant();
        if self.warned.is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL) {
            tracing::warn!("{trouble}");
            self.warned = Some(now);
        }
    }
}

/// Whether the peer was gone before it was accepted: its own matter, and the next one need not wait for it.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Connections that leave descriptors for the rest: at most half of a limit that is too small for both.
fn slots_within(files: usize) -> usize {
    (files - DESCRIPTORS_KEPT.min(files / 2)).max(1)
}

/// The soft limit on open files, where the system tells (Linux).
fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_as_many_slots_as_it_may_and_leaves_nothing_behind() {
        let peers = Peers::new(2);
        let [ada, bob] = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let same: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let (first, second) = (peers.take(ada), peers.take(same));
        assert!(
            first.is_some() && second.is_some() && peers.take(ada).is_none() && peers.take(same).is_none()
        );
        assert!(peers.take(bob).is_some());

        drop(first);
        let third = peers.take(ada);
        assert!(third.is_some());
        drop((second, third));
        assert!(peers.open.lock().unwrap().is_empty());
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(slots_within(1_024), 1_024 - DESCRIPTORS_KEPT);
        assert_eq!(slots_within(64), 32);
        assert_eq!(slots_within(0), 1);
    }
}
