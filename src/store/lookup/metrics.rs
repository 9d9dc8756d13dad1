//! The metrics of the queues of look-ups.

use std::sync::Arc;

use super::{Lookup, pending::Queue};
use crate::metrics::{Registry, register_gauge, register_total};

impl Lookup {
    /// Adds the metrics of the queues and of the replicas to a registry.
    pub(in crate::store) fn register_metrics(&self, registry: &mut Registry) {
        let of_replicas = self.replicas.iter().flat_map(|(_, queues)| &**queues);
        let queues: Arc<[Arc<Queue>]> = self.queues.iter().chain(of_replicas).cloned().collect();
        let waiting = Arc::clone(&queues);
        let help = "Number of look-ups by auth_token that wait for the database";
        register_gauge(registry, "lookups_waiting", help, None, move || {
            waiting.iter().map(|queue| queue.waiting()).sum::<usize>()
        });
        let taken = Arc::clone(&queues);
        let help = "Number of batches of look-ups that were taken from a queue";
        register_total(registry, "lookup_batches", help, move || {
            taken.iter().map(|queue| queue.taken().0).sum()
        });
        let help = "Number of requests in these batches";
        register_total(registry, "lookups", help, move || queues.iter().map(|queue| queue.taken().1).sum());
        let Some((replicas, _)) = &self.replicas else { return };
        let (used, all) = (Arc::clone(replicas), replicas.count());
        let help = "Number of replicas that serve look-ups";
        register_gauge(registry, "replicas_used", help, None, move || used.count_used());
        let help = "Number of replicas in the settings";
        register_gauge(registry, "replicas", help, None, move || all);
    }
}
