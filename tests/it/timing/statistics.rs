//! Statistics of two classes of times: medians, AUC and Welch's t.

/// Statistics of two classes of times in microseconds.
pub(super) struct Figures {
    /// Median of each class.
    pub(super) medians: [f64; 2],
    /// Probability that a time of the second class is longer than a time of the first class.
    pub(super) auc: f64,
    /// Welch's t.
    pub(super) t: f64,
}

impl Figures {
    pub(super) fn of(times: &[Vec<f64>; 2]) -> Self {
        let [first, second] = times;
        let t = (mean(second) - mean(first)) / (variance_of_mean(first) + variance_of_mean(second)).sqrt();
        Self { medians: [median(first), median(second)], auc: auc(first, second), t }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most some ten thousand samples")]
fn count(times: &[f64]) -> f64 {
    times.len() as f64
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / count(times)
}

fn variance_of_mean(times: &[f64]) -> f64 {
    let mean = mean(times);
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count(times) - 1.0);
    variance / count(times)
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(times: &[f64]) -> f64 {
    sorted(times)[times.len() / 2]
}

fn auc(first: &[f64], second: &[f64]) -> f64 {
    let first = sorted(first);
    let shorter: usize = second.iter().map(|time| first.partition_point(|other| other < time)).sum();
    #[expect(clippy::cast_precision_loss, reason = "at most some hundred million pairs")]
    let shorter = shorter as f64;
    shorter / (count(&first) * count(second))
}
