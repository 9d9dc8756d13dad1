//! A user's story with the client of Connect for Node.js, in each of its modes.

use kairos_identity::proto;

use crate::support::{
    engine::Engine,
    program::{stderr, stdout},
    server::TestServer,
    tools::{node, node_module, repository},
};

const MODES: [&str; 5] = ["connect-json-1.1", "connect-json-2", "connect-proto-1.1", "grpc-web-1.1", "grpc"];

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_connect_plays_the_story_of_a_user_in_each_mode() {
    let server = TestServer::start(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let (script, descriptors) = (folder.path().join("connect_node.mjs"), folder.path().join("api.binpb"));
    std::fs::copy(repository().join("tests/support/connect_node.mjs"), &script).unwrap();
    std::fs::write(&descriptors, proto::FILE_DESCRIPTOR_SET).unwrap();
    // Node.js looks for packages beside the script.
    node_module("@connectrpc/connect-node");
    std::os::unix::fs::symlink(node_module(""), folder.path().join("node_modules")).unwrap();
    for mode in MODES {
        let url = format!("http://{}", server.address());
        let output = node().args([&script, &descriptors]).args([url.as_str(), mode]).output().unwrap();
        assert_eq!(stdout(&output), "OK\n", "{mode}: {}", stderr(&output));
    }
}
