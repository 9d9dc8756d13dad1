//! `kairos-identity serve`: constructs, starts and stops all parts of the service.

mod options;
mod reload;

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use self::{
    options::{
        accounts_options, bind, bind_http, http1_options, layer_options, outbox_options, passwords,
        retention, server_options, session_options, transport,
    },
    reload::{Reload, TlsConfigs},
};
use super::{
    Failure, reason,
    signals::Signals,
    signing::{access_tokens, mails, sealing_key, signing_keys},
    store,
};
use crate::{
    accounts::{
        Accounts, Administration, AuditTrail, Collaborators, Housekeeping, Mails, PageTokens, SigningKeys,
    },
    callers::{CallerGate, SERVICE},
    clock::Clock,
    config::{DatabaseUrl, ServeFlags, Settings},
    domain::Origin,
    entropy::Entropy,
    grpc::{self, Api, HealthWatch, Services, layer::Layered},
    mail::{Outbox, Templates},
    pages::{PageTemplates, Pages, PagesOptions},
    sealing::SealingKey,
    server::{self, DrainReport},
    store::Store,
};

/// The time that the background work gets at shutdown even if the calls have used up the drain deadline. A
/// requested link is processed within a second after the answer.
const BACKGROUND_DRAIN_MIN: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Print the settings in force, with the origin of each and without passwords, and exit
    #[arg(long)]
    pub(super) print_config: bool,
    #[command(flatten)]
    pub(super) flags: ServeFlags,
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn run(settings: Settings) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let service = tokio::select! {
        assembled = Service::assemble(settings) => assembled?,
        signal = signals.next() => return Err(format!("received {signal} before the service was ready")),
    };
    let running = service.start();
    let signal = signals.next().await;
    tracing::info!("Received {signal}; shutting down: calls in flight may finish until the drain deadline");
    tokio::select! {
        () = running.stop() => Ok(()),
        signal = signals.next() => Err(format!("received a second signal ({signal}): calls in flight were aborted")),
    }
}

/// All parts of the service, validated but not yet started.
struct Service {
    settings: Settings,
    store: Store,
    accounts: Accounts,
    audit: AuditTrail,
    signing_keys: SigningKeys,
    outbox: Outbox,
    mail_due: Arc<Notify>,
    layered: Layered<Services>,
    gate: CallerGate,
    health: HealthWatch,
    listener: TcpListener,
    http: Option<(TcpListener, Pages)>,
    tls: TlsConfigs,
    clock: Clock,
    entropy: Entropy,
}

/// The running parts of the service, and the tokens that stop them.
struct Running {
    settings: Settings,
    accounts: Accounts,
    audit: AuditTrail,
    /// Stops the health watch, housekeeping, key rotation and reload; cancelled first.
    watch: CancellationToken,
    server: CancellationToken,
    outbox: CancellationToken,
    serving: Vec<JoinHandle<DrainReport>>,
    background: TaskTracker,
    clock: Clock,
}

impl Service {
    async fn assemble(settings: Settings) -> Result<Self, Failure> {
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let gate = reload::gate(&settings)?;
        let store = open_store(&settings).await?;
        let sealing_key = Arc::new(sealing_key(&settings, &entropy)?);
        let mail_due = Arc::new(Notify::new());
        let mails = mails(&settings, Arc::clone(&sealing_key), &entropy, Arc::clone(&mail_due));
        let with = collaborators(&settings, store.clone(), mails.clone(), (clock.clone(), entropy.clone()))?;
        let signing_keys = build_signing_keys(&settings, &with, &sealing_key);
        signing_keys.prepare().await.map_err(reason)?;
        let outbox = build_outbox(&settings, &with, &sealing_key)?;
        let audit = with.audit.clone();
        let accounts = Accounts::new(with, accounts_options(&settings));
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = HealthWatch::begin(reporter, store.clone()).await;
        let api = Api {
            accounts: accounts.clone(),
            administration: Administration::new(store.clone(), clock.clone()),
            mails,
            page_tokens: PageTokens::new(sealing_key, entropy.clone()),
            store: store.clone(),
            audit: audit.clone(),
        };
        let others = Routes::new(health_service);
        let others =
            if settings.server.reflection { grpc::add_reflection(others).map_err(reason)? } else { others };
        let services = Services::new(api, settings.server.message_bytes_max.count().as_usize(), others);
        let layered = grpc::layer::wrap(services, layer_options(&settings, &clock, &entropy, &gate));
        let pages = pages(&settings, &accounts, &clock, &entropy)?;
        let http = bind_http(&settings)?.map(|listener| (listener, pages));
        let (listener, tls) = (bind(&settings)?, TlsConfigs::load(&settings)?);
        Ok(Self {
            settings,
            store,
            accounts,
            audit,
            signing_keys,
            outbox,
            mail_due,
            layered,
            gate,
            health,
            listener,
            http,
            tls,
            clock,
            entropy,
        })
    }

