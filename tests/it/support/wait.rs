//! Waits for other processes: polls a condition with a time limit, and panics with the condition that was not
//! met.

use std::time::{Duration, Instant};

/// Pause between two polls.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` repeatedly until it returns a value, and returns that value. Panics with `what` after
/// `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Like [`until`], but blocks the thread.
pub fn until_blocking<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
