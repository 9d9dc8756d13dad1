//! Counters, gauges and histograms of what the service does, for Prometheus.
//!
//! Each module owns the values that it measures and adds them to a [`Registry`]; `telemetry` serves them. The
//! number of time series is bounded whatever clients send: [`Counts`] limits its label sets, and labels have
//! only values of this service, never a text of a request. (An exemplar has the trace id of a caller.)

use std::{
    fmt::{self, Write},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use prometheus_client::{
    encoding::{
        EncodeCounterValue, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder, NoLabelSet,
    },
    metrics::{MetricType, exemplar::HistogramWithExemplars},
};

/// The first part of the names of the metrics that only this service has.
pub const PREFIX: &str = "kairos_identity";

/// Upper bounds of the buckets of durations, in seconds: from a look-up to the longest deadline of a call.
const DURATION_BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];

/// The labels of an exemplar: the trace to which an observed call belongs.
type TraceLabels = [(&'static str, String); 1];

/// A histogram of durations.
#[derive(Debug, Clone)]
pub struct Durations(HistogramWithExemplars<TraceLabels>);

impl Default for Durations {
    fn default() -> Self {
        Self(HistogramWithExemplars::new(DURATION_BUCKETS.into_iter()))
    }
}

impl Durations {
    /// Adds a duration. If the W3C trace id of its call is known, it becomes the exemplar of its bucket.
    pub fn observe(&self, duration: Duration, trace_id: Option<&str>) {
        observe(&self.0, duration, trace_id);
    }

    /// Adds this histogram to a registry. `name` has no unit; the unit is seconds.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register_with_unit(name, help, Unit::Seconds, self.0.clone());
    }
}

fn observe(histogram: &HistogramWithExemplars<TraceLabels>, duration: Duration, trace_id: Option<&str>) {
    histogram.observe(duration.as_secs_f64(), trace_id.map(|id| [("trace_id", id.to_owned())]), None);
}

/// Histograms of durations, one for each set of labels. The labels must have few values.
#[derive(Debug, Clone)]
pub struct DurationsBy<L>(
    Family<L, HistogramWithExemplars<TraceLabels>, fn() -> HistogramWithExemplars<TraceLabels>>,
);

impl<L: Labels> Default for DurationsBy<L> {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Durations::default().0))
    }
}

impl<L: Labels> DurationsBy<L> {
    /// Adds durations, each with the trace id of its call, to the histogram of these labels, as
    /// [`Durations::observe`] does.
    pub fn observe<'a>(&self, labels: &L, durations: impl IntoIterator<Item = (Duration, Option<&'a str>)>) {
        let histogram = self.0.get_or_create(labels);
        for (duration, trace_id) in durations {
            observe(&histogram, duration, trace_id);
        }
    }

    /// Writes these histograms, for a [`Collector`]. `name` has no unit; the unit is seconds.
    ///
    /// # Errors
    /// That of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result {
        self.0.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), self.0.metric_type())?)
    }
}

/// A set of labels.
pub trait Labels: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static {}

impl<L: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static> Labels for L {}

/// Labels of which there may be many sets.
pub trait ManyLabels: Labels {
    /// Returns the labels under which all sets beyond the limit are counted.
    #[must_use]
    fn others(&self) -> Self;
}

/// Counters, one for each set of labels, up to a limit. Beyond it, [`ManyLabels::others`] are counted.
#[derive(Debug, Clone)]
pub struct Counts<L> {
    counters: Family<L, Counter>,
    /// Number of sets that may still be added. Locked while one is added.
    free: Arc<Mutex<usize>>,
}

impl<L: ManyLabels> Counts<L> {
    /// Creates counters for at most `max` sets of labels, not counting those for others.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { counters: Family::default(), free: Arc::new(Mutex::new(max)) }
    }

    /// Adds `count` to the counter of these labels.
    pub fn add(&self, labels: &L, count: u64) {
        if let Some(counter) = self.counters.get(labels) {
            counter.inc_by(count);
        } else if self.has_room_for(labels) {
            self.counters.get_or_create(labels).inc_by(count);
        } else {
            self.counters.get_or_create(&labels.others()).inc_by(count);
        }
    }

    /// True if the counter of these labels exists, or can still be added, which is then done.
    fn has_room_for(&self, labels: &L) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added it meanwhile.
        if self.counters.get(labels).is_some() {
            return true;
        }
        let Some(left) = free.checked_sub(1) else { return false };
        *free = left;
        drop(self.counters.get_or_create(labels));
        true
    }

    /// Adds these counters to a registry. The format appends `_total` to `name`.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.counters.clone());
    }

    /// Writes these counters, for a [`Collector`]. The format appends `_total` to `name`.
    ///
    /// # Errors
    /// That of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result {
        self.counters.encode(encoder.encode_descriptor(name, help, None, self.counters.metric_type())?)
    }
}

