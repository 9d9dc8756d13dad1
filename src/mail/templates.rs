//! The words of a mail.

use std::sync::Arc;

use minijinja::{Environment, context};
use time::OffsetDateTime;

use crate::domain::{MailKind, MailToken, Timestamp, Username};

/// A template does not fit its values: a defect of this release.
#[derive(Debug, thiserror::Error)]
#[error("a mail template cannot be rendered")]
pub struct BadTemplate(#[from] minijinja::Error);

/// The templates of all kinds of mail, with the address that links begin with. Cheap to clone.
#[derive(Clone)]
pub struct Templates {
    environment: Arc<Environment<'static>>,
    public_base_url: Arc<str>,
}

/// A rendered mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// One line.
    pub subject: String,
    /// For readers without HTML.
    pub text: String,
    /// The same in HTML; what a person chose is escaped.
    pub html: String,
}

/// What a mail is made of, beside its kind.
#[derive(Debug)]
pub struct MailValues<'a> {
    /// Whom it greets.
    pub username: &'a Username,
    /// When what it tells of was done.
    pub at: Timestamp,
    /// The token of its link, if it has one.
    pub token: Option<&'a MailToken>,
    /// When the link ends.
    pub expires_at: Timestamp,
}

/// The files of `templates/mail`, by their names.
macro_rules! files {
    ($($name:literal)+) => { [$(($name, include_str!(concat!("../../templates/mail/", $name)))),+] };
}

impl Templates {
    /// The templates that are compiled in; links begin with `public_base_url`, which does not end with a slash.
    ///
    /// # Errors
    /// [`BadTemplate`] when one does not parse.
    pub fn new(public_base_url: &str) -> Result<Self, BadTemplate> {
        let mut environment = Environment::new();
        // HTML is escaped by the name's ending, text is not.
        for (name, source) in files! {
            "layout.html" "layout.txt"
            "verify_email.subject.txt" "verify_email.txt" "verify_email.html"
            "reset_password.subject.txt" "reset_password.txt" "reset_password.html"
            "confirm_email_change.subject.txt" "confirm_email_change.txt" "confirm_email_change.html"
            "email_change_requested.subject.txt" "email_change_requested.txt" "email_change_requested.html"
            "email_changed.subject.txt" "email_changed.txt" "email_changed.html"
            "password_changed.subject.txt" "password_changed.txt" "password_changed.html"
            "username_changed.subject.txt" "username_changed.txt" "username_changed.html"
            "registration_attempted.subject.txt" "registration_attempted.txt" "registration_attempted.html"
        } {
            environment.add_template(name, source)?;
        }
        Ok(Self { environment: Arc::new(environment), public_base_url: public_base_url.into() })
    }

    /// The mail of this kind.
    ///
    /// # Errors
    /// [`BadTemplate`] when a template asks for what there is not.
    pub fn render(&self, kind: MailKind, values: &MailValues<'_>) -> Result<Words, BadTemplate> {
        let template = |ending: &str| self.environment.get_template(&format!("{}.{ending}", kind.as_str()));
        let subject = template("subject.txt")?.render(context! {})?.trim().to_owned();
        let link = values.token.and_then(|token| self.link(kind, token));
        let words = context! {
            subject => &subject,
            username => values.username.as_str(),
            link,
            at => in_words(values.at),
            expires_at => in_words(values.expires_at),
        };
        Ok(Words { subject, text: template("txt")?.render(&words)?, html: template("html")?.render(&words)? })
    }

    fn link(&self, kind: MailKind, token: &MailToken) -> Option<String> {
        let page = kind.purpose()?.page();
        Some(format!("{}/{page}?token={}", self.public_base_url, token.to_link_text()))
    }
}

/// As in "24 November 2026, 09:05 UTC".
fn in_words(at: Timestamp) -> String {
    match OffsetDateTime::from_unix_timestamp(at.unix_micros().div_euclid(1_000_000)) {
        Ok(at) => {
            format!("{} {} {}, {:02}:{:02} UTC", at.day(), at.month(), at.year(), at.hour(), at.minute())
        }
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(kind: MailKind, username: &str) -> Words {
        let templates = Templates::new("https://kairos.example/app").unwrap();
        let (username, token) = (Username::parse(username).unwrap(), MailToken::from_random([255; 32]));
        let expires_at = Timestamp::from_unix_micros(1_764_000_000_000_000);
        let at = Timestamp::from_unix_micros(1_763_900_000_000_000);
        let token = kind.purpose().map(|_| &token);
        templates.render(kind, &MailValues { username: &username, at, token, expires_at }).unwrap()
    }

    fn words(username: &str) -> Words {
        words_of(MailKind::VerifyEmail, username)
    }

    #[test]
    fn each_kind_has_its_words_and_a_link_where_there_is_something_to_do() {
        for kind in MailKind::ALL {
            let words = words_of(*kind, "Ada");
            assert!(words.subject.contains("Kairos") || words.subject.contains("Somebody"), "{words:?}");
            assert!(words.html.contains(&format!("<title>{}</title>", words.subject)), "{words:?}");
            let when = if kind.purpose().is_some() {
                "24 November 2025, 16:00 UTC"
            } else {
                "23 November 2025, 12:13 UTC"
            };
            for part in [&words.text, &words.html] {
                let is_linked = part.contains("token=") || part.contains("token&#x3d;");
                assert_eq!(is_linked, kind.purpose().is_some(), "{part}");
                assert!(part.contains("Hello Ada,") && part.contains(when), "{part}");
                assert!(!part.contains("\n\n\n") && !part.contains("{{"), "{part}");
            }
        }
    }

    #[test]
    fn both_parts_have_the_link_and_when_it_ends() {
        let words = words("Ada");
        let token = MailToken::from_random([255; 32]).to_link_text();
        let link = format!("https://kairos.example/app/verify?token={token}");
        assert!(words.text.contains(&format!("\n{link}\n")), "{}", words.text);
        for part in [&words.text, &words.html] {
            assert!(part.contains("24 November 2025, 16:00 UTC") && part.contains("Hello Ada,"), "{part}");
        }
        // Escaped as HTML, a browser reads the same link.
        assert!(words.html.replace("&#x2f;", "/").contains(&format!("href=\"{link}\"")), "{}", words.html);
        assert_eq!(words.subject, "Confirm your email address for Kairos");
    }

    #[test]
    fn a_name_is_text_and_never_markup() {
        let words = words("<b>Ada & \"Co\"");
        assert!(
            !words.html.contains("<b>") && words.html.contains("&lt;b&gt;Ada &amp; &quot;Co&quot;"),
            "{}",
            words.html
        );
        assert!(words.text.contains("Hello <b>Ada & \"Co\","), "{}", words.text);
    }
}
