//! Log lines that any client can cause: equal ones of one peer within a minute become two, the first one and
//! the number of the others. Otherwise a stranger could fill the log with a line for each request.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{clock::Clock, domain::ClientAddress};

/// The time in which equal lines are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// The most different lines of a window that are counted apart. The rest is counted together, so that many
/// peers cannot fill the log either.
const LINES_MAX: usize = 100;

/// The lines of the current minute. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerLog(Arc<Lines>);

#[derive(Debug)]
struct Lines {
    clock: Clock,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    /// The number of lines after the first one, by peer and text.
    repeated: HashMap<(ClientAddress, String), u64>,
    /// The number of lines beyond the first [`LINES_MAX`] different ones.
    others: u64,
}

impl PeerLog {
    /// Creates an empty log.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Lines { clock, window: Mutex::default() }))
    }

    /// True if a line about a request of `peer` is to be logged now. Otherwise the line is counted, and the
    /// number is logged at the end of the minute with `text`, which says what equal lines have in common.
    #[must_use]
    pub fn admits(&self, peer: IpAddr, text: String) -> bool {
        let now = self.0.clock.instant();
        let mut window = self.0.lock();
        let is_over = window.began.is_some_and(|began| now.duration_since(began) >= WINDOW);
        let finished = if is_over { std::mem::take(&mut *window) } else { Window::default() };
        if window.began.is_none() {
            window.began = Some(now);
            self.finish_later();
        }
        let is_full = window.repeated.len() >= LINES_MAX;
        let is_admitted = match window.repeated.get_mut(&(ClientAddress::of(peer), text.clone())) {
            Some(count) => {
                *count += 1;
                false
            }
            None if is_full => {
                window.others += 1;
                false
            }
            None => {
                window.repeated.insert((ClientAddress::of(peer), text), 0);
                true
            }
        };
        drop(window);
        finished.log();
        is_admitted
    }

    /// Logs the numbers at the end of the window, also if no further request arrives.
    fn finish_later(&self) {
        let lines = Arc::downgrade(&self.0);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(WINDOW).await;
                if let Some(lines) = lines.upgrade() {
                    lines.finish();
                }
            });
        }
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        let finished = std::mem::take(&mut *self.lock());
        finished.log();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Window {
    fn log(self) {
        for ((peer, text), count) in self.repeated {
            if count > 0 {
                tracing::info!(target: "rpc", %peer, count, "{text}: {count} more requests within a minute");
            }
        }
        if self.others > 0 {
            let count = self.others;
            tracing::info!(target: "rpc", count, "{count} other requests within a minute");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;
    use crate::domain::Timestamp;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    /// Returns what is logged meanwhile.
    fn logged(run: impl FnOnce()) -> String {
        let (mut log, lines) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(move || lines.try_clone().unwrap());
        tracing::subscriber::with_default(subscriber.finish(), run);
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn equal_lines_of_a_peer_are_counted_and_the_number_is_logged() {
        let text = logged(|| {
            let log = PeerLog::new(Clock::manual(Timestamp::from_unix_micros(0)));
            let admitted = (0..1_000).filter(|_| log.admits(address(1), "unknown".to_owned())).count();
            assert_eq!(admitted, 1);
            assert!(log.admits(address(2), "unknown".to_owned()));
            assert!(log.admits(address(1), "other".to_owned()));
            drop(log);
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("unknown: 999 more requests within a minute"), "{text}");
    }

    #[test]
    fn many_peers_are_counted_together() {
        let text = logged(|| {
            let log = PeerLog::new(Clock::manual(Timestamp::from_unix_micros(0)));
            let admitted = (0..1_000).filter(|peer| log.admits(address(*peer), "unknown".to_owned())).count();
            assert_eq!(admitted, LINES_MAX);
        });
        assert!(text.contains("900 other requests within a minute"), "{text}");
    }
}
