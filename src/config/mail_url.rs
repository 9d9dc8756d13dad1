//! The URL of the mail transport.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use url::{ParseError, Url};

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
        Self::read(text).ok()
    }

    /// Parses a URL. The error says what is wrong with it, without its password.
    fn read(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("file://") {
            return if path.is_empty() {
                Err("the path of the folder is missing")
            } else {
                Ok(Self::Folder(path.into()))
            };
        }
        let url = Url::parse(text).map_err(flaw_of)?;
        let (tls, default_port) = match url.scheme() {
            "smtp" => (SmtpTls::StartTls, 587),
            "smtps" => (SmtpTls::Implicit, 465),
            _ => return Err(WRONG_SCHEME),
        };
        if !matches!(url.path(), "" | "/") {
            return Err("a path follows the host: leave it out (in a password, write / as %2F)");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "a ? or # follows the host: leave it out (in a password, write ? as %3F and # as %23)",
            );
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err("the host is missing");
        }
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
            return Err("the host is neither a host name in ASCII nor an IP address");
        }
        Ok(Self::Smtp {
            host: host.to_owned(),
            port: match url.port() {
                Some(0) => return Err(WRONG_PORT),
                port => port.unwrap_or(default_port),
            },
            credentials: credentials(&url)?,
            tls,
        })
    }
}

const WRONG_SCHEME: &str = "it begins with none of smtp://, smtps:// and file://";

const WRONG_PORT: &str = "the port is not a number from 1 to 65535";

/// Says what is wrong with a text that is no URL.
const fn flaw_of(error: ParseError) -> &'static str {
    match error {
        ParseError::InvalidPort => WRONG_PORT,
        ParseError::EmptyHost => "the host is missing",
        ParseError::RelativeUrlWithoutBase => WRONG_SCHEME,
        ParseError::InvalidIpv6Address => "an IPv6 address needs brackets on both sides",
        _ => "the host is not valid (in a user or password, write @ as %40, / as %2F and # as %23)",
    }
}

/// Returns the decoded username and password of the URL, if it has them. The error says which of them is
/// wrong.
fn credentials(url: &Url) -> Result<Option<(String, String)>, &'static str> {
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err("a password has no user before it"),
        (_, None) => Err("the user has no password after it: write user:password@host"),
        (name, Some(password)) => Ok(Some((decoded(name)?, decoded(password)?))),
    }
}

/// Decodes the percent-encoding.
fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "the user or the password is not UTF-8")
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

    fn flaw(text: &str) -> Option<String> {
        Self::read(text).err().map(str::to_owned)
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
    fn the_wrong_part_of_a_url_is_named_without_its_password() {
        for (text, flaw) in [
            ("file://", "path of the folder"),
            ("mail.example:25", "begins with none of"),
            ("http://a:hunter2@host", "begins with none of"),
            ("smtp://", "the host is missing"),
            ("smtp://:25", "the host is missing"),
            ("smtp://a:hunter2@host:0", "the port"),
            ("smtp://host:70000", "the port"),
            ("smtp://a:hunter2@host:x", "the port"),
            ("smtp://user@host", "the user has no password"),
            ("smtp://:hunter2@host", "no user before it"),
            ("smtp://host/path", "a path follows"),
            ("smtp://host?hunter2", "follows the host"),
            ("smtp://a:b@host#hunter2", "follows the host"),
            ("smtp://[::1", "brackets"),
            ("smtp://a:b@ho st", "the host is not valid"),
            ("smtp://b\u{fc}cher.example", "host name in ASCII"),
            ("smtp://a:%ff@host", "is not UTF-8"),
        ] {
            let found = <MailUrl as Value>::flaw(text).unwrap_or_default();
            assert!(found.contains(flaw) && !found.contains("hunter2"), "{text}: {found}");
            assert_eq!(MailUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_password_is_in_neither_debug_nor_display() {
        let url = MailUrl::parse("smtp://a:hunter2@host").unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
