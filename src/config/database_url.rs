//! The URLs of databases.

use std::{fmt, path::PathBuf};

use super::{
    url_text::{HIDDEN, redacted},
    value::Value,
};
use crate::postgres_url::PostgresUrl;

/// The URL of a database. `Debug` and `Display` do not show its password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file: `sqlite:///absolute/file` or `sqlite://relative/file`.
    Sqlite(PathBuf),
    /// A PostgreSQL server: the URL as it was given, with its password.
    Postgres(String),
}

impl DatabaseUrl {
    /// Parses a URL; `None` if the text is neither a SQLite nor a PostgreSQL URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    /// Parses a URL. The error says what is wrong with it, without its password.
    fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            return match path {
                "" => Err("the path of the file is missing after sqlite://".to_owned()),
                ":memory:" => Err("a database in memory would be lost: name a file".to_owned()),
                _ if path.ends_with('/') => Err("the path ends with /: name a file in the folder".to_owned()),
                _ if path.contains('?') => {
                    Err("a SQLite URL has no parameters: leave out the ? and what follows it".to_owned())
                }
                _ => Ok(Self::Sqlite(path.into())),
            };
        }
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err("it begins with neither sqlite:// nor postgres:// (in lower case)".to_owned());
        }
        // As libpq does: a list of hosts is no URL in the sense of RFC 3986.
        match text.parse::<PostgresUrl>() {
            Ok(_) => Ok(Self::Postgres(text.to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the URL of the SQLite file that a text probably means: a path, or a URL of another form.
    /// Returns `None` for a text that may contain a password.
    fn suggestion(text: &str) -> Option<String> {
        if let Some((scheme, rest)) = text.split_once("://")
            && scheme != "sqlite"
            && scheme.eq_ignore_ascii_case("sqlite")
        {
            return Some(format!("sqlite://{rest}")).filter(|url| Self::parse(url).is_some());
        }
        let path = ["sqlite:", "file:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        // `sqlite:/x.db` and `file:///x.db` both name an absolute path.
        let path = match path.strip_prefix("//") {
            Some(rest) if rest.starts_with('/') => rest,
            // A host, or a URL of the right form that is refused for another reason.
            Some(_) => return None,
            None => path,
        };
        let is_path = !path.is_empty() && !path.contains([':', '@', '?', '#']) && !path.ends_with('/');
        // A text that is not clearly a path may be a password, and gets no suggestion.
        let is_file = path.len() < text.len()
            || path.starts_with(['/', '.'])
            || [".db", ".sqlite", ".sqlite3"].iter().any(|ending| path.ends_with(ending));
        (is_path && is_file).then(|| format!("sqlite://{path}"))
    }

    /// Describes a valid URL, for an error about a flag with the invalid value `text`. Adds the URL that the
    /// text probably means.
    #[must_use]
    pub fn expects_instead_of(text: &str) -> String {
        let flaw = Self::read(text).err().map(|flaw| format!(": {flaw}")).unwrap_or_default();
        let suggestion = Self::suggestion(text).map(|url| format!(": write {url}")).unwrap_or_default();
        format!("{}{flaw}{suggestion}", <Self as Value>::expects())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes the URL without its password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => f.write_str(&redacted(url)),
        }
    }
}

/// The URLs of PostgreSQL servers. `Debug` does not show their passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatabaseUrls(Vec<String>);

impl DatabaseUrls {
    /// Parses URLs that are separated by commas or line breaks; `None` if one of them is not a PostgreSQL
    /// URL.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let servers = split_urls(text).map(|url| is_single_postgres_url(url).then(|| url.to_owned()));
        servers.collect::<Option<_>>().map(Self)
    }

    /// Returns the URLs with their passwords.
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

impl Value for DatabaseUrl {
    fn expects() -> String {
        "sqlite:///folder/file, sqlite://relative/file or postgres://user:password@host:port/database"
            .to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        DatabaseUrl::parse(text)
    }

    fn suggestion(text: &str) -> Option<String> {
        DatabaseUrl::suggestion(text)
    }

    fn flaw(text: &str) -> Option<String> {
        DatabaseUrl::read(text).err()
    }
}

impl Value for DatabaseUrls {
    fn expects() -> String {
        "URLs such as postgres://user:password@host:port/database, separated by commas, or empty".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        DatabaseUrls::parse(text)
    }

    fn flaw(text: &str) -> Option<String> {
        let (place, url) = split_urls(text).enumerate().find(|(_, url)| !is_single_postgres_url(url))?;
        let flaw = match DatabaseUrl::read(url) {
            Err(flaw) => flaw,
            Ok(DatabaseUrl::Sqlite(_)) => "only PostgreSQL has replicas".to_owned(),
            Ok(DatabaseUrl::Postgres(_)) => {
                "it contains a second ://: separate URLs by commas or line breaks".to_owned()
            }
        };
        Some(format!("the URL {} of the list: {flaw}", place + 1))
    }
}

/// Redacts the passwords in a list of URLs. An entry that is not a PostgreSQL URL is replaced as a whole,
/// since it may be a part of one that contains the password.
pub(super) fn redacted_urls(text: &str) -> String {
    let shown = split_urls(text)
        .map(|url| if is_single_postgres_url(url) { redacted(url) } else { HIDDEN.to_owned() });
    shown.collect::<Vec<_>>().join(",")
}

/// True if the text is the URL of exactly one PostgreSQL server, and not several URLs with a wrong separator.
fn is_single_postgres_url(url: &str) -> bool {
    url.matches("://").count() == 1 && matches!(DatabaseUrl::parse(url), Some(DatabaseUrl::Postgres(_)))
}

/// Splits a list at commas and line breaks; empty entries are skipped.
fn split_urls(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_and_postgres_urls_are_distinguished() {
        assert_eq!(DatabaseUrl::parse("sqlite:///var/k.db"), Some(DatabaseUrl::Sqlite("/var/k.db".into())));
        assert_eq!(DatabaseUrl::parse("sqlite://data/k.db"), Some(DatabaseUrl::Sqlite("data/k.db".into())));
        assert!(matches!(DatabaseUrl::parse("postgresql://a:b@c/d"), Some(DatabaseUrl::Postgres(_))));
    }

    #[test]
    fn invalid_urls_are_refused() {
        for text in
            ["", "sqlite://", "sqlite:///var/", "data/k.db", "mysql://a@b/c", "sqlite:k.db", "postgres"]
        {
            assert_eq!(DatabaseUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_wrong_part_of_a_url_is_named_without_its_password() {
        for (text, flaw) in [
            ("sqlite://", "path of the file is missing"),
            ("sqlite://:memory:", "would be lost"),
            ("sqlite:///var/", "ends with /"),
            ("sqlite:///var/k.db?mode=ro", "no parameters"),
            ("Postgres://a:hunter2@b/c", "in lower case"),
            ("jdbc:postgresql://a:hunter2@b/c", "begins with neither"),
            ("postgres://a:hunter2@b:70000/c", "the port of a host is not a number"),
            ("postgres://a:hunter2/c", "the port of a host is not a number"),
            ("postgres://a:b@c:hunter2@d/c", "the port of a host is not a number"),
            ("postgres://a:b@hunter2@d/c", "write an @ in the password as %40"),
            ("postgres://a:hunter2@b/c?sslmode=prefer", "sslmode must be"),
            ("postgres://a:hunter2@b/c?sslkey=x", "the parameter sslkey is unknown"),
            ("postgres://a:hunter2@b/c?connect_timeout=x", "the value of the parameter connect_timeout"),
            ("postgres://a:hunter2@[::1/c", "brackets"),
        ] {
            let found = DatabaseUrl::read(text).unwrap_err();
            assert!(found.contains(flaw) && !found.contains("hunter2"), "{text}: {found}");
        }
        let urls = <DatabaseUrls as Value>::flaw("postgres://a@b/c,postgres://a@b:x/c").unwrap();
        assert!(urls.starts_with("the URL 2 of the list: the port"), "{urls}");
    }

    #[test]
    fn a_path_is_answered_with_its_url() {
        for (text, url) in [
            ("/var/x.db", "sqlite:///var/x.db"),
            ("x.db", "sqlite://x.db"),
            ("data/x.sqlite3", "sqlite://data/x.sqlite3"),
            ("sqlite:/var/x.db", "sqlite:///var/x.db"),
            ("sqlite:x.db", "sqlite://x.db"),
            ("file:///var/x.db", "sqlite:///var/x.db"),
            ("SQLITE://X.db", "sqlite://X.db"),
        ] {
            assert_eq!(DatabaseUrl::suggestion(text).as_deref(), Some(url), "{text}");
            assert!(DatabaseUrl::parse(url).is_some(), "{url}");
        }
        for text in [
            "",
            "postgres",
            "mysql://a:hunter2@b/c",
            "a:hunter2@b/c",
            "hunter2",
            "sqlite://",
            "Sqlite://",
            "data/",
        ] {
            assert_eq!(DatabaseUrl::suggestion(text), None, "{text}");
        }
    }

    #[test]
    fn replica_urls_are_single_postgres_urls() {
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
