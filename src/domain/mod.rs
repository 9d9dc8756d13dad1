//! Values that cannot be wrong.
//!
//! Each type has one way in from the outside, `parse`, which refuses what breaks its rule and says which rule, and, where the
//! database holds the value, a `from_…` that trusts what was once parsed. Nothing here does input or output, or knows
//! a database, a wire format or a setting. Secrets have types whose `Debug` prints nothing of them, and so do the values
//! that name a person (email, username). Start at [`User`].

mod audit;
mod auth_token;
mod client_address;
mod client_agent;
mod email;
mod hex;
mod link_token;
mod mail_kind;
mod mail_token;
mod password;
mod refresh_token;
mod request_id;
mod sealed;
mod session;
mod signing_seed;
mod timestamp;
mod user;
mod username;

pub use audit::{AuditEvent, AuditKind, Origin};
pub use auth_token::{AuthToken, InvalidAuthToken};
pub use client_address::{ClientAddress, InvalidClientAddress};
pub use client_agent::{CLIENT_AGENT_CHARACTERS_MAX, ClientAgent};
pub use email::{EMAIL_OCTETS_MAX, Email, InvalidEmail};
pub use hex::hex;
pub use link_token::LinkToken;
pub use mail_kind::{MailKind, UnknownMailKind};
pub use mail_token::{InvalidMailToken, MailToken, MailTokenDigest, MailTokenPurpose, UnknownPurpose};
pub use password::{
    InvalidPassword, NEW_PASSWORD_BYTES_MAX, NewPassword, PASSWORD_BYTES_MAX, Password, PasswordHash,
    PasswordRefusal,
};
pub use refresh_token::{InvalidRefreshToken, RefreshToken, RefreshTokenDigest};
pub use request_id::{InvalidRequestId, RequestId};
pub use sealed::Sealed;
pub use session::{InvalidSessionId, Session, SessionId};
pub use signing_seed::SigningSeed;
pub use timestamp::Timestamp;
pub use user::{User, UserId};
pub use username::{InvalidUsername, USERNAME_CHARACTERS_MAX, USERNAME_KEY_CHARACTERS_MAX, Username};
