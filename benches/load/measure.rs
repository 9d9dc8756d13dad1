//! What came of a run.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart; longer ones count as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What one worker saw.
pub struct Measure {
    latencies_us: Histogram<u64>,
    failures: u64,
    items: u64,
}

impl Measure {
    pub fn new() -> Self {
        let latencies_us =
            Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are those of a histogram");
        Self { latencies_us, failures: 0, items: 0 }
    }

    /// Counts a call that was answered as it should be, and the `items` (users) in the answer.
    pub fn answered(&mut self, latency: Duration, items: u64) {
        let latency = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latencies_us.saturating_record(latency);
        self.items += items;
    }

    /// Counts a call that was refused, or answered wrongly.
    pub fn failed(&mut self) {
        self.failures += 1;
    }

    /// Takes in what another worker saw.
    pub fn add(&mut self, other: &Self) {
        self.latencies_us.add(&other.latencies_us).expect("both have the same bounds");
        self.failures += other.failures;
        self.items += other.items;
    }

    /// One JSON object.
    pub fn to_json(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "rates are read by people")]
        let (calls, items) = (self.latencies_us.len() as f64, self.items as f64);
        let at = |quantile| self.latencies_us.value_at_quantile(quantile);
        serde_json::json!({
            "calls_per_s": calls / seconds,
            "items_per_s": items / seconds,
            "failures": self.failures,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": self.latencies_us.max(),
        })
        .to_string()
    }
}
