//! Constructs, from the settings, [`Mails`], which writes mails into the outbox.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::{
    accounts::{MailOptions, Mails},
    config::Settings,
    entropy::Entropy,
    sealing::SealingKeys,
};

/// Constructs [`Mails`], which notifies `mail_enqueued` when a mail is ready to send.
pub(super) fn mails(
    settings: &Settings,
    sealing_keys: Arc<SealingKeys>,
    entropy: &Entropy,
    mail_enqueued: Arc<Notify>,
) -> Mails {
    let options = MailOptions {
        verification_lifetime: settings.verification.token_lifetime.get(),
        reset_lifetime: settings.password.reset_lifetime.get(),
        undo_lifetime: settings.verification.undo_lifetime.get(),
        message_id_domain: settings.mail.from.address.domain().to_owned(),
    };
    Mails::new(options, sealing_keys, entropy.clone(), mail_enqueued)
        .with_daily_limits(settings.mail.daily_per_address_max.get(), settings.mail.daily_total_max.get())
}
