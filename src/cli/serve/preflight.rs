//! Checks everything that can be checked before the start writes anything, and reports all findings at once.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

use super::{
    options::transport,
    ports::Port,
    reload::{self, ReloadTriggers, TlsConfigs},
};
use crate::{
    callers::CallerGate,
    cli::{Failure, reason, signing, store},
    clock::Clock,
    config::{DatabaseUrl, MailUrl, Settings, Sources, same_port},
    domain::Numbered,
    env::Env,
    pages::PageTemplates,
    publish,
    server::Workers,
    store::{Schema, Store},
};

/// What the checks have loaded and opened.
pub(super) struct Checked {
    pub(super) reload_triggers: ReloadTriggers,
    pub(super) gate: CallerGate,
    pub(super) tls: TlsConfigs,
    pub(super) templates: Option<PageTemplates>,
    pub(super) listener: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) telemetry: Option<TcpListener>,
    /// The store, unless its SQLite file is still to be created.
    pub(super) store: Option<Store>,
}

// The keys and the sections of the settings that each check depends on.
pub(in crate::cli) const CALLERS: &[&str] = &["callers.file", "server.tls-client-ca"];
pub(in crate::cli) const CERTIFICATES: &[&str] =
    &["server.tls-cert", "server.tls-key", "server.tls-client-ca"];
pub(in crate::cli) const PAGES: &[&str] = &["pages"];
pub(in crate::cli) const MAIL: &[&str] =
    &["mail.url", "mail.from", "mail.hello-name", "mail.insecure-plaintext", "mail.timeout"];
pub(in crate::cli) const DATABASE: &[&str] = &["database", "lookup", "secret"];

/// The findings so far.
struct Findings<'a> {
    sources: &'a Sources,
    texts: Vec<Failure>,
}

impl Findings<'_> {
    /// True if all settings with these keys, and of these sections, have a valid value.
    fn can_check(&self, settings: &[&str]) -> bool {
        self.sources.first_invalid(settings).is_none()
    }

    /// Returns the result of a check, or keeps its finding and returns `None`.
    fn keep<T>(&mut self, checked: Result<T, Failure>) -> Option<T> {
        checked.map_err(|finding| self.texts.push(finding)).ok()
    }

    /// Makes a check that depends on these settings, as [`Findings::keep`]. Returns `None` if the check is
    /// not possible.
    fn of<T>(&mut self, settings: &[&str], check: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
        if self.can_check(settings) { self.keep(check()) } else { None }
    }
}

/// Checks the settings, the files that they name, the ports, the folders and the database. The files with
/// which it tries the folders are removed again. It creates and migrates no database, and creates no key.
pub(super) async fn check(
    settings: &Settings,
    sources: &Sources,
    workers: &Workers,
    clock: &Clock,
) -> Result<Checked, Failure> {
    let mut findings = Findings { sources, texts: Vec::new() };
    let of_settings = settings.findings(sources);
    let reload_triggers = ReloadTriggers::begin(settings);
    let gate = findings.of(CALLERS, || reload::gate(settings));
    let unreadable = reload::unreadable_tls_files(settings);
    let tls =
        if unreadable.is_empty() { findings.of(CERTIFICATES, || TlsConfigs::load(settings)) } else { None };
    findings.texts.extend(unreadable);
    let templates = findings.of(PAGES, || load_templates(settings));
    findings.of(MAIL, || check_mail(settings));
    let listener = findings.of(&["server.listen"], || Port::api(settings).bind());
    // With the same port for two of them, the service itself would be the program that listens there.
    let bind_other_than = |others: &[Option<SocketAddr>], port: Option<Port>| {
        let is_other = |port: &Port| !others.iter().flatten().any(|other| same_port(port.address, *other));
        port.filter(is_other).map(Port::bind).transpose()
    };
    let (api, pages) = (Some(settings.server.listen), settings.http.listen);
    let http =
        findings.of(&["server.listen", "http.listen"], || bind_other_than(&[api], Port::http(settings)));
    let telemetry = findings.of(&["server.listen", "http.listen", "telemetry.listen"], || {
        bind_other_than(&[api, pages], Port::telemetry(settings))
    });
    let store = if findings.can_check(DATABASE) {
        // A start that fails in any case does not wait for the database.
        let may_wait = of_settings.is_empty() && findings.texts.is_empty();
        check_database(&mut findings, settings, workers, may_wait.then_some(clock)).await
    } else {
        findings.keep(check_named_key(settings).await);
        None
    };
    match (gate, tls, templates, listener, http, telemetry, store) {
        (
            Some(gate),
            Some(tls),
            Some(templates),
            Some(listener),
            Some(http),
            Some(telemetry),
            Some(store),
        ) if of_settings.is_empty() && findings.texts.is_empty() => {
            settings.warnings(sources).iter().for_each(|warning| tracing::warn!("{warning}"));
            Ok(Checked { reload_triggers, gate, tls, templates, listener, http, telemetry, store })
        }
        _ => {
            // Those about the settings alone name the origin themselves.
            let others = findings.texts.iter().map(|finding| sources.with_origin(finding));
            let findings: Vec<_> = of_settings.into_iter().chain(others).collect();
            Err(Numbered(&findings).to_string())
        }
    }
}

