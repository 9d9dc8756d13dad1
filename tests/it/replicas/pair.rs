//! A primary with its replica, and the services that use both.

use kairos_identity::proto::{User, VerifyEmailRequest};

use super::{Client, EXCLUDED_LIMIT, LIMIT, resolve, resolve_all};
use crate::support::{
    mail::verification_token,
    postgres::{Postgres, PostgresDatabase},
    server::{Builder, TestServer},
    standby::Standby,
    wait::until,
};

/// A primary, its replica, and a database.
pub(super) struct Pair {
    pub(super) primary: Postgres,
    pub(super) replica: Standby,
    pub(super) database: PostgresDatabase,
}

impl Pair {
    pub(super) fn new() -> Self {
        let primary = Postgres::own();
        let replica = Standby::of(&primary);
        let database = primary.create_database();
        Self { primary, replica, database }
    }

    /// Returns the settings of a service that uses the primary and the replica.
    pub(super) fn service(&self) -> Builder {
        TestServer::on_url(self.database.url().to_owned())
            .with_env("KAIROS_IDENTITY_DATABASE_READ_URLS", &self.replica.url(&self.database))
    }

    /// Starts a service, and waits until it uses the replica.
    pub(super) async fn start(&self, service: Builder) -> TestServer {
        self.replica.catch_up(&self.primary);
        let server = service.start().await;
        self.wait_until_used(&server, 0).await;
        server
    }

    /// Waits until the service has started to use the replica more than `before` times.
    pub(super) async fn wait_until_used(&self, server: &TestServer, before: usize) {
        until("the service uses the replica", LIMIT, async || {
            (self.times_used(server) > before).then_some(())
        })
        .await;
    }

    /// Returns how often the service has started to use the replica: once at its start, and again after each
    /// failure.
    pub(super) fn times_used(&self, server: &TestServer) -> usize {
        server.log().matches(&format!("Replica {} serves look-ups", self.replica.address())).count()
    }

    pub(super) async fn wait_until_excluded(&self, server: &TestServer) {
        let words = format!("Replica {} excluded from look-ups: ", self.replica.address());
        until("the service stops using the replica", EXCLUDED_LIMIT, async || {
            server.log().contains(&words).then_some(())
        })
        .await;
    }

    /// Waits until `pg_stat_activity` of the replica shows look-ups of the service.
    pub(super) async fn wait_until_queried(&self) {
        let look_ups = "SELECT count(*) > 0 FROM pg_stat_activity \
                        WHERE application_name = 'kairos-identity' AND query LIKE '%auth_token%'";
        until("the replica is queried", LIMIT, async || {
            (self.replica.psql(self.database.name(), look_ups) == "t").then_some(())
        })
        .await;
    }

    /// Pauses the replay of the replica and then verifies the email of `user`, so that the replica still
    /// shows the user as not verified. Returns the user as stored on the primary.
    pub(super) async fn verify_on_primary_only(&self, server: &TestServer, user: &User) -> User {
        self.replica.catch_up(&self.primary);
        self.replica.pause_replay();
        let token = verification_token(server, &user.email).await;
        let answer = server.client().await.verify_email(VerifyEmailRequest { token }).await.unwrap();
        answer.into_inner().user.unwrap()
    }

    /// Asserts that look-ups find `user` while the primary is frozen, so that only the replica can answer.
    pub(super) async fn assert_replica_answers_alone(&self, client: &mut Client, user: &User) {
        self.replica.catch_up(&self.primary);
        self.primary.pause();
        for _ in 0..20 {
            assert_eq!(resolve(client, user).await.unwrap(), *user);
            assert_eq!(resolve_all(client, &[user]).await.unwrap().users, std::slice::from_ref(user));
        }
        self.primary.resume();
    }
}
