//! The attempts to deliver mails: how many, with which result, and how long they take.

use std::time::Duration;

use super::attempt::Next;
use crate::{
    domain::MailKind,
    metrics::{Counter, Durations, EncodeLabelSet, Family, Registry},
};

/// Counts and measures the attempts to deliver mails. Clones share the values.
#[derive(Debug, Clone, Default)]
pub struct MailMetrics {
    attempts: Family<AttemptLabels, Counter>,
    durations: Durations,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    kind: &'static str,
    result: &'static str,
}

impl MailMetrics {
    /// Adds the values to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "mail_attempts",
            "Number of attempts to deliver a mail, by the kind of mail and the result: sent, retried later, or failed",
            self.attempts.clone(),
        );
        self.durations.register(registry, "mail_attempt_duration", "Time of an attempt to deliver a mail");
    }

    /// Counts an attempt.
    pub(super) fn record(&self, kind: MailKind, next: &Next, duration: Duration) {
        let result = match next {
            Next::MarkSent => "sent",
            Next::RetryAt(..) => "retried",
            Next::MarkFailed(_) | Next::Expire(_) => "failed",
        };
        self.attempts.get_or_create(&AttemptLabels { kind: kind.as_str(), result }).inc();
        self.durations.observe(duration, None);
    }
}
