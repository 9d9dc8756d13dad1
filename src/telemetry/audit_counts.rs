//! Counts the audit events by their kind and reason, as they are logged.
//!
//! Every decision about an account is an audit event, however it was made: by a call, a page, a command or
//! housekeeping. So these counts cover logins, registrations, sessions, resets and refusals by their outcome.

use std::fmt;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics::{Counts, EncodeLabelSet, ManyLabels, Registry};

/// Maximum number of combinations of kind and reason. The service has some 200.
const SETS_MAX: usize = 400;

/// The labels of an audit event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: String,
    /// The reason of a refusal; empty if there is none.
    reason: String,
}

impl ManyLabels for EventLabels {
    fn others(&self) -> Self {
        Self { event: self.event.clone(), reason: "_OTHER".to_owned() }
    }
}

/// A layer that counts audit events. Clones share the counts.
#[derive(Debug, Clone)]
pub(super) struct AuditCounts(Counts<EventLabels>);

impl AuditCounts {
    pub(super) fn new() -> Self {
        Self(Counts::new(SETS_MAX))
    }

    /// Adds the counts to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        self.0.register(
            registry,
            "audit_events",
            "Number of audit events by kind and reason (docs/AUDIT.md), each with its count",
        );
    }
}

impl<S: Subscriber> Layer<S> for AuditCounts {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut read = EventFields { labels: EventLabels::default(), count: 1 };
        event.record(&mut read);
        self.0.add(&read.labels, read.count);
    }
}

/// The fields of an audit event that are counted.
struct EventFields {
    labels: EventLabels,
    count: u64,
}

impl Visit for EventFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "count" {
            self.count = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "reason" {
            value.clone_into(&mut self.labels.reason);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "event" {
            self.labels.event = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::metrics::text;

    #[test]
    fn events_are_counted_by_kind_and_reason() {
        let (counts, mut registry) = (AuditCounts::new(), Registry::default());
        counts.register(&mut registry);
        let subscriber = tracing_subscriber::registry().with(counts);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = %"authn_login_success", reason = None::<&str>, count = 1_u64, "x");
            tracing::info!(event = %"authn_login_fail", reason = Some("INVALID_CREDENTIALS"), count = 7_u64, "x");
            tracing::info!(event = %"authn_login_fail", reason = Some("INVALID_CREDENTIALS"), count = 1_u64, "x");
        });
        let mut encoded = String::new();
        text::encode(&mut encoded, &registry).unwrap();
        for line in [
            "audit_events_total{event=\"authn_login_success\",reason=\"\"} 1\n",
            "audit_events_total{event=\"authn_login_fail\",reason=\"INVALID_CREDENTIALS\"} 8\n",
        ] {
            assert!(encoded.contains(line), "{encoded}");
        }
    }
}
