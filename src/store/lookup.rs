//! Look-ups by `auth_token`, coalesced: those that arrive while a query runs travel together in the next one.
//!
//! There is no cache, so there is nothing to invalidate and no answer is stale. A lane takes what waits, up to a limit,
//! asks the database once and gives each caller their own rows; it waits for nobody, so that a lone call leaves at once.
//! On SQLite a lane is a thread that answers its batch inside one read transaction; on PostgreSQL a task whose query
//! takes all tokens as one array.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use async_channel::{Receiver, Sender, TrySendError};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, connection::SimpleConnection,
};
use diesel_async::RunQueryDsl as _;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Store, StoreError,
    columns::UuidColumn,
    connection::{
        Connections,
        postgres::PostgresPool,
        sqlite::{InlineConnection, SqliteThreads, connect_reader, on_connection, start_thread},
    },
    schema::core_user,
    users::UserRow,
};
use crate::domain::{AuthToken, User};

/// How look-ups are gathered.
#[derive(Debug, Clone, Copy)]
pub struct LookupOptions {
    /// How many tokens one query holds at most.
    pub batch_tokens_max: usize,
    /// How many queries run at once.
    pub lanes: usize,
    /// How many look-ups may wait for a lane before callers are turned away.
    pub waiting_max: usize,
}

/// The queue before the lanes, which end when its last clone is dropped.
#[derive(Clone)]
pub(super) struct Lookup {
    queue: Sender<Waiting>,
    batch_tokens_max: usize,
    /// How long a caller waits for a lane and its query together.
    answer_timeout: Duration,
}

/// A caller: what they ask for, and where the answer goes. The one who asks for one token, which is nearly everybody,
/// costs no list.
enum Waiting {
    One {
        token: AuthToken,
        reply: Reply<Option<User>>,
    },
    /// The users that have these tokens, in the order of the tokens.
    Many {
        tokens: Vec<AuthToken>,
        reply: Reply<Vec<User>>,
    },
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

impl Waiting {
    fn tokens(&self) -> &[AuthToken] {
        match self {
            Self::One { token, .. } => std::slice::from_ref(token),
            Self::Many { tokens, .. } => tokens,
        }
    }

    /// Whether the caller has gone.
    fn is_left(&self) -> bool {
        match self {
            Self::One { reply, .. } => reply.is_closed(),
            Self::Many { reply, .. } => reply.is_closed(),
        }
    }

    /// Looks each token up with `find`; the answer is sent later, by [`Answered::send`].
    fn answer(self, mut find: impl FnMut(AuthToken) -> Result<Option<User>, StoreError>) -> Answered {
        match self {
            Self::One { token, reply } => Answered::One(reply, find(token)),
            Self::Many { tokens, reply } => {
                let users = tokens.into_iter().filter_map(|token| find(token).transpose());
                Answered::Many(reply, users.collect())
            }
        }
    }
}

/// An answer on its way.
enum Answered {
    One(Reply<Option<User>>, Result<Option<User>, StoreError>),
    Many(Reply<Vec<User>>, Result<Vec<User>, StoreError>),
}

impl Answered {
    /// A caller who has gone meanwhile does not take it.
    fn send(self) {
        match self {
            Self::One(reply, answer) => drop(reply.send(answer)),
            Self::Many(reply, answer) => drop(reply.send(answer)),
        }
    }
}

impl Lookup {
    pub(super) fn start(connections: &Connections, options: LookupOptions) -> Result<Self, StoreError> {
        let (queue, waiting) = async_channel::bounded(options.waiting_max);
        for _ in 0..options.lanes {
            match connections {
                Connections::Sqlite(threads) => start_sqlite_lane(threads, waiting.clone(), options)?,
                Connections::Postgres(pool) => {
                    tokio::spawn(run_postgres_lane(pool.clone(), waiting.clone(), options));
                }
            }
        }
        let answer_timeout = match connections {
            Connections::Sqlite(_) => Duration::MAX,
            Connections::Postgres(pool) => pool.answer_timeout(),
        };
        Ok(Self { queue, batch_tokens_max: options.batch_tokens_max, answer_timeout })
    }

    async fn ask<T>(&self, caller: impl FnOnce(Reply<T>) -> Waiting) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(caller(reply)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Closed(_) => StoreError::unavailable("the look-ups have ended"),
        })?;
        let answer =
            tokio::time::timeout(self.answer_timeout, answer).await.map_err(StoreError::unavailable)?;
        answer.map_err(|_| StoreError::unavailable("the look-up panicked"))?
    }
}

impl Store {
    /// The user with this `auth_token`.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when too many wait; [`StoreError::Unavailable`] when the database does not answer.
    pub async fn find_user_by_auth_token(&self, token: AuthToken) -> Result<Option<User>, StoreError> {
        self.lookup.ask(|reply| Waiting::One { token, reply }).await
    }

