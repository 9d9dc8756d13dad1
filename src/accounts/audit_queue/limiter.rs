//! The limit on the number of different events of each budget.

use std::collections::{HashMap, hash_map::Entry};

use super::event::{EventBudget, EventKey, QueuedEvent};
use crate::accounts::AuditLimits;

/// Limits the number of different events of each budget.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) limits: AuditLimits,
    /// The most accounts with refusals, and the most accounts with reads.
    accounts_max: usize,
    /// Number of different events in each budget.
    used: HashMap<EventBudget, usize>,
    /// Number of budgets for refusals about an account.
    refused_accounts: usize,
    /// Number of budgets for reads of an account.
    read_accounts: usize,
}

impl Limiter {
    pub(super) fn new(limits: AuditLimits, accounts_max: usize) -> Self {
        Self { limits, accounts_max, used: HashMap::new(), refused_accounts: 0, read_accounts: 0 }
    }

    /// Returns the event as it is to be recorded, with its key: without its details if its budget is used up.
    /// An event whose key is known takes nothing from the budget.
    pub(super) fn admit(
        &mut self,
        queued: QueuedEvent,
        is_known: impl Fn(&EventKey) -> bool,
    ) -> (EventKey, QueuedEvent) {
        let key = queued.key();
        if is_known(&key) || self.take(&queued) {
            return (key, queued);
        }
        // Only an account beyond `accounts_max` has no budget.
        let has_budget = self.used.contains_key(&queued.budget());
        let reduced = queued.without_details();
        let reduced = if has_budget { reduced } else { reduced.without_account() };
        (reduced.key(), reduced)
    }

    /// Takes one event from its budget. False if the budget is used up, or there are too many accounts.
    fn take(&mut self, queued: &QueuedEvent) -> bool {
        let budget = queued.budget();
        let max = match budget {
            EventBudget::Unauthenticated(_) => self.limits.unauthenticated_max,
            EventBudget::Caller(_) => self.limits.per_caller_max,
            EventBudget::Refusals(..) | EventBudget::Reads(_) => self.limits.per_account_max,
        };
        let accounts = match budget {
            EventBudget::Refusals(..) => Some(&mut self.refused_accounts),
            EventBudget::Reads(_) => Some(&mut self.read_accounts),
            EventBudget::Unauthenticated(_) | EventBudget::Caller(_) => None,
        };
        match self.used.entry(budget) {
            Entry::Occupied(mut used) => {
                let has_left = *used.get() < max;
                *used.get_mut() += usize::from(has_left);
                has_left
            }
            Entry::Vacant(used) => {
                if let Some(accounts) = accounts {
                    if *accounts >= self.accounts_max {
                        return false;
                    }
                    *accounts += 1;
                }
                used.insert(1);
                true
            }
        }
    }
}
