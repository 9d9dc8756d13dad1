//! Writes each mail to the file `<time>-<message-id>.eml` in a folder, for development.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::{self, OpenOptions},
    io::AsyncWriteExt,
};

use super::attempt::DeliveryOutcome;
use crate::store::OutgoingMail;

/// Writes the mail to the folder. A second attempt for the same mail replaces its file.
pub(super) async fn write(folder: &Path, mail: &OutgoingMail, bytes: &[u8]) -> DeliveryOutcome {
    // The name begins with the time, so that a listing is in the order of creation. It contains no user
    // input.
    let name = format!("{}-{}", mail.created_at.unix_micros(), mail.message_id.replace(['/', '\0'], "_"));
    match write_whole(folder, &name, bytes).await {
        Ok(path) => {
            tracing::info!(path = %path.display(), "Mail written to {}", path.display());
            DeliveryOutcome::Sent
        }
        Err(error) => DeliveryOutcome::Failed(format!("{}: {error}", folder.display())),
    }
}

/// Writes a draft and renames it when it is complete, so that a program that watches the folder never reads
/// half a mail.
async fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await?;
    let (draft, path) = (folder.join(format!(".{name}.part")), folder.join(format!("{name}.eml")));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    fs::rename(&draft, &path).await?;
    fs::File::open(folder).await?.sync_all().await?;
    Ok(path)
}
