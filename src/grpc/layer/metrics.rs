//! The number of calls and their duration, by the semantic conventions of OpenTelemetry for RPC servers.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::methods::Method;
use crate::{
    callers::Caller,
    domain::NOBODY,
    metrics::{Counts, DurationsBy, EncodeLabelSet, ManyLabels, Registry, SharedText},
};

/// The label of a path that is not a known method, and of all labels beyond [`SETS_MAX`].
const OTHER: &str = "_OTHER";

/// Maximum number of combinations of method, code, reason and caller. One caller that plays every refusal on
/// every method makes some 400.
const SETS_MAX: usize = 1_500;

/// The labels of the number of calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    rpc_method: &'static str,
    rpc_response_status_code: Cow<'static, str>,
    /// The reason of a refusal; empty if there is none.
    error_type: Cow<'static, str>,
    caller: SharedText,
}

impl ManyLabels for CallLabels {
    fn others(&self) -> Self {
        let (reason, caller) = (OTHER.into(), SharedText(OTHER.into()));
        Self { rpc_method: OTHER, error_type: reason, caller, ..self.clone() }
    }
}

/// The label of the duration of calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    rpc_method: &'static str,
}

/// Counts and measures calls. Clones share the values.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    calls: Counts<CallLabels>,
    durations: DurationsBy<MethodLabel>,
}

impl CallMetrics {
    /// Creates metrics and adds them to a registry.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let (calls, durations) = (Counts::new(SETS_MAX), DurationsBy::default());
        calls.register(
            registry,
            "rpc_server_calls",
            "Number of calls by method, gRPC status (or HTTP status of what is no call), reason and caller",
        );
        durations.register(
            registry,
            "rpc_server_call_duration",
            "Time from the head of the request to that of the response",
        );
        Self { calls, durations }
    }

    /// Counts a call that has ended.
    pub(super) fn record(&self, call: EndedCall<'_>) {
        let rpc_method = call.method.map_or(OTHER, |method| method.path.trim_start_matches('/'));
        self.calls.add(
            &CallLabels {
                rpc_method,
                rpc_response_status_code: call.code,
                error_type: call.reason.map(|reason| Cow::Owned(reason.to_owned())).unwrap_or_default(),
                caller: SharedText(call.caller.map_or_else(unauthenticated, |caller| caller.shared_name())),
            },
            1,
        );
        self.durations.observe(&MethodLabel { rpc_method }, call.duration, call.trace_id);
    }
}

/// A call that has ended.
pub(super) struct EndedCall<'a> {
    /// `None` if it is unknown.
    pub(super) method: Option<Method>,
    pub(super) code: Cow<'static, str>,
    pub(super) reason: Option<&'a str>,
    /// `None` if it is not authenticated.
    pub(super) caller: Option<&'a Arc<Caller>>,
    pub(super) duration: Duration,
    pub(super) trace_id: Option<&'a str>,
}

/// Returns the name of callers without authentication.
fn unauthenticated() -> Arc<str> {
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| NOBODY.into());
    Arc::clone(&NAME)
}