    fn start(self) -> Running {
        let (watch, server, outbox) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let background = TaskTracker::new();
        let retention = retention(&self.settings);
        let sessions = session_options(&self.settings);
        let housekeeping =
            Housekeeping::new(self.store, self.clock.clone(), Origin::local(SERVICE), sessions, retention);
        background.spawn(housekeeping.run(watch.clone()));
        background.spawn(self.signing_keys.run(watch.clone()));
        background.spawn(self.outbox.run(self.mail_due, outbox.clone()));
        let reload = Reload::begin(self.settings.clone(), self.gate, self.tls.clone(), self.audit.clone());
        background.spawn(reload.run(watch.clone()));
        let mut serving = Vec::new();
        if let Some((listener, pages)) = self.http {
            log_http(&self.settings, &listener, self.tls.http.is_some());
            let options = http1_options(&self.settings);
            serving.push(tokio::spawn(server::serve_http1(
                listener,
                pages,
                options,
                self.tls.http,
                server.clone(),
            )));
        }
        log_start(&self.settings, &self.listener, self.tls.grpc.is_some());
        let options = server_options(&self.settings);
        let serve =
            server::serve(self.listener, self.layered, options, self.tls.grpc, self.entropy, server.clone());
        serving.push(tokio::spawn(serve));
        background.spawn(self.health.run(watch.clone(), server.clone()));
        background.spawn(self.audit.clone().run(outbox.clone()));
        let (settings, accounts, audit, clock) = (self.settings, self.accounts, self.audit, self.clock);
        Running { settings, accounts, audit, watch, server, outbox, serving, background, clock }
    }
}

impl Running {
    /// Shuts down in this order: sets the health status to `NOT_SERVING`, waits for `server.drain-notice`,
    /// closes the ports, waits for calls in flight until the drain deadline, and then finishes the background
    /// work.
    async fn stop(self) {
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
        match tokio::time::timeout(left, rest).await {
            Ok(()) => tracing::info!("Stopped"),
            Err(_) => {
                tracing::warn!(
                    "Stopped before all background work had finished; unsent mails are sent after the next start"
                );
            }
        }
    }
}

/// Constructs the dependencies of [`Accounts`].
fn collaborators(
    settings: &Settings,
    store: Store,
    mails: Mails,
    (clock, entropy): (Clock, Entropy),
) -> Result<Collaborators, Failure> {
    Ok(Collaborators {
        passwords: passwords(settings, &entropy)?,
        access_tokens: access_tokens(settings),
        mails,
        audit: AuditTrail::new(store.clone(), clock.clone(), settings.audit.refusals_max.as_usize()),
        store,
        clock,
        entropy,
    })
}

fn build_signing_keys(
    settings: &Settings,
    with: &Collaborators,
    sealing_key: &Arc<SealingKey>,
) -> SigningKeys {
    let time_and_chance = (with.clock.clone(), with.entropy.clone());
    let (store, sealing_key) = (with.store.clone(), Arc::clone(sealing_key));
    signing_keys(settings, store, sealing_key, with.access_tokens.clone(), time_and_chance)
}

fn build_outbox(
    settings: &Settings,
    with: &Collaborators,
    sealing_key: &Arc<SealingKey>,
) -> Result<Outbox, Failure> {
    let templates = Templates::new(settings.mail.public_base_url.as_str()).map_err(reason)?;
    let delivery = (transport(settings)?, templates);
    let time_and_chance = (with.clock.clone(), with.entropy.clone());
    let (store, sealing_key) = (with.store.clone(), Arc::clone(sealing_key));
    let outbox = Outbox::new(store, delivery, sealing_key, outbox_options(settings), time_and_chance);
    outbox.map_err(|error| format!("mail.from: {}", reason(error)))
}

fn pages(
    settings: &Settings,
    accounts: &Accounts,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Pages, Failure> {
    let folder = settings.pages.templates.as_deref();
    let templates = settings.pages.enabled.then(|| PageTemplates::load(folder)).transpose();
    let templates = templates.map_err(|error| format!("pages.templates: {error}"))?;
    let options = PagesOptions {
        request_timeout: settings.server.request_timeout_default.get(),
        keys_max_age: settings.session.key_lead.get(),
    };
    Ok(Pages::new(accounts.clone(), templates, options, (clock.clone(), entropy.clone())))
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

/// Logs the database, the mail transport and the gRPC address, and warns of unsafe settings.
fn log_start(settings: &Settings, listener: &TcpListener, is_tls: bool) {
    let address = listener.local_addr().unwrap_or(settings.server.listen);
    tracing::info!("Database: {}; mail transport: {}", settings.database.url, settings.mail.url);
    if !is_tls && !address.ip().is_loopback() {
        tracing::warn!("TLS is off: passwords cross the network unencrypted (--insecure-plaintext)");
    }
    if settings.callers.file.is_none() {
        tracing::warn!(
            "No callers file is set: every client that reaches {address} may call every method (docs/CALLERS.md)"
        );
    }
    tracing::info!(tls = is_tls, "Serving gRPC on {address}");
}

async fn open_store(settings: &Settings) -> Result<Store, Failure> {
    let store = store::open_to_serve(settings)?;
    if let DatabaseUrl::Sqlite(_) = settings.database.url {
        let migrated = store.migrate().await.map_err(|error| store::database_failure(settings, &error))?;
        if !migrated.is_empty() {
            tracing::info!("Applied {} migrations: {}", migrated.len(), migrated.join(", "));
        }
    }
    store::require_current(settings, &store).await?;
    for warning in store.durability_warnings().await.map_err(reason)? {
        tracing::warn!("{warning}");
    }
    Ok(store)
}
