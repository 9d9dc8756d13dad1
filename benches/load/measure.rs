//! The measurement of a run.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The largest recorded latency, in microseconds; longer latencies count as this one.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The result of a call.
pub enum CallOutcome {
    /// The right response, with this number of users.
    Right { items: u64 },
    /// Rejected because a queue is full (`RESOURCE_EXHAUSTED`).
    Refused,
    /// A wrong response or another error.
    Wrong,
}

/// The counts and latencies of the calls of one or more workers.
pub struct Measurement {
    latencies_us: Histogram<u64>,
    refused_us: Histogram<u64>,
    failures: u64,
    items: u64,
    calls_total: u64,
}

impl Measurement {
    pub fn new() -> Self {
        let empty =
            || Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds of a histogram are valid");
        Self { latencies_us: empty(), refused_us: empty(), failures: 0, items: 0, calls_total: 0 }
    }

    /// Records a call. A call outside of the measured time only increases the total number of calls.
    pub fn record(&mut self, outcome: &CallOutcome, latency: Duration, is_measured: bool) {
        self.calls_total += 1;
        if !is_measured {
            return;
        }
        let latency = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        match outcome {
            CallOutcome::Right { items } => {
                self.latencies_us.saturating_record(latency);
                self.items += items;
            }
            CallOutcome::Refused => self.refused_us.saturating_record(latency),
            CallOutcome::Wrong => self.failures += 1,
        }
    }

    /// Adds the measurement of another worker.
    pub fn add(&mut self, other: &Self) {
        self.latencies_us.add(&other.latencies_us).expect("both have the same bounds");
        self.refused_us.add(&other.refused_us).expect("both have the same bounds");
        self.failures += other.failures;
        self.items += other.items;
        self.calls_total += other.calls_total;
    }

    /// Returns the measurement as one JSON object, with rates over `elapsed`.
    pub fn to_json(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "rates need no exact integers")]
        let (calls, items) = (self.latencies_us.len() as f64, self.items as f64);
        let at = |quantile| self.latencies_us.value_at_quantile(quantile);
        serde_json::json!({
            "calls_per_s": calls / seconds,
            "items_per_s": items / seconds,
            "failures": self.failures,
            "calls_total": self.calls_total,
            "refused": self.refused_us.len(),
            "refused_p50_us": self.refused_us.value_at_quantile(0.5),
            "refused_p99_us": self.refused_us.value_at_quantile(0.99),
            "refused_max_us": self.refused_us.max(),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": self.latencies_us.max(),
        })
        .to_string()
    }
}
