//! The health service (`grpc.health.v1`): it reports what the database and the signing keys allow.
//!
//! | the service can do | the services of the API, and `""` | [`LOOK_UPS`] |
//! |---|---|---|
//! | everything | `SERVING` | `SERVING` |
//! | look-ups, but no login | `NOT_SERVING` | `SERVING` |
//! | no look-up | `NOT_SERVING` | `NOT_SERVING` |
//!
//! Users cannot log in while the database refuses writes, its primary is away, or no key signs access tokens.

use std::time::{Duration, Instant};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::service;
use crate::{
    access_token::{AccessTokens, NoSigningKey},
    clock::Clock,
    database::{Cause, DatabaseError},
    domain::{AuthToken, chain},
    metrics::{Registry, register_gauge},
    store::Store,
};

/// The name under which the health service reports the look-ups by `auth_token` alone. It is no service of
/// the API.
pub const LOOK_UPS: &str = "kairos.identity.v1.LookupService";

/// The time between two checks of the database. Only every other check includes the writes, because that
/// writes to the disk. The status follows the database within two intervals and one [`CHECK_TIMEOUT`].
const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two lines with different causes while the status stays the same. Causes may
/// alternate.
const CAUSE_INTERVAL: Duration = Duration::from_secs(5);

/// A database that does not answer a check within this time is unavailable.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// After an operation failed because the disk is full, writes count as failing during this many checks: about
/// ten seconds. Otherwise the status would change with each file that another program deletes.
const CHECKS_AFTER_DISK_FULL: u32 = 10;

/// Returns the services that need everything: those of the API, and `""` for the whole server.
fn services() -> impl Iterator<Item = &'static str> {
    service::NAMES.into_iter().chain([""])
}

/// What the service can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Everything,
    LookUps,
    Nothing,
}

/// Why the service cannot do everything.
#[derive(Debug, thiserror::Error)]
enum Impediment {
    #[error(transparent)]
    Database(DatabaseError),
    #[error(transparent)]
    Signing(#[from] NoSigningKey),
}

/// A check in a task of its own, at most one at a time: a check that gets no answer holds a connection.
#[derive(Debug)]
struct Check<T> {
    running: Option<JoinHandle<Result<T, DatabaseError>>>,
}

impl<T: Send + 'static> Check<T> {
    const fn new() -> Self {
        Self { running: None }
    }

    /// Starts `check` unless the last one still runs, and waits for the result. Returns `None` if there is
    /// none within [`CHECK_TIMEOUT`].
    async fn result(
        &mut self,
        check: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Option<Result<T, DatabaseError>> {
        let running = self.running.get_or_insert_with(|| tokio::spawn(check));
        let result = timeout(CHECK_TIMEOUT, running).await.ok()?;
        self.running = None;
        Some(result.unwrap_or_else(|error| Err(DatabaseError::Unavailable(Cause::new(error)))))
    }
}

/// Checks what the database and the signing keys allow, and sets the status of the health service.
pub struct HealthWatch {
    reporter: HealthReporter,
    /// True while everything is served. Dropped when the `Watch` streams end.
    is_ready: watch::Sender<bool>,
    /// True while look-ups are served.
    looks_up: watch::Sender<bool>,
    store: Store,
    access_tokens: AccessTokens,
    clock: Clock,
    logins: Check<Option<AuthToken>>,
    look_ups: Check<()>,
    writes: Check<()>,
    /// The user that the last successful check of logins found, to be looked up at the next check.
    user: Option<AuthToken>,
    /// The number of operations that had failed because the disk is full, at the last check.
    disk_full_failures: u64,
    /// The number of further checks during which writes count as failing for that reason.
    disk_full_checks: u32,
    /// True if the last check did not check writes.
    skipped_writes: bool,
    /// The result of the last check; `None` before the first one.
    served: Option<Served>,
    /// The cause in the last line about what cannot be served, and the time of the line.
    logged_cause: Option<(String, Instant)>,
    /// True if the last check found the database damaged.
    is_damaged: bool,
}

impl HealthWatch {
    /// Creates a watch, checks the database and the signing keys once, and sets the status.
    pub async fn begin(
        reporter: HealthReporter,
        store: Store,
        access_tokens: AccessTokens,
        clock: Clock,
    ) -> Self {
        let mut watch = Self {
            reporter,
            is_ready: watch::Sender::new(false),
            looks_up: watch::Sender::new(false),
            store,
            access_tokens,
            clock,
            logins: Check::new(),
            look_ups: Check::new(),
            writes: Check::new(),
            user: None,
            disk_full_failures: 0,
            disk_full_checks: 0,
            skipped_writes: true,
            served: None,
            logged_cause: None,
            is_damaged: false,
        };
        watch.check().await;
        watch
    }

