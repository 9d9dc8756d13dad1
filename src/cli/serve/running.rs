//! Starts all parts of the service, and stops them.

use std::{pin::pin, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    assembly::Service,
    options::{http1_options, retention, server_options, session_options, telemetry_options},
    reload::Reload,
};
use crate::{
    accounts::{Accounts, AuditTrail, Housekeeping},
    callers::SERVICE,
    clock::Clock,
    config::Settings,
    domain::Origin,
    server::{self, DrainReport, Workers},
    store::Store,
};

/// The time that the background work gets at shutdown even if the calls have used up the drain deadline. A
/// requested link is processed within a second after the answer.
const BACKGROUND_DRAIN_MIN: Duration = Duration::from_secs(3);

/// How long a stop waits for the background work before it says so.
const QUIET_WAIT: Duration = Duration::from_secs(1);

/// The running parts of the service, and the tokens that stop them.
pub(super) struct Running {
    settings: Settings,
    accounts: Accounts,
    audit: AuditTrail,
    /// Stops the periodic work: checks of the health and of SQLite's file, housekeeping, the survey of stored
    /// hashes, key rotation and reload; cancelled first.
    watch: CancellationToken,
    /// Closes all ports; cancelled after `server.drain-notice`.
    server: CancellationToken,
    /// Stops the mail worker and the writer of audit events; cancelled when the calls have ended.
    outbox: CancellationToken,
    serving: Vec<JoinHandle<DrainReport>>,
    background: TaskTracker,
    clock: Clock,
}

impl Service {
    /// Starts the background work and serves all ports, that of the API on `workers`.
    pub(super) fn start(self, workers: Workers) -> Running {
        let (watch, server, outbox) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let background = TaskTracker::new();
        let retention = retention(&self.settings);
        let sessions = session_options(&self.settings);
        background.spawn(watch_file(self.store.clone(), watch.clone()));
        let housekeeping =
            Housekeeping::new(self.store, self.clock_watch, Origin::local(SERVICE), sessions, retention);
        background.spawn(housekeeping.run(watch.clone()));
        background.spawn(self.accounts.stored_hashes().run(watch.clone()));
        background.spawn(self.signing_keys.run(watch.clone()));
        background.spawn(self.outbox.run(self.mail_due, outbox.clone()));
        let (gate, tls, audit) = (self.gate, self.tls.clone(), self.audit.clone());
        let (keys, triggers) = (self.sealing_keys, self.reload_triggers);
        let reload = Reload::new(self.settings.clone(), gate, tls, audit, keys, triggers);
        background.spawn(reload.run(watch.clone()));
        let mut serving = Vec::new();
        if let Some((listener, pages)) = self.http {
            log_http(&self.settings, &listener, self.tls.http.is_some());
            let options = http1_options(&self.settings, &self.connections);
            serving.push(tokio::spawn(server::serve_http1(
                listener,
                pages,
                options,
                self.tls.http,
                server.clone(),
            )));
        }
        if let Some((listener, page)) = self.telemetry {
            log_telemetry(&listener);
            background.spawn(self.backlog.run(watch.clone()));
            let options = telemetry_options(&self.settings, &self.connections);
            serving.push(tokio::spawn(server::serve_http1(listener, page, options, None, server.clone())));
        }
        log_start(&self.settings, &self.listener, self.tls.grpc.is_some());
        let options = server_options(&self.settings, workers, &self.connections);
        let serve = server::serve(
            self.listener,
            self.calls,
            options,
            self.tls.grpc,
            self.env.entropy,
            server.clone(),
        );
        serving.push(tokio::spawn(serve));
        background.spawn(self.health.run(watch.clone(), server.clone()));
        background.spawn(self.audit.clone().run(outbox.clone()));
        let (settings, accounts, audit, clock) = (self.settings, self.accounts, self.audit, self.env.clock);
        Running { settings, accounts, audit, watch, server, outbox, serving, background, clock }
    }
}

