//! Every RPC and every line of the error table, through the real binary.

mod account;
mod admin;
mod audit;
mod audit_noise;
mod audit_of_calls;
mod callers;
mod certificates;
mod email_undo;
mod known_addresses;
mod limits;
mod login;
mod mail_by_caller;
mod mail_limits;
mod malformed;
mod matrices;
mod new_passwords;
mod password_attempts;
mod redaction;
mod registration;
mod resend;
mod resolution;
mod secrets;
mod sessions;
mod throttle;
mod verification;
mod visible_fields;
