//! A lane on PostgreSQL: its query takes all tokens of a batch as one array.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use uuid::Uuid;

use super::super::queue::{Answered, Queue, Waiting};
use crate::{
    domain::{AuthToken, User},
    store::{
        StoreError,
        columns::UuidColumn,
        connection::postgres::{PostgresPool, Unanswered},
        schema::core_user,
        users::UserRow,
    },
};

/// Answers for as long as it is not aborted.
pub(in super::super) async fn run(pool: PostgresPool, queue: Arc<Queue>) {
    loop {
        let batch = queue.batch().await;
        // A lane that ended would leave its callers waiting for ever.
        if AssertUnwindSafe(answer(&pool, batch)).catch_unwind().await.is_err() {
            tracing::error!(
                "A look-up on PostgreSQL panicked; its callers are told that it is not available"
            );
        }
    }
}

async fn answer(pool: &PostgresPool, batch: Vec<Waiting>) {
    let tokens = tokens(&batch);
    let again = tokens.clone();
    let users = match pool.ask(async |connection| find_all(connection, tokens).await).await {
        Err(Unanswered::Lost(_)) => pool.ask_anew(async |connection| find_all(connection, again).await).await,
        answer => answer,
    };
    answer_with(batch, &users.map_err(Unanswered::into_error));
}

/// Users by their `auth_token`.
pub(super) type Users = HashMap<Uuid, User>;

/// What a batch asks for.
pub(super) fn tokens(batch: &[Waiting]) -> Vec<UuidColumn> {
    batch.iter().flat_map(Waiting::tokens).map(|token| UuidColumn(*token.as_uuid())).collect()
}

/// Who has these tokens, by one query.
pub(super) async fn find_all(
    connection: &mut AsyncPgConnection,
    tokens: Vec<UuidColumn>,
) -> Result<Users, StoreError> {
    let query = core_user::table.filter(core_user::auth_token.eq_any(tokens)).select(UserRow::as_select());
    let rows: Vec<UserRow> = query.load(connection).await?;
    Ok(rows.into_iter().map(User::from).map(|user| (*user.auth_token.as_uuid(), user)).collect())
}

/// Gives each caller of the batch their own.
pub(super) fn answer_with(batch: Vec<Waiting>, users: &Result<Users, StoreError>) {
    let find = |token: AuthToken| match users {
        Ok(users) => Ok(users.get(token.as_uuid()).cloned()),
        Err(error) => Err(error.clone()),
    };
    // All at the end: callers of one connection wake up together, and their answers leave in one packet.
    let answers: Vec<Answered> = batch.into_iter().map(|caller| caller.answer(find)).collect();
    answers.into_iter().for_each(Answered::send);
}
