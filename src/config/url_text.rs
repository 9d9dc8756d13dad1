//! Redaction of the passwords in URLs.

use url::Url;

/// What is shown instead of a password.
pub(super) const HIDDEN: &str = "***";

/// Replaces the password of a URL with `***`. A text that is not a URL is replaced as a whole, since any part
/// of it may be the password.
pub(super) fn redacted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    redacted_with_hosts(text).unwrap_or_else(|| redacted_url(text))
}

/// Redacts the URL of several PostgreSQL hosts (`postgres://h1:p1,h2:p2/db`) or of none
/// (`postgres://user@/db?host=/folder`), which is no URL in the sense of RFC 3986. Returns `None` for any
/// other text, also for one in which the supposed hosts may be the rest of a password.
fn redacted_with_hosts(text: &str) -> Option<String> {
    /// Replaces the hosts while [`Url`], which accepts only one, parses the text.
    const PLACEHOLDER: &str = "several-hosts.invalid";
    let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| scheme.starts_with("postgres"))?;
    let end = rest.find('/').or_else(|| rest.find('?')).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end)?;
    let (credentials, hosts) = match authority.split_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    };
    let is_host = |host: &str| {
        host.rsplit_once(':').is_none_or(|(_, port)| port.ends_with(']') || port.parse::<u16>().is_ok())
    };
    let is_list = hosts.is_empty() || hosts.contains(',');
    if !is_list || after.contains('@') || hosts.contains(['@', '?', '#']) || !hosts.split(',').all(is_host) {
        return None;
    }
    let shown = redacted_url(&format!("{scheme}://{credentials}{PLACEHOLDER}{after}"));
    shown.contains(PLACEHOLDER).then(|| shown.replace(PLACEHOLDER, hosts))
}

fn redacted_url(text: &str) -> String {
    match Url::parse(text) {
        // `/` ends the host too.
        Ok(url) if url.path().contains('@') && !matches!(url.scheme(), "sqlite" | "file") => {
            HIDDEN.to_owned()
        }
        // `#` and `?` end the host, so what follows may be the rest of a password that contains them.
        Ok(url) if url.fragment().is_some() || url.query().is_some_and(|query| query.contains('@')) => {
            HIDDEN.to_owned()
        }
        Ok(mut url) if url.password().is_some() => {
            // `set_password` fails only for URLs that cannot have a password.
            if url.set_password(Some(HIDDEN)).is_err() {
                HIDDEN.to_owned()
            } else {
                without_query_secrets(url)
            }
        }
        // Without a host, `@` may follow a password: the text is a mistyped URL, such as
        // `postgres:user:secret@db`.
        Ok(url) if !url.has_host() && text.contains('@') && !matches!(url.scheme(), "sqlite" | "file") => {
            HIDDEN.to_owned()
        }
        Ok(url) if has_query_secrets(&url) => without_query_secrets(url),
        // As it was written, and not as the library writes it.
        Ok(_) => text.to_owned(),
        Err(_) => HIDDEN.to_owned(),
    }
}

/// True for the query parameters in which libpq accepts a password (`password`, `sslpassword`), also if the
/// names are in upper case.
fn is_secret(parameter: &str) -> bool {
    parameter.to_ascii_lowercase().contains("password")
}

fn has_query_secrets(url: &Url) -> bool {
    url.query_pairs().any(|(key, _)| is_secret(&key))
}

/// Replaces the values of the query parameters that are secret.
fn without_query_secrets(mut url: Url) -> String {
    if has_query_secrets(&url) {
        let shown: Vec<_> = url
            .query_pairs()
            .map(|(key, value)| {
                (key.to_string(), if is_secret(&key) { HIDDEN.into() } else { value.to_string() })
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn passwords_are_redacted() {
        assert_eq!(redacted("postgres://kairos:hunter2@db/x"), "postgres://kairos:***@db/x");
        assert_eq!(
            redacted("postgres://kairos@db/x?password=hunter2&a=b"),
            "postgres://kairos@db/x?password=***&a=b"
        );
        assert_eq!(
            redacted("postgres://kairos@db/x?sslpassword=hunter2&PASSWORD=hunter2"),
            "postgres://kairos@db/x?sslpassword=***&PASSWORD=***"
        );
        assert_eq!(redacted("smtp://a%40b:hunter2@mail:587"), "smtp://a%40b:***@mail:587");
        for without in ["sqlite://data/x.sqlite3", "SQLITE://X.db", "postgres://Kairos@DB/x?a=b c"] {
            assert_eq!(redacted(without), without);
        }
        assert_eq!(redacted("sqlite:///data/a@b.sqlite3"), "sqlite:///data/a@b.sqlite3");
        assert_eq!(
            redacted("postgres://kairos:hunter2@a:1,b:2/x?password=hunter2"),
            "postgres://kairos:***@a:1,b:2/x?password=***"
        );
        assert_eq!(redacted("postgres://a,[::1]/x"), "postgres://a,[::1]/x");
        assert_eq!(redacted("postgres://a:hunter2@/x?host=%2Fy"), "postgres://a:***@/x?host=%2Fy");
        assert_eq!(redacted("postgres://ada:hunter2@x,y@db/x"), "postgres://ada:***@db/x");
        for mistyped in [
            "postgres://ada:x,hunter2/y@db/x",
            "postgres://ada:hunter2,db/x",
            "hunter2",
            "ada:hunter2@db/x",
            "postgres:ada:hunter2@db/x",
            "smtp:/ada:hunter2@mail",
            "postgres://ada:hun#ter2@db/x",
            "postgres://ada:hun?ter2@db/x",
            "smtp://ada:hunter2@mail/x#hunter2",
            "smtp://ada:/hunter2@mail",
            "postgres://ada:12/hunter2@db/x",
            "postgres://ada:x@y/hunter2@db/x",
        ] {
            assert_eq!(redacted(mistyped), "***", "{mistyped}");
        }
    }
}
