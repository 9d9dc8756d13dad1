//! URLs with several hosts, and with the folder of a Unix socket.

use std::{
    io,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use kairos_identity::proto::ResolveTokenRequest;
use tokio::net::TcpSocket;

use crate::support::{
    people::{PASSWORD, login, registration},
    postgres::{Postgres, PostgresDatabase},
    server::TestServer,
    standby::Standby,
    wait::until,
};

/// Time limit for what takes at most two seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns a URL with these hosts.
fn url(hosts: &str, database: &PostgresDatabase, query: &str) -> String {
    format!("postgres://postgres@{hosts}/{}?{query}", database.name())
}

/// A port that drops the packets of new connections, as many firewalls do: the queue of connections that wait
/// to be accepted is full.
struct DroppingPort {
    listener: tokio::net::TcpListener,
    _queued: TcpStream,
}

impl DroppingPort {
    fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let queued = TcpStream::connect(address).unwrap();
        let next = TcpStream::connect_timeout(&address, Duration::from_millis(200)).unwrap_err();
        assert_eq!(next.kind(), io::ErrorKind::TimedOut);
        Self { listener, _queued: queued }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_drop_hang_refuse_or_only_read_are_left_for_the_next_one() {
    let primary = Postgres::own();
    let standby = Standby::of(&primary);
    let database = primary.create_database();
    // It accepts connections and never answers, as a frozen server does.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let dropping = DroppingPort::open();
    let hosts = format!(
        "127.0.0.1:{},127.0.0.1:{},127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}",
        dropping.port(),
        hanging.local_addr().unwrap().port(),
        standby.port(),
        primary.port()
    );

    let server = TestServer::on_url(url(&hosts, &database, "sslmode=disable&application_name=my%20service"))
        .with_migrations_through(database.url())
        .with_env("KAIROS_IDENTITY_DATABASE_CONNECT_TIMEOUT", "300ms")
        .start()
        .await;
    server.member("ada").await;
    server.client().await.login(login("ada", PASSWORD)).await.unwrap();

    let names = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'my service'";
    assert_eq!(primary.psql("postgres", names), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_left_for_the_promoted_standby() {
    let old = Postgres::own();
    let new = Standby::of(&old);
    let database = old.create_database();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", old.port(), new.port());
    let server = TestServer::on_url(url(&hosts, &database, "sslmode=disable")).start().await;
    let ada = server.member("ada").await;
    let mut client = server.client().await;
    new.catch_up(&old);

    old.set("default_transaction_read_only", "on");
    new.psql("postgres", "SELECT pg_promote()");
    // The old primary does not see this.
    new.psql(database.name(), "UPDATE core_user SET username = 'Ada2', username_key = 'ada2'");

    let resolve = || ResolveTokenRequest { auth_token: ada.auth_token.clone() };
    until("look-ups see the new primary", LIMIT, async || {
        let user = client.resolve_token(resolve()).await.ok()?.into_inner().user?;
        (user.username == "Ada2").then_some(())
    })
    .await;
    until("writes reach the new primary", LIMIT, async || client.register(registration("bob")).await.ok())
        .await;
    for _ in 0..20 {
        assert_eq!(
            client.resolve_token(resolve()).await.unwrap().into_inner().user.unwrap().username,
            "Ada2"
        );
    }
    assert_eq!(new.psql(database.name(), "SELECT count(*) FROM core_user"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_is_not_used_although_it_accepts_writes() {
    let old = Postgres::own();
    let new = Standby::of(&old);
    let database = old.create_database();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", old.port(), new.port());
    let server = TestServer::on_url(url(&hosts, &database, "sslmode=disable")).start().await;
    let mut client = server.client().await;
    server.member("ada").await;
    new.catch_up(&old);

    old.pause();
    new.psql("postgres", "SELECT pg_promote()");
    let bob = until("writes reach the new primary", LIMIT, async || {
        client.register(registration("bob")).await.ok()?.into_inner().user
    })
    .await;
    // The old primary goes on and accepts writes: it was not demoted. It does not have bob.
    old.resume();
    new.stop_immediate();

    let resolve = || ResolveTokenRequest { auth_token: bob.auth_token.clone() };
    until("look-ups notice that the new primary is away", LIMIT, async || {
        client.resolve_token(resolve()).await.err()
    })
    .await;
    for _ in 0..20 {
        let refusal = client.resolve_token(resolve()).await.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::Unavailable, "{refusal}");
    }
    client.register(registration("carol")).await.unwrap_err();
    assert_eq!(old.psql(database.name(), "SELECT count(*) FROM core_user"), "1");

    new.start();
    until("look-ups find bob on the new primary", LIMIT, async || client.resolve_token(resolve()).await.ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_named_by_a_parameter() {
    let cluster = Postgres::own();
    let database = cluster.create_database();
    let query = format!("host={}&port={}", cluster.socket_folder().display(), cluster.port());

    let server = TestServer::on_url(url("", &database, &query)).start().await;
    server.member("ada").await;
    let mut client = server.client().await;
    // SQLSTATE 53100: the disk is full.
    cluster.psql(
        database.name(),
        "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$; \
         CREATE TRIGGER fault BEFORE INSERT ON core_user FOR EACH ROW EXECUTE FUNCTION fault()",
    );
    let refusal = client.register(registration("bob")).await.unwrap_err();

    assert_eq!(refusal.code(), tonic::Code::Unavailable, "{refusal}");
    let over_tcp = "SELECT count(*) FROM pg_stat_activity \
                    WHERE application_name = 'kairos-identity' AND client_addr IS NOT NULL";
    assert_eq!(cluster.psql("postgres", over_tcp), "0");
}
