//! PostgreSQL behind a pool with a limit on every wait.
//!
//! Work runs in a task of its own ([`PostgresPool::to_the_end`]), so that a caller who goes away neither cuts a transaction in half nor
//! leaves a running statement to whoever takes the connection next. Look-ups, which only read, run where they are asked for
//! ([`PostgresPool::ask`]); one that is given up costs its connection.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use deadpool::{
    Runtime,
    managed::{Manager, Timeouts},
};
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod, deadpool::Object,
        deadpool::Pool,
    },
};
use futures_util::FutureExt;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::postgres_url::{PostgresUrl, TlsMode};
use crate::store::{StoreError, error::chain};

/// How PostgreSQL is used.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The server and how the way to it is protected.
    pub url: PostgresUrl,
    /// How many connections at most.
    pub pool_size: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a call may wait for a connection.
    pub acquire_timeout: Duration,
    /// How long a statement may run, and a lock be waited for.
    pub statement_timeout: Duration,
    /// After how long unused a connection is closed.
    pub idle_timeout: Duration,
    /// After how long a connection is closed in any case, so that load balances out after a failover.
    pub connection_lifetime: Duration,
    /// Whether connections are shared with others behind a pooler, so that no setting may be left on them.
    pub is_pooled: bool,
}

/// The pool.
#[derive(Clone)]
pub struct PostgresPool {
    pool: Pool<AsyncPgConnection>,
    address: Arc<str>,
    answer_timeout: Duration,
}

/// Why a query has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection broke under the query: another may do.
    Lost(StoreError),
    /// There was no connection, the server refused the query, or was silent for longer than all its limits together.
    Refused(StoreError),
}

impl Unanswered {
    pub(crate) fn into_error(self) -> StoreError {
        let (Self::Lost(error) | Self::Refused(error)) = self;
        error
    }
}

/// What a server that keeps its time limits may need beyond them.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// How often connections that are too old or idle are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

impl PostgresPool {
    /// Prepares the pool and starts the task that closes old connections; connects when first asked.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the trusted roots cannot be read.
    pub fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        let tls = match &options.url.tls {
            TlsMode::Disabled => None,
            TlsMode::Verified { roots } => Some(MakeRustlsConnect::new(client_tls(roots.as_ref())?)),
        };
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        let connect_with = Arc::new((limited(options), tls, session_settings(options)));
        config.custom_setup = Box::new(move |_| connect(Arc::clone(&connect_with)).boxed());
        let pool = Pool::builder(AsyncDieselConnectionManager::new_with_config("", config))
            .max_size(options.pool_size)
            .timeouts(Timeouts {
                wait: Some(options.acquire_timeout),
                create: Some(options.connect_timeout),
                recycle: Some(options.connect_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(StoreError::unavailable)?;
        tokio::spawn(close_old_connections(pool.clone(), options.idle_timeout, options.connection_lifetime));
        let answer_timeout = options.acquire_timeout + options.statement_timeout + ANSWER_MARGIN;
        Ok(Self { pool, address: options.url.address().into(), answer_timeout })
    }

    /// `host:port` of the server, for the log.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A connection, within the limits on waiting and connecting.
    pub(crate) async fn get(&self) -> Result<Object<AsyncPgConnection>, StoreError> {
        self.pool.get().await.map_err(StoreError::unavailable)
    }

    /// Runs `work` in a task that goes on when the caller goes away, or when the server has been silent for longer than
    /// all limits together: then the caller is told so, and the task ends with its connection.
    pub(crate) async fn to_the_end<R: Send + 'static>(
        &self,
        work: impl Future<Output = Result<R, StoreError>> + Send + 'static,
    ) -> Result<R, StoreError> {
        match tokio::time::timeout(self.answer_timeout, tokio::spawn(work)).await {
            Ok(finished) => finished.map_err(StoreError::unavailable)?,
            Err(elapsed) => Err(StoreError::unavailable(elapsed)),
        }
    }

    /// Runs a query that only reads. A silent server costs its connection, and so does a caller who goes away: the next user
    /// of the connection would wait for their answer.
    pub(crate) async fn ask<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, StoreError>,
    ) -> Result<R, Unanswered> {
        let connection = self.get().await.map_err(|error| {
            if error.is_connection_lost() { Unanswered::Lost(error) } else { Unanswered::Refused(error) }
        })?;
        let mut asked = Asked(Some(connection));
        match tokio::time::timeout(self.answer_timeout, query(asked.connection())).await {
            Ok(Ok(answer)) => {
                asked.give_back();
                Ok(answer)
            }
            Ok(Err(error)) if asked.connection().is_broken() || error.is_connection_lost() => {
                Err(Unanswered::Lost(error))
            }
            Ok(Err(error)) => {
                asked.give_back();
                Err(Unanswered::Refused(error))
            }
            Err(elapsed) => Err(Unanswered::Refused(StoreError::unavailable(elapsed))),
        }
    }

