//! Detects web addresses in usernames.
//!
//! Mail programs turn such a text into a link, and the service mails usernames. A username that a user
//! chooses must therefore not contain:
//!
//! 1. `://`, or one of [`SCHEMES`] at the start of a word, with a colon and a further character after it;
//! 2. `www.` at the start of a word, with a letter or digit after it;
//! 3. a host name (labels of letters, digits and hyphens with dots between them, of which the last has at
//!    least two letters, or four numbers) with `/`, `?`, `#`, or a colon and a digit after it;
//! 4. a host name that ends in one of [`TOP_LEVEL_DOMAINS`] or in an `xn--` label.
//!
//! Other texts with a dot are names: `ada.lovelace`, `J.R.R. Tolkien`, `Dr. No`.

use unicode_normalization::char::is_combining_mark;

/// The schemes that mail programs link without `//`.
const SCHEMES: [&str; 12] =
    ["http", "https", "ftp", "ftps", "mailto", "tel", "sms", "callto", "skype", "javascript", "data", "file"];

/// Top-level domains under which mail programs link a bare host name: those of RFC 2606, the oldest and
/// largest, and those that phishing uses most (Interisle, Phishing Landscape 2024).
const TOP_LEVEL_DOMAINS: [&str; 56] = [
    "example", "test", "invalid", "com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "name",
    "pro", "mobi", "io", "ai", "app", "dev", "co", "me", "tv", "cc", "ly", "gg", "xyz", "top", "site",
    "online", "shop", "store", "club", "live", "link", "click", "space", "website", "world", "vip", "icu",
    "lol", "buzz", "cfd", "sbs", "bond", "de", "uk", "eu", "fr", "nl", "ru", "cn", "su", "tk", "ml", "рф",
];

/// True if the name contains a web address.
pub(super) fn holds_link(name: &str) -> bool {
    let text = name.to_lowercase();
    text.contains("://")
        || SCHEMES
            .iter()
            .any(|scheme| has_word_with_prefix(&text, &format!("{scheme}:"), |next| !next.is_whitespace()))
        || has_word_with_prefix(&text, "www.", char::is_alphanumeric)
        || contains_linked_host(&text)
}

/// True if a word of `text` begins with `prefix` and `accepts_next` holds for the next character.
fn has_word_with_prefix(text: &str, prefix: &str, accepts_next: impl Fn(char) -> bool) -> bool {
    text.match_indices(prefix).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + prefix.len()..).unwrap_or_default();
        !before.ends_with(char::is_alphanumeric) && after.starts_with(&accepts_next)
    })
}

/// True for the characters of a host name.
fn is_in_host(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c) || matches!(c, '-' | '.')
}

/// True if the text contains a host name that rule 3 or 4 refuses.
fn contains_linked_host(text: &str) -> bool {
    let mut rest = text;
    while let Some(start) = rest.find(is_in_host) {
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.find(|c| !is_in_host(c)).unwrap_or(rest.len());
        let (host, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if is_link(host, after) {
            return true;
        }
        rest = after;
    }
    false
}

/// True if rule 3 or 4 refuses the host name `run`, which the text `after` follows.
fn is_link(run: &str, after: &str) -> bool {
    let labels: Vec<&str> = run.split('.').filter(|label| !label.is_empty()).collect();
    let [_, .., last] = labels.as_slice() else { return false };
    let mut after = after.chars();
    let has_tail = match after.next() {
        Some('/' | '?' | '#') => true,
        Some(':') => after.next().is_some_and(|c| c.is_ascii_digit()),
        _ => false,
    };
    let is_name =
        last.chars().count() >= 2 && last.chars().all(|c| c.is_alphabetic() || is_combining_mark(c));
    let is_address =
        labels.len() == 4 && labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    let is_known = last.starts_with("xn--") || TOP_LEVEL_DOMAINS.contains(last);
    is_known || (has_tail && (is_name || is_address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_addresses_are_links_wherever_they_stand() {
        for name in [
            "your account was locked: https://evil.example/unlock,",
            "HTTPS://EVIL.EXAMPLE",
            "x://y",
            "tap http:evil",
            "mailto:eve",
            "tel:+4912345",
            "javascript:alert(1)",
            "www.evil",
            "go to WWW.evil.co.jp now",
            "(www.x)",
            "evil.zz/unlock",
            "evil.zz?x=1",
            "evil.zz#x",
            "evil.zz:8080",
            "evil.zz./unlock",
            "see bücher.zz/x",
            "пример.испытание/x",
            "192.0.2.1/x",
            "192.0.2.1:80",
            "evil.com",
            "sub.evil.com, unlock",
            "evil.example",
            "пример.рф",
            "evil.xn--p1ai",
            "a_b.evil.com",
            "evil.com.",
        ] {
            assert!(holds_link(name), "{name}");
        }
    }

    #[test]
    fn names_with_dots_and_colons_are_no_links() {
        for name in [
            "ada",
            "ada.lovelace",
            "J.R.R. Tolkien",
            "J.R.R.Tolkien",
            "Dr. No",
            "St. John's",
            "Ada (2nd)",
            "O'Neill Jr.",
            "Ada: the first",
            "Data: Lt. Commander",
            "Tel: 5",
            "AC/DC",
            "24.12/25.12",
            "v1.2.3",
            "...",
            "a.b/c",
            "www",
            "awww.cute",
            "http",
            "com.",
            ".com",
            "1.2.3.4",
            "Ada/Grace",
            "山田.太郎",
        ] {
            assert!(!holds_link(name), "{name}");
        }
    }
}
