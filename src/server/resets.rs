//! Limits the rate at which a connection resets streams.
//!
//! Two kinds of resets are counted: those that the peer sends together with the call (CVE-2023-44487, "rapid
//! reset"), and those that its frames make the server send (CVE-2025-8671, `MadeYouReset`). Correct peers
//! cause some of both: a client cancels its calls, or bytes arrive late for a call that was answered. h2
//! counts them for the life of a connection and then aborts all calls. Therefore its limits are high here,
//! and a connection is drained before they are reached: it gets GOAWAY, and its calls may finish. Empty DATA
//! frames are counted too: h2 aborts a connection after 100 of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Instant,
};

use super::frames::{DATA, END_STREAM, FrameHead, HEADERS, RST_STREAM};

/// h2's limit on streams that the server resets because of frames of the peer, for the life of a connection.
/// Each occupies memory until the peer has read the reset. The limit takes effect only for a peer that does
/// not read: a reset is counted here when it is sent.
pub(super) const LOCAL_RESETS_MAX: usize = 1_024;

/// The sum of the weights of such resets after which a connection is drained.
const LOCAL_RESETS_BEFORE_DRAIN: usize = LOCAL_RESETS_MAX / 2;

/// The number of empty DATA frames after which a connection is drained. h2 aborts it after 100.
const EMPTY_FRAMES_BEFORE_DRAIN: usize = 50;

// The error codes of resets that h2 counts (RFC 9113, section 7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const REFUSED_STREAM: u32 = 7;

/// The consequence of a connection's resets. It never becomes milder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection gets GOAWAY, and its calls may finish.
    Drain = 1,
    /// The connection is closed.
    Close = 2,
}

/// The verdict on a connection, if there is one, shared between the reader of its frames and its task.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedVerdict(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    verdict: AtomicU8,
    has_resets: AtomicBool,
}

impl SharedVerdict {
    pub(super) fn is_at_least(&self, verdict: Verdict) -> bool {
        self.0.verdict.load(Ordering::Relaxed) >= verdict as u8
    }

    /// True if the read that last began calls also contained resets of them.
    pub(super) fn has_resets(&self) -> bool {
        self.0.has_resets.load(Ordering::Relaxed)
    }

    fn raise_to(&self, verdict: Verdict) {
        self.0.verdict.fetch_max(verdict as u8, Ordering::Relaxed);
    }
}

/// A token bucket: it holds up to `burst` tokens and regains `per_second` of them.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// Takes `count` tokens, even if the bucket has fewer. Returns the number that is left, which is
    /// negative if the limit is exceeded.
    fn take(&mut self, count: u32, now: Instant) -> f64 {
        let since = self.filled_at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.filled_at = Some(now);
        self.tokens = (self.tokens + since * self.per_second).min(self.burst) - f64::from(count);
        self.tokens
    }
}

/// Counts the resets of one connection.
#[derive(Debug)]
pub(super) struct Resets {
    bucket: Bucket,
    local: usize,
    empty_frames: usize,
    verdict: SharedVerdict,
}

impl Resets {
    pub(super) fn new(per_second_max: u32, burst: u32, verdict: SharedVerdict) -> Self {
        let (per_second, burst) = (f64::from(per_second_max), f64::from(burst));
        let bucket = Bucket { tokens: burst, burst, per_second, filled_at: None };
        Self { bucket, local: 0, empty_frames: 0, verdict }
    }

    /// Counts the frames that were received together. Returns true if they reset streams. `now` is called
    /// only then.
    pub(super) fn received(&mut self, frames: &ReceivedFrames, now: impl FnOnce() -> Instant) -> bool {
        self.empty_frames = self.empty_frames.saturating_add(frames.empty);
        if self.empty_frames >= EMPTY_FRAMES_BEFORE_DRAIN {
            self.verdict.raise_to(Verdict::Drain);
        }
        // The calls of a read may begin only after further reads. A read without calls therefore leaves the
        // flag as it is.
        if frames.calls > 0 {
            self.verdict.0.has_resets.store(frames.resets > 0, Ordering::Relaxed);
        }
        self.count(frames.resets, now)
    }

    /// Counts resets that the server has sent. Returns true if there are any.
    pub(super) fn sent(&mut self, resets: u32, now: impl FnOnce() -> Instant) -> bool {
        self.local = self.local.saturating_add(resets as usize);
        if self.local >= LOCAL_RESETS_BEFORE_DRAIN {
            self.verdict.raise_to(Verdict::Drain);
        }
        self.count(resets, now)
    }

    /// Counts resets, and raises the verdict if their rate exceeds the limit. Returns true if there are any.
    fn count(&mut self, resets: u32, now: impl FnOnce() -> Instant) -> bool {
        if resets == 0 {
            return false;
        }
        let left = self.bucket.take(resets, now());
        if left < -self.bucket.burst {
            self.verdict.raise_to(Verdict::Close);
        } else if left < 0.0 {
            self.verdict.raise_to(Verdict::Drain);
        }
        true
    }
}

