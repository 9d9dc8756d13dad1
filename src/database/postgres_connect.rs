//! Opens PostgreSQL connections: the choice among several hosts, TLS, time limits and session settings.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::{
    ConnectionError, ConnectionResult, QueryableByName,
    connection::{Instrumentation, InstrumentationEvent},
    sql_types::{BigInt, Bool, Nullable},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::{Either, select};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{net::UnixStream, sync::oneshot, time::timeout};
use tokio_postgres::{
    NoTls,
    config::{Host, SslMode, SslNegotiation},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    postgres_addresses::{ADDRESSES_MAX, addresses, ip_of, shown},
    postgres_errors::{Encrypted, Plain, WithStates},
    postgres_refusal,
    postgres_timeline::NewestTimeline,
};
use crate::{
    database::DatabaseError,
    domain::chain,
    input_file::{self, ShownPath},
    postgres_url::{PostgresUrl, TargetSession, TlsMode, address},
};

/// The values of `synchronous_commit` with which an acknowledged write can be lost.
pub(crate) const UNSAFE_SYNCHRONOUS_COMMIT: [&str; 2] = ["off", "local"];

/// Options of a PostgreSQL connection pool.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The servers, and whether connections to them use TLS.
    pub url: PostgresUrl,
    /// Largest number of connections on which writes run. The pool has an eighth more, at least two, for
    /// reads.
    pub pool_size: usize,
    /// Time limit on establishing a connection to one address of a host.
    pub connect_timeout: Duration,
    /// Time limit on waiting for a free connection of the pool.
    pub acquire_timeout: Duration,
    /// Time limit on a statement, on waiting for a lock, and on a pause between the statements of a
    /// transaction. A connection whose server acknowledges nothing for this long is closed.
    pub statement_timeout: Duration,
    /// The newest timeline that connections with these options, or with clones of them, have seen.
    pub newest_timeline: NewestTimeline,
    /// Idle time after which a connection is closed.
    pub idle_timeout: Duration,
    /// Age at which a connection is closed even if it is used often, so that the load spreads over all
    /// servers again after a failover.
    pub connection_lifetime: Duration,
    /// True if a pooler shares the server's connections among its clients, so that no session setting may be
    /// changed.
    pub is_pooled: bool,
}

/// Opens connections with the same options.
pub(super) struct Connector {
    hosts: Vec<tokio_postgres::Config>,
    /// The index of the host of the last connection. This host is tried first, because a host that hangs
    /// would cost each new connection its time limit.
    current: AtomicUsize,
    /// The address of the last connection, if its host is a name. It is tried first for the same reason.
    current_ip: Mutex<Option<IpAddr>>,
    target: TargetSession,
    tls: Option<Encrypted>,
    session_settings: String,
    connect_timeout: Duration,
    newest_timeline: NewestTimeline,
}

/// The state of a server, as `target_session_attrs` and the check of the timeline need it.
#[derive(Debug, QueryableByName)]
struct SessionState {
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Bool)]
    is_read_only: bool,
    /// `None` on a standby.
    #[diesel(sql_type = Nullable<BigInt>)]
    timeline: Option<i64>,
}

