//! The limit on open files of the process, which limits its connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard limit.
///
/// Systems start a process with a low soft limit, often 1,024, for programs that use select(2). Other
/// programs are expected to raise it themselves (systemd.exec(5), `LimitNOFILE=`).
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "The limit on open files stays as it is");
    }
}

/// The open files of a command beside its connections: standard streams, the runtime, and the threads of
/// SQLite, each with the database, its WAL and the index of the WAL.
const FILES_MIN: usize = 64;

/// The open files of each thread that serves connections: three of its runtime, and three of its connection
/// to SQLite (the database, its WAL and the index of the WAL).
const FILES_PER_THREAD: usize = 6;

/// The process may open too few files.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process may open only {limit} files, and needs at least {needed}: raise its limit (`ulimit -n`, `LimitNOFILE=` of systemd)"
)]
pub struct TooFewFiles {
    limit: usize,
    needed: usize,
}

/// Returns the number of open files of this many threads that serve connections.
#[must_use]
pub const fn files_of_threads(threads: usize) -> usize {
    FILES_PER_THREAD * threads
}

/// Checks that a command may open the files that it needs. With fewer, libraries fail with misleading
/// errors. `threads` serve connections.
///
/// # Errors
/// [`TooFewFiles`].
pub fn require_min(threads: usize) -> Result<(), TooFewFiles> {
    let needed = FILES_MIN + files_of_threads(threads);
    limit().filter(|limit| *limit < needed).map_or(Ok(()), |limit| Err(TooFewFiles { limit, needed }))
}

/// Returns the soft limit on open files; `None` if there is none.
#[must_use]
pub fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}
