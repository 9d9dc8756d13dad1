//! Parses and checks the entry of one caller in the callers file.

use std::{num::NonZeroUsize, ops::Range};

use serde::{Deserialize, Deserializer, de::Error};
use toml::{
    Spanned,
    de::{DeString, DeValue, ValueDeserializer},
};

use super::{
    caller::{ANYBODY, CALLERS_FILE, COMMAND_LINE, Caller, SERVICE},
    rights::{MethodPattern, Rights, UserFields},
    token::{PREFIX as TOKEN_PREFIX, TokenHash},
};
use crate::domain::{NOBODY, PAGES};

/// Two tokens, so that a token can be rotated without a moment in which none is valid.
pub(super) const TOKENS_MAX: usize = 2;

/// Calls in flight of one caller, if its entry sets no limit: enough for any number of look-ups, and low
/// enough that one caller cannot use up the server.
const CALLS_MAX_DEFAULT: usize = 1_000;

/// The table of one caller. Its fields are the keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    #[serde(default, deserialize_with = "strings")]
    token_hashes: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "strings")]
    certificates: Vec<Spanned<String>>,
    #[serde(deserialize_with = "strings")]
    methods: Vec<Spanned<String>>,
    #[serde(deserialize_with = "strings")]
    user_fields: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "switch")]
    tells_client: bool,
    #[serde(default, deserialize_with = "switch")]
    receives_mail_tokens: bool,
    #[serde(default, deserialize_with = "positive")]
    calls_max: Option<NonZeroUsize>,
}

fn strings<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Spanned<String>>, D::Error> {
    expect(value, "must be a list of strings")
}

fn switch<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    expect(value, "must be true or false")
}

fn positive<'de, D: Deserializer<'de>>(value: D) -> Result<Option<NonZeroUsize>, D::Error> {
    expect(value, "must be a whole number of at least 1").map(Some)
}

/// Deserializes a value. The error states the rule only: serde's own error would show the value, which may be
/// a token that was put into the wrong place.
fn expect<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D, rule: &str) -> Result<T, D::Error> {
    T::deserialize(value).map_err(|_| D::Error::custom(rule))
}

/// A rule that an entry breaks, and the position of the error in the text.
pub(super) struct Violation {
    pub(super) at: usize,
    pub(super) rule: String,
}

impl Violation {
    pub(super) fn new(span: &Range<usize>, rule: impl Into<String>) -> Self {
        Self { at: span.start, rule: rule.into() }
    }
}

/// The credentials of one caller.
pub(super) struct Credentials {
    pub(super) hashes: Vec<Spanned<TokenHash>>,
    pub(super) certificates: Vec<Spanned<String>>,
}

/// Names with a meaning of their own in the audit trail, which no caller may have.
const RESERVED_NAMES: [&str; 6] = [ANYBODY, NOBODY, COMMAND_LINE, CALLERS_FILE, SERVICE, PAGES];

/// The longest name of a caller. The name is ASCII, so it has as many characters.
pub const NAME_BYTES_MAX: usize = 64;

/// Checks the name of a caller.
///
/// # Errors
/// The rule that the name breaks.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_allowed) {
        return Err(format!("a name must have 1 to {NAME_BYTES_MAX} letters, digits, - or _"));
    }
    if name.starts_with(TOKEN_PREFIX) {
        return Err("a name must not begin with kst_, like a service token".to_owned());
    }
    if RESERVED_NAMES.contains(&name) {
        Err("the name is reserved for the audit trail".to_owned())
    } else {
        Ok(())
    }
}

/// Parses the name and the table of a caller. `methods` are the paths of all methods.
pub(super) fn parse_entry(
    name: &Spanned<DeString<'_>>,
    entry: &Spanned<DeValue<'_>>,
    methods: &[&str],
) -> Result<(Caller, Credentials), Vec<Violation>> {
    check_name(name.get_ref()).map_err(|rule| vec![Violation::new(&name.span(), rule)])?;
    let entry = deserialize(entry).map_err(|violation| vec![violation])?;
    let mut violations = Vec::new();
    if entry.token_hashes.is_empty() && entry.certificates.is_empty() {
        violations.push(Violation::new(&name.span(), "must have token-hashes or certificates"));
    }
    let rights = Rights {
        methods: valid(&entry.methods, |text| method_pattern(text, methods), &mut violations),
        fields: user_fields(&entry.user_fields, &mut violations),
        tells_client: entry.tells_client,
        receives_mail_tokens: entry.receives_mail_tokens,
        calls_max: entry.calls_max.map_or(CALLS_MAX_DEFAULT, NonZeroUsize::get),
    };
    let credentials = credentials(&entry, &mut violations);
    if violations.is_empty() {
        Ok((Caller::new(name.get_ref(), rights), credentials))
    } else {
        Err(violations)
    }
}

