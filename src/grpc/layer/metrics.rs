//! The number of calls and their duration, by the semantic conventions of OpenTelemetry for RPC servers.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thread_local::ThreadLocal;
use tonic::Code;

use super::{super::status::code_name, methods::Method};
use crate::{
    callers::Caller,
    domain::NOBODY,
    metrics::{
        Collector, Counts, DescriptorEncoder, DurationsBy, EncodeLabelSet, ManyLabels, Registry, SharedText,
    },
};

/// The label of a path that is not a known method, and of all sets of labels beyond [`SETS_MAX`].
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

/// The most successful look-ups that a thread keeps before it adds them to the shared values.
const KEPT_MAX: usize = 64;

/// Counts and measures calls. Clones share the values.
#[derive(Debug, Clone)]
pub struct CallMetrics(Arc<Values>);

#[derive(Debug)]
struct Values {
    calls: Counts<CallLabels>,
    durations: DurationsBy<MethodLabel>,
    /// Successful look-ups that are not in the values above yet. Threads that add each look-up at once wait
    /// for each other, which costs a tenth of the look-ups on two cores.
    kept: ThreadLocal<Mutex<KeptLookUps>>,
}

/// Successful look-ups of one caller by one method on one thread: the duration and the trace id of each.
#[derive(Debug, Default)]
struct KeptLookUps {
    method: &'static str,
    caller: Option<Arc<str>>,
    calls: Vec<(Duration, Option<String>)>,
}

impl CallMetrics {
    /// Creates metrics and adds them to a registry.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let (calls, durations) = (Counts::new(SETS_MAX), DurationsBy::default());
        let values = Arc::new(Values { calls, durations, kept: ThreadLocal::new() });
        registry.register_collector(Box::new(Arc::clone(&values)));
        Self(values)
    }

    /// Counts a call that has ended.
    pub(super) fn record(&self, call: EndedCall<'_>) {
        let Self(values) = self;
        let method = call.method.map_or(OTHER, |method| method.path.trim_start_matches('/'));
        if call.method.is_some_and(Method::is_look_up) && call.code == code_name(Code::Ok) {
            return values.keep(method, &call);
        }
        values.add(
            &CallLabels {
                rpc_method: method,
                rpc_response_status_code: call.code,
                error_type: call.reason.map(|reason| Cow::Owned(reason.to_owned())).unwrap_or_default(),
                caller: SharedText(call.caller.map_or_else(unauthenticated, |caller| caller.shared_name())),
            },
            [(call.duration, call.trace_id)],
        );
    }
}

impl Values {
    /// Adds calls with the same labels, each with its duration and its trace id.
    fn add<'a>(
        &self,
        labels: &CallLabels,
        calls: impl IntoIterator<Item = (Duration, Option<&'a str>), IntoIter: ExactSizeIterator>,
    ) {
        let calls = calls.into_iter();
        self.calls.add(labels, calls.len() as u64);
        self.durations.observe(&MethodLabel { rpc_method: labels.rpc_method }, calls);
    }

    /// Keeps a successful look-up on its thread.
    fn keep(&self, method: &'static str, call: &EndedCall<'_>) {
        let kept = &mut *lock(self.kept.get_or_default());
        let is_same =
            kept.method == method && kept.caller.as_deref() == call.caller.map(|caller| caller.name());
        if kept.calls.len() >= KEPT_MAX || !is_same {
            self.add_kept(kept);
            (kept.method, kept.caller) = (method, call.caller.map(|caller| caller.shared_name()));
        }
        kept.calls.push((call.duration, call.trace_id.map(str::to_owned)));
    }

    fn add_kept(&self, kept: &mut KeptLookUps) {
        if kept.calls.is_empty() {
            return;
        }
        self.add(
            &CallLabels {
                rpc_method: kept.method,
                rpc_response_status_code: code_name(Code::Ok).into(),
                error_type: Cow::default(),
                caller: SharedText(kept.caller.clone().unwrap_or_else(unauthenticated)),
            },
            kept.calls.iter().map(|(duration, trace_id)| (*duration, trace_id.as_deref())),
        );
        kept.calls.clear();
    }
}

impl Collector for Values {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.kept.iter().for_each(|kept| self.add_kept(&mut lock(kept)));
        self.calls.encode(
            &mut encoder,
            "rpc_server_calls",
            "Number of calls by method, gRPC status (or HTTP status of what is no call), reason and caller",
        )?;
        self.durations.encode(
            &mut encoder,
            "rpc_server_call_duration",
            "Time from the head of the request to that of the response",
        )
    }
}

fn lock(kept: &Mutex<KeptLookUps>) -> MutexGuard<'_, KeptLookUps> {
    // Half an addition would only be a wrong count.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
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
