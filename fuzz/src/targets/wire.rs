//! Sends arbitrary bytes on a connection, with or without the preface of HTTP/2. The server must close the
//! connection in time and accept the next one.

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use kairos_identity::{
    entropy::Entropy,
    server::{self, ConnectionMetrics, PeerLimits, ServerOptions, Workers},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_util::sync::CancellationToken;

use super::super::service::Service;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

static SCENE: LazyLock<(Runtime, SocketAddr)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let address = runtime.block_on(async {
        let service = Service::start().await;
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(
            listener,
            service.calls,
            options(),
            None,
            Entropy::seeded(1),
            CancellationToken::new(),
        ));
        address
    });
    (runtime, address)
});

fn options() -> ServerOptions {
    ServerOptions {
        workers: Workers::current(),
        connections_max: 100,
        peer_limits: PeerLimits {
            connections_max: 100,
            calls_max: 2_048,
            streaming_calls_max: 64,
            unfinished_bytes_max: 4 * 1024 * 1024,
            unfinished_bytes_total_max: 8 * 1024 * 1024,
            waiting_bytes_total_max: 8 * 1024 * 1024,
        },
        first_byte_timeout: Duration::from_secs(1),
        tls_handshake_timeout: Duration::from_secs(1),
        connection_age: Duration::from_mins(1),
        connection_idle: Duration::from_mins(1),
        connection_age_grace: Duration::from_secs(1),
        keepalive_interval: Duration::from_mins(1),
        keepalive_timeout: Duration::from_mins(1),
        streams_per_connection_max: 100,
        header_list_bytes_max: 16 * 1024,
        send_buffer_bytes_max: 64 * 1024,
        late_bytes_max: 64 * 1024,
        late_bytes_timeout: Duration::from_secs(1),
        resets_per_second_max: 100,
        drain_deadline: Duration::from_secs(1),
        metrics: ConnectionMetrics::default().of_port("api"),
    }
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let Some((has_preface, bytes)) = bytes.split_first() else { return };
    SCENE.0.block_on(async {
        let mut socket = TcpStream::connect(SCENE.1).await.expect("the server accepts connections");
        if has_preface & 1 == 1 {
            let _ = socket.write_all(PREFACE).await;
        }
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let all = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .expect("the server closes the connection");
    });
}