impl Connector {
    /// Reads the root certificates of TLS.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if their file cannot be read.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, DatabaseError> {
        let tls = match &options.url.tls {
            TlsMode::Disabled => None,
            TlsMode::Verified { roots } => {
                Some(Encrypted(MakeRustlsConnect::new(client_tls(roots.as_ref())?)))
            }
        };
        Ok(Self {
            hosts: options.url.hosts.iter().map(|host| config_with_timeouts(host, options)).collect(),
            current: AtomicUsize::new(0),
            current_ip: Mutex::default(),
            target: options.url.target,
            tls,
            session_settings: session_settings(options),
            connect_timeout: options.connect_timeout,
            newest_timeline: options.newest_timeline.clone(),
        })
    }

    /// True if a server may have to be left for another one: there are several hosts, or the URL says what
    /// the server must accept.
    pub(super) fn is_selective(&self) -> bool {
        self.hosts.len() > 1 || self.target != TargetSession::Any
    }

    /// Returns the index of the host of the last connection, in the order of the URL.
    pub(super) fn current(&self) -> usize {
        AtomicUsize::load(&self.current, Ordering::Relaxed)
    }

    /// Returns the address of the host of the last connection.
    pub(super) fn current_address(&self) -> String {
        self.hosts.get(self.current()).map(address).unwrap_or_default()
    }

    /// Returns the time within which [`Connector::connect`] returns.
    pub(super) fn time_limit(&self) -> Duration {
        let rounds = if self.target == TargetSession::PreferStandby { 2 } else { 1 };
        // For each host, the look-up of its name and each address.
        let attempts = u32::try_from(self.hosts.len() * rounds * (1 + ADDRESSES_MAX)).unwrap_or(u32::MAX);
        // The margin lets the time limit of the last host pass first, because its error names the host.
        self.connect_timeout.saturating_mul(attempts) + Duration::from_millis(200)
    }

    /// Opens a connection to a host that accepts one and is what `target_session_attrs` demands, and applies
    /// the session settings. The hosts are tried in their order, beginning with that of the last connection,
    /// each with all its addresses.
    pub(super) async fn connect(self: Arc<Self>) -> ConnectionResult<AsyncPgConnection> {
        if self.target == TargetSession::PreferStandby
            && let Ok(connection) = self.connect_to(TargetSession::Standby).await
        {
            return Ok(connection);
        }
        self.connect_to(self.target).await
    }

    async fn connect_to(&self, target: TargetSession) -> ConnectionResult<AsyncPgConnection> {
        let (first, mut reasons) = (self.current(), Vec::new());
        for offset in 0..self.hosts.len() {
            let index = (first + offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else { continue };
            match self.connect_to_one_of(&self.addresses(host).await, target).await {
                Ok(connection) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(failed) => reasons.extend(failed),
            }
        }
        let reasons: Vec<_> = match reasons.as_slice() {
            [(_, reason)] => vec![reason.clone()],
            several => several.iter().map(|(address, reason)| format!("{address}: {reason}")).collect(),
        };
        Err(ConnectionError::BadConnection(reasons.join("; ")))
    }

    /// Returns a configuration for each address of a host.
    async fn addresses(&self, host: &tokio_postgres::Config) -> Vec<tokio_postgres::Config> {
        let current = *self.current_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let found = timeout(self.connect_timeout, addresses(host, current)).await;
        found.unwrap_or_else(|_| vec![host.clone()])
    }

    /// Opens a connection to the first of these addresses of a host that accepts one and is what is demanded.
    ///
    /// # Errors
    /// Each address, and why it could not be used.
    async fn connect_to_one_of(
        &self,
        addresses: &[tokio_postgres::Config],
        target: TargetSession,
    ) -> Result<AsyncPgConnection, Vec<(String, String)>> {
        let mut failed = Vec::new();
        for address in addresses {
            let reason = match timeout(self.connect_timeout, self.open(address, target)).await {
                Ok(Ok(connection)) => {
                    *self.current_ip.lock().unwrap_or_else(PoisonError::into_inner) = ip_of(address);
                    return Ok(connection);
                }
                Ok(Err(reason)) => reason,
                Err(_) => {
                    "the server did not accept a connection within database.connect-timeout: it hangs, or is not PostgreSQL"
                        .to_owned()
                }
            };
            failed.push((shown(address, addresses.len() > 1), reason));
        }
        Err(failed)
    }

    /// Opens a connection to one address of a host. The error is a text.
    async fn open(
        &self,
        host: &tokio_postgres::Config,
        target: TargetSession,
    ) -> Result<AsyncPgConnection, String> {
        let mut connection = self.open_raw(host).await?;
        if !self.session_settings.is_empty() {
            connection.batch_execute(&self.session_settings).await.map_err(|error| chain(&error))?;
        }
        self.verify(&mut connection, target).await.map(|()| connection)
    }

    /// Checks that the server of a connection still is what `target_session_attrs` demands. The error is a
    /// text.
    pub(super) async fn check(&self, connection: &mut AsyncPgConnection) -> Result<(), String> {
        let answer = timeout(self.connect_timeout, self.verify(connection, self.target)).await;
        answer.map_err(|_| "the server did not answer within database.connect-timeout".to_owned())?
    }

    async fn verify(&self, connection: &mut AsyncPgConnection, target: TargetSession) -> Result<(), String> {
        if matches!(target, TargetSession::Any | TargetSession::PreferStandby) {
            return Ok(());
        }
        // The name of a WAL file begins with its timeline, as eight hexadecimal digits.
        let query = diesel::sql_query(
            "SELECT pg_is_in_recovery() AS is_standby, \
             current_setting('transaction_read_only') = 'on' AS is_read_only, \
             CASE WHEN NOT pg_is_in_recovery() THEN \
             ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint END AS timeline",
        );
        let state: SessionState = query.get_result(connection).await.map_err(|error| chain(&error))?;
        if let Some(reason) = refusal(target, &state) {
            return Err(reason.to_owned());
        }
        state.timeline.map_or(Ok(()), |timeline| self.newest_timeline.admit(timeline))
    }

    /// Opens a connection and closes it again, to find out whether one of the hosts accepts one. Each address
    /// of a host has the time of `database.connect-timeout`.
    ///
    /// # Errors
    /// The error of the last address that returned one, with its reason; `None` if all hang.
    pub(super) async fn try_once(&self) -> Result<(), Option<(tokio_postgres::Error, String)>> {
        let mut last = None;
        for host in &self.hosts {
            for address in self.addresses(host).await {
                match timeout(self.connect_timeout, self.try_address(&address)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => {
                        let reason = postgres_refusal::reason(&error, &address);
                        last = Some((error, reason));
                    }
                    Err(_) => {}
                }
            }
        }
        Err(last)
    }

    /// Opens a connection to an address of a host and closes it again.
    async fn try_address(&self, host: &tokio_postgres::Config) -> Result<(), tokio_postgres::Error> {
        match self.protection(host) {
            Protection::Socket(_) => without_tls(host).connect(NoTls).await.map(drop),
            Protection::Tls(tls) => host.connect(tls).await.map(drop),
            Protection::Plain => as_if_with_tls(host).connect(Plain).await.map(drop),
        }
    }

    /// Opens a connection to a host, without session settings and without the check of the server. The error
    /// is a text.
    async fn open_raw(&self, host: &tokio_postgres::Config) -> Result<AsyncPgConnection, String> {
        let text = |error: tokio_postgres::Error| postgres_refusal::reason(&error, host);
        let connection = match self.protection(host) {
            Protection::Socket(folder) => return open_unix(host, folder).await,
            Protection::Tls(tls) => {
                let (client, connection) = host.connect(tls).await.map_err(text)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            Protection::Plain => {
                let (client, connection) = as_if_with_tls(host).connect(Plain).await.map_err(text)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        };
        connection.map_err(|error| chain(&error))
    }

    /// Returns how connections to a host are protected.
    fn protection<'a>(&self, host: &'a tokio_postgres::Config) -> Protection<'a> {
        match (host.get_hosts().first(), &self.tls) {
            (Some(Host::Unix(folder)), _) => Protection::Socket(folder),
            (_, Some(tls)) => Protection::Tls(tls.clone()),
            (_, None) => Protection::Plain,
        }
    }
}