    /// Returns a receiver of the overall status: true while everything is served. It is closed when the
    /// `Watch` streams end.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.is_ready.subscribe()
    }

    /// Adds the status to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        for (name, help, serving) in [
            (
                "serving",
                "1 while users can log in, 0 otherwise: the status of the health service",
                &self.is_ready,
            ),
            ("lookups_serving", "1 while users can be looked up by auth_token, 0 otherwise", &self.looks_up),
        ] {
            let serving = serving.subscribe();
            register_gauge(registry, name, help, None, move || u32::from(*serving.borrow()));
        }
    }

    /// Repeats the checks until `stop`. Then sets `NOT_SERVING`, and ends the `Watch` streams
    /// at `drain`.
    pub async fn run(mut self, stop: CancellationToken, drain: CancellationToken) {
        while stop.run_until_cancelled(self.check()).await.is_some() {
            stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
        self.report(Served::Nothing).await;
        drain.cancelled().await;
        for service in services().chain([LOOK_UPS]) {
            // An open `Watch` stream would delay the shutdown until the drain deadline.
            self.reporter.clone().clear_service_status(service).await;
        }
    }

    /// Checks the database and the signing keys, and reports a change of what the service can do.
    async fn check(&mut self) {
        let (logins, look_ups, writes) = self.results().await;
        // Without a known user, the look-up finds none. It then does not show that users can be read, so an
        // error of the login check counts for look-ups too.
        let look_ups = match (&logins, self.user) {
            (Err(error), None) => look_ups.and(Err(error.clone())),
            _ => look_ups,
        };
        if let Ok(user) = logins {
            self.user = user;
        }
        let errors: Vec<DatabaseError> =
            [look_ups.clone().err(), logins.err(), writes.err()].into_iter().flatten().collect();
        let damage = errors.iter().find(|error| matches!(error, DatabaseError::Damaged(_)));
        self.report_damage(damage);
        let signing = self.access_tokens.require_signing_key(self.clock.now());
        let impediment = errors.into_iter().next().map(Impediment::Database);
        let impediment = impediment.or_else(|| signing.err().map(Impediment::Signing));
        let served = match (look_ups, &impediment) {
            (Err(_), _) => Served::Nothing,
            (Ok(()), Some(_)) => Served::LookUps,
            (Ok(()), None) => Served::Everything,
        };
        let cause = impediment.as_ref().map(|impediment| chain(impediment));
        if self.served != Some(served) {
            self.report_change(served, cause).await;
        } else if self.has_new_cause(cause.as_deref()) {
            self.log_impediment(served, cause);
        }
    }

    /// True if the cause is another one than in the last line about it, which is old enough.
    fn has_new_cause(&self, cause: Option<&str>) -> bool {
        let is_old = |at| self.clock.instant().saturating_duration_since(at) >= CAUSE_INTERVAL;
        let logged = self.logged_cause.as_ref();
        cause.is_some() && logged.is_some_and(|(text, at)| Some(text.as_str()) != cause && is_old(*at))
    }

    /// Logs what cannot be served, and why.
    fn log_impediment(&mut self, served: Served, cause: Option<String>) {
        if served == Served::Nothing {
            tracing::error!(error = cause, "No calls can be answered; health status is NOT_SERVING");
        } else {
            tracing::error!(
                error = cause,
                "Users cannot log in; health status is NOT_SERVING except for {LOOK_UPS}"
            );
        }
        self.logged_cause = cause.map(|cause| (cause, self.clock.instant()));
    }

    /// Returns the results of the checks of logins, look-ups and writes, which run at the same time.
    async fn results(
        &mut self,
    ) -> (Result<Option<AuthToken>, DatabaseError>, Result<(), DatabaseError>, Result<(), DatabaseError>)
    {
        // While something is not served, every check includes the writes, to notice their recovery at once.
        self.skipped_writes = self.served == Some(Served::Everything) && !self.skipped_writes;
        let checks_writes = !self.skipped_writes;
        // While no user is known, a token that no user has: the look-up still runs its query.
        let user = self.user.unwrap_or_else(|| AuthToken::from_random([0; 16]));
        let commits = self.store.committed_by_writer();
        let [for_logins, for_look_ups, for_writes] = [&self.store; 3].map(Clone::clone);
        let logins = self.logins.result(async move { for_logins.check_logins().await });
        let look_ups = self.look_ups.result(async move { for_look_ups.check_look_ups(user).await });
        let writes = async {
            if !checks_writes {
                return Some(Ok(()));
            }
            self.writes.result(async move { for_writes.check_writes().await }).await
        };
        let (logins, look_ups, writes) = tokio::join!(logins, look_ups, writes);
        // A write check without an answer passes if SQLite's writer committed other writes meanwhile: the
        // check only waits in a long queue.
        let is_busy = self.store.committed_by_writer() > commits;
        let writes = writes.or_else(|| is_busy.then_some(Ok(())));
        let writes = answered(writes, ()).and_then(|()| self.require_space());
        (answered(logins, None), answered(look_ups, ()), writes)
    }

    /// Fails during [`CHECKS_AFTER_DISK_FULL`] checks after an operation failed because the disk is full.
    fn require_space(&mut self) -> Result<(), DatabaseError> {
        let failures = self.store.disk_full_failures();
        if std::mem::replace(&mut self.disk_full_failures, failures) != failures {
            self.disk_full_checks = CHECKS_AFTER_DISK_FULL;
        }
        if self.disk_full_checks == 0 {
            return Ok(());
        }
        self.disk_full_checks -= 1;
        Err(DatabaseError::Unavailable(Cause::new("a write failed because the disk is full")))
    }

    /// Logs a damaged database, once until a check finds no damage.
    fn report_damage(&mut self, damage: Option<&DatabaseError>) {
        let was_damaged = std::mem::replace(&mut self.is_damaged, damage.is_some());
        if let (false, Some(error)) = (was_damaged, damage) {
            tracing::error!(
                error = %error.chain(),
                "Database damaged: a page cannot be read or written; restore a backup"
            );
        }
    }

    /// Logs a change and sets the status. There is a cause unless the service can do everything.
    async fn report_change(&mut self, served: Served, cause: Option<String>) {
        match (self.served.replace(served), served) {
            (_, Served::Nothing | Served::LookUps) => self.log_impediment(served, cause),
            (Some(_), Served::Everything) => {
                tracing::info!("Users can log in again; health status is SERVING");
            }
            (None, Served::Everything) => {}
        }
        self.report(served).await;
    }

    /// Sets the status of all services.
    async fn report(&self, served: Served) {
        let status = |is_serving| if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in services() {
            self.reporter.set_service_status(service, status(served == Served::Everything)).await;
        }
        self.reporter.set_service_status(LOOK_UPS, status(served != Served::Nothing)).await;
        self.is_ready.send_replace(served == Served::Everything);
        self.looks_up.send_replace(served != Served::Nothing);
    }
}

