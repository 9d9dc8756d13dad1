//! The service in the process of the target, with a database in a temporary folder.

use std::{cell::RefCell, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Request, Response};
use kairos_identity::{
    access_token::{AccessTokenOptions, AccessTokens, SigningKey},
    accounts::{
        Accounts, AccountsDependencies, AccountsOptions, Administration, AuditLimits, AuditTrail, Budget,
        ClockWatch, KeyOptions, MailOptions, Mails, SessionOptions, SigningKeys, ThrottleOptions,
    },
    callers::CallerGate,
    database::{DatabaseOptions, SqliteOptions},
    domain::{SigningSeed, Timestamp},
    env::Env,
    grpc::{
        Api, PageTokens, Protocols, Services,
        layer::{CallMetrics, LayerOptions, Layered, RequestLimits, all_method_paths, wrap},
        with_all_protocols,
    },
    metrics::Registry,
    pages::{PageTemplates, Pages, PagesOptions},
    password::{PasswordOptions, Passwords, Policy},
    sealing::SealingKeys,
    server::{ConnectionAccount, HttpHandler, Peer, PeerLimits},
    store::{LookupOptions, Store},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::{body::Body, service::Routes};

/// The API with its layers and protocols, and the pages. Dropping it deletes the temporary folder.
pub struct Service {
    pub calls: Protocols<Layered<Services>>,
    pub pages: Pages,
    _folder: TempDir,
}

impl Service {
    /// Creates a service without users. It has no callers file, so any client may call it.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::system();
        let (clock, entropy) = (&env.clock, &env.entropy);
        let store = DatabaseOptions::Sqlite(SqliteOptions {
            path: folder.path().join("fuzz.sqlite3"),
            create: true,
            readers: 1,
            busy_timeout: Duration::from_secs(5),
            queue_length: 100,
        });
        let store = Store::open(store, LookupOptions { batch_tokens_max: 256, lanes: 1, waiting_max: 1_000 })
            .unwrap();
        store.migrate().await.unwrap();
        let limits = AuditLimits { unauthenticated_max: 10, per_caller_max: 10, per_account_max: 10 };
        let audit = AuditTrail::new(store.clone(), clock.clone(), limits);
        let sealing_keys = SealingKeys::parse("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=").unwrap();
        let sealing_keys = Arc::new(sealing_keys);
        let mails = Mails::new(mail_options(), Arc::clone(&sealing_keys), entropy.clone(), Arc::default());
        let signing_keys = SigningKeys::new(
            store.clone(),
            Arc::clone(&sealing_keys),
            access_tokens(entropy.bytes()),
            KeyOptions { rotation_age: Duration::from_hours(1), lead: Duration::from_mins(1) },
            env.clone(),
        );
        let accounts = Accounts::new(
            AccountsDependencies {
                store: store.clone(),
                passwords: Passwords::start(
                    PasswordOptions {
                        cost: 4,
                        threads: 1,
                        queue_length: 10,
                        refusal_time_max: Duration::ZERO,
                    },
                    env.clone(),
                )
                .unwrap(),
                signing_keys,
                mails: mails.clone(),
                env: env.clone(),
                clock_watch: ClockWatch::new(clock.clone(), Duration::ZERO),
                audit: audit.clone(),
            },
            accounts_options(),
        );
        let templates = PageTemplates::load(None).unwrap();
        let limit = Duration::from_secs(10);
        let (_, readiness) = tokio::sync::watch::channel(true);
        let options = PagesOptions {
            request_timeout: limit,
            keys_max_age: limit,
            security_contact: None,
            public_base_url: "https://kairos.example".to_owned(),
            readiness,
        };
        let pages = Pages::new(accounts.clone(), Some(templates), options, env.clone());
        let administration = Administration::new(store.clone(), clock.clone());
        let page_tokens = PageTokens::new(sealing_keys, entropy.clone());
        let api = Api { accounts, administration, mails, page_tokens, store, audit };
        let services = Services::new(api, 64 * 1024, Routes::default());
        let options = LayerOptions {
            limits: RequestLimits {
                message_bytes_max: 64 * 1024,
                health_message_bytes_max: 1024,
                timeout_default: limit,
                timeout_max: limit,
                health_timeout: limit,
            },
            env,
            gate: CallerGate::open(),
            metrics: CallMetrics::new(&mut Registry::default()),
        };
        Self { calls: with_all_protocols(wrap(services, options)), pages, _folder: folder }
    }
}

