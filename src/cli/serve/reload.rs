//! What may change while the service runs: the file of callers, and the files of TLS.
//!
//! They are looked at every few seconds, and at once on SIGHUP. What is new counts from the next call or connection on; what
//! is faulty changes nothing, and the log says so.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::AuditTrail,
    callers::{CALLERS_FILE, CallerGate, Callers},
    cli::{Failure, reason},
    config::Settings,
    domain::{AuditKind, Origin},
    grpc::layer::paths_of_every_service,
    server::{self, Alpn, CurrentTls},
};

/// How often files are looked at. By their content: files that are links, as in containers, change without their times.
const INTERVAL: Duration = Duration::from_secs(2);

/// Who may call, by the settings.
pub(super) fn gate(settings: &Settings) -> Result<CallerGate, Failure> {
    match &settings.callers.file {
        Some(path) => Ok(CallerGate::kept(load_callers(path, settings)?)),
        None => Ok(CallerGate::open()),
    }
}

/// What connections are offered, by the settings.
#[derive(Clone)]
pub(super) struct Offers {
    /// On the gRPC port.
    pub grpc: Option<CurrentTls>,
    /// On the HTTP port.
    pub http: Option<CurrentTls>,
}

impl Offers {
    pub(super) fn load(settings: &Settings) -> Result<Self, Failure> {
        let load = |alpn| load_tls(settings, alpn).map(|config| config.map(CurrentTls::from));
        Ok(Self { grpc: load(Alpn::Http2)?, http: load(Alpn::Http1)? })
    }

    /// Gives whether there is anything to offer.
    fn replace(&self, settings: &Settings) -> Result<bool, Failure> {
        // All are read before any is replaced.
        let loaded =
            [(&self.grpc, load_tls(settings, Alpn::Http2)?), (&self.http, load_tls(settings, Alpn::Http1)?)];
        for (current, config) in loaded {
            if let (Some(current), Some(config)) = (current, config) {
                current.replace(config);
            }
        }
        Ok(self.grpc.is_some())
    }
}

fn load_callers(path: &Path, settings: &Settings) -> Result<Callers, Failure> {
    let in_file = |error: &dyn std::fmt::Display| format!("callers.file: {}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| in_file(&error))?;
    let methods = paths_of_every_service();
    let methods: Vec<_> = methods.iter().map(String::as_str).collect();
    let callers = Callers::parse(&text, &methods).map_err(|error| in_file(&error))?;
    if callers.need_certificates() && settings.server.tls_client_ca.is_none() {
        return Err(in_file(&"a caller is proven by its certificate, and server.tls-client-ca is not set"));
    }
    Ok(callers)
}

fn load_tls(settings: &Settings, alpn: Alpn) -> Result<Option<Arc<ServerConfig>>, Failure> {
    let server = &settings.server;
    // Browsers are nobody's callers: they are not asked for a certificate.
    let client_ca = server.tls_client_ca.as_deref().filter(|_| alpn == Alpn::Http2);
    match (&server.tls_cert, &server.tls_key) {
        (Some(certificate), Some(key)) => {
            server::load_tls(certificate, key, client_ca, alpn).map(Some).map_err(reason)
        }
        _ => Ok(None),
    }
}

/// The parts that may change.
pub(super) struct Reload {
    settings: Settings,
    gate: CallerGate,
    tls: Offers,
    audit: AuditTrail,
    callers_file: Watched,
    tls_files: Watched,
    hangup: Option<Signal>,
}

impl Reload {
    /// From here on SIGHUP no longer ends the process.
    pub(super) fn begin(settings: Settings, gate: CallerGate, tls: Offers, audit: AuditTrail) -> Self {
        let hangup = signal(SignalKind::hangup());
        if let Err(error) = &hangup {
            tracing::error!(%error, "SIGHUP cannot be heard; changed files are still read");
        }
        let server = &settings.server;
        let callers_file = Watched::new([&settings.callers.file]);
        let tls_files = Watched::new([&server.tls_cert, &server.tls_key, &server.tls_client_ca]);
        Self { settings, gate, tls, audit, callers_file, tls_files, hangup: hangup.ok() }
    }

    /// Follows the files until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return,
                () = next(&mut self.hangup) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if self.callers_file.has_changed() || is_asked {
                let reloaded = self.reload_callers();
                if let Ok(Some(names)) = &reloaded {
                    let mut event = self.audit.event(AuditKind::AuthzChange, &Origin::local(CALLERS_FILE));
                    event.resource = Some(names.clone());
                    self.audit.record(event).await;
                }
                tell("callers", reloaded);
            }
            if self.tls_files.has_changed() || is_asked {
                tell("certificates", self.reload_tls());
            }
        }
    }

    /// Gives what there is now; nothing where nothing was set.
    fn reload_callers(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.settings.callers.file else { return Ok(None) };
        let callers = load_callers(path, &self.settings)?;
        let names = callers.names().join(", ");
        self.gate.replace(callers);
        Ok(Some(names))
    }

    fn reload_tls(&self) -> Result<Option<String>, Failure> {
        let is_offered = self.tls.replace(&self.settings)?;
        Ok(is_offered.then(|| "new connections get them".to_owned()))
    }
}

async fn next(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn tell(what: &str, reloaded: Result<Option<String>, Failure>) {
    match reloaded {
        Ok(Some(now)) => tracing::info!("Read the {what} again: {now}"),
        Ok(None) => {}
        Err(error) => tracing::error!("{error}; the {what} known so far stay"),
    }
}

/// Files, and what was in them last.
struct Watched {
    paths: Vec<PathBuf>,
    known: Vec<Result<Vec<u8>, io::ErrorKind>>,
}

impl Watched {
    fn new<'a>(paths: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Self {
        let mut watched = Self { paths: paths.into_iter().flatten().cloned().collect(), known: Vec::new() };
        watched.has_changed();
        watched
    }

    fn has_changed(&mut self) -> bool {
        let found: Vec<_> =
            self.paths.iter().map(|path| fs::read(path).map_err(|error| error.kind())).collect();
        let has_changed = found != self.known;
        self.known = found;
        has_changed
    }
}
