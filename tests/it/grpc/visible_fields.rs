//! The user fields that a caller may see, checked for every field and every response in the API descriptors.

use kairos_identity::{
    callers::ServiceToken,
    proto::{
        ConfirmEmailChangeRequest, DisableUserRequest, EnableUserRequest, GetAccountRequest, GetUserRequest,
        IntrospectTokenRequest, ListUsersRequest, LoginRequest, RefreshSessionRequest,
        RequestEmailChangeRequest, ResolveTokenRequest, ResolveTokensRequest, SessionTokens,
        SetVerifiedRequest, UndoEmailChangeRequest, UpdateAccountRequest, User, VerifyEmailRequest,
        account_service_client::AccountServiceClient, admin_service_client::AdminServiceClient,
        get_user_request::Key, identity_service_client::IdentityServiceClient,
        session_service_client::SessionServiceClient,
    },
};
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};

use crate::support::{
    api::{fields_of, messages_with_users},
    callers::{Bearer, CallersFile, token},
    errors::assert_refused,
    mail::{link_to, verification_token},
    people::{PASSWORD, address, by_email, registration},
    server::TestServer,
    sessions::acting,
};

/// Returns the names of the fields that are not empty.
fn present_fields(user: &User) -> Vec<&'static str> {
    let fields = [
        ("auth_token", !user.auth_token.is_empty()),
        ("username", !user.username.is_empty()),
        ("email", !user.email.is_empty()),
        ("is_verified", user.is_verified),
        ("created_at", user.created_at.is_some()),
        ("updated_at", user.updated_at.is_some()),
        ("state", user.state != 0),
    ];
    fields.into_iter().filter_map(|(name, is_present)| is_present.then_some(name)).collect()
}

