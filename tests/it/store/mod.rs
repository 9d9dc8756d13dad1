//! The conformance tests of the store, run on both engines.

mod audit;
mod audit_limit;
mod lookup;
mod managed_users;
mod migrate;
mod outbox;
mod purge;
mod registration;
mod same_on_both;
mod schema;
mod sqlite_options;
mod users;
mod verification;

use std::time::Duration;

use kairos_identity::{
    database::{DatabaseOptions, NewestTimeline, PostgresOptions, SqliteOptions},
    domain::{
        AuditEvent, AuditKind, AuthToken, Email, MailKind, MailToken, Origin, PasswordHash, RequestId,
        Sealed, Timestamp, User, Username,
    },
    entropy::Entropy,
    store::{Delivery, LookupOptions, NewMail, Registered, Registration, Store},
};

use crate::support::engine::{Engine, TestDatabase};

/// The time at which every test starts.
pub const NOW: Timestamp = Timestamp::from_unix_micros(1_700_000_000_123_456);

pub const DAY: Duration = Duration::from_hours(24);

/// A migrated store in a database of its own.
pub struct World {
    pub database: TestDatabase,
    pub store: Store,
    entropy: Entropy,
}

impl World {
    pub async fn new(engine: Engine) -> Self {
        let database = TestDatabase::new(engine);
        let store = open(database.url());
        store.migrate().await.unwrap();
        Self { database, store, entropy: Entropy::seeded(7) }
    }

    /// Returns a registration of `name` with the email `NAME@example.com`, and the token of its link.
    pub fn registration(&self, name: &str) -> (Registration, MailToken) {
        let address = Email::parse(&format!("{name}@example.com")).unwrap();
        let (mail, token) = self.mail_to(MailKind::VerifyEmail, &address);
        let registration = Registration {
            username: Username::parse(name).unwrap(),
            email: address,
            password: PasswordHash::from_stored(format!("hash of {name}")),
            auth_token: AuthToken::from_random(self.entropy.bytes()),
            request_id: None,
            request_ids_since: NOW.minus(DAY),
            mail,
            created_at: NOW,
            abandoned_until: Some(NOW.minus(DAY)),
            event: event(NOW),
            deletion: event(NOW),
        };
        (registration, token)
    }

    /// Returns a verification mail to `ada@example.com` whose link expires after a day, and its token.
    pub fn mail(&self) -> (NewMail, MailToken) {
        self.mail_to(MailKind::VerifyEmail, &email("ada@example.com"))
    }

    /// Returns a mail with a link that expires a day after [`NOW`], and the token of the link.
    pub fn mail_to(&self, kind: MailKind, recipient: &Email) -> (NewMail, MailToken) {
        let token = MailToken::from_random(self.entropy.bytes());
        let id: u128 = u128::from_le_bytes(self.entropy.bytes());
        let sealed_token = Sealed::from_bytes(b"sealed".to_vec());
        let mail = NewMail {
            kind,
            recipient: recipient.clone(),
            digest: Some(token.digest()),
            delivery: Delivery::Service {
                message_id: format!("{id:x}@localhost"),
                sealed_token: Some(sealed_token),
            },
            expires_at: NOW.plus(DAY),
        };
        (mail, token)
    }

    /// Registers `name`, and returns the user and the token of the link.
    pub async fn register(&self, name: &str) -> (User, MailToken) {
        let (registration, token) = self.registration(name);
        match self.store.register(registration).await.unwrap() {
            Registered::New(user) => (user, token),
            Registered::Known(_) => panic!("a registration without a request id is new"),
        }
    }

    /// Counts the rows that a registration writes.
    pub fn counts(&self) -> RowCounts {
        RowCounts {
            users: self.database.count("core_user"),
            links: self.database.count("core_mail_token"),
            mails: self.database.count("core_mail_outbox"),
            request_ids: self.database.count("core_registration_request"),
        }
    }
}

/// Numbers of rows in the tables to which a registration writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCounts {
    pub users: usize,
    /// Links in `core_mail_token`.
    pub links: usize,
    /// Mails in the outbox, sent or not.
    pub mails: usize,
    pub request_ids: usize,
}

impl RowCounts {
    /// No rows at all.
    pub const NONE: Self = Self { users: 0, links: 0, mails: 0, request_ids: 0 };
}

/// Returns an audit event at that time.
pub fn event(at: Timestamp) -> AuditEvent {
    AuditEvent::new(at, AuditKind::UserUpdated, Origin::local("test"))
}

/// Opens the store at `url`, for tests that do not depend on the limits of look-ups.
pub fn open(url: &str) -> Store {
    open_with(url, LookupOptions { batch_tokens_max: 256, lanes: 2, waiting_max: 10_000 })
}

/// Opens the store at `url` with these limits on look-ups.
pub fn open_with(url: &str, lookup: LookupOptions) -> Store {
    let options = match url.strip_prefix("sqlite://") {
        Some(path) => DatabaseOptions::Sqlite(sqlite_options(path)),
        None => DatabaseOptions::Postgres(Box::new(PostgresOptions {
            url: url.parse().unwrap(),
            pool_size: 8,
            connect_timeout: Duration::from_secs(2),
            acquire_timeout: Duration::from_secs(20),
            statement_timeout: Duration::from_secs(20),
            newest_timeline: NewestTimeline::default(),
            idle_timeout: Duration::from_mins(10),
            connection_lifetime: Duration::from_mins(30),
            is_pooled: false,
        })),
    };
    Store::open(options, lookup).unwrap()
}

/// Returns the options with which tests open a SQLite file.
pub fn sqlite_options(path: impl Into<std::path::PathBuf>) -> SqliteOptions {
    SqliteOptions {
        path: path.into(),
        create: true,
        readers: 2,
        busy_timeout: Duration::from_secs(10),
        queue_length: 10_000,
    }
}

pub fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

pub fn request_id(number: u128) -> RequestId {
    RequestId::from_uuid(uuid::Uuid::from_u128(number))
}