/// Parses the texts of a list. Adds the rules that some of them break, and returns the others.
fn valid<T>(
    texts: &[Spanned<String>],
    parse: impl Fn(&Spanned<String>) -> Result<T, Violation>,
    violations: &mut Vec<Violation>,
) -> Vec<T> {
    texts.iter().filter_map(|text| parse(text).map_err(|violation| violations.push(violation)).ok()).collect()
}

/// Deserializes the table of a caller.
fn deserialize(entry: &Spanned<DeValue<'_>>) -> Result<Entry, Violation> {
    let DeValue::Table(table) = entry.get_ref() else {
        return Err(Violation::new(&entry.span(), "must be a table"));
    };
    Entry::deserialize(ValueDeserializer::from(entry.clone())).map_err(|error| {
        let at = error.span().unwrap_or_else(|| entry.span());
        let is_unknown = |key: &str| error.message().starts_with(&format!("unknown field `{key}`"));
        // As in `[callers.bff]`: the caller was written one level too deep.
        let inner = table.iter().find(|(key, value)| is_unknown(key.get_ref()) && value.get_ref().is_table());
        if let Some((name, _)) = inner {
            let rule = format!("the entry of a caller is a table of its own: write [{}]", name.get_ref());
            return Violation::new(&at, rule);
        }
        // An error about a value does not name its key: find the key of the value at this position.
        match table.iter().find(|(_, value)| value.span().contains(&at.start)) {
            Some((key, _)) => Violation::new(&at, format!("{} {}", key.get_ref(), error.message())),
            None => Violation::new(&at, error.message()),
        }
    })
}

/// Parses the credentials of an entry.
fn credentials(entry: &Entry, violations: &mut Vec<Violation>) -> Credentials {
    if let Some(surplus) = entry.token_hashes.get(TOKENS_MAX) {
        let rule =
            format!("token-hashes must have at most {TOKENS_MAX} entries, not {}", entry.token_hashes.len());
        violations.push(Violation::new(&surplus.span(), rule));
    }
    Credentials {
        hashes: valid(&entry.token_hashes, token_hash, violations),
        certificates: valid(&entry.certificates, certificate_name, violations),
    }
}

fn token_hash(text: &Spanned<String>) -> Result<Spanned<TokenHash>, Violation> {
    let hash = TokenHash::parse(text.get_ref()).ok_or_else(|| {
        Violation::new(
            &text.span(),
            "token-hashes: a token hash must be \"sha256:\" and 64 hexadecimal digits, as `kairos-identity caller \
             token` prints it",
        )
    })?;
    Ok(Spanned::new(text.span(), hash))
}

/// Checks a certificate name, and returns it in the form in which the server reads it from a certificate.
fn certificate_name(text: &Spanned<String>) -> Result<Spanned<String>, Violation> {
    let name = match text.get_ref().split_once(':') {
        Some(("uri" | "cn", name)) if !name.is_empty() => text.get_ref().clone(),
        Some(("dns", name)) if !name.is_empty() && !name.contains('*') => text.get_ref().to_ascii_lowercase(),
        _ => {
            let rule = format!(
                "certificates: \"{}\" must be uri:NAME, cn:NAME or dns:NAME without *",
                text.get_ref()
            );
            return Err(Violation::new(&text.span(), rule));
        }
    };
    Ok(Spanned::new(text.span(), name))
}

fn method_pattern(text: &Spanned<String>, methods: &[&str]) -> Result<MethodPattern, Violation> {
    let pattern = MethodPattern::new(text.get_ref());
    if text.get_ref() == "*" || methods.iter().any(|path| pattern.matches(path)) {
        return Ok(pattern);
    }
    let rule =
        format!("methods: \"{}\" matches no method; use Service/Method, Service/* or *", text.get_ref());
    Err(Violation::new(&text.span(), rule))
}

fn user_fields(names: &[Spanned<String>], violations: &mut Vec<Violation>) -> UserFields {
    let mut fields = UserFields::default();
    for name in names {
        match name.get_ref().as_str() {
            "*" => fields = UserFields::ALL,
            "username" => fields.username = true,
            "email" => fields.email = true,
            "is_verified" => fields.is_verified = true,
            "created_at" => fields.created_at = true,
            "updated_at" => fields.updated_at = true,
            "state" => fields.state = true,
            "auth_token" => {}
            other => {
                let rule = format!("user-fields: User has no field {other}");
                violations.push(Violation::new(&name.span(), rule));
            }
        }
    }
    fields
}