/// Calls each method of `AdminService` that returns users, and returns the user in each response.
async fn admin_responses(
    server: &TestServer,
    operator: ServiceToken,
    auth_token: &str,
) -> [(&'static str, Option<User>); 5] {
    let mut admin = AdminServiceClient::with_interceptor(server.channel().await, Bearer(Some(operator)));
    let auth_token = auth_token.to_owned();
    let key = Some(Key::AuthToken(auth_token.clone()));
    let got = admin.get_user(GetUserRequest { key }).await.unwrap().into_inner().user;
    let listed = admin.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users;
    let set = SetVerifiedRequest { auth_token: auth_token.clone(), is_verified: Some(true) };
    let set = admin.set_verified(set).await.unwrap().into_inner().user;
    let disable = DisableUserRequest { auth_token: auth_token.clone() };
    let disabled = admin.disable_user(disable).await.unwrap().into_inner().user;
    let enabled = admin.enable_user(EnableUserRequest { auth_token }).await.unwrap().into_inner().user;
    [
        ("GetUserResponse", got.unwrap().user),
        ("ListUsersResponse", listed.into_iter().next_back().unwrap().user),
        ("SetVerifiedResponse", set.unwrap().user),
        ("DisableUserResponse", disabled.unwrap().user),
        ("EnableUserResponse", enabled.unwrap().user),
    ]
}

/// Changes the email of a user and undoes the change. Returns the users in the responses, with the names of
/// their messages.
async fn email_change_responses(
    server: &TestServer,
    accounts: &mut AccountServiceClient<InterceptedService<Channel, Bearer>>,
    tokens: &SessionTokens,
    name: &str,
) -> [(&'static str, Option<User>); 2] {
    let new_email = address(&format!("{name}2"));
    let change = RequestEmailChangeRequest {
        current_password: PASSWORD.to_owned(),
        new_email: new_email.clone(),
        return_mail_token: false,
    };
    accounts.request_email_change(acting(tokens, change)).await.unwrap();
    let token = verification_token(server, &new_email).await;
    let confirmed = accounts.confirm_email_change(ConfirmEmailChangeRequest { token }).await.unwrap();
    let token = link_to(server, &address(name), "undo-email-change").await;
    let undone = accounts.undo_email_change(UndoEmailChangeRequest { token }).await.unwrap();
    [
        ("ConfirmEmailChangeResponse", confirmed.into_inner().user),
        ("UndoEmailChangeResponse", undone.into_inner().user),
    ]
}

on_both_engines! {
    async fn each_caller_sees_only_the_user_fields_in_its_entry(engine: Engine) {
        let fields = fields_of("User");
        let tokens: Vec<_> = (0..fields.len()).map(|number| token(u8::try_from(number).unwrap())).collect();
        let callers: Vec<_> =
            fields.iter().zip(&tokens).map(|(field, token)| (field.as_str(), token, "*", field.as_str())).collect();
        let file = CallersFile::new(&callers);
        let server = file.serve(engine).await;

        for (field, token) in fields.iter().zip(tokens) {
            let mut client = IdentityServiceClient::with_interceptor(server.channel().await, Bearer(Some(token.clone())));
            let mut sessions = SessionServiceClient::with_interceptor(server.channel().await, Bearer(Some(token.clone())));
            let mut accounts = AccountServiceClient::with_interceptor(server.channel().await, Bearer(Some(token.clone())));
            let name = field.replace('_', "-");
            let expected: Vec<_> = fields.iter().filter(|other| *other == "auth_token" || *other == field).collect();

            let registered = client.register(registration(&name)).await.unwrap().into_inner().user.unwrap();
            let link = verification_token(&server, &address(&name)).await;
            let verified = client.verify_email(VerifyEmailRequest { token: link }).await.unwrap().into_inner();
            let login = LoginRequest { email: address(&name), password: PASSWORD.to_owned() };
            let logged_in = client.login(login).await.unwrap().into_inner();
            let auth_token = registered.auth_token.clone();
            let resolved = client.resolve_token(ResolveTokenRequest { auth_token: auth_token.clone() }).await.unwrap();
            let batch = ResolveTokensRequest { auth_tokens: vec![auth_token.clone()] };
            let batch = client.resolve_tokens(batch).await.unwrap().into_inner();
            let found = client.find_user(by_email(&address(&name))).await.unwrap().into_inner();

            let refresh_token = logged_in.tokens.unwrap().refresh_token;
            let refreshed = sessions.refresh_session(RefreshSessionRequest { refresh_token }).await.unwrap().into_inner();
            let tokens = refreshed.tokens.unwrap();
            let introspection = IntrospectTokenRequest { access_token: tokens.access_token.clone() };
            let introspected = sessions.introspect_token(introspection).await.unwrap().into_inner();
            let account = accounts.get_account(acting(&tokens, GetAccountRequest {})).await.unwrap().into_inner();
            let update = UpdateAccountRequest { username: format!("{name}2"), update_mask: None };
            let updated = accounts.update_account(acting(&tokens, update)).await.unwrap().into_inner();
            let changed = email_change_responses(&server, &mut accounts, &tokens, &name).await;
            let by_operator = admin_responses(&server, token, &auth_token).await;

            // No user is verified at registration.
            let at_registration: Vec<_> = expected.iter().filter(|field| **field != "is_verified").collect();
            assert_eq!(present_fields(&registered).iter().collect::<Vec<_>>(), at_registration, "Register");
            let answers = by_operator.into_iter().chain(changed).chain([
                ("FindUserResponse", found.user),
                ("GetAccountResponse", account.user),
                ("IntrospectTokenResponse", introspected.user),
                ("LoginResponse", logged_in.user),
                ("RefreshSessionResponse", refreshed.user),
                ("ResolveTokenResponse", resolved.into_inner().user),
                ("ResolveTokensResponse", batch.users.into_iter().next()),
                ("UpdateAccountResponse", updated.user),
                ("VerifyEmailResponse", verified.user),
            ]).collect::<Vec<_>>();
            let mut checked: Vec<_> = answers.iter().map(|(name, _)| *name).chain(["RegisterResponse"]).collect();
            checked.sort_unstable();
            assert_eq!(checked, messages_with_users(), "each response that contains a user is checked");
            for (answer, user) in answers {
                assert_eq!(present_fields(&user.unwrap()).iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{answer}: {field}");
            }
        }
    }

    async fn a_caller_cannot_filter_users_by_a_field_it_may_not_see(engine: Engine) {
        let (seeing, blind) = (token(1), token(2));
        let file = CallersFile::new(&[("seeing", &seeing, "*", "*"), ("blind", &blind, "*", "auth_token")]);
        let server = file.serve(engine).await;
        let then = Some(prost_types::Timestamp::default());
        for request in [
            ListUsersRequest { text: "a".into(), ..ListUsersRequest::default() },
            ListUsersRequest { is_verified: Some(true), ..ListUsersRequest::default() },
            ListUsersRequest { created_since: then, ..ListUsersRequest::default() },
            ListUsersRequest { created_before: then, ..ListUsersRequest::default() },
        ] {
            let list = async |caller: &_| {
                let channel = server.channel().await;
                let mut admin = AdminServiceClient::with_interceptor(channel, Bearer(Some(ServiceToken::clone(caller))));
                admin.list_users(request.clone()).await
            };
            list(&seeing).await.unwrap();
            assert_refused(&list(&blind).await.unwrap_err(), Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        }
    }
}
