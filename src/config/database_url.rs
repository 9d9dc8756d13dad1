//! Where the data is.

use std::{fmt, path::PathBuf};

use url::Url;

use super::url_text::redacted;

/// A database.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of SQLite: `sqlite:///absolute/file` or `sqlite://relative/file`.
    Sqlite(PathBuf),
    /// A server of PostgreSQL; the URL as given, with its password.
    Postgres(String),
}

impl DatabaseUrl {
    /// Reads one; nothing for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            return (!path.is_empty() && !path.ends_with('/')).then(|| Self::Sqlite(path.into()));
        }
        let url = Url::parse(text).ok()?;
        matches!(url.scheme(), "postgres" | "postgresql").then(|| Self::Postgres(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => f.write_str(&redacted(url)),
        }
    }
}

/// Servers of PostgreSQL, by their URLs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatabaseUrls(Vec<String>);

impl DatabaseUrls {
    /// Reads URLs with commas or line ends between; `None` when one of them is not PostgreSQL's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let servers = split_urls(text).map(|url| is_one_server(url).then(|| url.to_owned()));
        servers.collect::<Option<_>>().map(Self)
    }

    /// The URLs, with their passwords.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|url| redacted(url))).finish()
    }
}

/// A list without its passwords. What is no URL of a server may be a part of one, with a password in it, and is not shown.
pub(super) fn redacted_urls(text: &str) -> String {
    let shown = split_urls(text).map(|url| if is_one_server(url) { redacted(url) } else { "***".to_owned() });
    shown.collect::<Vec<_>>().join(",")
}

/// Whether the text is the URL of one server, and not of several with something else than a comma between.
fn is_one_server(url: &str) -> bool {
    url.matches("://").count() == 1 && matches!(DatabaseUrl::parse(url), Some(DatabaseUrl::Postgres(_)))
}

/// The URLs of a list.
fn split_urls(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_servers_are_told_apart() {
        assert_eq!(DatabaseUrl::parse("sqlite:///var/k.db"), Some(DatabaseUrl::Sqlite("/var/k.db".into())));
        assert_eq!(DatabaseUrl::parse("sqlite://data/k.db"), Some(DatabaseUrl::Sqlite("data/k.db".into())));
        assert!(matches!(DatabaseUrl::parse("postgresql://a:b@c/d"), Some(DatabaseUrl::Postgres(_))));
    }

    #[test]
    fn anything_else_is_refused_and_creates_no_file() {
        for text in
            ["", "sqlite://", "sqlite:///var/", "data/k.db", "mysql://a@b/c", "sqlite:k.db", "postgres"]
        {
            assert_eq!(DatabaseUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn replicas_are_servers() {
        let urls = DatabaseUrls::parse("postgres://a:hunter2@b/d, postgres://c/d\n").unwrap();
        assert_eq!(urls.as_slice(), ["postgres://a:hunter2@b/d", "postgres://c/d"]);
        assert!(!format!("{urls:?}").contains("hunter2"));
        assert_eq!(DatabaseUrls::parse(""), Some(DatabaseUrls::default()));
        for text in [
            "postgres://a/d,sqlite://data/k.db",
            "postgres://a/d;postgres://a:hunter2@b/d",
            "postgres://a/d postgres://a:hunter2@b/d",
            "postgres://a:x,hunter2@b/d",
            "postgres://a:x,y:hunter2@b/d",
        ] {
            assert_eq!(DatabaseUrls::parse(text), None, "{text}");
            assert!(!redacted_urls(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_password_is_in_neither_debug_nor_display() {
        let url = DatabaseUrl::parse("postgres://a:hunter2@c/d").unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
