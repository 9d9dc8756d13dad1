//! `ResolveToken`, `ResolveTokens` and `FindUser`.

use kairos_identity::proto::{FindUserRequest, ResolveTokenRequest, ResolveTokensRequest};
use tokio::task::JoinSet;
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    errors::{assert_refused, violations},
    people::{by_email, by_username},
    server::TestServer,
};

fn resolve(auth_token: &str) -> ResolveTokenRequest {
    ResolveTokenRequest { auth_token: auth_token.to_owned() }
}

on_both_engines! {
    async fn an_auth_token_in_any_form_resolves_to_its_user(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let mut client = server.client().await;
        let token = &ada.auth_token;
        for spelling in [token.clone(), token.to_uppercase(), token.replace('-', ""), token.replace('-', "").to_uppercase()] {
            let answer = client.resolve_token(resolve(&spelling)).await.unwrap().into_inner();
            assert_eq!(answer.user.as_ref(), Some(&ada), "{spelling}");
        }
    }

    async fn an_unknown_auth_token_is_not_found(engine: Engine) {
        let server = TestServer::start(engine).await;
        let refusal = server.client().await.resolve_token(resolve(&Uuid::from_u128(1).to_string())).await.unwrap_err();
        assert_refused(&refusal, Code::NotFound, "USER_NOT_FOUND");
    }

    async fn an_invalid_auth_token_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        for wrong in ["", "ada", "0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f1", "{0e1f3a52-7f5b-4a4e-9d5b-0c5a5b0b7f11}", &"a".repeat(1_000)] {
            let refusal = client.resolve_token(resolve(wrong)).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, "auth_token");
        }
    }

    async fn resolve_tokens_returns_each_user_once_in_request_order(engine: Engine) {
        let server = TestServer::start(engine).await;
        let (ada, bob) = (server.unverified_user("ada").await, server.unverified_user("bob").await);
        let strangers: Vec<String> = (1..=996).map(|number| Uuid::from_u128(number).to_string()).collect();
        let mut auth_tokens = strangers.clone();
        auth_tokens.insert(500, ada.auth_token.to_uppercase());
        auth_tokens.insert(2, bob.auth_token.clone());
        auth_tokens.push(ada.auth_token.replace('-', ""));
        auth_tokens.push(strangers[0].to_uppercase());
        assert_eq!(auth_tokens.len(), 1_000);

        let answer = server.client().await.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.unwrap().into_inner();

        assert_eq!(answer.users, [bob, ada]);
        assert_eq!(answer.unknown_auth_tokens, strangers);
    }

    async fn an_empty_too_long_or_invalid_batch_is_refused(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut client = server.client().await;
        let token = Uuid::from_u128(1).to_string();
        for (auth_tokens, field) in [
            (vec![], "auth_tokens"),
            (vec![token.clone(); 1_001], "auth_tokens"),
            (vec![token, "x".into()], "auth_tokens[1]"),
        ] {
            let refusal = client.resolve_tokens(ResolveTokensRequest { auth_tokens }).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, field);
        }
        let all_wrong = ResolveTokensRequest { auth_tokens: vec!["x".into(); 1_000] };
        assert_refused(&client.resolve_tokens(all_wrong).await.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS");
    }

    async fn a_user_is_found_by_email_or_by_username(engine: Engine) {
        let server = TestServer::start(engine).await;
        let ada = server.unverified_user("ada").await;
        let mut client = server.client().await;

        let found = client.find_user(by_email("ADA@EXAMPLE.com")).await.unwrap().into_inner();
        assert_eq!(found.user.as_ref(), Some(&ada));
        let found = client.find_user(by_username(" ADA ")).await.unwrap().into_inner();
        assert_eq!(found.user.as_ref(), Some(&ada));
        for unknown in [by_email("bob@example.com"), by_username("bob")] {
            assert_refused(&client.find_user(unknown).await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
        }
        for (faulty, field) in [
            (by_email("bob"), "email"),
            (by_username("b@b"), "username"),
            (FindUserRequest { key: None }, "key"),
        ] {
            let refusal = client.find_user(faulty).await.unwrap_err();
            assert_refused(&refusal, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(violations(&refusal)[0].0, field);
        }
    }

    async fn each_of_2000_concurrent_calls_gets_its_own_user(engine: Engine) {
        let server = TestServer::start(engine).await;
        let mut users = Vec::new();
        for number in 0..8 {
            users.push(server.unverified_user(&format!("user{number}")).await);
        }
        let channels = [server.client().await, server.client().await, server.client().await, server.client().await];
        let mut calls = JoinSet::new();
        // Several times as many as fit into one batch (256 tokens).
        for number in 0..2_000 {
            let (mut client, user) = (channels[number % 4].clone(), users[number % 8].clone());
            calls.spawn(async move {
                let answer = client.resolve_token(resolve(&user.auth_token)).await.unwrap().into_inner();
                assert_eq!(answer.user, Some(user));
            });
        }
        calls.join_all().await;
    }
}