    /// A new connection that is none of the pool's, for what must not wait for one.
    pub(crate) async fn connect(&self) -> Result<AsyncPgConnection, StoreError> {
        self.pool.manager().create().await.map_err(StoreError::unavailable)
    }

    /// How long a server that keeps its limits needs at most, the wait for a connection included.
    pub(crate) const fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// As [`PostgresPool::ask`], on a new connection: where one was lost, those that wait in the pool may be too.
    pub(crate) async fn ask_anew<R>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<R, StoreError>,
    ) -> Result<R, Unanswered> {
        let answered = async {
            let mut connection = self.connect().await?;
            query(&mut connection).await
        };
        match tokio::time::timeout(self.answer_timeout, answered).await {
            Ok(answer) => answer.map_err(Unanswered::Refused),
            Err(elapsed) => Err(Unanswered::Refused(StoreError::unavailable(elapsed))),
        }
    }

    /// A connection that is not one of the pool's any more, for work that holds it long.
    pub(crate) async fn take(&self) -> Result<AsyncPgConnection, StoreError> {
        self.get().await.map(Object::take)
    }
}

/// A connection that owes an answer; dropped before it has come, it does not go back into the pool.
struct Asked(Option<Object<AsyncPgConnection>>);

impl Asked {
    fn connection(&mut self) -> &mut AsyncPgConnection {
        self.0.as_mut().expect("it is there until it has answered")
    }

    /// Back into the pool: it has answered.
    fn give_back(mut self) {
        self.0.take();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

/// Lets a silent server be noticed: a connection whose peer does not acknowledge is dropped.
fn limited(options: &PostgresOptions) -> tokio_postgres::Config {
    let mut config = options.url.config.clone();
    if config.get_application_name().is_none() {
        config.application_name("kairos-identity");
    }
    config
        .connect_timeout(options.connect_timeout)
        .tcp_user_timeout(options.statement_timeout)
        .keepalives_idle(options.statement_timeout)
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    config
}

fn session_settings(options: &PostgresOptions) -> String {
    if options.is_pooled {
        return String::new();
    }
    let limit_ms = options.statement_timeout.as_millis();
    // Statements are planned once: for a list of tokens PostgreSQL would weigh a plan anew each time, which takes longer than to
    // find them. An acknowledged write survives a crash of the database, whatever the server's default says; stronger
    // settings stay.
    format!(
        "SET statement_timeout = {limit_ms}; SET lock_timeout = {limit_ms}; \
         SET idle_in_transaction_session_timeout = {limit_ms}; SET plan_cache_mode = force_generic_plan; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    )
}

type ConnectWith = (tokio_postgres::Config, Option<MakeRustlsConnect>, String);

async fn connect(with: Arc<ConnectWith>) -> ConnectionResult<AsyncPgConnection> {
    let (config, tls, settings) = &*with;
    let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(chain(&error));
    let mut connection = if let Some(tls) = tls {
        let (client, connection) = config.connect(tls.clone()).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await?
    } else {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await?
    };
    if !settings.is_empty() {
        connection.batch_execute(settings).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    }
    Ok(connection)
}

fn client_tls(roots_file: Option<&PathBuf>) -> Result<rustls::ClientConfig, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = roots_file {
        let unreadable = |error: &dyn std::error::Error| {
            StoreError::unavailable(format!("sslrootcert {}: {error}", path.display()))
        };
        let pem = fs::read(path).map_err(|error| unreadable(&error))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|error| unreadable(&error))?)
                .map_err(|error| unreadable(&error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

async fn close_old_connections(pool: Pool<AsyncPgConnection>, idle: Duration, lifetime: Duration) {
    let mut ticks = tokio::time::interval(REAP_INTERVAL);
    while !pool.is_closed() {
        ticks.tick().await;
        pool.retain(|_, metrics| metrics.last_used() < idle && metrics.age() < lifetime);
    }
}
