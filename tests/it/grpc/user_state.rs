//! The state of a user in the responses: active, not verified, disabled.

use kairos_identity::proto::{
    DisableUserRequest, EnableUserRequest, GetAccountRequest, GetUserRequest, ListUsersRequest,
    ResolveTokenRequest, ResolveTokensRequest, User, UserState, account_service_client::AccountServiceClient,
    admin_service_client::AdminServiceClient, get_user_request::Key,
    identity_service_client::IdentityServiceClient,
};
use tonic::Code;

use crate::support::{
    callers::{Bearer, CallersFile, token},
    errors::assert_refused,
    people::{PASSWORD, address, by_email, by_username, login, registration},
    server::TestServer,
    sessions::{acting, introspect, log_in},
};

/// Returns the state of a user in the response of each look-up.
async fn looked_up(server: &TestServer, name: &str, auth_token: &str) -> Vec<UserState> {
    let mut client = server.client().await;
    let auth_token = auth_token.to_owned();
    let resolve = ResolveTokenRequest { auth_token: auth_token.clone() };
    let resolved = client.resolve_token(resolve).await.unwrap().into_inner().user.unwrap();
    let batch = ResolveTokensRequest { auth_tokens: vec![auth_token.clone()] };
    let batch = client.resolve_tokens(batch).await.unwrap().into_inner().users.remove(0);
    let by_email = client.find_user(by_email(&address(name))).await.unwrap().into_inner().user.unwrap();
    let by_username = client.find_user(by_username(name)).await.unwrap().into_inner().user.unwrap();
    let mut admin = AdminServiceClient::new(server.channel().await);
    let got = admin.get_user(GetUserRequest { key: Some(Key::AuthToken(auth_token)) }).await.unwrap();
    let got = got.into_inner().user.unwrap().user.unwrap();
    let list = ListUsersRequest { text: address(name), ..ListUsersRequest::default() };
    let listed = admin.list_users(list).await.unwrap().into_inner().users.remove(0).user.unwrap();
    [resolved, batch, by_email, by_username, got, listed].iter().map(User::state).collect()
}

on_both_engines! {
    async fn every_look_up_has_the_state_of_the_user(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut admin = AdminServiceClient::new(server.channel().await);
        let eve = server.unverified_user("eve").await;
        assert_eq!(eve.state(), UserState::Unverified);
        assert_eq!(looked_up(&server, "eve", &eve.auth_token).await, [UserState::Unverified; 6]);

        let ada = server.member("ada").await;
        assert_eq!(ada.state(), UserState::Active);
        let tokens = log_in(&server, "ada").await;
        let mut accounts = AccountServiceClient::new(server.channel().await);
        let account = accounts.get_account(acting(&tokens, GetAccountRequest {})).await.unwrap().into_inner();
        let introspected = introspect(&server, &tokens.access_token).await.user.unwrap();
        assert_eq!([account.user.unwrap().state(), introspected.state()], [UserState::Active; 2]);

        for user in [&ada, &eve] {
            let disable = DisableUserRequest { auth_token: user.auth_token.clone() };
            let disabled = admin.disable_user(disable).await.unwrap().into_inner().user.unwrap().user.unwrap();
            assert_eq!(disabled.state(), UserState::Disabled);
            assert_eq!(disabled.is_verified, user.auth_token == ada.auth_token, "the other fields stay");
            assert_eq!(looked_up(&server, &user.username, &user.auth_token).await, [UserState::Disabled; 6]);
        }
        // The refusals are those of before.
        let refusal = server.client().await.login(login("ada", PASSWORD)).await.unwrap_err();
        assert_refused(&refusal, Code::PermissionDenied, "ACCOUNT_DISABLED");

        for (user, state) in [(&ada, UserState::Active), (&eve, UserState::Unverified)] {
            let enable = EnableUserRequest { auth_token: user.auth_token.clone() };
            let enabled = admin.enable_user(enable).await.unwrap().into_inner().user.unwrap().user.unwrap();
            assert_eq!(enabled.state(), state);
            assert_eq!(looked_up(&server, &user.username, &user.auth_token).await, [state; 6]);
        }
    }

    async fn a_repeated_registration_shows_a_user_disabled_since(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut request = registration("ada");
        request.request_id = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56".to_owned();
        let ada = server.client().await.register(request.clone()).await.unwrap().into_inner().user.unwrap();
        let mut admin = AdminServiceClient::new(server.channel().await);
        admin.disable_user(DisableUserRequest { auth_token: ada.auth_token.clone() }).await.unwrap();
        let again = server.client().await.register(request).await.unwrap().into_inner().user.unwrap();
        assert_eq!((again.auth_token.as_str(), again.state()), (ada.auth_token.as_str(), UserState::Disabled));
    }

    async fn a_caller_sees_the_state_only_if_its_entry_names_it(engine: Engine) {
        let (agent, other) = (token(1), token(2));
        let file = CallersFile::new(&[("agent", &agent, "*", "state"), ("other", &other, "*", "is_verified")]);
        let server = file.serve(engine).await;
        let mut client = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(agent)));
        let user = client.register(registration("ada")).await.unwrap().into_inner().user.unwrap();
        assert_eq!(user.state(), UserState::Unverified);
        let request = ResolveTokenRequest { auth_token: user.auth_token };
        let mut client = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(other)));
        let user = client.resolve_token(request).await.unwrap().into_inner().user.unwrap();
        assert_eq!(user.state(), UserState::Unspecified);
    }
}
