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

/// The process may open too few files for any command.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process may open only {0} files, and needs at least {FILES_MIN}: raise its limit (`ulimit -n`, `LimitNOFILE=` of systemd)"
)]
pub struct TooFewFiles(usize);

/// Checks that a command may open the files that it needs. With fewer, libraries fail with misleading
/// errors.
///
/// # Errors
/// [`TooFewFiles`].
pub fn require_min() -> Result<(), TooFewFiles> {
    limit().filter(|files| *files < FILES_MIN).map_or(Ok(()), |files| Err(TooFewFiles(files)))
}

/// Returns the soft limit on open files; `None` if there is none.
#[must_use]
pub fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}
