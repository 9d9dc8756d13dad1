//! Sends the mails of the outbox: renders templates and delivers to an SMTP server or a folder.
//!
//! `accounts` and the store decide what is mailed and commit it to the outbox. This module sends each mail
//! after that commit, at least once, with the same Message-ID in every attempt. It logs no address, token or
//! link. Start at [`Outbox`].

mod attempt;
mod backlog;
mod daily;
mod error;
mod folder;
mod message;
mod metrics;
mod outbox;
mod refusal;
mod smtp;
mod templates;
mod transport;

pub use self::{
    backlog::Backlog,
    daily::DailyLimits,
    error::MailError,
    message::compose,
    metrics::MailMetrics,
    outbox::{Outbox, OutboxOptions},
    smtp::{Encryption, SmtpOptions},
    templates::{BadTemplate, MailValues, RenderedMail, Templates},
    transport::Transport,
};
