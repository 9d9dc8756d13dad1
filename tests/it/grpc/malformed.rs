//! Messages that are no messages of the API: every method refuses them, and nothing panics.

use tonic::{Code, Request, client::Grpc};

use crate::support::{api::methods, engine::Engine, raw::Raw, server::TestServer};

/// Bytes that break the encoding's rules, one after the other, and such as nobody thought of: the same each time.
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
        vec![0x0a],                                     // a field without its value
        vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],       // longer than there are bytes
        vec![0x0a, 0x01, 0xff],                         // text that is not UTF-8
        vec![0x08, 0x01],                               // a number where there must be text
        vec![0x07],                                     // a wire type that there is not
        vec![0x00],                                     // field 0
        vec![0x0b; 1_000],                              // groups in groups, none closed
        [vec![0x0b; 50], vec![0x0c; 50]].concat(),      // groups in groups, all closed
        [0x0a, 0x01, b'a'].repeat(1_000),               // a field that is there a thousand times
        [&[0xfa, 0x7f, 0x05][..], &[b'x'; 5]].concat(), // a field that nobody knows
    ];
    broken.into_iter().chain(random).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_refuses_what_is_no_message_of_its_own() {
    let server = TestServer::start(Engine::Sqlite).await;
    let mut grpc = Grpc::new(server.channel().await);
    for path in methods() {
        for message in messages() {
            grpc.ready().await.unwrap();
            let answer = grpc.unary(Request::new(message.clone()), path.parse().unwrap(), Raw).await;
            let code = answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok);
            // Where something is to be proven, it is not; where nothing is to be said, anything may be.
            let is_for_all = path.contains("IdentityService");
            assert!(
                matches!(code, Code::InvalidArgument | Code::Internal)
                    || !is_for_all && matches!(code, Code::Unauthenticated | Code::Ok),
                "{path} {message:02x?}: {code:?}"
            );
        }
    }
    // The log's last line is there, and so are all before it.
    server.logged(methods().last().unwrap()).await;
    assert!(!server.log().contains("panicked"));
}
