//! The URL of the mail transport.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use super::value::Value;

/// How the connection to the SMTP server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// `smtp://`: STARTTLS, port 587 unless given.
    StartTls,
    /// `smtps://`: TLS from the first byte, port 465 unless given.
    Implicit,
}

/// Where mail is delivered. `Debug` and `Display` do not show the password.
#[derive(Clone, PartialEq, Eq)]
pub enum MailUrl {
    /// A folder in which each mail becomes a file: `file:///absolute/folder` or `file://relative/folder`.
    Folder(PathBuf),
    /// An SMTP server.
    Smtp {
        /// The host name or IP address, which the server's certificate must contain.
        host: String,
        /// The port.
        port: u16,
        /// Username and password, if the URL has them.
        credentials: Option<(String, String)>,
        /// How the connection is encrypted.
        tls: SmtpTls,
    },
}

impl MailUrl {
    /// Parses a URL; `None` if it is invalid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file://") {
            return (!path.is_empty()).then(|| Self::Folder(path.into()));
        }
        let url = Url::parse(text).ok()?;
        let (tls, default_port) = match url.scheme() {
            "smtp" => (SmtpTls::StartTls, 587),
            "smtps" => (SmtpTls::Implicit, 465),
            _ => return None,
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return None;
        }
        let host = url.host_str().filter(|host| !host.is_empty())?;
        Some(Self::Smtp {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(default_port),
            credentials: credentials(&url)?,
            tls,
        })
    }
}

/// Returns the decoded username and password of the URL, `Some(None)` if it has neither, and `None` if only
/// one of them is set or if they are not UTF-8.
#[expect(clippy::option_option, reason = "invalid credentials and no credentials are different results")]
fn credentials(url: &Url) -> Option<Option<(String, String)>> {
    match (url.username(), url.password()) {
        ("", None) => Some(None),
        ("", Some(_)) | (_, None) => None,
        (name, Some(password)) => Some(Some((decoded(name)?, decoded(password)?))),
    }
}

/// Decodes the percent-encoding; `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

impl fmt::Debug for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes the URL without the credentials.
impl fmt::Display for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Smtp { host, port, tls: SmtpTls::StartTls, .. } => write!(f, "smtp://{host}:{port}"),
            Self::Smtp { host, port, tls: SmtpTls::Implicit, .. } => write!(f, "smtps://{host}:{port}"),
        }
    }
}

impl Value for MailUrl {
    fn expects() -> String {
        "file:///folder, smtp://user:password@host:port or smtps://user:password@host:port".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        MailUrl::parse(text)
    }

    fn suggestion(text: &str) -> Option<String> {
        // A text that is not clearly a path or the name of a host may be a password, and gets no suggestion.
        let is_host = text.contains('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-".contains(&byte));
        let scheme = if text.starts_with('/') { "file" } else { "smtp" };
        let url = format!("{scheme}://{text}");
        let is_known = is_host || (text.starts_with('/') && !text.contains(['@', '?', '#']));
        (is_known && Self::parse(&url).is_some()).then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(host: &str, port: u16, credentials: Option<(&str, &str)>, tls: SmtpTls) -> MailUrl {
        let credentials = credentials.map(|(name, password)| (name.to_owned(), password.to_owned()));
        MailUrl::Smtp { host: host.to_owned(), port, credentials, tls }
    }

    #[test]
    fn each_scheme_has_a_default_port_and_a_tls_mode() {
        assert_eq!(
            MailUrl::parse("smtp://mail.example"),
            Some(smtp("mail.example", 587, None, SmtpTls::StartTls))
        );
        assert_eq!(
            MailUrl::parse("smtps://mail.example"),
            Some(smtp("mail.example", 465, None, SmtpTls::Implicit))
        );
        assert_eq!(MailUrl::parse("smtp://[::1]:2525"), Some(smtp("::1", 2525, None, SmtpTls::StartTls)));
        assert_eq!(MailUrl::parse("file:///var/mail"), Some(MailUrl::Folder("/var/mail".into())));
        assert_eq!(MailUrl::parse("file://data/mail"), Some(MailUrl::Folder("data/mail".into())));
    }

    #[test]
    fn credentials_are_percent_decoded() {
        let expected = Some(smtp("mail.example", 25, Some(("a@b", "p:/ä")), SmtpTls::StartTls));
        assert_eq!(MailUrl::parse("smtp://a%40b:p%3A%2F%C3%A4@mail.example:25"), expected);
    }

    #[test]
    fn invalid_urls_are_refused() {
        for text in [
            "",
            "file://",
            "smtp://",
            "smtp://user@host",
            "smtp://host/path",
            "http://host",
            "mail.example:25",
            "smtp://a:%ff@host",
        ] {
            assert_eq!(MailUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_password_is_in_neither_debug_nor_display() {
        let url = MailUrl::parse("smtp://a:hunter2@host").unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