/// Loads the page templates, if the pages are enabled.
pub(in crate::cli) fn load_templates(settings: &Settings) -> Result<Option<PageTemplates>, Failure> {
    let folder = settings.pages.templates.as_deref();
    let templates = settings.pages.enabled.then(|| PageTemplates::load(folder)).transpose();
    templates.map_err(|error| format!("pages.templates: {error}"))
}

/// Checks that mails can be written to their folder, or that the SMTP transport can be constructed.
pub(in crate::cli) fn check_mail(settings: &Settings) -> Result<(), Failure> {
    match &settings.mail.url {
        MailUrl::Folder(path) => publish::check_folder(path)
            .map_err(|error| format!("mail.url: mails cannot be written to {}: {error}", path.display())),
        MailUrl::Smtp { .. } => transport(settings).map(drop),
    }
}

/// Checks the key that secret.key-file names, if it is set.
pub(in crate::cli) async fn check_named_key(settings: &Settings) -> Result<(), Failure> {
    match settings.secret.key_file {
        Some(_) => signing::check_key(settings, None).await.map(drop),
        None => Ok(()),
    }
}

/// Opens the database, unless it is a SQLite file that is still to be created, and checks its schema and that
/// the key decrypts its secrets. Returns `None` after a finding, and an inner `None` for a file that is still
/// to be created. With a clock, waits for a server that does not answer yet.
async fn check_database(
    findings: &mut Findings<'_>,
    settings: &Settings,
    workers: &Workers,
    waiting_clock: Option<&Clock>,
) -> Option<Option<Store>> {
    // First alone: the other checks may fail because of the database.
    let key = findings.keep(check_named_key(settings).await);
    let opened = findings.keep(open_database(settings, workers, waiting_clock).await)?;
    key?;
    let Some((store, schema)) = opened else {
        return findings.keep(signing::check_key(settings, None).await).map(|_| None);
    };
    // Look-ups may work without them.
    if let Err(warning) = store::require_rights(&store).await {
        tracing::warn!("{warning}");
    }
    findings.keep(check_keys(settings, &store, &schema).await)?;
    Some(Some(store))
}

/// Opens the database and checks its schema. Returns `None` for a SQLite file that is still to be created.
/// With a clock, waits for a server that does not answer yet.
async fn open_database(
    settings: &Settings,
    workers: &Workers,
    waiting_clock: Option<&Clock>,
) -> Result<Option<(Store, Schema)>, Failure> {
    if !has_database(settings)? {
        return Ok(None);
    }
    if let Some(clock) = waiting_clock {
        store::wait_for_server(settings, clock).await?;
    }
    let store = store::open_to_serve(settings, workers)?;
    let schema = check_schema(settings, &store).await?;
    Ok(Some((store, schema)))
}

/// Checks the file of a SQLite database. Returns false if it is still to be created. True with PostgreSQL.
pub(in crate::cli) fn has_database(settings: &Settings) -> Result<bool, Failure> {
    let DatabaseUrl::Sqlite(path) = &settings.database.url else { return Ok(true) };
    store::check_file(path)?;
    store::refuse_lost_database(path)?;
    if !path.exists() {
        return Ok(false);
    }
    store::check_access(path).map(|()| true)
}

/// Checks that this release can use the schema, or that `serve` will migrate it. Returns it.
pub(in crate::cli) async fn check_schema(settings: &Settings, store: &Store) -> Result<Schema, Failure> {
    let schema = store.schema().await.map_err(|error| store::database_failure(settings, &error))?;
    // `serve` migrates a SQLite database itself.
    let will_be_migrated = matches!(settings.database.url, DatabaseUrl::Sqlite(_));
    if !(will_be_migrated && matches!(schema, Schema::Behind(_))) {
        store::require_usable(settings, store).await?;
    }
    Ok(schema)
}

/// Checks the secret keys. If this release can use the schema, also checks that they decrypt the signing
/// keys, and warns of other secrets that they do not decrypt. Returns false if there is no secret key yet.
pub(in crate::cli) async fn check_keys(
    settings: &Settings,
    store: &Store,
    schema: &Schema,
) -> Result<bool, Failure> {
    let Some(key) = signing::check_key(settings, Some(store)).await? else { return Ok(false) };
    if !schema.is_usable() {
        return Ok(true);
    }
    let (key, access_tokens) = (Arc::new(key), signing::access_tokens(settings));
    let keys = signing::signing_keys(settings, store.clone(), Arc::clone(&key), access_tokens, Env::system());
    keys.check().await.map_err(reason)?;
    signing::warn_of_missing_keys(store, &key).await?;
    Ok(true)
}