/// How connections to a host are protected.
enum Protection<'a> {
    /// By the permissions of the Unix socket in this folder.
    Socket(&'a Path),
    Tls(Encrypted),
    /// Not at all.
    Plain,
}

/// Returns the configuration for a Unix socket. A host requires TLS, unless this or [`as_if_with_tls`] is
/// called: a connection without TLS cannot be opened by omission.
fn without_tls(host: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut host = host.clone();
    host.ssl_mode(SslMode::Disable);
    host
}

/// Returns the configuration for [`Plain`]. It poses as TLS, because the driver lets only TLS wrap its
/// stream, and encrypts nothing. So the driver must not ask the server for TLS first.
fn as_if_with_tls(host: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut host = host.clone();
    host.ssl_negotiation(SslNegotiation::Direct);
    host
}

/// Opens a connection through the Unix socket in a folder.
async fn open_unix(host: &tokio_postgres::Config, folder: &Path) -> Result<AsyncPgConnection, String> {
    const DEFAULT_PORT: u16 = 5432;
    let port = host.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    let path = folder.join(format!(".s.PGSQL.{port}"));
    let socket = UnixStream::connect(&path).await;
    let socket = socket.map_err(|error| postgres_refusal::socket_reason(&error, &path))?;
    let opened = without_tls(host).connect_raw(WithStates::plain(socket), NoTls).await;
    let (client, driver) = opened.map_err(|error| postgres_refusal::reason(&error, host))?;
    let (in_use, dropped) = oneshot::channel();
    tokio::spawn(async move {
        // The driver alone would wait for the answers to all requests before it closes the socket.
        if let Either::Left((Err(error), _)) = select(driver, dropped).await {
            tracing::debug!(error = %chain(&error), "PostgreSQL connection lost");
        }
    });
    let mut connection = AsyncPgConnection::try_from(client).await.map_err(|error| chain(&error))?;
    connection.set_instrumentation(InUse { _connection: in_use });
    Ok(connection)
}

/// Belongs to a connection and is dropped with it, which stops the driver of the connection.
struct InUse {
    _connection: oneshot::Sender<()>,
}