    /// The users with these `auth_token`s in their order; a token that nobody has is left out, one that comes twice gives
    /// its user twice.
    ///
    /// # Errors
    /// As [`Store::find_user_by_auth_token`].
    pub async fn find_users_by_auth_tokens(&self, tokens: &[AuthToken]) -> Result<Vec<User>, StoreError> {
        let ask = |part: &[AuthToken]| {
            let tokens = part.to_vec();
            self.lookup.ask(move |reply| Waiting::Many { tokens, reply })
        };
        let parts = tokens.chunks(self.lookup.batch_tokens_max).map(ask);
        let users = futures_util::future::try_join_all(parts).await?;
        Ok(users.into_iter().flatten().collect())
    }
}

/// Callers whose tokens travel together, and the one for whom there was no more room, who is the first of the next batch.
struct Batch {
    callers: Vec<Waiting>,
    next: Option<Waiting>,
}

/// Adds to `first` what waits behind it, up to the limit, without the callers who have gone.
fn gather(first: Waiting, queue: &Receiver<Waiting>, batch_tokens_max: usize) -> Batch {
    let mut tokens = first.tokens().len();
    let mut batch = Batch { callers: vec![first], next: None };
    while tokens < batch_tokens_max
        && let Ok(caller) = queue.try_recv()
    {
        tokens += caller.tokens().len();
        if tokens > batch_tokens_max {
            batch.next = Some(caller);
        } else {
            batch.callers.push(caller);
        }
    }
    batch.callers.retain(|caller| !caller.is_left());
    batch
}

fn start_sqlite_lane(
    threads: &SqliteThreads,
    queue: Receiver<Waiting>,
    options: LookupOptions,
) -> Result<(), StoreError> {
    start_thread(
        "sqlite-lookup",
        threads.options(),
        connect_reader,
        queue,
        move |connection, first, queue| {
            let mut next = Some(first);
            while let Some(first) = next.take() {
                let batch = gather(first, queue, options.batch_tokens_max);
                answer_from_sqlite(connection, batch.callers);
                next = batch.next;
            }
        },
    )
}

fn answer_from_sqlite(connection: &mut InlineConnection, batch: Vec<Waiting>) {
    let asked = on_connection(connection, move |connection| {
        // One transaction for all: a statement of its own would lock and unlock the file each time.
        let begun = connection.batch_execute("BEGIN").map_err(StoreError::from);
        let mut find = |token| begun.clone().and_then(|()| find_one(connection, token));
        let answers: Vec<Answered> = batch.into_iter().map(|caller| caller.answer(&mut find)).collect();
        let ended = if begun.is_ok() { connection.batch_execute("COMMIT") } else { Ok(()) };
        if ended.is_err() {
            // Or the next batch could not begin its own.
            let _ = connection.batch_execute("ROLLBACK");
        }
        // All at the end: callers of one connection wake up together, and their answers leave in one packet.
        answers.into_iter().for_each(Answered::send);
        ended
    });
    if let Ok(Err(error)) = asked {
        tracing::warn!(%error, "A read transaction on SQLite did not end cleanly");
    }
}

fn find_one(connection: &mut diesel::SqliteConnection, token: AuthToken) -> Result<Option<User>, StoreError> {
    // `get_result` and not `first`: the LIMIT would have the statement prepared anew each time.
    let query = core_user::table
        .filter(core_user::auth_token.eq(UuidColumn(*token.as_uuid())))
        .select(UserRow::as_select());
    Ok(diesel::RunQueryDsl::get_result(query, connection).optional()?.map(User::from))
}

async fn run_postgres_lane(pool: PostgresPool, queue: Receiver<Waiting>, options: LookupOptions) {
    while let Ok(first) = queue.recv().await {
        // Lets the tasks that are ready on this thread ask first; returns at once if there are none.
        tokio::task::yield_now().await;
        let mut next = Some(first);
        while let Some(first) = next.take() {
            let batch = gather(first, &queue, options.batch_tokens_max);
            // A lane that ended would leave its callers waiting for ever.
            if AssertUnwindSafe(answer_from_postgres(&pool, batch.callers)).catch_unwind().await.is_err() {
                tracing::error!(
                    "A look-up on PostgreSQL panicked; its callers are told that it is not available"
                );
            }
            next = batch.next;
        }
    }
}

async fn answer_from_postgres(pool: &PostgresPool, batch: Vec<Waiting>) {
    if batch.is_empty() {
        return;
    }
    let tokens = batch.iter().flat_map(Waiting::tokens).map(|token| UuidColumn(*token.as_uuid())).collect();
    let users = find_all(pool, tokens).await;
    let find = |token: AuthToken| match &users {
        Ok(users) => Ok(users.get(token.as_uuid()).cloned()),
        Err(error) => Err(error.clone()),
    };
    let answers: Vec<Answered> = batch.into_iter().map(|caller| caller.answer(find)).collect();
    answers.into_iter().for_each(Answered::send);
}

async fn find_all(pool: &PostgresPool, tokens: Vec<UuidColumn>) -> Result<HashMap<Uuid, User>, StoreError> {
    let query = core_user::table.filter(core_user::auth_token.eq_any(tokens)).select(UserRow::as_select());
    let rows: Vec<UserRow> = pool.ask(async |connection| Ok(query.load(connection).await?)).await?;
    Ok(rows.into_iter().map(User::from).map(|user| (*user.auth_token.as_uuid(), user)).collect())
}