/// Runs one input on the service that all inputs of a target share, with the paths of all methods.
pub fn on_service<R>(run: impl AsyncFnOnce(&Service, &[String]) -> R) -> R {
    thread_local! {
        static SCENE: (Runtime, Vec<String>, RefCell<Option<Arc<Service>>>) =
            (Builder::new_current_thread().enable_all().build().unwrap(), all_method_paths(), RefCell::default());
    }
    SCENE.with(|(runtime, paths, service)| {
        runtime.block_on(async {
            if service.borrow().is_none() {
                let started = Arc::new(Service::start().await);
                service.replace(Some(started));
            }
            let service = service.borrow().clone().unwrap();
            run(&service, paths).await
        })
    })
}

/// Adds arbitrary headers, each with one of these names, to a request.
#[must_use]
pub fn with_headers(
    mut request: http::request::Builder,
    names: &[&'static str],
    headers: Vec<(u8, &[u8])>,
) -> http::request::Builder {
    for (name, value) in headers {
        let name = HeaderName::from_static(names[usize::from(name) % names.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request = request.header(name, value);
        }
    }
    request
}

/// Sends a call to the service, which must answer in time.
pub async fn answer(service: &Service, request: Request<Body>) -> Response<Body> {
    let peer = peer();
    let response = service.calls.answer(request, &peer);
    tokio::time::timeout(Duration::from_secs(20), response).await.expect("the call is answered")
}

/// Returns a peer that may have as much as the limits of the service allow.
#[must_use]
pub fn peer() -> Peer {
    let limits = PeerLimits {
        connections_max: 1_000,
        calls_max: 2_048,
        streaming_calls_max: 64,
        unfinished_bytes_max: 4 * 1024 * 1024,
        unfinished_bytes_total_max: 8 * 1024 * 1024,
        waiting_bytes_total_max: 8 * 1024 * 1024,
    };
    let account = Arc::new(ConnectionAccount::of_only_connection(limits));
    Peer { address: "127.0.0.1:1".parse().unwrap(), names: Vec::new(), account }
}

/// Returns access tokens with one signing key that never expires.
fn access_tokens(seed: [u8; 32]) -> AccessTokens {
    let tokens = AccessTokens::new(AccessTokenOptions {
        issuer: "https://id.example".to_owned(),
        audience: "kairos".to_owned(),
        lifetime: Duration::from_mins(10),
    });
    let start = Timestamp::from_unix_micros(0);
    tokens.replace_keys(&[SigningKey::new(SigningSeed::from_bytes(seed), start, None)]);
    tokens
}

fn mail_options() -> MailOptions {
    MailOptions {
        verification_lifetime: Duration::from_mins(1),
        reset_lifetime: Duration::from_mins(1),
        undo_lifetime: Duration::from_mins(1),
        message_id_domain: "kairos.example".to_owned(),
    }
}

fn accounts_options() -> AccountsOptions {
    let hour = Duration::from_hours(1);
    let budget = Budget { max: 1_000_000, window: Duration::from_mins(1) };
    AccountsOptions {
        password_policy: Policy { length_min_characters: 8, score_min: 3 },
        sessions: SessionOptions { idle: hour, lifetime: hour, per_user_max: 10 },
        throttle: ThrottleOptions {
            failures_max: 10,
            wait_first: Duration::from_secs(1),
            wait_max: Duration::from_secs(1),
            failures_in_a_row_max: 100,
            pause: Duration::from_secs(1),
            total: budget,
            failures_per_address: budget,
            in_progress_per_address_max: 32,
            registrations_from: budget,
            new_passwords: budget,
            resends_to: budget,
            resends_from: budget,
            known_address_lifetime: Duration::from_mins(1),
        },
        accept_auth_token_until: None,
        notifies_new_address: false,
        background_max: 10,
    }
}
