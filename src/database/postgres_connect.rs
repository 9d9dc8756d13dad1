//! Opens PostgreSQL connections: TLS, time limits and session settings.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    database::DatabaseError,
    domain::chain,
    postgres_url::{PostgresUrl, TlsMode},
};

/// The values of `synchronous_commit` with which an acknowledged write can be lost.
pub(crate) const UNSAFE_SYNCHRONOUS_COMMIT: [&str; 2] = ["off", "local"];

/// Options of a PostgreSQL connection pool.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The server, and whether connections to it use TLS.
    pub url: PostgresUrl,
    /// Largest number of connections.
    pub pool_size: usize,
    /// Time limit on establishing a connection.
    pub connect_timeout: Duration,
    /// Time limit on waiting for a free connection of the pool.
    pub acquire_timeout: Duration,
    /// Time limit on a statement, and on waiting for a lock.
    pub statement_timeout: Duration,
    /// Idle time after which a connection is closed.
    pub idle_timeout: Duration,
    /// Age at which a connection is closed in any case, so that the load spreads over all servers again after
    /// a failover.
    pub connection_lifetime: Duration,
    /// True if a pooler shares the server's connections among its clients, so that no session setting may be
    /// changed.
    pub is_pooled: bool,
}

/// Opens connections with the same options.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    session_settings: String,
}

impl Connector {
    /// Reads the root certificates of TLS.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if their file cannot be read.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let tls = match &options.url.tls {
            TlsMode::Disabled => None,
            TlsMode::Verified { roots } => Some(MakeRustlsConnect::new(client_tls(roots.as_ref())?)),
        };
        let (config, session_settings) = (config_with_timeouts(options), session_settings(options));
        Ok(Self { config, tls, session_settings })
    }

    /// Opens a connection and applies the session settings.
    pub(super) async fn connect(self: Arc<Self>) -> ConnectionResult<AsyncPgConnection> {
        let bad = |error: tokio_postgres::Error| ConnectionError::BadConnection(chain(&error));
        let mut connection = if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await.map_err(bad)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await?
        } else {
            let (client, connection) = self.config.connect(tokio_postgres::NoTls).await.map_err(bad)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await?
        };
        if !self.session_settings.is_empty() {
            let set = connection.batch_execute(&self.session_settings).await;
            set.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection)
    }
}

impl Connector {
    /// Opens a connection and closes it again, to find out whether the server accepts one.
    pub(super) async fn try_once(&self) -> Result<(), tokio_postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()).await.map(drop),
            None => self.config.connect(tokio_postgres::NoTls).await.map(drop),
        }
    }
}

/// Sets limits by which a server that no longer responds is noticed: a connection whose peer does not
/// acknowledge is closed.
fn config_with_timeouts(options: &PostgresOptions) -> tokio_postgres::Config {
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

/// Returns the statements that set up a new connection; none behind a pooler.
fn session_settings(options: &PostgresOptions) -> String {
    if options.is_pooled {
        return String::new();
    }
    let limit_ms = options.statement_timeout.as_millis();
    let unsafe_values = UNSAFE_SYNCHRONOUS_COMMIT.map(|value| format!("'{value}'")).join(", ");
    // Generic plans: for a list of tokens PostgreSQL would otherwise plan the statement again at each
    // execution, which takes longer than the look-up itself. `synchronous_commit` is raised to `on` if the
    // default of the server is unsafe, so that an acknowledged write survives a crash of the database; other
    // values stay.
    format!(
        "SET statement_timeout = {limit_ms}; SET lock_timeout = {limit_ms}; \
         SET idle_in_transaction_session_timeout = {limit_ms}; SET plan_cache_mode = force_generic_plan; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ({unsafe_values})"
    )
}

fn client_tls(roots_file: Option<&PathBuf>) -> Result<rustls::ClientConfig, DatabaseError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = roots_file {
        let unreadable = |error: &dyn std::error::Error| {
            DatabaseError::unavailable(format!("sslrootcert {}: {error}", path.display()))
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
