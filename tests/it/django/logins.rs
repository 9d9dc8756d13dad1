//! Everybody who could log in to Django can log in here, and nobody else.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use kairos_identity::proto::{
    LoginRequest, ResolveTokenRequest, User, identity_service_client::IdentityServiceClient,
};
use tonic::{Code, transport::Channel};

use super::{Django, Model, Person, TAKE_ALL, import};
use crate::support::{
    engine::{Engine, TestDatabase, within_two_minutes},
    server::TestServer,
};

/// Logins at a time: the hashes of Django take up to half a second each.
const AT_ONCE: usize = 4;

type Client = IdentityServiceClient<Channel>;

async fn log_in(client: &Client, email: &str, password: &str) -> Result<User, Code> {
    let request = LoginRequest { email: email.to_owned(), password: password.to_owned() };
    match client.clone().login(request).await {
        Ok(answer) => Ok(answer.into_inner().user.unwrap()),
        Err(status) => Err(status.code()),
    }
}

/// Whether the password is right: whoever has not proven their address is told so only then.
async fn accepts(client: &Client, person: &Person, password: &str) -> bool {
    match log_in(client, &person.email, password).await {
        Ok(user) => {
            assert!(person.is_verified, "{person:?}");
            assert_eq!(user.auth_token, person.auth_token, "{person:?}");
            true
        }
        Err(Code::PermissionDenied) => !person.is_verified,
        Err(Code::Unauthenticated) => false,
        Err(other) => panic!("{other:?}: {person:?}"),
    }
}

/// A password that is not the person's, and looks like it; another in its first letter, since plain bcrypt sees 72 bytes.
fn wrong(person: &Person) -> String {
    format!("#{}", person.password.as_deref().unwrap_or_default())
}

async fn check(client: &Client, person: &Person) {
    let Some(password) = person.password.as_deref().filter(|password| !password.is_empty()) else {
        // There is nothing to type: neither what stands in the column nor anything else.
        return assert!(!accepts(client, person, &wrong(person)).await, "{person:?}");
    };
    // A password that is a whole hash of another one is that hash, as for Django.
    if person.note.contains("complete bcrypt_sha256 hash") {
        return assert!(accepts(client, person, "something-else").await, "{person:?}");
    }
    assert!(!accepts(client, person, &wrong(person)).await, "a wrong password: {person:?}");
    assert!(accepts(client, person, password).await, "the right password: {person:?}");
    if !person.is_verified {
        return; // nothing has been rewritten, and some hashes take half a second
    }
    assert!(accepts(client, person, password).await, "once more: {person:?}");
    assert!(!accepts(client, person, &wrong(person)).await, "a wrong password at last: {person:?}");
    if person.hasher != "plaintext" {
        assert!(!accepts(client, person, &person.stored).await, "the hash as a password: {person:?}");
    }
}

/// Those whom the operator's choice of emails leaves out, and those whose token another row keeps.
fn people(django: &Django) -> Vec<Person> {
    let key = |person: &Person| {
        let email = kairos_identity::domain::Email::parse(&person.email);
        email.map_or_else(|_| person.email.to_lowercase(), |email| email.as_str().to_owned())
    };
    let mut order: Vec<&Person> = django.truth.iter().collect();
    order.sort_by_key(|person| (!person.is_verified, person.id));
    let (mut emails, mut tokens, mut taken) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for person in order {
        if emails.insert(key(person)) && tokens.insert(person.auth_token.clone()) {
            taken.push(person.clone());
        }
    }
    taken
}

async fn everybody_logs_in(django: &Django, to: Engine) {
    let store = TestDatabase::new(to);
    import(django, &store, &TAKE_ALL);
    let server = TestServer::on_url(store.url().to_owned())
        .with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "100")
        .with_env("KAIROS_IDENTITY_LOGIN_TOTAL_MAX", "1000000")
        .start()
        .await;
    let client = server.client().await;
    let people = people(django);
    assert!(people.len() > 220, "{}", people.len());

    stream::iter(&people).for_each_concurrent(AT_ONCE, async |person| check(&client, person).await).await;

    for person in &people {
        let request = ResolveTokenRequest { auth_token: person.auth_token.clone() };
        let user = client.clone().resolve_token(request).await.unwrap().into_inner().user.unwrap();
        assert_eq!((user.auth_token, user.is_verified), (person.auth_token.clone(), person.is_verified));
        if !person.note.starts_with("username") {
            assert_eq!(user.username, person.username);
        }
    }
    // Only who logs in is rewritten: the unverified have shown their password, and not their address.
    let hashes = store.rows("SELECT password AS value FROM core_user WHERE is_verified AND password NOT LIKE 'bcrypt_sha256$$2b$%'");
    // An empty password is hashed in some rows, and nobody can type it.
    let has_a_password = |hash: &&String| {
        let owner = people.iter().find(|person| person.stored == **hash);
        !hash.starts_with('!') && owner.is_none_or(|owner| owner.password.as_deref() != Some(""))
    };
    let left: Vec<&String> = hashes.iter().filter(has_a_password).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_logs_in_from_sqlite_to_sqlite() {
    within_two_minutes(everybody_logs_in(&Django::kept(Model::Actual), Engine::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_logs_in_from_sqlite_to_postgres() {
    within_two_minutes(everybody_logs_in(&Django::kept(Model::Documented), Engine::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_logs_in_from_postgres_to_sqlite() {
    let django = Django::fresh(Engine::Postgres, Model::Documented, &["--seed", "7"]);
    within_two_minutes(everybody_logs_in(&django, Engine::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_logs_in_from_postgres_to_postgres() {
    let django = Django::fresh(Engine::Postgres, Model::Documented, &["--seed", "8"]);
    within_two_minutes(everybody_logs_in(&django, Engine::Postgres)).await;
}
