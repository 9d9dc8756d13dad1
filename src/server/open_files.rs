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

/// Returns the soft limit on open files; `None` if there is none.
pub(super) fn limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}
