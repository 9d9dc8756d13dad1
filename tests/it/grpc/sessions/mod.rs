//! Sessions: access tokens, revocation and expiry.

mod refresh_tokens;
mod signing_keys;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kairos_identity::proto::{
    GetJwksRequest, IntrospectTokenResponse, ListSessionsRequest, LogoutRequest, RevokeAllSessionsRequest,
    RevokeSessionRequest, SessionTokens, User,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    people::{PASSWORD, from, login},
    server::TestServer,
    sessions::{acting, age, introspect, log_in, refresh, session_client},
};

#[track_caller]
fn assert_refresh_refused(refreshed: Result<SessionTokens, Status>) {
    assert_refused(&refreshed.unwrap_err(), Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
}

async fn session_ids(server: &TestServer, tokens: &SessionTokens) -> Vec<String> {
    let listed =
        session_client(server).await.list_sessions(acting(tokens, ListSessionsRequest {})).await.unwrap();
    listed.into_inner().sessions.into_iter().map(|session| session.session_id).collect()
}

/// Verifies the signature of an access token with the published keys and returns its header and claims.
async fn verified(server: &TestServer, token: &str) -> (Value, Value) {
    let keys = session_client(server).await.get_jwks(GetJwksRequest {}).await.unwrap().into_inner().keys;
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let json = |text: &str| serde_json::from_slice::<Value>(&bytes(text)).unwrap();
    let key = keys.iter().find(|key| key.kid == json(header)["kid"]).unwrap();
    let fixed = [&key.kty, &key.crv, &key.alg, &key.r#use].map(String::as_str);
    assert_eq!(fixed, ["OKP", "Ed25519", "EdDSA", "sig"]);
    let public = UnparsedPublicKey::new(&ED25519, bytes(&key.x));
    public.verify(message.as_bytes(), &bytes(signature)).unwrap();
    (json(header), json(claims))
}

on_both_engines! {
    async fn login_returns_an_access_token_that_the_public_keys_verify(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;

        let tokens = log_in(&server, "ada").await;
        let (header, claims) = verified(&server, &tokens.access_token).await;

        assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &"EdDSA".into()));
        assert_eq!(claims["sub"], ada.auth_token);
        assert_eq!(claims["sid"], tokens.session_id);
        assert_eq!((&claims["iss"], &claims["aud"]), (&"https://identity.kairos.localhost".into(), &"kairos".into()));
        assert_eq!(claims["client_id"], "anybody");
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
        assert_eq!(claims["exp"], tokens.access_token_expires_at.unwrap().seconds);
        let refresh_life = tokens.refresh_token_expires_at.unwrap().seconds - claims["iat"].as_i64().unwrap();
        // Seven days (the default of `session.idle`), give or take a second.
        assert!((604_799..=604_801).contains(&refresh_life), "{refresh_life}");
        assert_ne!(log_in(&server, "ada").await.session_id, tokens.session_id);
    }

    async fn logout_revokes_the_session_and_may_be_repeated(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let first = log_in(&server, "ada").await;
        let second = refresh(&server, &first.refresh_token).await.unwrap();

        // A token that was replaced revokes the session too.
        for _ in 0..2 {
            let request = LogoutRequest { refresh_token: first.refresh_token.clone() };
            session_client(&server).await.logout(request).await.unwrap();
        }

        assert_refresh_refused(refresh(&server, &second.refresh_token).await);
        assert!(!introspect(&server, &second.access_token).await.active);
    }

    async fn a_user_lists_and_revokes_only_their_own_sessions(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        server.member("bob").await;
        let bobs = log_in(&server, "bob").await;
        let mut request = from("2001:db8::7", login("ada", PASSWORD));
        request.metadata_mut().insert("kairos-client-agent", "Firefox 150".parse().unwrap());
        let phone = server.client().await.login(request).await.unwrap().into_inner().tokens.unwrap();
        let laptop = log_in(&server, "ada").await;
        let tablet = log_in(&server, "ada").await;
        let mut client = session_client(&server).await;

        let listed = client.list_sessions(acting(&laptop, ListSessionsRequest {})).await.unwrap().into_inner().sessions;
        let found: Vec<_> = listed.iter().map(|session| (session.session_id.as_str(), session.is_current)).collect();
        let expected = [(&tablet, false), (&laptop, true), (&phone, false)];
        assert_eq!(found, expected.map(|(tokens, is_current)| (tokens.session_id.as_str(), is_current)));
        assert_eq!((listed[2].client_ip.as_str(), listed[2].client_agent.as_str()), ("2001:db8::/64", "Firefox 150"));
        assert_eq!(listed[0].caller, "anybody");

        let revoke = |session_id: &str| acting(&laptop, RevokeSessionRequest { session_id: session_id.to_owned() });
        client.revoke_session(revoke(&phone.session_id)).await.unwrap();
        assert_refresh_refused(refresh(&server, &phone.refresh_token).await);
        for not_own in [&phone.session_id, &bobs.session_id] {
            let refusal = client.revoke_session(revoke(not_own)).await.unwrap_err();
            assert_refused(&refusal, Code::NotFound, "SESSION_NOT_FOUND");
        }
        let refusal = client.revoke_session(revoke("laptop")).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(violations(&refusal)[0].0, "session_id");

        let all = |keep_current| acting(&laptop, RevokeAllSessionsRequest { keep_current });
        assert_eq!(client.revoke_all_sessions(all(true)).await.unwrap().into_inner().revoked_count, 1);
        assert_refresh_refused(refresh(&server, &tablet.refresh_token).await);
        assert_eq!(session_ids(&server, &laptop).await, std::slice::from_ref(&laptop.session_id));
        assert_eq!(client.revoke_all_sessions(all(false)).await.unwrap().into_inner().revoked_count, 1);
        let refusal = client.revoke_all_sessions(all(false)).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        refresh(&server, &bobs.refresh_token).await.unwrap();
    }

    async fn introspection_reports_the_current_state_of_a_token(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;

        let answer = introspect(&server, &tokens.access_token).await;
        assert!(answer.active);
        assert_eq!((answer.user, answer.session_id.as_str(), answer.client_id.as_str()), (Some(ada.clone()), tokens.session_id.as_str(), "anybody"));
        assert_eq!(answer.expires_at, tokens.access_token_expires_at);

        for other in ["", "x", &tokens.refresh_token, &ada.auth_token, &tokens.session_id, &tokens.access_token[1..]] {
            assert_eq!(introspect(&server, other).await, IntrospectTokenResponse::default(), "{other}");
        }
        database.execute("UPDATE core_user SET is_verified = false");
        assert!(!introspect(&server, &tokens.access_token).await.active);
        assert_refresh_refused(refresh(&server, &tokens.refresh_token).await);
        database.execute("UPDATE core_user SET is_verified = true");
        assert!(introspect(&server, &tokens.access_token).await.active);
        database.execute("DELETE FROM core_user");
        assert!(!introspect(&server, &tokens.access_token).await.active);
    }

    async fn a_session_expires_by_idle_time_or_age_under_the_current_settings(engine: Engine) {
        const DAY: u32 = 86_400;
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let idle = log_in(&server, "ada").await;
        age(&database, "core_session", "refreshed_at", 7 * DAY - 60);
        let fresh = refresh(&server, &idle.refresh_token).await.unwrap();
        age(&database, "core_session", "refreshed_at", 7 * DAY + 1);
        assert!(!introspect(&server, &fresh.access_token).await.active);
        assert_refresh_refused(refresh(&server, &fresh.refresh_token).await);

        let old = log_in(&server, "ada").await;
        age(&database, "core_session", "created_at", 30 * DAY - 60);
        let last = refresh(&server, &old.refresh_token).await.unwrap();
        let left = last.refresh_token_expires_at.unwrap().seconds - last.access_token_expires_at.unwrap().seconds;
        assert!(left < 0, "a refresh token expires with its session: {left}");
        age(&database, "core_session", "created_at", 61);
        assert_refresh_refused(refresh(&server, &last.refresh_token).await);

        let before = log_in(&server, "ada").await;
        age(&database, "core_session", "created_at", DAY);
        let shorter = server.second_instance_with(&[("KAIROS_IDENTITY_SESSION_LIFETIME", "12h"), ("KAIROS_IDENTITY_SESSION_IDLE", "1h")]);
        let server = shorter.await;
        assert_refresh_refused(refresh(&server, &before.refresh_token).await);
    }

    async fn sessions_per_user_are_capped_by_the_setting(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_SESSION_PER_USER_MAX", "2").start().await;
        server.member("ada").await;
        let (first, second) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        let first = refresh(&server, &first.refresh_token).await.unwrap();

        let third = log_in(&server, "ada").await;

        assert_eq!(session_ids(&server, &third).await, [third.session_id.clone(), first.session_id.clone()]);
        assert_refresh_refused(refresh(&server, &second.refresh_token).await);
    }

    async fn an_instance_with_another_issuer_or_audience_says_why_it_refuses_a_token(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        for variable in ["KAIROS_IDENTITY_SESSION_ISSUER", "KAIROS_IDENTITY_SESSION_AUDIENCE"] {
            let other = server.second_instance_with(&[(variable, "https://other.example")]).await;
            assert!(!introspect(&other, &tokens.access_token).await.active);
            let log = other.logged("Give all instances the same").await;
            assert!(log.contains("https://other.example") && !log.contains(&tokens.access_token), "{log}");
        }
        assert!(introspect(&server, &tokens.access_token).await.active);
        assert!(!server.log().contains("Give all instances the same"));
    }

    async fn a_call_for_a_user_requires_exactly_one_valid_access_token(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada: User = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let invalid = [
            String::new(),
            format!("Bearer {}", ada.auth_token),
            format!("Bearer {}", tokens.refresh_token),
            format!("Bearer {}", tokens.session_id),
            format!("Basic {}", tokens.access_token),
            tokens.access_token.clone(),
            format!("Bearer {}x", tokens.access_token),
            format!("Bearer {0} {0}", tokens.access_token),
        ];
        for credentials in invalid {
            let mut request = Request::new(ListSessionsRequest {});
            request.metadata_mut().insert("authorization", credentials.parse().unwrap());
            let refusal = session_client(&server).await.list_sessions(request).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        }
        let mut twice = acting(&tokens, ListSessionsRequest {});
        let again = twice.metadata().get("authorization").unwrap().clone();
        twice.metadata_mut().append("authorization", again);
        let refusal = session_client(&server).await.list_sessions(twice).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        for name in ["auth_token", "x-user-id", "kairos-user"] {
            let mut request = Request::new(ListSessionsRequest {});
            request.metadata_mut().insert(name, ada.auth_token.parse().unwrap());
            let refusal = session_client(&server).await.list_sessions(request).await.unwrap_err();
            assert_refused(&refusal, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        }
    }
}
