//! Signing keys: all instances share them, and a command rotates them.

use std::{process::Stdio, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use super::verified;
use crate::support::{
    server::TestServer,
    sessions::{introspect, log_in, refresh},
    wait::until,
};

/// Longer than the interval at which an instance reloads the signing keys.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);

/// Runs `kairos-identity keys` with these arguments and returns its output.
fn keys(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = server.command(&[&["keys"], arguments].concat());
    let output = command.env("KAIROS_IDENTITY_SECRET_KEY_FILE", server.secret_key_file()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

on_both_engines! {
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
        // When the command has returned, every instance refuses what the old key signed.
        for server in [&server, &second_instance] {
            assert!(!introspect(server, &tokens.access_token).await.active);
        }
        // The session stays valid: only its access tokens are refused.
        let fresh = refresh(&second_instance, &tokens.refresh_token).await.unwrap();
        assert!(introspect(&second_instance, &fresh.access_token).await.active);
    }

    async fn an_instance_reads_the_keys_again_for_a_token_of_an_unknown_key(engine: Engine) {
        let server = TestServer::start(engine).await;
        let second_instance = server.second_instance().await;
        server.member("ada").await;
        let kid = |access_token: &str| {
            let header = access_token.split('.').next().unwrap().to_owned();
            String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
        };
        // In each round either instance may notice the new key first. The case under test is that
        // `second_instance` is the later one: hence three rounds.
        for _ in 0..3 {
            let before = kid(&log_in(&server, "ada").await.access_token);
            let mut rotation = server.command(&["keys", "rotate", "--revoke-earlier"]);
            let mut rotation = rotation.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let with_new_key = async || {
                let tokens = log_in(&server, "ada").await;
                (kid(&tokens.access_token) != before).then_some(tokens)
            };
            let tokens = until("a token is signed with the new key", FOLLOW_LIMIT, with_new_key).await;

            assert!(introspect(&second_instance, &tokens.access_token).await.active);

            assert!(rotation.wait().unwrap().success());
        }
    }

    async fn an_instance_with_another_secret_key_refuses_to_start_and_names_the_fix(engine: Engine) {
        let server = TestServer::start(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.key");
        crate::support::private_file::write(&other, STANDARD.encode((0..32).collect::<Vec<u8>>()));
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
