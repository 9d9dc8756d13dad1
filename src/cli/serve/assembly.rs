//! Constructs all parts of the service.

use std::sync::Arc;

use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tonic::service::Routes;
use tonic_health::{
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use super::{
    metrics::{Metrics, Parts},
    options::{accounts_options, audit_limits, layer_options, outbox_options, passwords, transport},
    preflight::{self, Checked},
    reload::{ReloadTriggers, TlsConfigs},
};
use crate::{
    access_token::ISSUED_AHEAD_MAX,
    accounts::{Accounts, AccountsDependencies, Administration, AuditTrail, ClockWatch, Mails, SigningKeys},
    callers::CallerGate,
    cli::{
        Failure,
        mails::mails,
        reason,
        server_clock::difference_from_server,
        signing::{access_tokens, sealing_keys, signing_keys},
        store,
    },
    clock::Clock,
    config::{DatabaseUrl, Settings, Sources},
    env::Env,
    grpc::{
        self, Api, HealthWatch, PageTokens, Protocols, Services,
        layer::{LayerOptions, Layered, RequestLimits},
    },
    mail::{Backlog, MailMetrics, Outbox, Templates},
    pages::{PageTemplates, Pages, PagesOptions},
    sealing::SealingKeys,
    server::{ConnectionMetrics, Workers},
    store::{Schema, Store},
    telemetry::{MetricsPage, Telemetry},
};

/// All parts of the service, validated but not yet started.
pub(super) struct Service {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) accounts: Accounts,
    pub(super) audit: AuditTrail,
    pub(super) clock_watch: ClockWatch,
    pub(super) signing_keys: SigningKeys,
    pub(super) sealing_keys: Arc<SealingKeys>,
    pub(super) outbox: Outbox,
    pub(super) mail_due: Arc<Notify>,
    pub(super) calls: Protocols<Layered<Services>>,
    pub(super) gate: CallerGate,
    pub(super) reload_triggers: ReloadTriggers,
    pub(super) health: HealthWatch,
    pub(super) listener: TcpListener,
    pub(super) http: Option<(TcpListener, Pages)>,
    pub(super) telemetry: Option<(TcpListener, MetricsPage)>,
    pub(super) backlog: Backlog,
    pub(super) connections: ConnectionMetrics,
    pub(super) tls: TlsConfigs,
    pub(super) env: Env,
}

impl Service {
    /// Checks what can be checked, opens the store (a database of SQLite is migrated, one of PostgreSQL must
    /// have the schema of this release), and constructs all parts. Starts nothing that serves requests or
    /// sends mails.
    pub(super) async fn assemble(
        settings: Settings,
        sources: &Sources,
        telemetry: &Telemetry,
        workers: &Workers,
    ) -> Result<Self, Failure> {
        let env = Env::system();
        let Checked { reload_triggers, gate, tls, templates, listener, http, telemetry: metrics_port, store } =
            preflight::check(&settings, sources, workers, &env.clock).await?;
        let store = current_store(&settings, workers, store, &env.clock).await?;
        let sealing_keys = Arc::new(sealing_keys(&settings, &store, &env.entropy).await?);
        let mail_due = Arc::<Notify>::default();
        let mails = mails(&settings, Arc::clone(&sealing_keys), &env.entropy, Arc::clone(&mail_due));
        let (key, tokens) = (Arc::clone(&sealing_keys), access_tokens(&settings));
        let signing_keys = signing_keys(&settings, store.clone(), key, tokens, env.clone());
        signing_keys.load_or_rotate().await.map_err(reason)?;
        let deps = accounts_dependencies(&settings, &store, &mails, &signing_keys, &env)?;
        let metrics = Metrics::new(telemetry);
        let outbox = build_outbox(&settings, &deps, &sealing_keys, metrics.mails.clone())?;
        let (passwords, audit, clock_watch) =
            (deps.passwords.clone(), deps.audit.clone(), deps.clock_watch.clone());
        let accounts = Accounts::new(deps, accounts_options(&settings));
        let reporter = HealthReporter::new();
        let (tokens, clock) = (signing_keys.access_tokens().clone(), env.clock.clone());
        let health = HealthWatch::begin(reporter.clone(), store.clone(), tokens.clone(), clock).await;
        let health_service = grpc::health_service(reporter, health.readiness());
        let api = Api {
            accounts: accounts.clone(),
            administration: Administration::new(store.clone(), env.clock.clone()),
            mails,
            page_tokens: PageTokens::new(Arc::clone(&sealing_keys), env.entropy.clone()),
            store: store.clone(),
            audit: audit.clone(),
        };
        let layer_options = layer_options(&settings, env.clone(), &gate, metrics.calls.clone());
        let calls = build_calls(&settings, layer_options, api, health_service)?;
        let pages = build_pages(&settings, templates, &accounts, health.readiness(), env.clone());
        let backlog = Backlog::new(store.clone(), env.clock.clone());
        let connections = metrics.connections.clone();
        let parts = Parts { passwords, store: &store, health: &health, backlog: &backlog, tokens, tls: &tls };
        let telemetry = metrics_port.map(|listener| (listener, metrics.page(&parts, &env)));
        Ok(Self {
            settings,
            store,
            accounts,
            audit,
            clock_watch,
            signing_keys,
            sealing_keys,
            outbox,
            mail_due,
            calls,
            gate,
            reload_triggers,
            health,
            listener,
            http: http.map(|listener| (listener, pages)),
            telemetry,
            backlog,
            connections,
            tls,
            env,
        })
    }
}

