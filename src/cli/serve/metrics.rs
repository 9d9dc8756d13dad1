//! The metrics of all parts of the service.

use super::reload::TlsConfigs;
use crate::{
    access_token::AccessTokens,
    env::Env,
    grpc::{HealthWatch, layer::CallMetrics},
    mail::{Backlog, MailMetrics},
    metrics::{PREFIX, Registry},
    password::Passwords,
    server::ConnectionMetrics,
    store::Store,
    telemetry::{MetricsPage, Telemetry},
};

/// The registry, and the metrics that parts of the service get when they are constructed.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) calls: CallMetrics,
    pub(super) mails: MailMetrics,
    pub(super) connections: ConnectionMetrics,
}

impl Metrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let mut registry = Registry::default();
        telemetry.register_metrics(&mut registry);
        let calls = CallMetrics::new(&mut registry);
        let (mails, connections) = (MailMetrics::default(), ConnectionMetrics::default());
        let own = registry.sub_registry_with_prefix(PREFIX);
        mails.register(own);
        connections.register(own);
        Self { registry, calls, mails, connections }
    }

    /// Adds the metrics of the other parts, and returns the page that serves all.
    pub(super) fn page(mut self, parts: &Parts<'_>, env: &Env) -> MetricsPage {
        let own = self.registry.sub_registry_with_prefix(PREFIX);
        parts.passwords.register_metrics(own);
        parts.store.register_metrics(own);
        parts.health.register_metrics(own);
        parts.backlog.register_metrics(own);
        if let Some(tls) = &parts.tls.grpc {
            tls.register_metrics(own);
        }
        let clock = env.clock.clone();
        parts.tokens.register_metrics(own, move || clock.now());
        MetricsPage::new(self.registry)
    }
}

/// The parts of the service that have metrics of their own.
pub(super) struct Parts<'a> {
    pub(super) passwords: Passwords,
    pub(super) store: &'a Store,
    pub(super) health: &'a HealthWatch,
    pub(super) backlog: &'a Backlog,
    pub(super) tokens: AccessTokens,
    pub(super) tls: &'a TlsConfigs,
}
