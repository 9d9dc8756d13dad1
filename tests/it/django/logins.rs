//! Each imported user can log in with the same password as in Django, and with no other password.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use kairos_identity::proto::{
    LoginRequest, ResolveTokenRequest, User, identity_service_client::IdentityServiceClient,
};
use tonic::{Code, transport::Channel};

use super::{Django, DjangoUser, Model, RESOLVE_ALL_CONFLICTS, import};
use crate::support::{
    engine::{Engine, TestDatabase, with_time_limit},
    server::TestServer,
};

/// Number of concurrent logins. Verifying a hash of Django takes up to half a second.
const AT_ONCE: usize = 4;

type Client = IdentityServiceClient<Channel>;

async fn log_in(client: &Client, email: &str, password: &str) -> Result<User, Code> {
    let request = LoginRequest { email: email.to_owned(), password: password.to_owned() };
    match client.clone().login(request).await {
        Ok(answer) => Ok(answer.into_inner().user.unwrap()),
        Err(status) => Err(status.code()),
    }
}

/// True if the password is right. A user whose email is not verified gets `PermissionDenied` only for the
/// right password.
async fn accepts(client: &Client, imported: &DjangoUser, password: &str) -> bool {
    match log_in(client, &imported.email, password).await {
        Ok(user) => {
            assert!(imported.is_verified, "{imported:?}");
            assert_eq!(user.auth_token, imported.auth_token, "{imported:?}");
            true
        }
        Err(Code::PermissionDenied) => !imported.is_verified,
        Err(Code::Unauthenticated) => false,
        Err(other) => panic!("{other:?}: {imported:?}"),
    }
}

/// Returns a wrong password that resembles the right one. It differs in the first character, since plain
/// bcrypt reads only 72 bytes.
fn wrong_password(imported: &DjangoUser) -> String {
    format!("#{}", imported.password.as_deref().unwrap_or_default())
}

/// The users who try to log in. Each attempt takes up to half a second of a core, and a hash that is stored
/// as it was in Django is compared alike on each engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhoLogsIn {
    All,
    /// A verified and an unverified user of each scheme of hashes.
    TwoOfEachScheme,
}

impl WhoLogsIn {
    fn of(self, mut users: Vec<DjangoUser>) -> Vec<DjangoUser> {
        let mut found = BTreeSet::new();
        users.retain(|user| self == Self::All || found.insert((user.hasher.clone(), user.is_verified)));
        users
    }
}

/// Asserts that the user can log in with the right password only.
async fn check_logins(client: &Client, imported: &DjangoUser) {
    let Some(password) = imported.password.as_deref().filter(|password| !password.is_empty()) else {
        // The user has no password, so no password is accepted.
        return assert!(!accepts(client, imported, &wrong_password(imported)).await, "{imported:?}");
    };
    // A plaintext password that is itself a complete hash counts as that hash, as in Django.
    if imported.note.contains("complete bcrypt_sha256 hash") {
        return assert!(accepts(client, imported, "something-else").await, "{imported:?}");
    }
    assert!(!accepts(client, imported, &wrong_password(imported)).await, "a wrong password: {imported:?}");
    assert!(accepts(client, imported, password).await, "the right password: {imported:?}");
    if !imported.is_verified {
        return; // The login failed, so the hash was not rewritten: the checks below would only repeat those above.
    }
    assert!(
        accepts(client, imported, password).await,
        "the right password after the hash was rewritten: {imported:?}"
    );
    assert!(
        !accepts(client, imported, &wrong_password(imported)).await,
        "a wrong password after the hash was rewritten: {imported:?}"
    );
    if imported.hasher != "plaintext" {
        assert!(!accepts(client, imported, &imported.stored).await, "the hash as a password: {imported:?}");
    }
}

