//! Reloads the callers file, the TLS files and the secret keys while the service runs.
//!
//! The files are read at each [`INTERVAL`], and at once on SIGHUP. Changed callers apply from the next call
//! on, changed TLS files from the next connection on, and changed keys at once. An invalid file changes
//! nothing, and an error is logged.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::AuditTrail,
    callers::{CALLERS_FILE, CallerGate, Callers},
    cli::{Failure, caller::parse_callers},
    clock::Clock,
    config::Settings,
    domain::{AuditKind, Origin, chain},
    input_file::{self, ShownPath},
    sealing::{KeyFileError, SealingKeys},
    server::{self, Alpn, CurrentTls, LoadedTls, TlsError},
};

/// The interval at which the files are read. Their content is compared, since the modification time of a file
/// that is a symbolic link, as in containers, may stay the same.
const INTERVAL: Duration = Duration::from_secs(2);

// The settings of the TLS files, each with what it must name.
const TLS_CERT: (&str, &str) =
    ("server.tls-cert", "name a readable PEM file with the server's certificate chain");
const TLS_KEY: (&str, &str) =
    ("server.tls-key", "name a readable PEM file with the private key of the certificate");
const TLS_CLIENT_CA: (&str, &str) = ("server.tls-client-ca", "name a readable PEM file with CA certificates");

/// Constructs the gate that admits callers: those of the callers file, or every client if no file is set.
pub(in crate::cli) fn gate(settings: &Settings) -> Result<CallerGate, Failure> {
    match &settings.callers.file {
        Some(path) => Ok(CallerGate::restricted(load_callers(path, settings)?)),
        None => Ok(CallerGate::open()),
    }
}

/// The current TLS configuration of each port; `None` without TLS.
#[derive(Clone)]
pub(in crate::cli) struct TlsConfigs {
    /// Of the API port.
    pub grpc: Option<CurrentTls>,
    /// Of the HTTP port.
    pub http: Option<CurrentTls>,
}

impl TlsConfigs {
    /// Loads the TLS files that the settings name.
    pub(in crate::cli) fn load(settings: &Settings) -> Result<Self, Failure> {
        let load = |alpn| load_tls(settings, alpn).map(|config| config.map(CurrentTls::from));
        Ok(Self { grpc: load(Alpn::Http2)?, http: load(Alpn::Http1)? })
    }

