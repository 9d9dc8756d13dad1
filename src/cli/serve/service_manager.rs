//! Tells the service manager that the service is ready, alive or stopping, if systemd started it with
//! `Type=notify` (`sd_notify(3)`).

use sd_notify::NotifyState;

use crate::server::Workers;

/// Number of reports within the time limit of the watchdog, as `sd_watchdog_enabled(3)` recommends.
const REPORTS_PER_LIMIT: u32 = 2;

/// Reports that all ports are served.
pub(super) fn report_ready() {
    report(NotifyState::Ready);
}

/// Reports that the service shuts down.
pub(super) fn report_stopping() {
    report(NotifyState::Stopping);
}

/// Reports that the service is alive as long as the runtime of this task and each thread of `workers` run
/// tasks. Returns at once if the service manager does not watch the service (`WatchdogSec=`).
pub(super) async fn report_alive(workers: Workers) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    loop {
        tokio::time::sleep(limit / REPORTS_PER_LIMIT).await;
        all_run(&workers).await;
        #[expect(clippy::disallowed_methods, reason = "one at a time")]
        // Sending waits while the service manager reads nothing.
        let reported = tokio::task::spawn_blocking(|| report(NotifyState::Watchdog));
        let _ = reported.await;
    }
}

/// Waits until each thread has run a task.
async fn all_run(workers: &Workers) {
    for runtime in workers.runtimes() {
        // Fails only if the thread has ended, which happens at the end of a stop.
        let _ = runtime.spawn(std::future::ready(())).await;
    }
}

fn report(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "The service manager did not receive the state of the service");
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::server::WorkerThreads;

    #[tokio::test]
    async fn a_thread_that_runs_no_tasks_is_not_alive() {
        let threads = WorkerThreads::start(2).unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let second = threads.workers().runtimes().pop().unwrap();
        assert_eq!(timeout(Duration::from_secs(10), all_run(threads.workers())).await, Ok(()));

        second.spawn(async move { blocked.recv() });
        let limit = Duration::from_millis(100);
        assert!(timeout(limit, all_run(threads.workers())).await.is_err());

        drop(release);
        assert_eq!(timeout(Duration::from_secs(10), all_run(threads.workers())).await, Ok(()));
    }
}
