//! Parses the callers file: a TOML file with one table per caller.
//!
//! ```toml
//! [bff]
//! # At least one of token-hashes and certificates is required.
//! token-hashes = ["sha256:..."]      # printed by `kairos-identity caller token bff`; two during a rotation
//! certificates = ["uri:spiffe://kairos/bff"] # names in the client certificate: uri:..., dns:... or cn:...
//! methods = ["IdentityService/*"]
//! user-fields = ["username", "email", "is_verified", "created_at", "updated_at"]
//! tells-client = true                # optional; default false
//! receives-mail-tokens = true        # optional; default false
//! calls-max = 200                    # optional; default 1000
//! ```

use std::{num::NonZeroUsize, ops::Range, sync::Arc};

use serde::{Deserialize, Deserializer, de::Error};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue, ValueDeserializer},
};

use super::{
    caller::{ANYBODY, CALLERS_FILE, COMMAND_LINE, Caller, NOBODY, PAGES, SERVICE},
    registry::Callers,
    rights::{MethodPattern, Rights, UserFields},
    token::{PREFIX as TOKEN_PREFIX, TokenHash},
};

/// Two tokens, so that a token can be rotated without a moment in which none is valid.
const TOKENS_MAX: usize = 2;

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

/// An error in a callers file. It contains no token and no token hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallersError {
    /// The file is not TOML.
    #[error("line {line}: the file is not TOML: {rule}")]
    Malformed {
        /// The line of the error, counted from 1.
        line: usize,
        /// The parser's message.
        rule: String,
    },
    /// An entry breaks a rule.
    #[error("line {line}: caller {caller}: {rule}")]
    Entry {
        /// The name of the caller.
        caller: String,
        /// The line of the error, counted from 1.
        line: usize,
        /// The rule, with the key.
        rule: String,
    },
    /// The file has no entry, so that every call would be rejected.
    #[error("the file defines no caller")]
    Empty,
}

/// A rule that an entry breaks, and the position of the error in the text.
struct Violation {
    at: usize,
    rule: String,
}

impl Violation {
    fn new(span: &Range<usize>, rule: impl Into<String>) -> Self {
        Self { at: span.start, rule: rule.into() }
    }
}

/// Returns the line of a position in the text, counted from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

impl Callers {
    /// Parses the text of a callers file. `methods` are the paths of all existing methods: a pattern that
    /// matches none of them is an error, so that a misspelt method is reported here.
    ///
    /// # Errors
    /// [`CallersError`] for the first rule that is broken.
    pub fn parse(text: &str, methods: &[&str]) -> Result<Self, CallersError> {
        let entries = DeTable::parse(text).map_err(|error| CallersError::Malformed {
            line: line(text, error.span().unwrap_or_default().start),
            rule: error.message().to_owned(),
        })?;
        let mut callers = Self::default();
        for (name, entry) in entries.get_ref() {
            let added = parse_entry(name, entry, methods)
                .and_then(|(caller, credentials)| add(&mut callers, caller, credentials));
            added.map_err(|Violation { at, rule }| CallersError::Entry {
                caller: without_tokens(name.get_ref()),
                line: line(text, at),
                rule: without_tokens(&rule),
            })?;
        }
        if entries.get_ref().is_empty() { Err(CallersError::Empty) } else { Ok(callers) }
    }
}

/// Replaces service tokens, which an operator may have written into the wrong place of the file: the error is
/// printed and logged.
fn without_tokens(text: &str) -> String {
    let mut parts = text.split(TOKEN_PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        shown.push_str(TOKEN_PREFIX);
        shown.push_str("***");
        shown.push_str(part.trim_start_matches(is_of_token));
    }
    shown
}

