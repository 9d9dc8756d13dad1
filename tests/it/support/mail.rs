//! Reads the mails of the service from its mail folder, decoded as a mail client shows them.

use std::{fs, path::Path, time::Duration};

use super::{mime::Entity, server::TestServer, wait::until};

/// Time limit for a mail to arrive. The outbox worker wakes directly after a commit; the limit allows for a
/// busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// A mail in the mail folder.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Value of the header `To`.
    pub to: String,
    /// Decoded plain-text part.
    pub text: String,
}

impl Mail {
    fn parse(raw: &str) -> Self {
        let entity = Entity::parse(raw);
        let text = entity.text_of("text/plain").unwrap_or_default();
        Self { to: entity.header("to").unwrap_or_default().to_owned(), text }
    }

    /// Returns the token in the link of the mail; panics if there is no link.
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("?token=").unwrap_or_else(|| panic!("no link in {self:?}"));
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
    }
}

/// Returns the mails to `email` that are in `folder` now, oldest first.
pub fn mails_to(folder: &Path, email: &str) -> Vec<Mail> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    let mails = files.iter().map(|file| Mail::parse(&fs::read_to_string(file).unwrap()));
    mails.filter(|mail| mail.to.trim_matches(['<', '>']) == email).collect()
}

/// Waits until at least `count` mails to `email` have arrived, and returns all of them, oldest first.
pub async fn wait_for_mails(server: &TestServer, email: &str, count: usize) -> Vec<Mail> {
    let folder = server.mail_folder();
    let enough = async || Some(mails_to(&folder, email)).filter(|mails| mails.len() >= count);
    until(&format!("{count} mails arrive"), ARRIVAL_LIMIT, enough).await
}

/// Waits until at least `count` mails to `email` have arrived, and returns the newest.
pub async fn newest_mail(server: &TestServer, email: &str, count: usize) -> Mail {
    wait_for_mails(server, email, count).await.pop().expect("at least one has arrived")
}

/// Waits for a mail to `email` with a link to the page `page`, and returns the token of the newest one.
pub async fn link_to(server: &TestServer, email: &str, page: &str) -> String {
    let (folder, link) = (server.mail_folder(), format!("/{page}?token="));
    let newest = async || mails_to(&folder, email).into_iter().rev().find(|mail| mail.text.contains(&link));
    until(&format!("a mail with {link} arrives"), ARRIVAL_LIMIT, newest).await.token()
}

/// Waits for a mail to `email`, and returns the token of the newest one.
pub async fn verification_token(server: &TestServer, email: &str) -> String {
    wait_for_mails(server, email, 1).await.last().expect("one has arrived").token()
}
