//! Real clients of several languages. Each plays the same story of a user, as a BFF with a service token does
//! ([`STORY`](scene::STORY)). One test only calls a method with each protocol of `buf curl`.

mod command_line;
mod generators;
mod proxies;
mod proxy;
mod scene;

use self::{
    command_line::Tool,
    scene::{Scene, assert_complete},
};
use crate::support::{engine::Engine, program::stderr, server::TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_node_play_the_story_of_a_user() {
    let clients = [
        "grpc-js",
        "connect-node-json-1.1",
        "connect-node-json-2",
        "connect-node-proto-1.1",
        "connect-node-grpc",
        "connect-node-grpc-web",
        "connect-web",
        "connect-web-grpc-web",
    ];
    let scene = Scene::start(TestServer::builder(Engine::Sqlite)).await;
    assert_complete(&scene.node(&scene.url(), &clients), &clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_python_play_the_story_of_a_user() {
    let clients = [
        "standard-library",
        "grpcio",
        "connectrpc",
        "connectrpc-json",
        "connectrpc-grpc",
        "connectrpc-grpc-web",
    ];
    let scene = Scene::start(TestServer::builder(Engine::Sqlite)).await;
    assert_complete(&scene.python(&scene.url(), &clients), &clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_go_plays_the_story_of_a_user() {
    let scene = Scene::start(TestServer::builder(Engine::Sqlite)).await;
    assert_complete(&scene.go(&scene.url(), "grpc-go"), &["grpc-go"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tools_play_the_story_of_a_user() {
    let scene = Scene::start(TestServer::builder(Engine::Sqlite)).await;
    let mut stories = Vec::new();
    for tool in [Tool::Curl, Tool::Buf, Tool::Grpcurl] {
        stories.push(tool.story(&scene, &scene.url()).await);
    }
    assert_complete(&stories, &["curl", "buf", "grpcurl"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn buf_curl_speaks_each_protocol() {
    let scene = Scene::start(TestServer::builder(Engine::Sqlite)).await;
    for protocol in ["connect", "grpc", "grpcweb"] {
        let options = ["--protocol", protocol, "--http2-prior-knowledge"];
        let keys = scene.buf_curl(&scene.url(), &options, "SessionService/GetJwks", "{}", &[]);
        assert!(keys.stdout.starts_with(b"{") && keys.status.success(), "{protocol}: {}", stderr(&keys));
    }
}