/// Returns the users that are imported with their email and `auth_token`: without the rows that lose an email
/// conflict and the rows whose token another row keeps. Verified rows win, then older ones.
fn imported_users(django: &Django) -> Vec<DjangoUser> {
    let key = |imported: &DjangoUser| {
        let email = kairos_identity::domain::Email::parse(&imported.email);
        email.map_or_else(|_| imported.email.to_lowercase(), |email| email.as_str().to_owned())
    };
    let mut order: Vec<&DjangoUser> = django.truth.iter().collect();
    order.sort_by_key(|imported| (!imported.is_verified, imported.id));
    let (mut emails, mut tokens, mut users) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for imported in order {
        if emails.insert(key(imported)) && tokens.insert(imported.auth_token.clone()) {
            users.push(imported.clone());
        }
    }
    users
}

/// Imports a database into a new store on `to`, and checks the hashes and the tokens of all users, and the
/// logins and the rewritten hashes of those who log in.
async fn check_all_logins(django: &Django, to: Engine, who: WhoLogsIn) {
    let store = TestDatabase::new(to);
    import(django, &store, &RESOLVE_ALL_CONFLICTS);
    let server = TestServer::on_url(store.url().to_owned())
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
        .with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "1000000")
        // A refusal takes the time of the user's own hash here, not of the slowest: see `timing`.
        .with_env("KAIROS_IDENTITY_PASSWORD_REFUSAL_TIME_MAX", "0ms")
        .with_env("KAIROS_IDENTITY_SERVER_REQUEST_TIMEOUT_DEFAULT", "60s")
        .start()
        .await;
    let client = server.client().await;
    let users = imported_users(django);
    assert!(users.len() > 220, "{}", users.len());

    let hashes: BTreeSet<_> = store.rows("SELECT password AS value FROM core_user").into_iter().collect();
    for imported in users.iter().filter(|imported| !["plaintext", "unusable"].contains(&&*imported.hasher)) {
        assert!(hashes.contains(&imported.stored), "stored as it was: {imported:?}");
    }

    let trying = who.of(users.clone());
    stream::iter(&trying)
        .for_each_concurrent(AT_ONCE, async |imported| check_logins(&client, imported).await)
        .await;

    for imported in &users {
        let request = ResolveTokenRequest { auth_token: imported.auth_token.clone() };
        let user = client.clone().resolve_token(request).await.unwrap().into_inner().user.unwrap();
        assert_eq!((user.auth_token, user.is_verified), (imported.auth_token.clone(), imported.is_verified));
        if !imported.note.starts_with("username") {
            assert_eq!(user.username, imported.username);
        }
    }
    if who != WhoLogsIn::All {
        return;
    }
    // Only a successful login rewrites a hash, so unverified users keep theirs.
    let hashes = store.rows("SELECT password AS value FROM core_user WHERE is_verified AND password NOT LIKE 'bcrypt_sha256$$2b$%'");
    // Some rows hold the hash of an empty password, with which no user can log in.
    let has_a_password = |hash: &&String| {
        let owner = users.iter().find(|imported| imported.stored == **hash);
        !hash.starts_with('!') && owner.is_none_or(|owner| owner.password.as_deref() != Some(""))
    };
    let left: Vec<&String> = hashes.iter().filter(has_a_password).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_users_log_in_after_an_import_from_sqlite_to_sqlite() {
    with_time_limit(check_all_logins(
        &Django::from_fixture(Model::WithoutTimestamps),
        Engine::Sqlite,
        WhoLogsIn::All,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_each_scheme_log_in_after_an_import_from_sqlite_to_postgres() {
    with_time_limit(check_all_logins(
        &Django::from_fixture(Model::Documented),
        Engine::Postgres,
        WhoLogsIn::TwoOfEachScheme,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_each_scheme_log_in_after_an_import_from_postgres_to_sqlite() {
    let django = Django::fresh(Engine::Postgres, Model::Documented, &["--seed", "7"]);
    with_time_limit(check_all_logins(&django, Engine::Sqlite, WhoLogsIn::TwoOfEachScheme)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_users_log_in_after_an_import_from_postgres_to_postgres() {
    let django = Django::fresh(Engine::Postgres, Model::Documented, &["--seed", "8"]);
    with_time_limit(check_all_logins(&django, Engine::Postgres, WhoLogsIn::All)).await;
}