/// Adds a caller with its credentials, none of which may authenticate another caller.
fn add(callers: &mut Callers, caller: Caller, credentials: Credentials) -> Result<(), Violation> {
    let caller = Arc::new(caller);
    for hash in credentials.hashes {
        if !callers.add_token(*hash.get_ref(), &caller) {
            let rule = "token-hashes: a token hash is listed twice, here or for another caller";
            return Err(Violation::new(&hash.span(), rule));
        }
    }
    for name in credentials.certificates {
        if !callers.add_certificate(name.get_ref().clone(), &caller) {
            let rule = format!(
                "certificates: the certificate name {} is listed twice, here or for another caller",
                name.get_ref()
            );
            return Err(Violation::new(&name.span(), rule));
        }
    }
    Ok(())
}

/// The credentials of one caller.
struct Credentials {
    hashes: Vec<Spanned<TokenHash>>,
    certificates: Vec<Spanned<String>>,
}

/// Names with a meaning of their own in the audit trail, which no caller may have.
const RESERVED_NAMES: [&str; 6] = [ANYBODY, NOBODY, COMMAND_LINE, CALLERS_FILE, SERVICE, PAGES];

const NAME_CHARACTERS_MAX: usize = 64;

/// Checks the name of a caller.
///
/// # Errors
/// The rule that the name breaks.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=NAME_CHARACTERS_MAX).contains(&name.len()) || !name.bytes().all(is_allowed) {
        return Err(format!("a name must have 1 to {NAME_CHARACTERS_MAX} letters, digits, - or _"));
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

fn parse_entry(
    name: &Spanned<DeString<'_>>,
    entry: &Spanned<DeValue<'_>>,
    methods: &[&str],
) -> Result<(Caller, Credentials), Violation> {
    check_name(name.get_ref()).map_err(|rule| Violation::new(&name.span(), rule))?;
    let at = name.span();
    let entry = deserialize(entry)?;
    let rights = Rights {
        methods: entry.methods.iter().map(|text| method_pattern(text, methods)).collect::<Result<_, _>>()?,
        fields: user_fields(&entry.user_fields)?,
        tells_client: entry.tells_client,
        receives_mail_tokens: entry.receives_mail_tokens,
        calls_max: entry.calls_max.map_or(CALLS_MAX_DEFAULT, NonZeroUsize::get),
    };
    if entry.token_hashes.is_empty() && entry.certificates.is_empty() {
        return Err(Violation::new(&at, "must have token-hashes or certificates"));
    }
    Ok((Caller::new(name.get_ref(), rights), credentials(&entry)?))
}

fn deserialize(entry: &Spanned<DeValue<'_>>) -> Result<Entry, Violation> {
    let DeValue::Table(table) = entry.get_ref() else {
        return Err(Violation::new(&entry.span(), "must be a table"));
    };
    Entry::deserialize(ValueDeserializer::from(entry.clone())).map_err(|error| {
        let at = error.span().unwrap_or_else(|| entry.span());
        // An error about a value does not name its key, which is the key of the value at this position.
        match table.iter().find(|(_, value)| value.span().contains(&at.start)) {
            Some((key, _)) => Violation::new(&at, format!("{} {}", key.get_ref(), error.message())),
            None => Violation::new(&at, error.message()),
        }
    })
}