impl Instrumentation for InUse {
    fn on_connection_event(&mut self, _: InstrumentationEvent<'_>) {}
}

/// Returns why a server is not what `target_session_attrs` demands; `None` if it is.
const fn refusal(target: TargetSession, state: &SessionState) -> Option<&'static str> {
    match target {
        TargetSession::ReadWrite if state.is_standby => {
            Some("the server is a standby (target_session_attrs)")
        }
        TargetSession::ReadWrite if state.is_read_only => {
            Some("the server accepts only reads (target_session_attrs)")
        }
        TargetSession::ReadOnly if !state.is_read_only => {
            Some("the server accepts writes (target_session_attrs)")
        }
        TargetSession::Primary if state.is_standby => Some("the server is a standby (target_session_attrs)"),
        TargetSession::Standby if !state.is_standby => {
            Some("the server is not a standby (target_session_attrs)")
        }
        _ => None,
    }
}

/// Returns the configuration of a host with the time limits of the options, and with the name of the service
/// if the URL names no application. A connection whose peer no longer acknowledges is closed.
fn config_with_timeouts(host: &tokio_postgres::Config, options: &PostgresOptions) -> tokio_postgres::Config {
    let mut config = host.clone();
    if config.get_application_name().is_none() {
        config.application_name("kairos-identity");
    }
    // The system counts keepalives in whole seconds and refuses 0.
    let second = Duration::from_secs(1);
    config
        .connect_timeout(options.connect_timeout)
        .tcp_user_timeout(options.statement_timeout)
        .keepalives_idle(options.statement_timeout.max(second))
        .keepalives_interval(second)
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
    // values stay. Statements outside a transaction of `write!` get the isolation level here. The log of the
    // service is in English if the role may choose the language of messages.
    format!(
        "SET statement_timeout = {limit_ms}; SET lock_timeout = {limit_ms}; \
         SET idle_in_transaction_session_timeout = {limit_ms}; SET plan_cache_mode = force_generic_plan; \
         SET default_transaction_isolation = 'read committed'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ({unsafe_values}); \
         SELECT set_config('lc_messages', 'C', false) WHERE has_parameter_privilege('lc_messages', 'SET')"
    )
}

fn client_tls(roots_file: Option<&PathBuf>) -> Result<rustls::ClientConfig, DatabaseError> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = roots_file {
        let unreadable = |error: &dyn std::error::Error| {
            DatabaseError::unavailable(format!("sslrootcert {}: {error}", ShownPath(path)))
        };
        let pem = input_file::read(path)
            .map_err(|error| DatabaseError::unavailable(format!("sslrootcert {error}")))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|error| unreadable(&error))?)
                .map_err(|error| unreadable(&error))?;
        }
        if roots.is_empty() {
            let reason = "contains no certificate: name a PEM file with root certificates";
            return Err(DatabaseError::unavailable(format!("sslrootcert {}: {reason}", ShownPath(path))));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn an_address_that_hangs_is_left_for_the_next_one_of_its_host() {
        // A network of 127/8 addresses: the first accepts and is silent, the second closes.
        let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let closing = TcpListener::bind(("127.0.0.3", port)).await.unwrap();
        let options = PostgresOptions {
            url: format!("postgres://u@name.invalid:{port}/d?sslmode=disable").parse().unwrap(),
            pool_size: 1,
            connect_timeout: Duration::from_millis(200),
            acquire_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(1),
            newest_timeline: NewestTimeline::default(),
            idle_timeout: Duration::from_secs(1),
            connection_lifetime: Duration::from_secs(1),
            is_pooled: true,
        };
        let connector = Connector::new(&options).unwrap();
        let at = |ip: &str| {
            let mut host = connector.hosts[0].clone();
            host.hostaddr(ip.parse().unwrap());
            host
        };
        let asked = tokio::spawn(async move {
            let (mut socket, _) = closing.accept().await.unwrap();
            socket.read(&mut [0; 1]).await.unwrap()
        });

        let addresses = [at("127.0.0.2"), at("127.0.0.3")];
        let Err(failed) = connector.connect_to_one_of(&addresses, TargetSession::Any).await else {
            panic!("neither is PostgreSQL")
        };
        assert_eq!(asked.await.unwrap(), 1, "the second one was asked");
        assert_eq!(failed[0].0, format!("name.invalid:{port} (127.0.0.2)"));
        assert!(failed[0].1.contains("did not accept a connection within database.connect-timeout"));
        assert_eq!(failed[1].0, format!("name.invalid:{port} (127.0.0.3)"));
    }
}
