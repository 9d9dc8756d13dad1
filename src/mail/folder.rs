//! Writes each mail to the file `<time>-<message-id>.eml` in a folder, for development.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::attempt::DeliveryOutcome;
use crate::{
    domain::io_reason,
    publish::{self, Existing},
    store::OutgoingMail,
};

/// Maximum length of a file name without its ending, in bytes. File systems allow 255, and the draft of the
/// file has a longer name.
const NAME_BYTES_MAX: usize = 200;

/// Writes the mail to the folder. A second attempt for the same mail replaces its file.
pub(super) async fn write(folder: &Path, mail: &OutgoingMail, bytes: Vec<u8>) -> DeliveryOutcome {
    let path = folder.join(file_name(mail));
    match publish_in_background(path.clone(), bytes).await {
        Ok(()) => {
            tracing::info!(path = %path.display(), "Mail written to {}", path.display());
            DeliveryOutcome::Sent
        }
        Err(error) => DeliveryOutcome::FailedForNow(format!("{}: {}", folder.display(), io_reason(&error))),
    }
}

/// Returns the name of the file. It begins with the time, so that a listing is in the order of creation. It
/// contains no user input.
fn file_name(mail: &OutgoingMail) -> String {
    let mut name = format!("{}-{}", mail.created_at.unix_micros(), mail.message_id.replace(['/', '\0'], "_"));
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name + ".eml"
}

/// Publishes the file on a thread that may block. A program that watches the folder never reads half a mail.
async fn publish_in_background(path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
    let publish = move || {
        publish::create_folder(publish::folder_of(&path))?;
        publish::publish(&path, &bytes, Existing::Replace)
    };
    #[expect(clippy::disallowed_methods, reason = "the outbox limits the number of mails in delivery")]
    tokio::task::spawn_blocking(publish).await.map_err(io::Error::other)?
}
