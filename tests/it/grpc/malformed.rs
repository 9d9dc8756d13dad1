//! Malformed messages: no method panics on one, and `IdentityService` refuses each of them.

use tonic::{Code, Request, client::Grpc};

use crate::support::{api::methods, engine::Engine, raw::Raw, server::TestServer};

/// Returns messages that break or stretch one rule of the protobuf encoding each, and messages of
/// pseudo-random bytes, the same in each run.
fn messages() -> Vec<Vec<u8>> {
    let mut state = 0x5eed_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let random = (1..=32).map(|length| (0..length).flat_map(|_| next()).collect());
    let broken = [
        vec![0xff; 11],                                 // a tag that never ends
        vec![0x0a],                                     // a field without a value
        vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],       // a length beyond the end
        vec![0x0a, 0x01, 0xff],                         // text that is not UTF-8
        vec![0x08, 0x01],                               // a varint where a string is expected
        vec![0x07],                                     // an undefined wire type
        vec![0x00],                                     // field number 0
        vec![0x0b; 1_000],                              // nested groups, none closed
        [vec![0x0b; 50], vec![0x0c; 50]].concat(),      // nested groups, all closed
        [0x0a, 0x01, b'a'].repeat(1_000),               // one field, a thousand times
        [&[0xfa, 0x7f, 0x05][..], &[b'x'; 5]].concat(), // an unknown field
    ];
    broken.into_iter().chain(random).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_handles_malformed_messages_without_a_panic() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut grpc = Grpc::new(server.channel().await);
    for path in methods() {
        for message in messages() {
            grpc.ready().await.unwrap();
            let answer = grpc.unary(Request::new(message.clone()), path.parse().unwrap(), Raw).await;
            let code = answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok);
            // Other services have methods that need an access token, and methods that require no field.
            let is_identity = path.contains("IdentityService");
            assert!(
                code == Code::InvalidArgument
                    || !is_identity && matches!(code, Code::Unauthenticated | Code::Ok),
                "{path} {message:02x?}: {code:?}"
            );
        }
    }
    // Log lines are written in order: once that of the last method is there, all earlier ones are.
    server.logged(methods().last().unwrap()).await;
    assert!(!server.log().contains("panicked"));
}
