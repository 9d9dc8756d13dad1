//! Refresh tokens: their rotation, a repeated refresh, and the reuse of a replaced token.

use std::collections::HashSet;

use kairos_identity::proto::{ListSessionsRequest, LogoutRequest, RefreshSessionRequest};
use tonic::Code;

use super::{assert_refresh_refused, verified};
use crate::support::{
    engine::TestDatabase,
    errors::assert_refused,
    people::{PASSWORD, address},
    server::TestServer,
    sessions::{acting, age, introspect, log_in, refresh, session_client},
    tools::{RACING_CALLS, race_rounds},
};

on_both_engines! {
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
            for number in 0..RACING_CALLS {
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
}
