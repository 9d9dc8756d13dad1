//! What the service mailed, read from its mail folder as the person would read it.

use std::{fs, path::Path, time::Duration};

use super::{mime::Entity, server::TestServer, wait::until};

/// The outbox wakes at once after a commit; this is for a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// A mail in the folder.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The header `To`.
    pub to: String,
    /// The decoded plain text.
    pub text: String,
}

impl Mail {
    fn parse(raw: &str) -> Self {
        let entity = Entity::parse(raw);
        let text = entity.text_of("text/plain").unwrap_or_default();
        Self { to: entity.header("to").unwrap_or_default().to_owned(), text }
    }

    /// The token in the mail's link; panics when there is none.
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("?token=").unwrap_or_else(|| panic!("no link in {self:?}"));
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
    }
}

/// The mails to `email` that are in `folder` now, oldest first.
pub fn mails_to(folder: &Path, email: &str) -> Vec<Mail> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    let mails = files.iter().map(|file| Mail::parse(&fs::read_to_string(file).unwrap()));
    mails.filter(|mail| mail.to.trim_matches(['<', '>']) == email).collect()
}

/// Waits until `count` mails to `email` have arrived, and gives all of them, oldest first.
pub async fn wait_for_mails(server: &TestServer, email: &str, count: usize) -> Vec<Mail> {
    let folder = server.mail_folder();
    let enough = async || Some(mails_to(&folder, email)).filter(|mails| mails.len() >= count);
    until(&format!("{count} mails arrive"), ARRIVAL_LIMIT, enough).await
}

/// Waits for a mail to `email`, and gives the token of the newest.
pub async fn verification_token(server: &TestServer, email: &str) -> String {
    wait_for_mails(server, email, 1).await.last().expect("one has arrived").token()
}