    /// Loads the TLS files again, and uses them for new connections. Returns false if TLS is off.
    fn reload(&self, settings: &Settings) -> Result<bool, Failure> {
        // Both are loaded before either is replaced.
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

/// Returns a finding for each TLS file that cannot be read, also for one that has no effect yet because
/// another one is not set.
pub(in crate::cli) fn unreadable_tls_files(settings: &Settings) -> Vec<Failure> {
    let server = &settings.server;
    let files =
        [(TLS_CERT, &server.tls_cert), (TLS_KEY, &server.tls_key), (TLS_CLIENT_CA, &server.tls_client_ca)];
    let unreadable = files.into_iter().filter_map(|((key, way_out), path)| {
        let error = input_file::read_trusted(path.as_deref()?).err()?;
        Some(format!("{key}: {}: {way_out}", chain(&error)))
    });
    unreadable.collect()
}

fn load_callers(path: &Path, settings: &Settings) -> Result<Callers, Failure> {
    let in_file = |error: &dyn std::fmt::Display| format!("callers.file: {}: {error}", ShownPath(path));
    let file = input_file::read_secret(path).map_err(|error| format!("callers.file: {error}"))?;
    if let Some(warning) = file.warning {
        tracing::warn!("Callers file: {warning}");
    }
    let callers = parse_callers(&file.text).map_err(|error| in_file(&error))?;
    if callers.any_uses_certificate() && settings.server.tls_client_ca.is_none() {
        return Err(in_file(
            &"a caller authenticates with a certificate, but server.tls-client-ca is not set",
        ));
    }
    Ok(callers)
}

fn load_tls(settings: &Settings, alpn: Alpn) -> Result<Option<LoadedTls>, Failure> {
    let server = &settings.server;
    // The HTTP port serves browsers, which are not callers: the server requests no client certificate there.
    let client_ca = server.tls_client_ca.as_deref().filter(|_| alpn == Alpn::Http2);
    let (Some(certificate), Some(key)) = (&server.tls_cert, &server.tls_key) else { return Ok(None) };
    let loaded = server::load_tls(certificate, key, client_ca, alpn);
    let loaded = loaded.map_err(|error| tls_failure(settings, &error))?;
    // Both ports load the certificate; the warning appears once.
    if alpn == Alpn::Http2
        && let Some(warning) = server::certificate_warning(certificate, Clock::system().now())
    {
        tracing::warn!("server.tls-cert: {warning}");
    }
    Ok(Some(loaded))
}

/// Formats an error of the TLS files with the setting and with what the file must contain.
fn tls_failure(settings: &Settings, error: &TlsError) -> Failure {
    let (key, way_out) = match error {
        // Both files with certificates have the same errors: the path tells which file it is.
        TlsError::UnusableFile { path, .. }
        | TlsError::File { path, .. }
        | TlsError::NoCertificate { path }
        | TlsError::BinaryCertificate { path }
            if Some(path) != settings.server.tls_cert.as_ref() =>
        {
            TLS_CLIENT_CA
        }
        TlsError::UnusableFile { .. }
        | TlsError::File { .. }
        | TlsError::NoCertificate { .. }
        | TlsError::BinaryCertificate { .. } => TLS_CERT,
        TlsError::UnusableKeyFile(_) | TlsError::NoKey { .. } | TlsError::EncryptedKey { .. } => TLS_KEY,
        TlsError::NoAuthority { .. } => TLS_CLIENT_CA,
        TlsError::InvalidKeyPair { .. } => {
            ("server.tls-cert and server.tls-key", "name a certificate and the key that belongs to it")
        }
    };
    format!("{key}: {}: {way_out}", chain(error))
}

/// What causes a reload: SIGHUP, and changes of the callers file and the TLS files.
///
/// It is created before these files are loaded: the start can wait long for the database, and a change
/// meanwhile must not be missed.
pub(super) struct ReloadTriggers {
    callers_file: WatchedFiles,
    tls_files: WatchedFiles,
    hangup: Option<Signal>,
}

impl ReloadTriggers {
    /// Reads the files, and starts to receive SIGHUP. From now on it no longer terminates the process.
    pub(super) fn begin(settings: &Settings) -> Self {
        let hangup = signal(SignalKind::hangup());
        if let Err(error) = &hangup {
            tracing::error!(%error, "Could not listen for SIGHUP; changed files are still reloaded");
        }
        let server = &settings.server;
        Self {
            callers_file: WatchedFiles::new([&settings.callers.file]),
            tls_files: WatchedFiles::new([&server.tls_cert, &server.tls_key, &server.tls_client_ca]),
            hangup: hangup.ok(),
        }
    }
}

/// Watches the files, and reloads them when they change.
pub(super) struct Reload {
    settings: Settings,
    gate: CallerGate,
    tls: TlsConfigs,
    audit: AuditTrail,
    sealing_keys: Arc<SealingKeys>,
    triggers: ReloadTriggers,
    key_file: WatchedFiles,
}

impl Reload {
    pub(super) fn new(
        settings: Settings,
        gate: CallerGate,
        tls: TlsConfigs,
        audit: AuditTrail,
        sealing_keys: Arc<SealingKeys>,
        triggers: ReloadTriggers,
    ) -> Self {
        // Unlike the files of `ReloadTriggers`, this one is watched only from here on: `run` begins with a
        // look at whether it has changed since the keys were loaded.
        let key_file = WatchedFiles::new([&sealing_keys.path().map(Path::to_owned)]);
        Self { settings, gate, tls, audit, sealing_keys, triggers, key_file }
    }

    /// Reloads changed files until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if let Err(error) = self.sealing_keys.reload_if_changed() {
            self.key_file.log("secret keys", Err(key_file_failure(&error)));
        }
        loop {
            let is_forced = tokio::select! {
                () = stop.cancelled() => return,
                () = next_hangup(&mut self.triggers.hangup) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if self.triggers.callers_file.is_due(is_forced) {
                let reloaded = self.reload_callers();
                if let Ok(Some(names)) = &reloaded {
                    let mut event = self.audit.event(AuditKind::AuthzChange, &Origin::local(CALLERS_FILE));
                    event.resource = Some(names.clone());
                    self.audit.record(event).await;
                }
                self.triggers.callers_file.log("callers", reloaded);
            }
            if self.triggers.tls_files.is_due(is_forced) {
                let reloaded = self.reload_tls();
                self.triggers.tls_files.log("certificates", reloaded);
            }
            if self.key_file.is_due(is_forced) {
                let reloaded = self.reload_keys();
                self.key_file.log("secret keys", reloaded);
            }
        }
    }

    /// Reloads the callers file and returns the names of the callers; `None` if no file is set.
    fn reload_callers(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.settings.callers.file else { return Ok(None) };
        let callers = load_callers(path, &self.settings)?;
        let names = callers.names().join(", ");
        self.gate.replace(callers);
        Ok(Some(names))
    }

    /// Reads the secret keys again.
    fn reload_keys(&self) -> Result<Option<String>, Failure> {
        self.sealing_keys.reload().map_err(|error| key_file_failure(&error))?;
        let ring = self.sealing_keys.ring();
        Ok(Some(format!("{} encrypts, {} decrypt", ring.current(), ring.shown())))
    }

    /// Reloads the TLS files; `None` if TLS is off.
    fn reload_tls(&self) -> Result<Option<String>, Failure> {
        let uses_tls = self.tls.reload(&self.settings)?;
        Ok(uses_tls.then(|| "new connections use them".to_owned()))
    }
}

fn key_file_failure(error: &KeyFileError) -> Failure {
    format!("secret.key-file: {}", chain(error))
}

/// Waits for the next SIGHUP. Never returns if the signal cannot be received.
async fn next_hangup(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Files, and their content when they were last read.
struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// Why the last reload failed. It is repeated until it succeeds: the reload reads the files once more,
    /// which may fail for a moment although the change was seen.
    failure: Option<Failure>,
    /// The content and the permissions of each.
    contents: Vec<Result<(Vec<u8>, u32), String>>,
}

impl WatchedFiles {
    fn new<'a>(paths: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Self {
        let mut watched = Self {
            paths: paths.into_iter().flatten().cloned().collect(),
            failure: None,
            contents: Vec::new(),
        };
        // The first call reads the files, so that the next one compares with them.
        watched.has_changed();
        watched
    }

