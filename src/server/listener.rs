//! The port: a queue for those who wait, a cap on those who are in, and patience when the system has no more to give.

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections that may wait to be accepted; the system cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 1_024;

/// File descriptors for all that is not a connection: the database, logs, the outbox.
const DESCRIPTORS_KEPT: usize = 64;

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

/// Accepts connections while there are slots for them.
pub(super) struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, connections_max: usize) -> Self {
        let slots = open_files_max().map_or(connections_max, |files| {
            connections_max.min(files.saturating_sub(DESCRIPTORS_KEPT).max(1))
        });
        if slots < connections_max {
            tracing::warn!("At most {slots} connections: the process may not open more files (ulimit -n)");
        }
        Self { listener, slots: Arc::new(Semaphore::new(slots)) }
    }

    /// The next connection with its slot, which it holds until it is closed. `None` never comes while this lives.
    pub(super) async fn accept(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let mut wait = BACK_OFF_FIRST;
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => return Some((socket, peer, slot)),
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }
}

/// The soft limit on open files, where the system tells (Linux).
fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
