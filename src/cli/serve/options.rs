//! Converts settings into the options of each part of the service.

use crate::{
    accounts::{AccountsOptions, AuditLimits, Budget, Retention, SessionOptions, ThrottleOptions},
    callers::CallerGate,
    cli::{Failure, reason},
    config::{MailUrl, Settings, SmtpTls},
    env::Env,
    grpc::layer::{CallMetrics, LayerOptions, RequestLimits},
    mail::{DailyLimits, Encryption, MailMetrics, OutboxOptions, SmtpOptions, Transport},
    password::{PasswordOptions, Passwords, Policy},
    server::{ConnectionMetrics, Http1Options, PeerLimits, ServerOptions, Workers},
};

/// How many requests for a mailed link may still be processed after their callers were answered. The database
/// writer needs a few seconds for that many.
const BACKGROUND_MAX: usize = 1_024;

/// Starts the hashing threads.
pub(super) fn passwords(settings: &Settings, env: &Env) -> Result<Passwords, Failure> {
    let options = PasswordOptions {
        cost: settings.password.cost.get(),
        threads: settings.password.threads.as_usize(),
        queue_length: settings.password.queue_length.as_usize(),
        refusal_time_max: settings.password.refusal_time_max.get(),
    };
    Passwords::start(options, env.clone()).map_err(reason)
}

pub(super) fn accounts_options(settings: &Settings) -> AccountsOptions {
    AccountsOptions {
        password_policy: Policy {
            length_min_characters: settings.password.length_min.get(),
            score_min: u8::try_from(settings.password.score_min.get()).unwrap_or(u8::MAX),
        },
        sessions: session_options(settings),
        throttle: throttle_options(settings),
        notifies_new_address: settings.client.notify_new_address,
        accept_auth_token_until: settings.verification.accept_auth_token_until,
        background_max: BACKGROUND_MAX,
    }
}

pub(super) fn session_options(settings: &Settings) -> SessionOptions {
    let session = &settings.session;
    SessionOptions {
        idle: session.idle.get(),
        lifetime: session.lifetime.get(),
        per_user_max: session.per_user_max.get(),
    }
}

pub(super) fn retention(settings: &Settings) -> Retention {
    Retention {
        unverified_users: settings.verification.unverified_kept.get(),
        finished_mails: settings.mail.keep_finished.get(),
        audit_events: settings.audit.retention.get(),
        audit_rows_max: settings.audit.rows_max.get(),
    }
}

pub(super) fn audit_limits(settings: &Settings) -> AuditLimits {
    AuditLimits {
        unauthenticated_max: settings.audit.strangers_max.as_usize(),
        per_caller_max: settings.audit.refusals_max.as_usize(),
        per_account_max: settings.audit.account_max.as_usize(),
    }
}

fn throttle_options(settings: &Settings) -> ThrottleOptions {
    let (login, client, verification) = (&settings.login, &settings.client, &settings.verification);
    let in_client_window = |max: u32| Budget { max, window: client.window.get() };
    ThrottleOptions {
        failures_max: login.failures_max.get(),
        wait_first: login.wait_first.get(),
        wait_max: login.wait_max.get(),
        failures_in_a_row_max: login.failures_in_a_row_max.get(),
        pause: login.pause.get(),
        total: Budget { max: login.total_max.get(), window: login.window.get() },
        failures_per_address: in_client_window(client.failures_max.get()),
        // Half of the hashing queue, so that the logins of one address leave room for others.
        in_progress_per_address_max: settings.password.queue_length.get().div_ceil(2),
        registrations_from: in_client_window(client.registrations_max.get()),
        new_passwords: in_client_window(settings.password.judged_max.get()),
        resends_to: Budget { max: verification.resends_max.get(), window: verification.resends_window.get() },
        resends_from: in_client_window(client.resends_max.get()),
        known_address_lifetime: client.known_lifetime.get(),
    }
}

/// Constructs the mail transport of `mail.url`.
pub(in crate::cli) fn transport(settings: &Settings) -> Result<Transport, Failure> {
    let (host, port, credentials, tls) = match &settings.mail.url {
        MailUrl::Folder(path) => return Ok(Transport::folder(path.clone())),
        MailUrl::Smtp { host, port, credentials, tls } => (host.clone(), *port, credentials.clone(), tls),
    };
    let options = SmtpOptions {
        host,
        port,
        hello_name: hello_name(settings).to_owned(),
        credentials,
        encryption: match tls {
            SmtpTls::StartTls => Encryption::StartTls,
            SmtpTls::Implicit => Encryption::Implicit,
        },
        allow_plaintext: settings.mail.insecure_plaintext,
        timeout: settings.mail.timeout.get(),
    };
    Transport::smtp(options).map_err(|error| format!("mail.url: {}", reason(error)))
}

