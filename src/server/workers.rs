//! The threads that serve connections. Each runs a single-threaded runtime, and a connection stays on its
//! thread.
//!
//! With a runtime whose threads share their tasks, each wake of a task may cross to another thread, which
//! costs more than a look-up. Here a look-up is read, answered and written on one thread.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Number of turns of tasks after which a thread looks for events of sockets and timers. A turn of a
/// connection that is flooded with calls takes milliseconds, so tokio's default of 61 turns would let all
/// other connections wait for up to a second.
pub const EVENT_INTERVAL: u32 = 8;

/// Interval of the timers that each thread always has. When a timer is set that ends earlier than every timer
/// that was set when the thread last waited for events, tokio wakes the thread by a system call, even if the
/// thread itself sets it (tokio issue 5207). Without these timers, the deadline of each look-up would be such
/// a timer. They wake an idle thread 20 times a second.
const TICK: Duration = Duration::from_millis(100);

/// The runtimes among which the connections of a port are distributed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Number of its connections.
    connections: AtomicUsize,
}

impl Workers {
    /// Returns the current runtime as the only worker. Must be called within a runtime.
    #[must_use]
    pub fn current() -> Self {
        Self::of([Handle::current()])
    }

    fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        Self(
            runtimes
                .into_iter()
                .map(|runtime| Worker { runtime, connections: AtomicUsize::new(0) })
                .collect(),
        )
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the runtimes, at least one.
    #[must_use]
    pub fn runtimes(&self) -> Vec<Handle> {
        self.0.iter().map(|worker| worker.runtime.clone()).collect()
    }

    /// Serves a connection on the worker with the fewest connections, in a task of `open`. `serve` must hold
    /// its place until the connection is closed.
    ///
    /// # Errors
    /// The error of the system if the socket cannot move to another runtime.
    pub(super) fn spawn<F>(
        &self,
        open: &mut JoinSet<()>,
        socket: TcpStream,
        serve: impl FnOnce(TcpStream, Place) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Place::with_fewest(self);
        let runtime = place.worker().runtime.clone();
        let socket = socket.into_std()?;
        let serving = {
            // The socket reports its events to the runtime in which it was created.
            let _inside = runtime.enter();
            serve(TcpStream::from_std(socket)?, place)
        };
        open.spawn_on(serving, &runtime);
        Ok(())
    }
}

/// The place of a connection on its worker. Dropping it subtracts the connection.
pub(super) struct Place {
    workers: Workers,
    index: usize,
}

impl Place {
    fn with_fewest(workers: &Workers) -> Self {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let fewest = workers.0.iter().enumerate().min_by_key(|(_, worker)| load(worker));
        let place = Self { workers: workers.clone(), index: fewest.map_or(0, |(index, _)| index) };
        place.worker().connections.fetch_add(1, Ordering::Relaxed);
        place
    }

    fn worker(&self) -> &Worker {
        self.workers.0.get(self.index).expect("the index is one of a worker")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the number of threads for a setting in which 0 means one for each core that the process may use.
#[must_use]
pub fn worker_count(setting: usize) -> usize {
    match setting {
        0 => thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// Threads with a runtime each. Dropping them ends their runtimes and waits for that.
#[derive(Debug)]
pub struct WorkerThreads {
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl WorkerThreads {
    /// Starts [`worker_count`]`(count)` threads.
    ///
    /// # Errors
    /// The error of the system if it refuses a thread or a runtime.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut runtimes = Vec::new();
        let mut started =
            Self { workers: Workers::of([]), threads: Vec::new(), stop: CancellationToken::new() };
        for number in 0..worker_count(count) {
            let ((sender, built), stopped) = (mpsc::channel(), started.stop.clone());
            // The thread builds its runtime: where the caller is a task, a runtime must not be dropped.
            let serve = move || {
                let built = Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build();
                let runtime = match built {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(sender.send(Err(error))),
                };
                drop(sender.send(Ok(runtime.handle().clone())));
                runtime.block_on(stopped.run_until_cancelled(tick()));
                // Drops the tasks, and does not wait until a host name of the database is resolved.
                runtime.shutdown_background();
            };
            started.threads.push(thread::Builder::new().name(format!("serve-{number}")).spawn(serve)?);
            runtimes.push(built.recv().map_err(io::Error::other)??);
        }
        started.workers = Workers::of(runtimes);
        Ok(started)
    }

    /// Returns the runtimes of the threads.
    #[must_use]
    pub const fn workers(&self) -> &Workers {
        &self.workers
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // Fails only if the thread panicked. A panic of a task does not end its thread.
            let _ = thread.join();
        }
    }
}

/// Sets timers again and again. There are two, half a [`TICK`] apart: when one has ended, tokio does not
/// consider its next deadline before the thread waits again, but that of the other.
async fn tick() {
    let ticks = async |offset| {
        tokio::time::sleep(offset).await;
        let mut interval = tokio::time::interval(TICK);
        loop {
            interval.tick().await;
        }
    };
    tokio::join!(ticks(Duration::ZERO), ticks(TICK / 2));
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc::unbounded_channel,
    };

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_to_the_worker_with_the_fewest_and_stays_there() {
        let threads = WorkerThreads::start(2).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mut clients) = (listener.local_addr().unwrap(), Vec::new());
        let (sender, mut threads_of_turns) = unbounded_channel();
        let mut open = JoinSet::new();
        for _ in 0..4 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            let serve = |mut socket: TcpStream, place: Place| async move {
                while socket.read_u8().await.is_ok() {
                    sender.send(thread::current().name().unwrap().to_owned()).unwrap();
                }
                drop(place);
            };
            threads.workers().spawn(&mut open, socket, serve).unwrap();
            let mut turns = Vec::new();
            for _ in 0..3 {
                client.write_u8(0).await.unwrap();
                turns.push(threads_of_turns.recv().await.unwrap());
            }
            assert_eq!(turns, [format!("serve-{}", clients.len() % 2).as_str(); 3]);
            clients.push(client);
        }

        // Both connections of the first thread close, so the next one goes there.
        clients = clients.into_iter().skip(1).step_by(2).collect();
        while open.len() > 2 {
            open.join_next().await;
        }
        assert_eq!(Place::with_fewest(threads.workers()).index, 0);
        drop(clients);
    }

    #[test]
    fn dropping_the_threads_drops_their_tasks() {
        let threads = WorkerThreads::start(2).unwrap();
        let held = Arc::new(());
        for runtime in threads.workers().runtimes() {
            let held = Arc::clone(&held);
            runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
        }
        drop(threads);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