/// A label value whose text is shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SharedText(pub Arc<str>);

impl EncodeLabelValue for SharedText {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0)
    }
}

/// Adds a gauge to a registry that is read each time the metrics are read. A unit becomes a part of the name.
pub fn register_gauge<T: EncodeGaugeValue + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    read: impl Fn() -> T + Send + Sync + 'static,
) {
    let gauge = ReadGauge(read);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

/// Adds a counter that is kept elsewhere to a registry. The format appends `_total` to `name`.
pub fn register_total(
    registry: &mut Registry,
    name: &str,
    help: &str,
    read: impl Fn() -> u64 + Send + Sync + 'static,
) {
    registry.register(name, help, ReadTotal(read));
}

/// Adds a counter of time to a registry. The format appends `_seconds_total` to `name`.
pub fn register_seconds_total(
    registry: &mut Registry,
    name: &str,
    help: &str,
    read: impl Fn() -> Duration + Send + Sync + 'static,
) {
    registry.register_with_unit(name, help, Unit::Seconds, ReadTotal(move || read().as_secs_f64()));
}

/// A gauge that is read when the metrics are read.
struct ReadGauge<F>(F);

impl<F> fmt::Debug for ReadGauge<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReadGauge")
    }
}

impl<T: EncodeGaugeValue, F: Fn() -> T> EncodeMetric for ReadGauge<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0)())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// A counter that is read when the metrics are read.
struct ReadTotal<F>(F);

impl<F> fmt::Debug for ReadTotal<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReadTotal")
    }
}

impl<T: EncodeCounterValue, F: Fn() -> T> EncodeMetric for ReadTotal<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, T, u64>(&(self.0)(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Name {
        name: String,
    }

    impl ManyLabels for Name {
        fn others(&self) -> Self {
            Self { name: "others".to_owned() }
        }
    }

    fn encoded(registry: &Registry) -> String {
        let mut text = String::new();
        text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn sets_of_labels_beyond_the_limit_are_counted_together() {
        let (mut registry, counts) = (Registry::default(), Counts::new(2));
        counts.register(&mut registry, "calls", "Calls");
        for (name, count) in [("a", 1), ("b", 2), ("c", 4), ("d", 8), ("a", 16)] {
            counts.add(&Name { name: name.to_owned() }, count);
        }
        let text = encoded(&registry);
        for (name, total) in [("a", 17), ("b", 2), ("others", 12)] {
            assert!(text.contains(&format!("calls_total{{name=\"{name}\"}} {total}\n")), "{text}");
        }
        assert_eq!(text.matches("calls_total{").count(), 3, "{text}");
    }

    #[test]
    fn threads_that_add_the_same_labels_use_up_one_set() {
        const THREADS: usize = 8;
        for _ in 0..200 {
            let (counts, start) = (Counts::new(2), std::sync::Barrier::new(THREADS));
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        counts.add(&Name { name: "a".to_owned() }, 1);
                    });
                }
            });
            let mut registry = Registry::default();
            counts.register(&mut registry, "calls", "Calls");
            counts.add(&Name { name: "b".to_owned() }, 1);
            assert!(encoded(&registry).contains("{name=\"b\"} 1"), "{}", encoded(&registry));
        }
    }

    #[test]
    fn a_duration_is_in_its_bucket_with_the_trace_of_its_call() {
        let (mut registry, durations) = (Registry::default(), Durations::default());
        durations.register(&mut registry, "call_duration", "Duration");
        durations.observe(Duration::from_micros(200), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        durations.observe(Duration::from_mins(2), None);
        let text = encoded(&registry);
        assert!(text.contains("call_duration_seconds_bucket{le=\"0.0001\"} 0\n"), "{text}");
        let exemplar = "# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 0.0002\n";
        assert!(
            text.contains(&format!("call_duration_seconds_bucket{{le=\"0.00025\"}} 1 {exemplar}")),
            "{text}"
        );
        assert!(text.contains("call_duration_seconds_bucket{le=\"+Inf\"} 2\n"), "{text}");
    }

    #[test]
    fn values_are_read_when_the_metrics_are() {
        let mut registry = Registry::with_prefix("kairos");
        register_gauge(&mut registry, "free", "Free", Some(Unit::Bytes), || 1.5);
        register_total(&mut registry, "failures", "Failures", || 3);
        let text = encoded(&registry);
        assert!(text.contains("\nkairos_free_bytes 1.5\n"), "{text}");
        assert!(text.contains("\nkairos_failures_total 3\n"), "{text}");
    }
}