/// Returns the name for EHLO: the setting, or the host of the sender's address.
fn hello_name(settings: &Settings) -> &str {
    match &settings.mail.hello_name {
        Some(name) => name.as_str(),
        None => settings.mail.from.address.domain(),
    }
}

pub(super) fn outbox_options(settings: &Settings, metrics: MailMetrics) -> OutboxOptions {
    OutboxOptions {
        from_name: settings.mail.from.name.clone(),
        from: settings.mail.from.address.clone(),
        timeout: settings.mail.timeout.get(),
        retry_first: settings.mail.retry_first.get(),
        retry_max: settings.mail.retry_max.get(),
        poll_interval: settings.mail.poll_interval.get(),
        daily: DailyLimits {
            per_address: settings.mail.daily_per_address_max.get(),
            total: settings.mail.daily_total_max.get(),
        },
        metrics,
    }
}

pub(super) fn layer_options(
    settings: &Settings,
    env: Env,
    gate: &CallerGate,
    metrics: CallMetrics,
) -> LayerOptions {
    let server = &settings.server;
    LayerOptions {
        limits: RequestLimits {
            message_bytes_max: server.message_bytes_max.count().as_usize(),
            health_message_bytes_max: server.health_message_bytes_max.count().as_usize(),
            timeout_default: server.request_timeout_default.get(),
            timeout_max: server.request_timeout_max.get(),
            health_timeout: server.health_timeout.get(),
        },
        env,
        gate: gate.clone(),
        metrics,
    }
}

pub(super) fn server_options(
    settings: &Settings,
    workers: Workers,
    metrics: &ConnectionMetrics,
) -> ServerOptions {
    let server = &settings.server;
    ServerOptions {
        workers,
        connections_max: server.connections_max.as_usize(),
        peer_limits: PeerLimits {
            connections_max: server.connections_per_peer_max.as_usize(),
            calls_max: server.calls_per_peer_max.as_usize(),
            streaming_calls_max: server.streaming_calls_per_peer_max.as_usize(),
            unfinished_bytes_max: server.unfinished_bytes_per_peer_max.count().as_usize(),
            unfinished_bytes_total_max: server.unfinished_bytes_max.count().as_usize(),
            waiting_bytes_total_max: server.waiting_bytes_max.count().as_usize(),
        },
        first_byte_timeout: server.first_byte_timeout.get(),
        tls_handshake_timeout: server.tls_handshake_timeout.get(),
        connection_age: server.connection_age.get(),
        connection_idle: server.connection_idle.get(),
        connection_age_grace: server.connection_age_grace.get(),
        keepalive_interval: server.keepalive_interval.get(),
        keepalive_timeout: server.keepalive_timeout.get(),
        streams_per_connection_max: server.streams_per_connection_max.get(),
        header_list_bytes_max: server.header_list_bytes_max.count().get(),
        send_buffer_bytes_max: server.send_buffer_bytes_max.count().as_usize(),
        late_bytes_max: server.late_bytes_max.count().as_usize(),
        late_bytes_timeout: server.late_bytes_timeout.get(),
        resets_per_second_max: server.resets_per_second_max.get(),
        drain_deadline: server.drain_deadline.get(),
        metrics: metrics.of_port("api"),
    }
}

pub(super) fn http1_options(settings: &Settings, metrics: &ConnectionMetrics) -> Http1Options {
    let http = &settings.http;
    Http1Options {
        connections_max: http.connections_max.as_usize(),
        connections_per_peer_max: http.connections_per_peer_max.as_usize(),
        head_timeout: http.head_timeout.get(),
        tls_handshake_timeout: settings.server.tls_handshake_timeout.get(),
        connection_age: http.connection_age.get(),
        drain_deadline: settings.server.drain_deadline.get(),
        metrics: metrics.of_port("http"),
    }
}

/// Returns the limits of the port of the metrics, which a few monitoring systems read.
pub(super) fn telemetry_options(settings: &Settings, metrics: &ConnectionMetrics) -> Http1Options {
    Http1Options {
        connections_max: 32,
        connections_per_peer_max: 16,
        metrics: metrics.of_port("telemetry"),
        ..http1_options(settings, metrics)
    }
}
