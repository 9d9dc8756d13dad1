//! The API: the only place that knows the wire.
//!
//! A handler reads as parse, act, reply: the message into domain values (all faulty fields at once), one call, the domain
//! value into a message. No rule of an account is decided here, and no SQL is known. Start at [`service`]; `layer` is what
//! every call passes through.

mod account;
mod acting;
mod admin;
mod audit_events;
mod convert;
mod fields;
mod health;
pub mod layer;
mod login;
mod page;
mod reflection;
mod registration;
mod resolution;
pub mod service;
mod sessions;
mod status;
mod unary;

pub use self::{
    health::HealthWatch,
    reflection::add_reflection,
    service::{Api, Services},
};
