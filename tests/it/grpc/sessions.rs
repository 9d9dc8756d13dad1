//! Sessions: access tokens, refresh, revocation, expiry and signing keys.

use std::{collections::HashSet, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use kairos_identity::proto::{
    GetJwksRequest, IntrospectTokenResponse, ListSessionsRequest, LogoutRequest, RefreshSessionRequest,
    RevokeAllSessionsRequest, RevokeSessionRequest, SessionTokens, User,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::support::{
    engine::TestDatabase,
    errors::{assert_refused, violations},
    people::{PASSWORD, address, from, login},
    server::TestServer,
    sessions::{acting, age, introspect, log_in, refresh, session_client},
    tools::race_rounds,
    wait::until,
};

/// Longer than the interval at which an instance reloads the signing keys.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);

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

/// Runs `kairos-identity keys` with these arguments and returns its output.
fn keys(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = server.command(&[&["keys"], arguments].concat());
    let output = command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", server.secret_key_file()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
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
        assert!((604_799..=604_801).contains(&refresh_life), "{refresh_life}");
        assert_ne!(log_in(&server, "ada").await.session_id, tokens.session_id);
    }

    async fn a_refresh_rotates_the_token_and_continues_the_session(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let first = log_in(&server, "ada").await;

        let request = RefreshSessionRequest { refresh_token: first.refresh_token.clone() };
        let answer = session_client(&server).await.refresh_session(request).await.unwrap().into_inner();

        let second = answer.tokens.unwrap();
        assert_eq!(answer.user, Some(ada));
        assert_eq!(second.session_id, first.session_id);
        assert_ne!(second.refresh_token, first.refresh_token);
        assert_eq!(verified(&server, &second.access_token).await.1["sid"], first.session_id);
        let third = refresh(&server, &second.refresh_token).await.unwrap();
        assert_ne!(third.refresh_token, second.refresh_token);
    }

    async fn a_refresh_repeated_within_10_s_returns_the_same_token(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let first = log_in(&server, "ada").await;
        let lost = refresh(&server, &first.refresh_token).await.unwrap();

        for seconds in [0, 4] {
            age(&database, "core_session", "refreshed_at", seconds);
            let again = refresh(&server, &first.refresh_token).await.unwrap();
            assert_eq!(again.refresh_token, lost.refresh_token);
        }
        // The 10 s count from the first refresh.
        age(&database, "core_session", "refreshed_at", 7);
        assert_refresh_refused(refresh(&server, &first.refresh_token).await);
        assert_refresh_refused(refresh(&server, &lost.refresh_token).await);
    }

    async fn reuse_of_a_rotated_refresh_token_revokes_the_session(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let other = log_in(&server, "ada").await;
        let first = log_in(&server, "ada").await;
        let second = refresh(&server, &first.refresh_token).await.unwrap();
        let third = refresh(&server, &second.refresh_token).await.unwrap();

        assert_refresh_refused(refresh(&server, &first.refresh_token).await);

        for token in [&third, &second, &first] {
            assert_refresh_refused(refresh(&server, &token.refresh_token).await);
        }
        assert!(!introspect(&server, &third.access_token).await.active);
        let list = session_client(&server).await.list_sessions(acting(&third, ListSessionsRequest {})).await.unwrap_err();
        assert_refused(&list, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        // Another session of the same user is not revoked.
        refresh(&server, &other.refresh_token).await.unwrap();
        server.logged("authn_token_reuse").await;
    }

    async fn concurrent_refreshes_produce_exactly_one_successor(engine: Engine) {
        let server = TestServer::start(engine).await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        for round in 0..race_rounds(2) {
            let first = log_in(&server, "ada").await;
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = session_client(if number % 2 == 0 { &server } else { &second_instance }).await;
                let request = RefreshSessionRequest { refresh_token: first.refresh_token.clone() };
                calls.spawn(async move { client.refresh_session(request).await });
            }
            let answers: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
            let successors: HashSet<_> =
                answers.into_iter().map(|answer| answer.into_inner().tokens.unwrap().refresh_token).collect();
            assert_eq!(successors.len(), 1, "round {round}");
            for successor in &successors {
                refresh(&second_instance, successor).await.unwrap();
            }
        }
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

    async fn an_invalid_refresh_token_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let good = &tokens.refresh_token;
        let bent = format!("{}{}", &good[..60], if good.ends_with("AAAAAAAA") { "BBBBBBBB" } else { "AAAAAAAA" });
        for other in [&tokens.access_token, &ada.auth_token, &tokens.session_id, &good[1..], &good[..67], PASSWORD, &address("ada")] {
            assert_refresh_refused(refresh(&server, other).await);
            let logout = session_client(&server).await.logout(LogoutRequest { refresh_token: other.to_owned() }).await;
            assert_refused(&logout.unwrap_err(), Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
        }
        let empty = refresh(&server, "").await.unwrap_err();
        assert_refused(&empty, Code::InvalidArgument, "INVALID_FIELDS");
        let next = refresh(&server, good).await.unwrap();
        // A token with the family part of this session that was never issued: its maker has seen part of a
        // real token, so the session is revoked.
        assert_refresh_refused(refresh(&server, &bent).await);
        assert_refresh_refused(refresh(&server, &next.refresh_token).await);
    }

    async fn all_instances_share_signing_keys_and_follow_their_rotation(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_SESSION_KEY_LEAD", "0s").start().await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        assert!(introspect(&second_instance, &tokens.access_token).await.active);
        let listed = || {
            let output = keys(&server, &["list"]);
            output.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(listed().len(), 1);
        let before = verified(&server, &tokens.access_token).await.0["kid"].as_str().unwrap().to_owned();
        assert_eq!(listed(), std::slice::from_ref(&before));

        let created = keys(&server, &["rotate"]);
        let created = created.split('\t').next().unwrap();
        let kid = async |server: &TestServer| {
            let token = log_in(server, "bob").await.access_token;
            verified(server, &token).await.0["kid"].as_str().unwrap().to_owned()
        };
        for server in [&server, &second_instance] {
            let is_known = async || (kid(server).await == created).then_some(());
            until("new tokens are signed with the new key", FOLLOW_LIMIT, is_known).await;
            assert!(introspect(server, &tokens.access_token).await.active, "tokens signed with the old key stay valid");
        }
        assert_eq!(listed(), [created.to_owned(), before]);

        let created = keys(&server, &["rotate", "--revoke-earlier"]);
        assert_eq!(listed(), [created.split('\t').next().unwrap()]);
        let is_refused = async || (!introspect(&second_instance, &tokens.access_token).await.active).then_some(());
        until("tokens signed with the old key are refused", FOLLOW_LIMIT, is_refused).await;
        // The session stays valid: only its access tokens are refused.
        let fresh = refresh(&second_instance, &tokens.refresh_token).await.unwrap();
        assert!(introspect(&second_instance, &fresh.access_token).await.active);
    }

    async fn an_instance_with_another_secret_key_refuses_to_start_and_names_the_fix(engine: Engine) {
        let server = TestServer::start(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.key");
        std::fs::write(&other, STANDARD.encode((0..32).collect::<Vec<u8>>())).unwrap();
        let with_other = |arguments: &[&str]| {
            let mut command = server.command(arguments);
            command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", &other).output().unwrap()
        };

        let refused = with_other(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("encrypted under another key") && stderr.contains("keys rotate --revoke-earlier"), "{stderr}");

        assert!(with_other(&["keys", "rotate", "--revoke-earlier"]).status.success());
        assert_eq!(keys(&server, &["list"]).lines().count(), 1);
    }
}
