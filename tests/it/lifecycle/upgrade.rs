//! A database that a later release has migrated. A later release does not exist, so a statement makes the
//! changes that a migration of it might make.

use crate::support::{
    engine::TestDatabase,
    people::{by_email, registration},
    program::{assert_contains_all, program, stderr},
    server::TestServer,
};

/// The version of a migration that only a later release has.
const LATER: &str = "99991231235959";

on_both_engines! {
    async fn a_release_serves_and_comes_back_until_a_later_one_takes_away_what_it_uses(engine: Engine) {
        let database = TestDatabase::new(engine);
        let mut server = TestServer::on_url(database.url().to_owned()).start().await;
        let ada = server.unverified_user("ada").await;
        database.execute("ALTER TABLE core_user ADD COLUMN locale VARCHAR(20) NOT NULL DEFAULT 'en'");
        database.execute("CREATE TABLE core_passkey (id INTEGER NOT NULL PRIMARY KEY)");
        database.execute(&format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{LATER}')"));

        // The release that runs, and one that is started again, as after a rollback.
        server.unverified_user("bob").await;
        server.terminate();
        assert!(server.wait().await.success());
        server.restart().await;
        server.logged(&format!("migrations of a newer release ({LATER})")).await;
        let mut client = server.client().await;
        client.register(registration("carol")).await.unwrap();
        assert_eq!(client.find_user(by_email(&ada.email)).await.unwrap().into_inner().user, Some(ada));
        let listed = server.command(&["user", "list"]).output().unwrap();
        assert!(listed.status.success(), "{}", stderr(&listed));
        let migrated = server.command(&["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "{}", stderr(&migrated));

        // A copy would lack what only the later release knows.
        let copy = ["copy", "--from", database.url(), "--to", "sqlite://copy.sqlite3"];
        let copied = program(&copy).output().unwrap();
        assert_contains_all(&stderr(&copied), &["--from", LATER, "run a later release"]);

        database.execute(&format!("UPDATE kairos_schema_compatibility SET oldest_compatible = '{LATER}'"));
        server.terminate();
        assert!(server.wait().await.success());
        let refused = server.command(&["serve"]).output().unwrap();
        assert_contains_all(&stderr(&refused), &["database.url", LATER, "run a later release"]);
    }
}
