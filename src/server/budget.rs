//! The budget of tokio, which limits how long a task runs before other tasks do.

use std::task::{Context, Poll};

use tokio::task::coop;

/// Deducts operations from the budget of the task. When the budget is used up, the task reads nothing until
/// other tasks have run.
pub(super) fn consume(context: &mut Context<'_>, operations: usize) {
    for _ in 0..operations {
        if !coop::has_budget_remaining() {
            break;
        }
        match coop::poll_proceed(context) {
            Poll::Ready(operation) => operation.made_progress(),
            Poll::Pending => break,
        }
    }
}
