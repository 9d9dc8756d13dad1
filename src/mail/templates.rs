//! Renders the subject and the bodies of mails.

use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, context};
use time::OffsetDateTime;

use crate::domain::{MailKind, MailToken, Timestamp, Username};

/// A mail template does not parse, or needs a value that it does not receive: a defect of this release.
#[derive(Debug, thiserror::Error)]
#[error("a mail template cannot be rendered")]
pub struct BadTemplate(#[from] minijinja::Error);

/// The templates of all kinds of mail, and the URL that links begin with. Cheap to clone.
#[derive(Clone)]
pub struct Templates {
    environment: Arc<Environment<'static>>,
    public_base_url: Arc<str>,
}

/// A rendered mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedMail {
    /// The subject, one line.
    pub subject: String,
    /// The plain-text body.
    pub text: String,
    /// The HTML body; the username in it is escaped.
    pub html: String,
}

/// The values of a mail, apart from its kind.
#[derive(Debug)]
pub struct MailValues<'a> {
    /// The username in the salutation; `None` for a recipient who has not verified the address. The user
    /// chose the name, so it must not reach another person.
    pub username: Option<&'a Username>,
    /// The time of the action that the mail reports.
    pub at: Timestamp,
    /// The token of the link, if the mail has a link.
    pub token: Option<&'a MailToken>,
    /// The expiry of the link.
    pub expires_at: Timestamp,
}

/// The files of `templates/mail`, each with its name.
const FILES: &[(&str, &str)] = &[
    ("layout.html", include_str!("../../templates/mail/layout.html")),
    ("layout.txt", include_str!("../../templates/mail/layout.txt")),
    ("verify_email.subject.txt", include_str!("../../templates/mail/verify_email.subject.txt")),
    ("verify_email.txt", include_str!("../../templates/mail/verify_email.txt")),
    ("verify_email.html", include_str!("../../templates/mail/verify_email.html")),
    ("reset_password.subject.txt", include_str!("../../templates/mail/reset_password.subject.txt")),
    ("reset_password.txt", include_str!("../../templates/mail/reset_password.txt")),
    ("reset_password.html", include_str!("../../templates/mail/reset_password.html")),
    (
        "confirm_email_change.subject.txt",
        include_str!("../../templates/mail/confirm_email_change.subject.txt"),
    ),
    ("confirm_email_change.txt", include_str!("../../templates/mail/confirm_email_change.txt")),
    ("confirm_email_change.html", include_str!("../../templates/mail/confirm_email_change.html")),
    (
        "email_change_requested.subject.txt",
        include_str!("../../templates/mail/email_change_requested.subject.txt"),
    ),
    ("email_change_requested.txt", include_str!("../../templates/mail/email_change_requested.txt")),
    ("email_change_requested.html", include_str!("../../templates/mail/email_change_requested.html")),
    ("email_changed.subject.txt", include_str!("../../templates/mail/email_changed.subject.txt")),
    ("email_changed.txt", include_str!("../../templates/mail/email_changed.txt")),
    ("email_changed.html", include_str!("../../templates/mail/email_changed.html")),
    ("email_replaced.subject.txt", include_str!("../../templates/mail/email_replaced.subject.txt")),
    ("email_replaced.txt", include_str!("../../templates/mail/email_replaced.txt")),
    ("email_replaced.html", include_str!("../../templates/mail/email_replaced.html")),
    ("email_restored.subject.txt", include_str!("../../templates/mail/email_restored.subject.txt")),
    ("email_restored.txt", include_str!("../../templates/mail/email_restored.txt")),
    ("email_restored.html", include_str!("../../templates/mail/email_restored.html")),
    ("password_changed.subject.txt", include_str!("../../templates/mail/password_changed.subject.txt")),
    ("password_changed.txt", include_str!("../../templates/mail/password_changed.txt")),
    ("password_changed.html", include_str!("../../templates/mail/password_changed.html")),
    ("username_changed.subject.txt", include_str!("../../templates/mail/username_changed.subject.txt")),
    ("username_changed.txt", include_str!("../../templates/mail/username_changed.txt")),
    ("username_changed.html", include_str!("../../templates/mail/username_changed.html")),
    (
        "registration_attempted.subject.txt",
        include_str!("../../templates/mail/registration_attempted.subject.txt"),
    ),
    ("registration_attempted.txt", include_str!("../../templates/mail/registration_attempted.txt")),
    ("registration_attempted.html", include_str!("../../templates/mail/registration_attempted.html")),
    ("account_deleted.subject.txt", include_str!("../../templates/mail/account_deleted.subject.txt")),
    ("account_deleted.txt", include_str!("../../templates/mail/account_deleted.txt")),
    ("account_deleted.html", include_str!("../../templates/mail/account_deleted.html")),
    ("account_disabled.subject.txt", include_str!("../../templates/mail/account_disabled.subject.txt")),
    ("account_disabled.txt", include_str!("../../templates/mail/account_disabled.txt")),
    ("account_disabled.html", include_str!("../../templates/mail/account_disabled.html")),
    ("new_address_login.subject.txt", include_str!("../../templates/mail/new_address_login.subject.txt")),
    ("new_address_login.txt", include_str!("../../templates/mail/new_address_login.txt")),
    ("new_address_login.html", include_str!("../../templates/mail/new_address_login.html")),
];