/// Frames that were received together, which h2 handles before a call of them begins.
#[derive(Debug, Default)]
pub(super) struct ReceivedFrames {
    /// The stream of the first call that begins in them. Resets of earlier calls are not counted.
    first_stream: Option<u32>,
    calls: usize,
    resets: u32,
    empty: usize,
}

impl ReceivedFrames {
    /// Returns the number of calls that begin.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// Counts a frame. A reset counts only if it belongs to a call that begins in the same read.
    pub(super) fn add(&mut self, frame: FrameHead) {
        match frame.kind {
            // Trailers would be counted too, but no client of gRPC sends any.
            HEADERS => {
                self.first_stream = self.first_stream.or(Some(frame.stream));
                self.calls += 1;
            }
            RST_STREAM if self.first_stream.is_some_and(|first| frame.stream >= first) => self.resets += 1,
            DATA if frame.length == 0 && frame.flags & END_STREAM == 0 => self.empty += 1,
            _ => {}
        }
    }
}

/// Returns the weight of a frame that the server sends. Only a reset because of an error of the peer has one.
/// No correct peer exceeds a flow-control window, so a reset because of that counts as 8.
pub(super) fn weight_of_sent(frame: FrameHead) -> u32 {
    match frame.code {
        FLOW_CONTROL_ERROR if frame.kind == RST_STREAM => 8,
        PROTOCOL_ERROR | STREAM_CLOSED | REFUSED_STREAM if frame.kind == RST_STREAM => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    const BURST: u32 = 100;
    const PER_SECOND: u32 = 10;

    /// Returns the verdict after these steps: resets at one time, and the seconds that pass after them.
    fn verdict_after(steps: &[(u32, u64)]) -> Option<Verdict> {
        let verdict = SharedVerdict::default();
        let mut resets = Resets::new(PER_SECOND, BURST, verdict.clone());
        let mut now = Clock::system().instant();
        for (count, seconds) in steps {
            resets.sent(*count, || now);
            now += Duration::from_secs(*seconds);
        }
        [Verdict::Close, Verdict::Drain].into_iter().find(|step| verdict.is_at_least(*step))
    }

    #[test]
    fn resets_are_limited_by_their_rate() {
        assert_eq!(verdict_after(&[(BURST, 0)]), None);
        assert_eq!(verdict_after(&[(BURST, 0), (1, 0)]), Some(Verdict::Drain));
        assert_eq!(verdict_after(&[(2 * BURST, 0)]), Some(Verdict::Drain));
        assert_eq!(verdict_after(&[(2 * BURST, 0), (1, 0)]), Some(Verdict::Close));
        // Resets at the rate at which the bucket is refilled are never limited.
        assert_eq!(verdict_after(&[(PER_SECOND, 1); 40]), None);
        assert_eq!(verdict_after(&[(BURST, 10); 4]), None);
    }

    #[test]
    fn a_connection_is_drained_before_the_limits_of_h2_for_its_life() {
        assert_eq!(verdict_after(&[(1, 1); LOCAL_RESETS_BEFORE_DRAIN - 1]), None);
        assert_eq!(verdict_after(&[(1, 1); LOCAL_RESETS_BEFORE_DRAIN]), Some(Verdict::Drain));
        let verdict = SharedVerdict::default();
        let mut resets = Resets::new(PER_SECOND, BURST, verdict.clone());
        let mut empty = |frames| {
            let frames = ReceivedFrames { empty: frames, ..ReceivedFrames::default() };
            resets.received(&frames, || Clock::system().instant())
        };
        assert!(!empty(EMPTY_FRAMES_BEFORE_DRAIN - 1) && !verdict.is_at_least(Verdict::Drain));
        assert!(!empty(1) && verdict.is_at_least(Verdict::Drain));
    }

    #[test]
    fn only_resets_of_calls_that_began_with_them_are_counted() {
        let frame = |kind, stream, code| FrameHead { length: 4, kind, flags: 0, stream, code };
        let mut frames = ReceivedFrames::default();
        for frame in [frame(RST_STREAM, 1, 8), frame(HEADERS, 5, 0), frame(RST_STREAM, 3, 8)] {
            frames.add(frame);
        }
        assert_eq!(frames.resets, 0, "calls in flight may be cancelled");
        frames.add(frame(RST_STREAM, 5, 8));
        assert_eq!(frames.resets, 1);

        assert_eq!(weight_of_sent(frame(RST_STREAM, 1, STREAM_CLOSED)), 1);
        assert_eq!(weight_of_sent(frame(RST_STREAM, 1, FLOW_CONTROL_ERROR)), 8);
        assert_eq!(weight_of_sent(frame(HEADERS, 1, STREAM_CLOSED)), 0);
        assert_eq!(weight_of_sent(frame(RST_STREAM, 1, 0)), 0, "the answer was early");
    }
}
