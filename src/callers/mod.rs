//! Callers: their authentication, their rights to call methods, and the user fields that they may see.
//!
//! A caller is another service: the BFF, the agent, an operator's script. It authenticates with a service
//! token, of which the callers file ([`Callers::parse`]) contains only the hash, or with a client
//! certificate. The file lists the rights of each caller; everything else is denied. A caller is never a
//! user: authenticating a caller does not authenticate a user.

mod caller;
mod edit;
mod entry;
mod file;
mod gate;
mod registry;
mod rights;
mod role;
mod token;

pub use self::{
    caller::{ANYBODY, CALLERS_FILE, COMMAND_LINE, CallSlot, Caller, Requester, SERVICE},
    edit::{CallersText, EditError, EntryText},
    entry::{NAME_BYTES_MAX, check_name},
    file::CallersError,
    gate::CallerGate,
    registry::Callers,
    rights::UserFields,
    role::Role,
    token::{ServiceToken, TokenHash, bearer_token},
};
pub use crate::domain::{NOBODY, PAGES};
