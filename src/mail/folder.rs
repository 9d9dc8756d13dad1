//! Mails as files, for development: each becomes `<time>-<message-id>.eml`.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::{self, OpenOptions},
    io::AsyncWriteExt,
};

use super::attempt::Outcome;
use crate::store::OutgoingMail;

/// Writes the mail; a repetition replaces the file by the same.
pub(super) async fn write(folder: &Path, mail: &OutgoingMail, bytes: &[u8]) -> Outcome {
    // The time first, so that a listing is in order; no name of the file system's comes from outside.
    let name = format!("{}-{}", mail.created_at.unix_micros(), mail.message_id.replace(['/', '\0'], "_"));
    match write_whole(folder, &name, bytes).await {
        Ok(path) => {
            tracing::info!(path = %path.display(), "Mail written to {}", path.display());
            Outcome::Sent
        }
        Err(error) => Outcome::Failed(format!("{}: {error}", folder.display())),
    }
}

/// Under another name until it is complete, so that whoever watches the folder never reads half a mail.
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
