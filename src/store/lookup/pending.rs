//! Look-ups that wait for a lane.

use tokio::sync::oneshot;

use crate::{
    batch_queue::{BatchQueue, Batched},
    database::DatabaseError,
    domain::{AuthToken, User},
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, DatabaseError>>;

/// The queue of the look-ups. The size of a batch is its number of tokens.
pub(super) type Queue = BatchQueue<PendingLookup>;

/// A waiting look-up: its tokens, and the channel for the answer. Most look-ups are for one token and need no
/// list.
pub(super) enum PendingLookup {
    One {
        token: AuthToken,
        reply: Reply<Option<User>>,
    },
    /// Look-up of the users with these tokens, in the order of the tokens.
    Many {
        tokens: Vec<AuthToken>,
        reply: Reply<Vec<User>>,
    },
}

impl PendingLookup {
    pub(super) fn tokens(&self) -> &[AuthToken] {
        match self {
            Self::One { token, .. } => std::slice::from_ref(token),
            Self::Many { tokens, .. } => tokens,
        }
    }

    /// Looks up each token with `find`. [`ReadyAnswer::send`] sends the answer later.
    pub(super) fn answer(
        self,
        mut find: impl FnMut(AuthToken) -> Result<Option<User>, DatabaseError>,
    ) -> ReadyAnswer {
        match self {
            Self::One { token, reply } => ReadyAnswer::One(reply, find(token)),
            Self::Many { tokens, reply } => {
                let users = tokens.into_iter().filter_map(|token| find(token).transpose());
                ReadyAnswer::Many(reply, users.collect())
            }
        }
    }
}

impl Batched for PendingLookup {
    fn size(&self) -> usize {
        self.tokens().len()
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::One { reply, .. } => reply.is_closed(),
            Self::Many { reply, .. } => reply.is_closed(),
        }
    }
}

/// An answer that is ready to be sent.
pub(super) enum ReadyAnswer {
    One(Reply<Option<User>>, Result<Option<User>, DatabaseError>),
    Many(Reply<Vec<User>>, Result<Vec<User>, DatabaseError>),
}

impl ReadyAnswer {
    /// Sends the answer. If the caller has gone meanwhile, the answer is dropped.
    pub(super) fn send(self) {
        match self {
            Self::One(reply, answer) => drop(reply.send(answer)),
            Self::Many(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// Moves look-ups to another queue. Those that exceed its limit are answered with
/// [`DatabaseError::Overloaded`].
pub(super) fn move_to(queue: &Queue, lookups: Vec<PendingLookup>) {
    for lookup in lookups {
        if let Err(refused) = queue.push(lookup) {
            refused.answer(|_| Err(DatabaseError::Overloaded)).send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lookups_of_another_queue_are_enqueued_or_refused() {
        let one = |number| {
            let (reply, answer) = oneshot::channel();
            (PendingLookup::One { token: AuthToken::from_uuid(uuid::Uuid::from_u128(number)), reply }, answer)
        };
        let queue = Queue::new(10, 2);
        let (lookups, mut answers): (Vec<_>, Vec<_>) = (0..3).map(one).unzip();

        move_to(&queue, lookups);

        assert!(matches!(answers[2].try_recv(), Ok(Err(DatabaseError::Overloaded))));
        assert_eq!(queue.batch().await.len(), 2);
    }
}
