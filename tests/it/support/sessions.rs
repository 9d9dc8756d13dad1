//! Logins, refreshes and access tokens in the tests.

use kairos_identity::proto::{
    IntrospectTokenRequest, IntrospectTokenResponse, RefreshSessionRequest, SessionTokens,
    session_service_client::SessionServiceClient,
};
use tonic::{Request, Status, transport::Channel};

use super::{
    engine::{Engine, TestDatabase},
    people::{PASSWORD, login},
    server::TestServer,
};

/// Returns the generated client of `SessionService` on a new connection.
pub async fn session_client(server: &TestServer) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(server.channel().await)
}

/// Logs in the user `name` with [`PASSWORD`] and returns the tokens.
pub async fn log_in(server: &TestServer, name: &str) -> SessionTokens {
    let answer = server.client().await.login(login(name, PASSWORD)).await.unwrap();
    answer.into_inner().tokens.unwrap()
}

/// Calls `RefreshSession` and returns the new tokens.
pub async fn refresh(server: &TestServer, refresh_token: &str) -> Result<SessionTokens, Status> {
    let request = RefreshSessionRequest { refresh_token: refresh_token.to_owned() };
    let answer = session_client(server).await.refresh_session(request).await;
    answer.map(|answer| answer.into_inner().tokens.unwrap())
}

/// Calls `IntrospectToken` and returns the response.
pub async fn introspect(server: &TestServer, token: &str) -> IntrospectTokenResponse {
    let request = IntrospectTokenRequest { access_token: token.to_owned() };
    session_client(server).await.introspect_token(request).await.unwrap().into_inner()
}

/// Returns a request that carries the access token of `tokens` in its metadata.
pub fn acting<T>(tokens: &SessionTokens, message: T) -> Request<T> {
    with_bearer(&tokens.access_token, Request::new(message))
}

/// Adds this access or service token to the metadata of a request.
pub fn with_bearer<T>(token: &str, mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Moves the timestamp `column` of all rows of `table` into the past by `seconds`.
pub fn age(database: &TestDatabase, table: &str, column: &str, seconds: u32) {
    let older = match database.engine() {
        Engine::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', {column}, '-{seconds} seconds') || '000'"),
        Engine::Postgres => format!("{column} - interval '{seconds} seconds'"),
    };
    database.execute(&format!("UPDATE {table} SET {column} = {older}"));
}
