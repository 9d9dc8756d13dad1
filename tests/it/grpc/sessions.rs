//! Sessions: what a login proves, how it goes on, and how it ends.

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

/// Longer than an instance takes to look at the keys.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);

#[track_caller]
fn assert_ended(refreshed: Result<SessionTokens, Status>) {
    assert_refused(&refreshed.unwrap_err(), Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
}

async fn session_ids(server: &TestServer, tokens: &SessionTokens) -> Vec<String> {
    let listed =
        session_client(server).await.list_sessions(acting(tokens, ListSessionsRequest {})).await.unwrap();
    listed.into_inner().sessions.into_iter().map(|session| session.session_id).collect()
}

/// Header and claims of a token whose signature one of the public keys confirms.
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

/// What `kairos-identity keys …` prints.
fn keys(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = server.command(&[&["keys"], arguments].concat());
    let output = command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", server.secret_key_file()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

on_both_engines! {
    async fn a_login_is_proven_by_a_token_that_the_public_keys_verify(engine: Engine) {
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

    async fn a_refresh_replaces_the_token_and_goes_on_with_the_session(engine: Engine) {
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

    async fn an_answer_that_was_lost_is_given_again_for_a_moment(engine: Engine) {
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
        // The moment counts from the first answer.
        age(&database, "core_session", "refreshed_at", 7);
        assert_ended(refresh(&server, &first.refresh_token).await);
        assert_ended(refresh(&server, &lost.refresh_token).await);
    }

    async fn a_token_that_was_replaced_ends_the_session_once_its_successor_was_used(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let other = log_in(&server, "ada").await;
        let first = log_in(&server, "ada").await;
        let second = refresh(&server, &first.refresh_token).await.unwrap();
        let third = refresh(&server, &second.refresh_token).await.unwrap();

        assert_ended(refresh(&server, &first.refresh_token).await);

        for token in [&third, &second, &first] {
            assert_ended(refresh(&server, &token.refresh_token).await);
        }
        assert!(!introspect(&server, &third.access_token).await.active);
        let list = session_client(&server).await.list_sessions(acting(&third, ListSessionsRequest {})).await.unwrap_err();
        assert_refused(&list, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        // Nobody else's, nor another of the same person.
        refresh(&server, &other.refresh_token).await.unwrap();
        server.logged("authn_token_reuse").await;
    }

    async fn of_many_refreshes_at_once_at_most_one_successor_lives(engine: Engine) {
        let server = TestServer::start(engine).await;
        let twin = server.twin().await;
        server.member("ada").await;
        for round in 0..race_rounds(2) {
            let first = log_in(&server, "ada").await;
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let mut client = session_client(if number % 2 == 0 { &server } else { &twin }).await;
                let request = RefreshSessionRequest { refresh_token: first.refresh_token.clone() };
                calls.spawn(async move { client.refresh_session(request).await });
            }
            let answers: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
            let successors: HashSet<_> =
                answers.into_iter().map(|answer| answer.into_inner().tokens.unwrap().refresh_token).collect();
            assert_eq!(successors.len(), 1, "round {round}");
            for successor in &successors {
                refresh(&twin, successor).await.unwrap();
            }
        }
    }

    async fn a_logout_ends_the_session_and_may_be_repeated(engine: Engine) {
        let server = TestServer::start(engine).await;
        server.member("ada").await;
        let first = log_in(&server, "ada").await;
        let second = refresh(&server, &first.refresh_token).await.unwrap();

        // Also with a token that was replaced: whoever has it is not to be left logged in.
        for _ in 0..2 {
            let request = LogoutRequest { refresh_token: first.refresh_token.clone() };
            session_client(&server).await.logout(request).await.unwrap();
        }

        assert_ended(refresh(&server, &second.refresh_token).await);
        assert!(!introspect(&server, &second.access_token).await.active);
    }

    async fn a_person_lists_their_sessions_and_ends_them(engine: Engine) {
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
        assert_ended(refresh(&server, &phone.refresh_token).await);
        for nobodys in [&phone.session_id, &bobs.session_id] {
            let refusal = client.revoke_session(revoke(nobodys)).await.unwrap_err();
            assert_refused(&refusal, Code::NotFound, "SESSION_NOT_FOUND");
        }
        let refusal = client.revoke_session(revoke("laptop")).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(violations(&refusal)[0].0, "session_id");

        let all = |keep_current| acting(&laptop, RevokeAllSessionsRequest { keep_current });
        assert_eq!(client.revoke_all_sessions(all(true)).await.unwrap().into_inner().revoked_count, 1);
        assert_ended(refresh(&server, &tablet.refresh_token).await);
        assert_eq!(session_ids(&server, &laptop).await, std::slice::from_ref(&laptop.session_id));
        assert_eq!(client.revoke_all_sessions(all(false)).await.unwrap().into_inner().revoked_count, 1);
        let refusal = client.revoke_all_sessions(all(false)).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "INVALID_ACCESS_TOKEN");
        refresh(&server, &bobs.refresh_token).await.unwrap();
    }

    async fn introspection_tells_what_a_token_is_worth_now(engine: Engine) {
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;

        let told = introspect(&server, &tokens.access_token).await;
        assert!(told.active);
        assert_eq!((told.user, told.session_id.as_str(), told.client_id.as_str()), (Some(ada.clone()), tokens.session_id.as_str(), "anybody"));
        assert_eq!(told.expires_at, tokens.access_token_expires_at);

        for other in ["", "x", &tokens.refresh_token, &ada.auth_token, &tokens.session_id, &tokens.access_token[1..]] {
            assert_eq!(introspect(&server, other).await, IntrospectTokenResponse::default(), "{other}");
        }
        database.execute("UPDATE core_user SET is_verified = false");
        assert!(!introspect(&server, &tokens.access_token).await.active);
        assert_ended(refresh(&server, &tokens.refresh_token).await);
        database.execute("UPDATE core_user SET is_verified = true");
        assert!(introspect(&server, &tokens.access_token).await.active);
        database.execute("DELETE FROM core_user");
        assert!(!introspect(&server, &tokens.access_token).await.active);
    }

    async fn a_session_ends_by_itself_when_it_is_idle_or_old_by_the_settings_of_now(engine: Engine) {
        const DAY: u32 = 86_400;
        let database = TestDatabase::new(engine);
        let server = TestServer::on_url(database.url().to_owned()).start().await;
        server.member("ada").await;
        let idle = log_in(&server, "ada").await;
        age(&database, "core_session", "refreshed_at", 7 * DAY - 60);
        let fresh = refresh(&server, &idle.refresh_token).await.unwrap();
        age(&database, "core_session", "refreshed_at", 7 * DAY + 1);
        assert!(!introspect(&server, &fresh.access_token).await.active);
        assert_ended(refresh(&server, &fresh.refresh_token).await);

        let old = log_in(&server, "ada").await;
        age(&database, "core_session", "created_at", 30 * DAY - 60);
        let last = refresh(&server, &old.refresh_token).await.unwrap();
        let left = last.refresh_token_expires_at.unwrap().seconds - last.access_token_expires_at.unwrap().seconds;
        assert!(left < 0, "a refresh token never outlives its session: {left}");
        age(&database, "core_session", "created_at", 61);
        assert_ended(refresh(&server, &last.refresh_token).await);

        let before = log_in(&server, "ada").await;
        age(&database, "core_session", "created_at", DAY);
        let shorter = server.twin_with(&[("KAIROS_IDENTITY_SESSION_LIFETIME", "12h"), ("KAIROS_IDENTITY_SESSION_IDLE", "1h")]);
        let server = shorter.await;
        assert_ended(refresh(&server, &before.refresh_token).await);
    }

    async fn one_user_has_no_more_sessions_than_the_setting_says(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_SESSION_PER_USER_MAX", "2").start().await;
        server.member("ada").await;
        let (first, second) = (log_in(&server, "ada").await, log_in(&server, "ada").await);
        let first = refresh(&server, &first.refresh_token).await.unwrap();

        let third = log_in(&server, "ada").await;

        assert_eq!(session_ids(&server, &third).await, [third.session_id.clone(), first.session_id.clone()]);
        assert_ended(refresh(&server, &second.refresh_token).await);
    }

    async fn who_shows_no_access_token_acts_for_nobody(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada: User = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let shown = [
            String::new(),
            format!("Bearer {}", ada.auth_token),
            format!("Bearer {}", tokens.refresh_token),
            format!("Bearer {}", tokens.session_id),
            format!("Basic {}", tokens.access_token),
            tokens.access_token.clone(),
            format!("Bearer {}x", tokens.access_token),
            format!("Bearer {0} {0}", tokens.access_token),
        ];
        for credentials in shown {
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

    async fn what_is_no_refresh_token_refreshes_nothing(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.member("ada").await;
        let tokens = log_in(&server, "ada").await;
        let good = &tokens.refresh_token;
        let bent = format!("{}{}", &good[..60], if good.ends_with("AAAAAAAA") { "BBBBBBBB" } else { "AAAAAAAA" });
        for other in [&tokens.access_token, &ada.auth_token, &tokens.session_id, &good[1..], &good[..67], PASSWORD, &address("ada")] {
            assert_ended(refresh(&server, other).await);
            let logout = session_client(&server).await.logout(LogoutRequest { refresh_token: other.to_owned() }).await;
            assert_refused(&logout.unwrap_err(), Code::Unauthenticated, "INVALID_REFRESH_TOKEN");
        }
        let empty = refresh(&server, "").await.unwrap_err();
        assert_refused(&empty, Code::InvalidArgument, "INVALID_FIELDS");
        let next = refresh(&server, good).await.unwrap();
        // Of the family, and never given out: whoever made it knows half of a token.
        assert_ended(refresh(&server, &bent).await);
        assert_ended(refresh(&server, &next.refresh_token).await);
    }

    async fn all_instances_sign_with_the_same_keys_and_follow_their_change(engine: Engine) {
        let server = TestServer::builder(engine).with_env("KAIROS_IDENTITY_SESSION_KEY_LEAD", "0s").start().await;
        let twin = server.twin().await;
        server.member("ada").await;
        server.member("bob").await;
        let tokens = log_in(&server, "ada").await;
        assert!(introspect(&twin, &tokens.access_token).await.active);
        let listed = || {
            let output = keys(&server, &["list"]);
            output.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(listed().len(), 1);
        let before = verified(&server, &tokens.access_token).await.0["kid"].as_str().unwrap().to_owned();
        assert_eq!(listed(), std::slice::from_ref(&before));

        let made = keys(&server, &["rotate"]);
        let made = made.split('\t').next().unwrap();
        let kid = async |server: &TestServer| {
            let token = log_in(server, "bob").await.access_token;
            verified(server, &token).await.0["kid"].as_str().unwrap().to_owned()
        };
        for server in [&server, &twin] {
            let is_known = async || (kid(server).await == made).then_some(());
            until("the new key signs", FOLLOW_LIMIT, is_known).await;
            assert!(introspect(server, &tokens.access_token).await.active, "what the old key signed is good");
        }
        assert_eq!(listed(), [made.to_owned(), before]);

        let made = keys(&server, &["rotate", "--revoke-earlier"]);
        assert_eq!(listed(), [made.split('\t').next().unwrap()]);
        let is_refused = async || (!introspect(&twin, &tokens.access_token).await.active).then_some(());
        until("the old key is forgotten", FOLLOW_LIMIT, is_refused).await;
        // The session goes on: only what was signed is of no use.
        let fresh = refresh(&twin, &tokens.refresh_token).await.unwrap();
        assert!(introspect(&twin, &fresh.access_token).await.active);
    }

    async fn an_instance_whose_key_is_lost_does_not_start_and_says_what_to_do(engine: Engine) {
        let server = TestServer::start(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.key");
        std::fs::write(&other, STANDARD.encode((0..32).collect::<Vec<u8>>())).unwrap();
        let with_other = |arguments: &[&str]| {
            let mut command = server.command(arguments);
            command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", &other).output().unwrap()
        };

        let refused = with_other(&["serve", "--listen", "127.0.0.1:0", "--insecure-low-cost"]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("sealed under another key") && said.contains("keys rotate --revoke-earlier"), "{said}");

        assert!(with_other(&["keys", "rotate", "--revoke-earlier"]).status.success());
        assert_eq!(keys(&server, &["list"]).lines().count(), 1);
    }
}
