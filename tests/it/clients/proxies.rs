//! The story of a user through nginx, HAProxy and Envoy. Connections have a maximum age of 1 s here
//! (`server.connection-age`), so the service closes and replaces them during the story. No log of a proxy
//! contains a secret, even if the service does not answer.

use std::{thread, time::Duration};

use super::{
    command_line::Tool,
    proxy::{Program, Proxy},
    scene::{Scene, assert_complete},
};
use crate::support::{
    engine::Engine,
    program::{stderr, stdout},
    server::TestServer,
    wait::until_blocking,
};

/// Time limit for the last request in the log.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// The method that is called once the service has stopped, and at no other time.
const LAST: &str = "SessionService/GetJwks";

/// The token of a link that the Django backend has mailed.
const OLD_TOKEN: &str = "3fbf2702-352c-4d48-a5e5-56a4d16d9f56";

/// Plays the story through a proxy with clients of each protocol, and opens links. Then it stops the service,
/// calls it and opens the links once more. Asserts that the logs of the proxy contain these requests and none
/// of the secrets.
async fn assert_story_through(program: Program) {
    let builder = TestServer::builder(Engine::Sqlite)
        .with_env("KAIROS_IDENTITY_SERVER_CONNECTION_AGE", "1s")
        .with_env("KAIROS_IDENTITY_VERIFICATION_ACCEPT_AUTH_TOKEN_UNTIL", "2999-01-01T00:00:00Z");
    let mut scene = Scene::start_with_tls(builder).await;
    let proxy = Proxy::start(program, &scene);
    let url = proxy.url();

    let of_node = ["grpc-js", "connect-node-json-2", "connect-node-grpc-web"];
    let mut stories = scene.node(&url, &of_node);
    stories.push(Tool::Curl.story(&scene, &url).await);
    assert_complete(&stories, &[&of_node[..], &["curl"]].concat());

    let curl = stories.last().unwrap();
    let [.., token, access_token, _, _, _] = &curl.secrets[..] else { panic!("{curl:?}") };
    let (link, old_link) = (format!("/verify?token={token}"), format!("/api/verify/{OLD_TOKEN}/"));
    // The page, not the proxy, refuses the link of a deleted account.
    assert_eq!((proxy.open(&scene, &link), proxy.open(&scene, &old_link)), ("200".into(), "200".into()));
    assert_eq!(proxy.open(&scene, "/.well-known/jwks.json"), "404");
    scene.server.kill_9();
    let no_fields = serde_json::json!({});
    thread::scope(|threads| {
        let refused = threads.spawn(|| Tool::Curl.call(&scene, &url, LAST, &no_fields, Some(access_token)));
        let opened = [&link, &old_link].map(|link| threads.spawn(|| proxy.open(&scene, link)));
        let refused = refused.join().unwrap();
        assert!(!refused.status.success(), "{}{}", stdout(&refused), stderr(&refused));
        assert!(opened.into_iter().all(|status| status.join().unwrap().starts_with("50")));
    });

    let logs = until_blocking("the last requests are in the log", LOG_LIMIT, || {
        let logs = proxy.logs();
        // Both links were opened twice.
        (logs.matches("/verify").count() >= 4 && logs.contains(LAST)).then_some(logs)
    });
    assert!(logs.contains("/kairos.identity.v1.IdentityService/Login"), "{logs}");
    for secret in stories.iter().flat_map(|story| &story.secrets).map(String::as_str).chain([OLD_TOKEN]) {
        assert!(!logs.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_passes_the_story_of_a_user_and_logs_no_secret() {
    assert_story_through(Program::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_passes_the_story_of_a_user_and_logs_no_secret() {
    assert_story_through(Program::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_passes_the_story_of_a_user_and_logs_no_secret() {
    assert_story_through(Program::Envoy).await;
}