/// Returns the result of a check. `None`, no answer in time, is an error. A full queue is not an error,
/// because the database is working through it: the result is then `when_full`.
fn answered<T>(result: Option<Result<T, DatabaseError>>, when_full: T) -> Result<T, DatabaseError> {
    match result {
        Some(Err(DatabaseError::Overloaded)) => Ok(when_full),
        Some(result) => result,
        None => {
            let limit = format!("the database did not answer a health check within {CHECK_TIMEOUT:?}");
            Err(DatabaseError::Unavailable(Cause::new(limit)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;
    use crate::{
        access_token::AccessTokenOptions,
        database::{DatabaseOptions, NewestTimeline, PostgresOptions},
        store::LookupOptions,
    };

    /// A store whose server refuses connections.
    fn unreachable_store() -> Store {
        let timeout = Duration::from_secs(1);
        let options = DatabaseOptions::Postgres(Box::new(PostgresOptions {
            url: "postgres://kairos@127.0.0.1:1/kairos".parse().unwrap(),
            pool_size: 1,
            connect_timeout: timeout,
            acquire_timeout: timeout,
            statement_timeout: timeout,
            newest_timeline: NewestTimeline::default(),
            idle_timeout: timeout,
            connection_lifetime: timeout,
            is_pooled: false,
        }));
        Store::open(options, LookupOptions { batch_tokens_max: 1, lanes: 1, waiting_max: 1 }).unwrap()
    }

    #[tokio::test]
    async fn a_database_lost_at_the_start_is_reported_once_and_so_is_its_return() {
        let (mut log, lines) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(move || lines.try_clone().unwrap());
        let logging = tracing::subscriber::set_default(subscriber.finish());
        let (reporter, _) = tonic_health::server::health_reporter();

        let tokens = AccessTokens::new(AccessTokenOptions {
            issuer: "test".to_owned(),
            audience: "test".to_owned(),
            lifetime: Duration::from_mins(10),
        });
        let mut watch = HealthWatch::begin(reporter, unreachable_store(), tokens, Clock::system()).await;
        watch.check().await;
        // Reports what a check finds when the database answers again.
        watch.report_change(Served::Everything, None).await;

        drop(logging);
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("No calls can be answered").count(), 1, "{text}");
        assert_eq!(text.matches("Users can log in again").count(), 1, "{text}");
    }
}
