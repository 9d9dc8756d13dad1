//! The queries of the service's own tables.
//!
//! One file holds the queries of one table. A transaction over several tables is in the file of the table
//! that it is mainly about; `account_changes` and `purge` hold those that concern many tables alike. What
//! several transactions share are statements: functions of a connection (`UserStatements`,
//! `LinkStatements`, …).
//!
//! Every function of [`Store`](super::Store) here fails with [`DatabaseError`](super::DatabaseError) if the
//! database does not answer. A function has a section about its errors only if it fails for another reason
//! too, or if the failure has an effect.

#![expect(
    clippy::missing_errors_doc,
    reason = "the documentation of this module describes the common errors"
)]

mod account_changes;
pub(crate) mod audit;
mod audit_limit;
mod audit_silence;
mod imported_users;
pub(crate) mod known_addresses;
pub(crate) mod links;
mod managed_users;
mod never_verified_users;
mod new_mail;
mod outbox;
mod password_attempts;
mod password_hashes;
mod purge;
pub(crate) mod registration;
mod sealed_values;
pub(crate) mod sessions;
mod signing_keys;
mod throttle;
mod throttle_subject;
mod user_states;
pub(crate) mod users;

pub use self::{
    account_changes::{EmailChangeRequest, EmailUndo, PasswordChange},
    audit::{AUDIT_PAGE_MAX, AuditFilter, EventPosition, RecordedEvent},
    known_addresses::LoginAddress,
    links::{LinkOwner, OlderLinks, RequestedLink, Verification},
    managed_users::{ManagedUser, USERS_PAGE_MAX, UserFilter},
    new_mail::{Delivery, NewMail, NoticedEvent},
    outbox::{MailBacklog, OutgoingMail},
    password_attempts::{AttemptOutcome, CorrectPassword, Reservation, SETTLEMENT_MAX, Settlement, Tally},
    purge::{Purged, RetentionPeriods},
    registration::{Registered, Registration, Replay},
    sealed_values::{SealedCount, SealedToken},
    sessions::{KnownSession, NewSession, SessionChange},
    signing_keys::{EarlierKeys, StoredSigningKey},
    throttle::{Admission, Attempts, CLOCK_DIFFERENCE_MAX},
    throttle_subject::Subject,
    users::Credentials,
};