impl Running {
    /// Shuts down in this order: sets the health status to `NOT_SERVING`, waits for `server.drain-notice`,
    /// closes the ports, waits for calls in flight until the drain deadline, and then finishes the background
    /// work.
    pub(super) async fn stop(self) {
        let began = self.clock.instant();
        self.watch.cancel();
        tokio::time::sleep(self.settings.server.drain_notice.get()).await;

        self.server.cancel();
        let mut connections_aborted = 0;
        for serving in self.serving {
            match serving.await {
                Ok(report) => connections_aborted += report.connections_aborted,
                Err(error) => tracing::error!(%error, "A server task failed"),
            }
        }
        if connections_aborted == 0 {
            tracing::info!("All connections closed");
        } else {
            tracing::warn!(
                connections_aborted,
                "Aborted {connections_aborted} connections at the drain deadline"
            );
        }

        self.outbox.cancel();
        self.background.close();
        let deadline = self.settings.server.drain_deadline.get() + self.settings.server.drain_notice.get();
        let left =
            deadline.saturating_sub(self.clock.instant().duration_since(began)).max(BACKGROUND_DRAIN_MIN);
        let rest = async {
            // Refusals are recorded without waiting for the outbox, which may still wait for a mail server.
            let decisions = async {
                self.accounts.finish().await;
                self.audit.flush().await;
            };
            tokio::join!(decisions, self.background.wait());
        };
        let mut rest = pin!(rest);
        let mut finished = tokio::time::timeout(QUIET_WAIT, &mut rest).await;
        if finished.is_err() {
            tracing::info!(
                "Waiting up to {} s for what cannot be interrupted: a mail that is being sent, and the results \
                 that the database has not stored yet; a second signal ends the wait",
                left.as_secs().max(1)
            );
            finished = tokio::time::timeout(left.saturating_sub(QUIET_WAIT), rest).await;
        }
        match finished {
            Ok(()) => tracing::info!("Stopped"),
            Err(_) => {
                tracing::warn!(
                    "Stopped before all background work had finished; unsent mails are sent after the next start"
                );
            }
        }
    }
}

/// Watches a SQLite file until `stop` is cancelled.
async fn watch_file(store: Store, stop: CancellationToken) {
    stop.run_until_cancelled(store.watch_file()).await;
}

/// Logs the address of the HTTP port, and what it serves.
fn log_http(settings: &Settings, listener: &TcpListener, is_tls: bool) {
    let Ok(address) = listener.local_addr() else { return };
    let what = if settings.pages.enabled {
        "the pages behind mailed links, and the public keys"
    } else {
        "the public keys"
    };
    tracing::info!(tls = is_tls, "Serving HTTP on {address}: {what}");
    let links = settings.mail.public_base_url.as_str();
    if settings.pages.enabled {
        tracing::info!("Mailed links begin with {links}, which must lead to the HTTP port");
    }
}

/// Logs the address of the port of the metrics.
fn log_telemetry(listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!("Serving metrics on http://{address}/metrics");
    }
}

/// Logs the database, the mail transport and the gRPC address. Warns if the API port has no TLS and is not
/// loopback, and if there is no callers file.
fn log_start(settings: &Settings, listener: &TcpListener, is_tls: bool) {
    let address = listener.local_addr().unwrap_or(settings.server.listen);
    tracing::info!("Database: {}; mail transport: {}", settings.database.url, settings.mail.url);
    if !is_tls && !address.ip().is_loopback() {
        tracing::warn!("TLS is off: passwords cross the network unencrypted (--insecure-plaintext)");
    }
    if settings.callers.file.is_none() {
        tracing::warn!(
            "No callers file is set: every client that reaches {address} has every right, and can take over every account \
             (docs/CALLERS.md)"
        );
    }
    tracing::info!(tls = is_tls, "Serving gRPC on {address}");
}
