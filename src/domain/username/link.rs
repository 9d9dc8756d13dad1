//! Detects web addresses in usernames.
//!
//! Mail programs turn such a text into a link, and the service mails usernames. A username that a user
//! chooses must therefore not contain:
//!
//! 1. `://`, or one of [`SCHEMES`] at the start of a word, with a colon and a character other than white
//!    space after it;
//! 2. `www.` at the start of a word, with a letter or digit after it;
//! 3. a host name with `/`, `?`, `#`, or a colon and a digit after it, if the last label has only letters, at
//!    least two (a host name has labels of letters, digits and hyphens with dots between them);
//! 4. a host name that ends in one of [`top_level_domains`] or in an `xn--` label;
//! 5. an IPv4 address (four numbers up to 255 with dots between them) or an IPv6 address.
//!
//! The text is compared in its normal form (NFKC) and in lower case, and the ideographic full stop is a dot,
//! as in a browser (UTS 46).
//!
//! Other texts with a dot are names: `ada.lovelace`, `J.R.R. Tolkien`, `Dr. No`, `St.Pierre`, `a.b`. Programs
//! link a host name alone only under a top-level domain that exists. Many users have a username of a first
//! and a last name with a dot between them. So rule 4 has a list of the top-level domains instead of refusing
//! every label of letters. A name like `Dr.No` (`.no` is Norway) needs a space after the dot.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// The schemes that mail programs link without `//`.
const SCHEMES: [&str; 12] =
    ["http", "https", "ftp", "ftps", "mailto", "tel", "sms", "callto", "skype", "javascript", "data", "file"];

/// The top-level domains under which programs link a bare host name, in lower case and in Unicode: all that
/// the DNS has or had (the first labels of the Public Suffix List of 2026-04 and of 2023-02), and those of
/// RFC 2606 and RFC 6761.
fn top_level_domains() -> &'static HashSet<&'static str> {
    static DOMAINS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| include_str!("top_level_domains.txt").lines().collect());
    &DOMAINS
}

/// True if the name contains a web address.
pub(super) fn holds_link(name: &str) -> bool {
    let text = name.nfkc().collect::<String>().to_lowercase().replace('\u{3002}', ".");
    text.contains("://")
        || SCHEMES
            .iter()
            .any(|scheme| has_word_with_prefix(&text, &format!("{scheme}:"), |next| !next.is_whitespace()))
        || has_word_with_prefix(&text, "www.", char::is_alphanumeric)
        || contains_linked_host(&text)
        || contains_ipv6_address(&text)
}

/// True if the text contains an IPv6 address.
fn contains_ipv6_address(text: &str) -> bool {
    let is_in_address = |c: char| c.is_alphanumeric() || matches!(c, ':' | '.');
    // A dot or a single colon at the end is punctuation, and so is `::` alone.
    let is_address = |run: &str| {
        let run = run.trim_end_matches('.');
        let run = run.strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(run);
        run.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified())
    };
    text.split(|c| !is_in_address(c)).any(is_address)
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

/// True if the text contains a host name or an address that rule 3, 4 or 5 refuses.
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

/// True if a mail program would show `host` as a link: it ends with a top-level domain that exists or that is
/// in Punycode, it is an IPv4 address, or it is a domain name and the text `after` it begins with a path, a
/// query or a port.
fn is_link(host: &str, after: &str) -> bool {
    let labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
    let [_, .., last] = labels.as_slice() else { return false };
    let mut after = after.chars();
    let has_tail = match after.next() {
        Some('/' | '?' | '#') => true,
        Some(':') => after.next().is_some_and(|c| c.is_ascii_digit()),
        _ => false,
    };
    let is_name =
        last.chars().count() >= 2 && last.chars().all(|c| c.is_alphabetic() || is_combining_mark(c));
    let is_address = labels.join(".").parse::<Ipv4Addr>().is_ok();
    let is_known = last.starts_with("xn--") || top_level_domains().contains(last);
    is_known || is_address || (has_tail && is_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            "evil.museum",
            "evil.photography",
            "evil.zip",
            "evil.中国",
            "evil.рус",
            "evil.شبكة",
            "evil。com",
            "evil．com",
            "evil｡com",
            "evil․com",
            "ｅｖｉｌ.com",
            "go to evil.museum, now",
            "Dr.No",
            "1.2.3.4",
            "192.0.2.1",
            "at 192.0.2.1.",
            "１９２.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "at 2001:DB8::1, or",
            "::ffff:192.0.2.1",
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
            "24.12.1815.1",
            "1.2.3",
            "1.2.3.4.5",
            "St.Pierre",
            "a.b",
            "12:30",
            "::",
            "Ada::Grace",
            "evil.com-x",
            "Ada/Grace",
            "山田.太郎",
        ] {
            assert!(!holds_link(name), "{name}");
        }
    }

    #[test]
    fn the_top_level_domains_are_in_the_form_that_is_compared() {
        assert!(top_level_domains().len() > 1_400);
        for domain in top_level_domains() {
            assert_eq!(domain.nfkc().collect::<String>().to_lowercase(), **domain);
        }
    }

    proptest! {
        #[test]
        fn a_host_name_under_any_top_level_domain_is_a_link(
            label in "[a-zA-Z0-9]{1,20}",
            domain in proptest::sample::select(top_level_domains().iter().copied().collect::<Vec<_>>()),
            dot in "[.。．｡․]",
            before in "(|to |x\\()",
            after in "(|,|\\.|!| now)",
        ) {
            for domain in [domain.to_owned(), domain.to_uppercase()] {
                let name = format!("{before}{label}{dot}{domain}{after}");
                prop_assert!(holds_link(&name), "{}", name);
            }
        }

        #[test]
        fn an_address_is_a_link(bytes in any::<[u8; 4]>(), segments in any::<[u16; 8]>()) {
            let [v4, v6] = [Ipv4Addr::from(bytes).to_string(), Ipv6Addr::from(segments).to_string()];
            for name in [v4.clone(), v4.replace('.', "。"), format!("at {v4}."), v6.to_uppercase(), format!("({v6})")] {
                prop_assert!(holds_link(&name), "{}", name);
            }
        }

        #[test]
        fn a_dot_before_a_space_or_a_single_letter_makes_no_link(
            name in "[A-Z][a-z]{1,9}(\\. [A-Z][a-z]{1,9}|\\.[A-Z]){1,3}",
        ) {
            prop_assert!(!holds_link(&name), "{}", name);
        }
    }
}