    /// True if the files are to be reloaded: they have changed, the operator asks for it, or the last reload
    /// failed.
    fn is_due(&mut self, is_forced: bool) -> bool {
        if self.has_changed() || is_forced {
            self.failure = None;
            return true;
        }
        self.failure.is_some()
    }

    /// Logs the result of a reload: nothing for `Ok(None)`, when there was no file to read, and a failure
    /// that repeats itself only once.
    fn log(&mut self, what: &str, reloaded: Result<Option<String>, Failure>) {
        match &reloaded {
            Ok(Some(result)) => tracing::info!("Reloaded the {what}: {result}"),
            Err(error) if self.failure.as_ref() != Some(error) => {
                tracing::error!("Could not reload the {what}; the previous ones stay in use: {error}");
            }
            Ok(None) | Err(_) => {}
        }
        self.failure = reloaded.err();
    }

    /// Reads the files. True if the content or the permissions of one differ from the last call, or one can
    /// now be read that could not before, or the other way round.
    fn has_changed(&mut self) -> bool {
        let read = |path: &PathBuf| {
            let content = input_file::read(path).map_err(|error| error.to_string())?;
            let mode = fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
            Ok((content, mode))
        };
        let found: Vec<_> = self.paths.iter().map(read).collect();
        let has_changed = found != self.contents;
        self.contents = found;
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_failed_is_repeated_until_it_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("callers.toml"));
        fs::write(path.as_ref().unwrap(), "one").unwrap();
        let mut watched = WatchedFiles::new([&path]);
        assert!(!watched.is_due(false) && watched.is_due(true));

        fs::write(path.as_ref().unwrap(), "two").unwrap();
        assert!(watched.is_due(false));
        watched.log("callers", Err("too many open files".to_owned()));
        assert!(watched.is_due(false), "the change was seen and is not in use yet");
        watched.log("callers", Ok(Some("two".to_owned())));
        assert!(!watched.is_due(false));
    }
}
