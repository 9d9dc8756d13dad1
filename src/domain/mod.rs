//! Domain values, which are valid by construction.
//!
//! The constructor of a type for outside input is `parse`, which refuses a text that violates its rule and
//! names the rule. `Username::choose` has one rule more than `Username::parse`. `Email::parse_imported` and
//! `Username::parse_imported` accept imported values that violate a rule. Constructors such as `from_stored`
//! and `from_uuid` trust a value that was parsed before it was stored. Nothing here performs I/O or depends
//! on a database, a wire format or a setting. The types of secrets have a `Debug` that prints nothing of the
//! secret; so do the values that identify a user (email, username). Start at [`User`].

mod audit;
mod auth_token;
mod call_note;
mod civil_text;
mod client_address;
mod client_agent;
mod email;
mod error_chain;
mod hex;
mod link_token;
mod mail_kind;
mod mail_token;
mod numbered;
mod password;
mod refresh_token;
mod request_id;
mod sealed;
mod session;
mod signing_seed;
mod text;
mod timestamp;
mod user;
mod username;

pub use audit::{AuditEvent, AuditKind, NOBODY, Origin, PAGES};
pub use auth_token::{AuthToken, InvalidAuthToken};
pub use call_note::CallNote;
pub use civil_text::{from_civil_text, to_civil_text};
pub use client_address::{ClientAddress, InvalidClientAddress};
pub use client_agent::{CLIENT_AGENT_CHARACTERS_MAX, ClientAgent};
pub use email::{EMAIL_OCTETS_MAX, Email, InvalidEmail, LOCAL_PART_OCTETS_MAX};
pub(crate) use error_chain::{chain, io_reason};
pub use hex::hex;
pub use link_token::LinkToken;
pub use mail_kind::{MailCause, MailKind, UnknownMailKind};
pub use mail_token::{InvalidMailToken, MailToken, MailTokenDigest, MailTokenPurpose, UnknownPurpose};
pub use numbered::Numbered;
pub use password::{
    InvalidPassword, NEW_PASSWORD_BYTES_MAX, NewPassword, PASSWORD_BYTES_MAX, Password, PasswordHash,
    PasswordRefusal, PasswordWeakness,
};
pub use refresh_token::{InvalidRefreshToken, RefreshToken, RefreshTokenDigest};
pub use request_id::{InvalidRequestId, RequestId};
pub use sealed::Sealed;
pub use session::{InvalidSessionId, Session, SessionId};
pub use signing_seed::SigningSeed;
pub use text::controls_text;
pub use timestamp::Timestamp;
pub use user::{User, UserId};
pub use username::{
    InvalidUsername, STACKED_MARKS_MAX, USERNAME_CHARACTERS_MAX, USERNAME_KEY_CHARACTERS_MAX, Username,
};
