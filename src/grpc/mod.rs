//! The gRPC API. No other module uses the protobuf messages.
//!
//! Each handler has three steps: parse the message into domain values (one status reports the violations of
//! all fields), make one call, convert the result into a message. The rules of accounts are in `accounts` and
//! SQL is in `store`. Start at [`service`]; [`layer`] contains what is common to all calls, and `protocols`
//! translates the other protocols into gRPC.

mod account;
mod acting;
mod admin;
mod audit_events;
mod compression;
mod convert;
mod credentials;
mod fields;
mod health;
mod health_calls;
pub mod layer;
mod login;
mod page;
mod page_tokens;
mod protocols;
mod reflection;
mod registration;
mod request_id;
mod request_rule;
mod resolution;
mod rule;
pub mod service;
mod sessions;
mod status;
mod unary;

pub use self::{
    health::{HealthWatch, LOOK_UPS},
    health_calls::{HealthCalls, health_service},
    page_tokens::PageTokens,
    protocols::{Protocols, with_all_protocols},
    reflection::add_reflection,
    service::{Api, Services},
};
