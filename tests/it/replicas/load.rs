//! Callers that look up users without pause.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use kairos_identity::proto::User;
use tokio::task::JoinSet;

use super::{LIMIT, resolve, resolve_all};
use crate::support::{server::TestServer, wait::until};

/// Callers that look up two users repeatedly, with single calls and batches, until the load ends. Each caller
/// checks every answer.
pub(super) struct Load {
    callers: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    pub(super) async fn start(server: &TestServer, ada: &User, bob: &User) -> Self {
        let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (mut client, ada, bob) = (server.client().await, ada.clone(), bob.clone());
            let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
            callers.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(resolve(&mut client, &ada).await.unwrap(), ada);
                    let both = resolve_all(&mut client, &[&bob, &ada]).await.unwrap();
                    assert_eq!(both.users, [bob.clone(), ada.clone()]);
                    answered.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let load = Self { callers, answered, is_over };
        load.wait_for_progress().await;
        load
    }

    /// Waits until 400 more look-ups are answered.
    pub(super) async fn wait_for_progress(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + 400;
        let is_enough = async || (self.answered.load(Ordering::Relaxed) >= enough).then_some(());
        until("calls are answered", LIMIT, is_enough).await;
    }

    /// Stops the callers, and asserts that every call succeeded.
    pub(super) async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
    }
}
