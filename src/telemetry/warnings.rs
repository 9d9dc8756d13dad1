//! Collects the warnings that a piece of work logs, for a command that reports them itself.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Dispatch, Event, Subscriber,
    field::{Field, Visit},
    instrument::WithSubscriber,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
};

/// Runs `work` and returns its result with the messages of the warnings and errors that it logged. They are
/// not logged. Those of tasks that `work` spawns are not among them.
pub async fn with_warnings<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    // While a process has a single subscriber, tracing asks only that of the current thread whether an event
    // is of interest. A thread without one, as in tests, would switch the event off for this work too.
    let _second = Dispatch::new(Registry::default());
    let collected = Collected::default();
    let subscriber = Registry::default().with(collected.clone().with_filter(LevelFilter::WARN));
    let result = work.with_subscriber(subscriber).await;
    let messages = std::mem::take(&mut *collected.0.lock().unwrap_or_else(PoisonError::into_inner));
    (result, messages)
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Collected {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A library's target is not the service's; its warnings are for developers.
        if !event.metadata().target().starts_with("kairos_identity") {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.0);
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn warnings_are_returned_and_other_events_are_not() {
        let (result, warnings) = with_warnings(async {
            tracing::info!("all is well");
            tokio::task::yield_now().await;
            tracing::warn!("Key file: {}", "others may read it");
            tracing::warn!(target: "hyper", "of a library");
            7
        })
        .await;
        assert_eq!(
            (result, warnings.as_slice()),
            (7, ["Key file: others may read it".to_owned()].as_slice())
        );
    }
}