fn credentials(entry: &Entry) -> Result<Credentials, Violation> {
    if let Some(surplus) = entry.token_hashes.get(TOKENS_MAX) {
        let rule =
            format!("token-hashes must have at most {TOKENS_MAX} entries, not {}", entry.token_hashes.len());
        return Err(Violation::new(&surplus.span(), rule));
    }
    Ok(Credentials {
        hashes: entry.token_hashes.iter().map(token_hash).collect::<Result<_, _>>()?,
        certificates: entry.certificates.iter().map(certificate_name).collect::<Result<_, _>>()?,
    })
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

fn user_fields(names: &[Spanned<String>]) -> Result<UserFields, Violation> {
    let mut fields = UserFields::default();
    for name in names {
        match name.get_ref().as_str() {
            "*" => fields = UserFields::ALL,
            "username" => fields.username = true,
            "email" => fields.email = true,
            "is_verified" => fields.is_verified = true,
            "created_at" => fields.created_at = true,
            "updated_at" => fields.updated_at = true,
            "auth_token" => {}
            other => {
                let rule = format!("user-fields: User has no field {other}");
                return Err(Violation::new(&name.span(), rule));
            }
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::{super::token::ServiceToken, *};

    const METHODS: [&str; 2] =
        ["/kairos.identity.v1.IdentityService/Login", "/kairos.identity.v1.IdentityService/ResolveToken"];

    fn hash(number: u8) -> String {
        format!("\"{}\"", ServiceToken::from_random([number; 32]).hash())
    }

    fn entry(hashes: &str, methods: &str, fields: &str) -> String {
        format!("[agent]\ntoken-hashes = [{hashes}]\nmethods = [{methods}]\nuser-fields = [{fields}]\n")
    }

    #[test]
    fn a_caller_has_only_the_rights_in_its_entry() {
        let both = format!("{}, {}", hash(1), hash(2));
        let text = entry(&both, "\"IdentityService/ResolveToken\"", "\"username\", \"auth_token\"");
        let callers = Callers::parse(&text, &METHODS).unwrap();
        for number in [1, 2] {
            let agent = callers.find_by_token(&ServiceToken::from_random([number; 32])).unwrap();
            assert_eq!(agent.name(), "agent");
            assert_eq!((agent.may_call(METHODS[0]), agent.may_call(METHODS[1])), (false, true));
            assert_eq!(agent.fields(), UserFields { username: true, ..UserFields::default() });
        }
        assert_eq!(callers.names(), ["agent"]);
    }

    #[test]
    fn a_certificate_authenticates_the_caller_of_its_names_but_never_two_callers() {
        let text = "[bff]\ncertificates = [\"uri:spiffe://kairos/bff\", \"dns:BFF.internal\"]\nmethods = [\"*\"]\nuser-fields = []\n\
                    [agent]\ncertificates = [\"cn:agent\"]\nmethods = [\"*\"]\nuser-fields = []\n";
        let callers = Callers::parse(text, &METHODS).unwrap();
        let found = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            callers.find_by_certificate(&names).map(|caller| caller.name().to_owned())
        };
        assert_eq!(found(&["dns:bff.internal", "cn:whatever"]).as_deref(), Some("bff"));
        assert_eq!(found(&["uri:spiffe://kairos/bff", "dns:bff.internal"]).as_deref(), Some("bff"));
        assert_eq!(found(&["cn:agent"]).as_deref(), Some("agent"));
        for names in [&[][..], &["cn:bff"], &["dns:agent"], &["cn:agent", "dns:bff.internal"]] {
            assert_eq!(found(names), None, "{names:?}");
        }
        assert!(callers.any_uses_certificate());
    }

    #[test]
    fn an_invalid_file_is_refused_with_the_rule_that_it_breaks() {
        let (one, three) = (hash(1), format!("{}, {}, {}", hash(1), hash(2), hash(3)));
        let star = "\"*\"";
        for (text, message) in [
            ("[agent", "not TOML"),
            ("", "no caller"),
            ("agent = 1", "caller agent: must be a table"),
            (&entry("", star, star), "must have token-hashes or certificates"),
            (&entry(&three, star, star), "at most 2 entries, not 3"),
            (&format!("{}certificates = [\"bff\"]\n", entry(&one, star, star)), "\"bff\" must be uri:NAME"),
            (&format!("{}certificates = [\"dns:*.x\"]\n", entry(&one, star, star)), "dns:NAME without *"),
            (&entry("\"sha256:1\"", star, star), "64 hexadecimal digits"),
            (&entry(&format!("{one}, {one}"), star, star), "a token hash is listed twice"),
            ("[nobody]", "caller nobody: the name is reserved for the audit trail"),
            ("[\"a b\"]", "caller a b: a name must have 1 to 64 letters"),
            (&entry(&one, "\"IdentityService/Logon\"", star), "\"IdentityService/Logon\" matches no method"),
            (&entry(&one, star, "\"password\""), "User has no field password"),
            (&entry(&one, star, "1"), "user-fields must be a list of strings"),
            (&format!("{}tells-client = 1\n", entry(&one, star, star)), "tells-client must be true or false"),
            (
                &format!("{}receives-mail-tokens = \"yes\"\n", entry(&one, star, star)),
                "receives-mail-tokens must be true or false",
            ),
            (
                &format!("{}calls-max = 0\n", entry(&one, star, star)),
                "calls-max must be a whole number of at least 1",
            ),
            (&format!("{}mtls = true\n", entry(&one, star, star)), "unknown field `mtls`"),
        ] {
            let error = Callers::parse(text, &METHODS).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_names_the_line_the_caller_and_the_key() {
        let first = format!(
            "# callers\n\n[bff]\ntoken-hashes = [{}]\nmethods = [\"*\"]\nuser-fields = []\n\n",
            hash(1)
        );
        let agent = |lines: &str| format!("{first}[agent]\n{lines}");
        let valid = "methods = [\"*\"]\nuser-fields = []\n";
        for (text, message) in [
            (agent("methods = [\"*\"\n]]"), "line 10: the file is not TOML"),
            (format!("{first}agent = 1"), "line 8: caller bff: unknown field `agent`"),
            (format!("{first}[nobody]"), "line 8: caller nobody: the name is reserved"),
            (agent(valid), "line 8: caller agent: must have token-hashes or certificates"),
            (agent("methods = []\n"), "line 8: caller agent: missing field `user-fields`"),
            (agent("methods = []\nmtls = true\n"), "line 10: caller agent: unknown field `mtls`"),
            (agent("\ntells-client = 1\n"), "line 10: caller agent: tells-client must be true or false"),
            (
                agent("calls-max = -1\n"),
                "line 9: caller agent: calls-max must be a whole number of at least 1",
            ),
            (
                agent("methods = [\n\"Health/*\",\n1]\n"),
                "line 9: caller agent: methods must be a list of strings",
            ),
            (
                agent("user-fields = []\nmethods = [\n\"*\",\n\"Log\"]\n"),
                "line 12: caller agent: methods: \"Log\" matches no method",
            ),
            (
                agent("methods = []\nuser-fields = [\"password\"]\n"),
                "line 10: caller agent: user-fields: User has no field password",
            ),
            (
                agent(&format!("{valid}token-hashes = [\n{}]\n", hash(1))),
                "line 4: caller bff: token-hashes: a token hash is listed twice",
            ),
            (
                agent(&format!("{valid}certificates = [\"agent\"]\n")),
                "line 11: caller agent: certificates: \"agent\" must be uri:NAME",
            ),
        ] {
            let error = Callers::parse(&text, &METHODS).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_shows_no_token_and_no_hash() {
        let secret = "kst_c2VjcmV0";
        for key in ["token-hashes", "methods", "user-fields", "tells-client", "calls-max"] {
            let error = Callers::parse(&format!("[agent]\n{key} = \"{secret}\"\n"), &METHODS).unwrap_err();
            assert!(!error.to_string().contains(secret), "{error}");
            assert!(error.to_string().contains(&format!("line 2: caller agent: {key} must be")), "{error}");
        }
        for misplaced in [
            format!("[agent]\nmethods = [\"{secret}\"]\n"),
            format!("[agent]\nuser-fields = [\"{secret}\"]\n"),
            format!("[agent]\ncertificates = [\"{secret}\"]\n"),
            format!("[agent]\n{secret} = 1\n"),
            format!("{secret} = 1\n"),
            format!("[{secret}]\n"),
        ] {
            let error = Callers::parse(&misplaced, &METHODS).unwrap_err().to_string();
            assert!(!error.contains(secret), "{misplaced}: {error}");
        }
        let text = entry(&format!("\"{secret}\""), "\"*\"", "");
        assert!(!Callers::parse(&text, &METHODS).unwrap_err().to_string().contains(secret));
    }
}
