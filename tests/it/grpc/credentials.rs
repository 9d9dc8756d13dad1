//! The headers of a request that carry the service token of its caller and the access token of its user.

use kairos_identity::{
    callers::ServiceToken,
    proto::{
        ListSessionsRequest, LoginRequest, VerifyEmailRequest, identity_service_client::IdentityServiceClient,
    },
};
use tonic::{Code, Request, Status};

use crate::support::{
    callers::{Bearer, CallersFile, token},
    errors::assert_refused,
    mail::verification_token,
    people::{PASSWORD, address, by_username, registration},
    server::TestServer,
    sessions::session_client,
};

const CALLER_TOKEN: &str = "kairos-caller-token";
const AUTHORIZATION: &str = "authorization";

/// Lists the sessions of a user with these headers, in this order.
async fn list_sessions(server: &TestServer, headers: &[(&'static str, &str)]) -> Result<usize, Status> {
    let mut request = Request::new(ListSessionsRequest::default());
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let answer = session_client(server).await.list_sessions(request).await?;
    Ok(answer.into_inner().sessions.len())
}

/// Registers and verifies ada, and logs in, as this caller. Returns the access token.
async fn access_token(server: &TestServer, caller: &ServiceToken) -> String {
    let with = |name: &'static str| {
        let value = caller.expose().to_owned();
        move |mut request: Request<()>| {
            request.metadata_mut().insert(name, value.parse().unwrap());
            Ok(request)
        }
    };
    let channel = server.channel().await;
    let mut client = IdentityServiceClient::with_interceptor(channel, with(CALLER_TOKEN));
    client.register(registration("ada")).await.unwrap();
    let link = verification_token(server, &address("ada")).await;
    client.verify_email(VerifyEmailRequest { token: link }).await.unwrap();
    let login = LoginRequest { email: address("ada"), password: PASSWORD.to_owned() };
    client.login(login).await.unwrap().into_inner().tokens.unwrap().access_token
}

on_both_engines! {
    async fn the_service_token_and_the_access_token_have_a_header_each(engine: Engine) {
        let bff = token(1);
        let file = CallersFile::new(&[("bff", &bff, "*", "*")]);
        let server = file.serve(engine).await;
        let access = access_token(&server, &bff).await;
        let (kst, user) = (bff.expose().to_owned(), format!("Bearer {access}"));
        let bearer = format!("Bearer {kst}");
        let (in_lower_case, joined) = (format!("bearer {access}"), format!("{bearer}, {user}"));

        for headers in [
            &[(CALLER_TOKEN, kst.as_str()), (AUTHORIZATION, user.as_str())][..],
            &[(AUTHORIZATION, &in_lower_case), (CALLER_TOKEN, &kst)],
            &[(AUTHORIZATION, &bearer), (AUTHORIZATION, &user)],
        ] {
            assert_eq!(list_sessions(&server, headers).await.unwrap(), 1);
        }
        // The order of the credentials, their number and their kind: each refusal says what to send where.
        let unknown = "CALLER_UNKNOWN";
        for (headers, reason) in [
            (&[(AUTHORIZATION, joined.as_str())][..], unknown),
            (&[(CALLER_TOKEN, &kst), (AUTHORIZATION, &bearer)], unknown),
            (&[(CALLER_TOKEN, &kst), (AUTHORIZATION, &bearer), (AUTHORIZATION, &user)], unknown),
            (&[(CALLER_TOKEN, &kst), (AUTHORIZATION, &joined)], unknown),
            (&[(CALLER_TOKEN, &access), (AUTHORIZATION, &user)], unknown),
            (&[(CALLER_TOKEN, &bearer), (AUTHORIZATION, &user)], unknown),
            (&[(AUTHORIZATION, &user)], unknown),
            (&[(AUTHORIZATION, &bearer)], "INVALID_ACCESS_TOKEN"),
            (&[(CALLER_TOKEN, &kst)], "INVALID_ACCESS_TOKEN"),
            (&[(CALLER_TOKEN, &kst), (AUTHORIZATION, &access)], "INVALID_ACCESS_TOKEN"),
            (&[(CALLER_TOKEN, &kst), (AUTHORIZATION, &user), (AUTHORIZATION, &user)], "INVALID_ACCESS_TOKEN"),
        ] {
            let refusal = list_sessions(&server, headers).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, reason);
            let message = refusal.message();
            assert!(message.contains("kairos-caller-token: kst_...") || message.contains("authorization: Bearer ..."), "{message}");
            for secret in [&kst[4..], &access] {
                assert!(!format!("{refusal:?}").contains(secret), "{refusal:?}");
            }
        }
    }

    async fn a_caller_is_authenticated_by_either_header(engine: Engine) {
        let (bff, unknown) = (token(1), token(2));
        let file = CallersFile::new(&[("bff", &bff, "*", "*")]);
        let server = file.serve_on(TestServer::builder(engine).with_args(&["--log-level", "trace"])).await;
        let find = async |name: &'static str, value: String| {
            let mut request = Request::new(by_username("unknown"));
            request.metadata_mut().insert(name, value.parse().unwrap());
            server.client().await.find_user(request).await.unwrap_err()
        };

        for (name, scheme) in [(CALLER_TOKEN, ""), (AUTHORIZATION, "Bearer ")] {
            let known = find(name, format!("{scheme}{}", bff.expose())).await;
            assert_refused(&known, Code::NotFound, "USER_NOT_FOUND");
            let refused = find(name, format!("{scheme}{}", unknown.expose())).await;
            assert_refused(&refused, Code::Unauthenticated, "CALLER_UNKNOWN");
        }
        let mut client = IdentityServiceClient::with_interceptor(
            server.channel().await,
            Bearer(None),
        );
        let refused = client.find_user(by_username("unknown")).await.unwrap_err();
        assert_refused(&refused, Code::Unauthenticated, "CALLER_UNKNOWN");
        let log = server.logged("USER_NOT_FOUND").await;
        for token in [&bff, &unknown] {
            assert!(!log.contains(&token.expose()[4..]), "a token is in the log");
        }
    }
}