impl Templates {
    /// Parses the embedded templates. Links begin with `public_base_url`, which does not end with a slash.
    ///
    /// # Errors
    /// [`BadTemplate`] if a template does not parse.
    pub fn new(public_base_url: &str) -> Result<Self, BadTemplate> {
        let mut environment = Environment::new();
        // A value that a template does not receive is an error instead of an empty text.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Values are escaped in templates whose name ends in `.html`, and not in `.txt`.
        for (name, source) in FILES {
            environment.add_template(name, source)?;
        }
        Ok(Self { environment: Arc::new(environment), public_base_url: public_base_url.into() })
    }

    /// Renders the mail of this kind.
    ///
    /// # Errors
    /// [`BadTemplate`] if a template is missing or cannot be rendered with these values.
    pub fn render(&self, kind: MailKind, values: &MailValues<'_>) -> Result<RenderedMail, BadTemplate> {
        let template = |ending: &str| self.environment.get_template(&format!("{}.{ending}", kind.as_str()));
        let subject = template("subject.txt")?.render(context! {})?.trim().to_owned();
        let link = values.token.and_then(|token| self.link(kind, token));
        let context = context! {
            subject => &subject,
            username => values.username.map(Username::as_str),
            link,
            at => format_time(values.at),
            expires_at => format_time(values.expires_at),
        };
        Ok(RenderedMail {
            subject,
            text: template("txt")?.render(&context)?,
            html: template("html")?.render(&context)?,
        })
    }

    /// Returns the link with this token; `None` for a kind of mail without a link.
    fn link(&self, kind: MailKind, token: &MailToken) -> Option<String> {
        let page = kind.purpose()?.page();
        Some(format!("{}/{page}?token={}", self.public_base_url, token.to_link_text()))
    }
}

/// Formats a time like "24 November 2026, 09:05 UTC".
fn format_time(at: Timestamp) -> String {
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

    fn render(kind: MailKind, username: &str) -> RenderedMail {
        let templates = Templates::new("https://kairos.example/app").unwrap();
        let (username, token) = (Username::parse(username).unwrap(), MailToken::from_random([255; 32]));
        let expires_at = Timestamp::from_unix_micros(1_764_000_000_000_000);
        let at = Timestamp::from_unix_micros(1_763_900_000_000_000);
        let token = kind.purpose().map(|_| &token);
        let username = Some(&username);
        templates.render(kind, &MailValues { username, at, token, expires_at }).unwrap()
    }

    fn render_verification(username: &str) -> RenderedMail {
        render(MailKind::VerifyEmail, username)
    }

    #[test]
    fn each_kind_renders_and_has_a_link_only_if_it_needs_one() {
        for kind in MailKind::ALL {
            let mail = render(*kind, "Ada");
            assert!(mail.subject.contains("Kairos"), "{mail:?}");
            assert!(mail.html.contains(&format!("<title>{}</title>", mail.subject)), "{mail:?}");
            let when = if kind.purpose().is_some() {
                "24 November 2025, 16:00 UTC"
            } else {
                "23 November 2025, 12:13 UTC"
            };
            for part in [&mail.text, &mail.html] {
                let is_linked = part.contains("token=") || part.contains("token&#x3d;");
                assert_eq!(is_linked, kind.purpose().is_some(), "{part}");
                assert!(part.contains("Hello Ada,") && part.contains(when), "{part}");
                assert!(!part.contains("\n\n\n") && !part.contains("{{"), "{part}");
            }
        }
    }

    #[test]
    fn both_bodies_contain_the_link_and_its_expiry() {
        let mail = render_verification("Ada");
        let token = MailToken::from_random([255; 32]).to_link_text();
        let link = format!("https://kairos.example/app/verify?token={token}");
        assert!(mail.text.contains(&format!("\n{link}\n")), "{}", mail.text);
        for part in [&mail.text, &mail.html] {
            assert!(part.contains("24 November 2025, 16:00 UTC") && part.contains("Hello Ada,"), "{part}");
        }
        // The link is escaped in HTML; a browser reads the same link.
        assert!(mail.html.replace("&#x2f;", "/").contains(&format!("href=\"{link}\"")), "{}", mail.html);
        assert_eq!(mail.subject, "Confirm your email address for Kairos");
    }

    #[test]
    fn without_a_username_the_salutation_has_no_name() {
        let templates = Templates::new("https://kairos.example").unwrap();
        let (token, at) = (MailToken::from_random([255; 32]), Timestamp::from_unix_micros(0));
        for kind in MailKind::ALL {
            let token = kind.purpose().map(|_| &token);
            let mail =
                templates.render(*kind, &MailValues { username: None, at, token, expires_at: at }).unwrap();
            assert!(mail.text.starts_with("Hello,\n") && mail.html.contains("<p>Hello,</p>"), "{mail:?}");
            assert!(!mail.text.contains("none") && !mail.text.contains("name at the top"), "{mail:?}");
        }
    }

    #[test]
    fn the_username_is_escaped_in_html() {
        let mail = render_verification("<b>Ada & \"Co\"");
        assert!(
            !mail.html.contains("<b>") && mail.html.contains("&lt;b&gt;Ada &amp; &quot;Co&quot;"),
            "{}",
            mail.html
        );
        assert!(mail.text.contains("Hello <b>Ada & \"Co\","), "{}", mail.text);
    }
}