/// Constructs the dependencies of [`Accounts`].
fn accounts_dependencies(
    settings: &Settings,
    store: &Store,
    mails: &Mails,
    signing_keys: &SigningKeys,
    env: &Env,
) -> Result<AccountsDependencies, Failure> {
    Ok(AccountsDependencies {
        passwords: passwords(settings, env)?,
        signing_keys: signing_keys.clone(),
        mails: mails.clone(),
        audit: AuditTrail::new(store.clone(), env.clock.clone(), audit_limits(settings)),
        store: store.clone(),
        clock_watch: ClockWatch::new(env.clock.clone(), settings.database.deletion_pause.get()),
        env: env.clone(),
    })
}

/// Constructs the services of the API port, with the layers and the protocols around them.
fn build_calls(
    settings: &Settings,
    options: LayerOptions,
    api: Api,
    health: HealthServer<impl Health>,
) -> Result<Protocols<Layered<Services>>, Failure> {
    let RequestLimits { message_bytes_max, health_message_bytes_max, .. } = options.limits;
    let routes = Routes::new(health.max_decoding_message_size(health_message_bytes_max));
    let routes = if settings.server.reflection {
        grpc::add_reflection(routes, message_bytes_max).map_err(reason)?
    } else {
        routes
    };
    let services = Services::new(api, message_bytes_max, routes);
    Ok(grpc::with_all_protocols(grpc::layer::wrap(services, options)))
}

/// Constructs the mail worker.
fn build_outbox(
    settings: &Settings,
    deps: &AccountsDependencies,
    sealing_keys: &Arc<SealingKeys>,
    metrics: MailMetrics,
) -> Result<Outbox, Failure> {
    let templates = Templates::new(settings.mail.public_base_url.as_str()).map_err(reason)?;
    let outbox = Outbox::new(
        deps.store.clone(),
        transport(settings)?,
        templates,
        Arc::clone(sealing_keys),
        outbox_options(settings, metrics),
        deps.env.clone(),
    );
    outbox.map_err(|error| format!("mail.from: {}", reason(error)))
}

/// Constructs the HTTP service, with the pages if there are templates.
fn build_pages(
    settings: &Settings,
    templates: Option<PageTemplates>,
    accounts: &Accounts,
    readiness: watch::Receiver<bool>,
    env: Env,
) -> Pages {
    let options = PagesOptions {
        request_timeout: settings.server.request_timeout_default.get(),
        keys_max_age: settings.session.key_lead.get(),
        security_contact: settings.http.security_contact.as_ref().map(|contact| contact.as_str().to_owned()),
        public_base_url: settings.mail.public_base_url.as_str().to_owned(),
        readiness,
    };
    Pages::new(accounts.clone(), templates, options, env)
}

/// Returns `store`, or creates it if it is `None`: a SQLite file that is still to be created. Migrates a
/// SQLite database. Fails if the schema of a PostgreSQL database is not current.
async fn current_store(
    settings: &Settings,
    workers: &Workers,
    store: Option<Store>,
    clock: &Clock,
) -> Result<Store, Failure> {
    let store = match store {
        Some(store) => store,
        None => store::open_to_serve(settings, workers)?,
    };
    if let DatabaseUrl::Sqlite(_) = settings.database.url {
        let migrated = store.migrate().await.map_err(|error| store::database_failure(settings, &error))?;
        if !migrated.is_empty() {
            tracing::info!("Applied {} migrations: {}", migrated.len(), migrated.join(", "));
        }
    }
    if let Schema::Compatible(unknown) = store::require_usable(settings, &store).await? {
        tracing::info!(
            "The database has migrations of a newer release ({}), which this release may disregard",
            unknown.join(", ")
        );
    }
    for warning in store.server_warnings().await.map_err(reason)? {
        tracing::warn!("{warning}");
    }
    warn_of_server_clock(&store, clock).await?;
    Ok(store)
}

/// Warns if the clock of this machine differs from that of PostgreSQL by so much that, of this instance and
/// one with the clock of PostgreSQL, the one that is behind refuses the access tokens of the other.
async fn warn_of_server_clock(store: &Store, clock: &Clock) -> Result<(), Failure> {
    let difference = difference_from_server(store, clock).await.map_err(reason)?;
    if let Some(difference) = difference.filter(|difference| difference.amount > ISSUED_AHEAD_MAX) {
        tracing::warn!(
            "{difference}: an instance whose clock is more than {} s behind that of another refuses its access \
             tokens; synchronize both (NTP)",
            ISSUED_AHEAD_MAX.as_secs()
        );
    }
    Ok(())
}
