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

impl Templates {
    /// The templates that are compiled in; links begin with `public_base_url`, which does not end with a slash.
    ///
    /// # Errors
    /// [`BadTemplate`] when one does not parse.
    pub fn new(public_base_url: &str) -> Result<Self, BadTemplate> {
        let mut environment = Environment::new();
        // HTML is escaped by the name's ending, text is not.
        environment
            .add_template("verify_email.html", include_str!("../../templates/mail/verify_email.html"))?;
        environment
            .add_template("verify_email.txt", include_str!("../../templates/mail/verify_email.txt"))?;
        environment.add_template(
            "verify_email.subject.txt",
            include_str!("../../templates/mail/verify_email.subject.txt"),
        )?;
        Ok(Self { environment: Arc::new(environment), public_base_url: public_base_url.into() })
    }

    /// The mail of this kind: the person's name and the link with the token are in it.
    ///
    /// # Errors
    /// [`BadTemplate`] when a template asks for what there is not.
    pub fn render(
        &self,
        kind: MailKind,
        username: &Username,
        token: &MailToken,
        expires_at: Timestamp,
    ) -> Result<Words, BadTemplate> {
        let name = kind.as_str();
        let link = format!("{}/verify?token={}", self.public_base_url, token.to_link_text());
        let values = context! { username => username.as_str(), link, expires_at => in_words(expires_at) };
        let rendered =
            |ending: &str| self.environment.get_template(&format!("{name}.{ending}"))?.render(&values);
        Ok(Words {
            subject: rendered("subject.txt")?.trim().to_owned(),
            text: rendered("txt")?,
            html: rendered("html")?,
        })
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

    fn words(username: &str) -> Words {
        let templates = Templates::new("https://kairos.example/app").unwrap();
        let token = MailToken::from_random([255; 32]);
        let expires_at = Timestamp::from_unix_micros(1_764_000_000_000_000);
        templates
            .render(MailKind::VerifyEmail, &Username::parse(username).unwrap(), &token, expires_at)
            .unwrap()
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
