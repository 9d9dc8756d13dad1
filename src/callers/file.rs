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

use std::sync::Arc;

use toml::{Table, Value};

use super::{
    ANYBODY, CALLERS_FILE, COMMAND_LINE, Caller, Callers, MethodPattern, NOBODY, PAGES, Rights, SERVICE,
    TokenHash, UserFields,
};

/// Two tokens, so that a token can be rotated without a moment in which none is valid.
const TOKENS_MAX: usize = 2;

/// Calls in flight of one caller, if its entry sets no limit: enough for any number of look-ups, and low
/// enough that one caller cannot use up the server.
const CALLS_MAX_DEFAULT: usize = 1_000;

const KEYS: [&str; 7] = [
    "token-hashes",
    "certificates",
    "methods",
    "user-fields",
    "tells-client",
    "receives-mail-tokens",
    "calls-max",
];

/// An error in a callers file. It contains no token hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallersError {
    /// The file is not TOML.
    #[error("the file is not TOML: {0}")]
    Malformed(String),
    /// An entry breaks a rule.
    #[error("caller {caller}: {rule}")]
    Entry {
        /// The name of the caller.
        caller: String,
        /// The rule.
        rule: String,
    },
    /// The file has no entry, so that every call would be rejected.
    #[error("the file defines no caller")]
    Empty,
}

impl Callers {
    /// Parses the text of a callers file. `methods` are the paths of all existing methods: a pattern that
    /// matches none of them is an error, so that a misspelt method is reported here.
    ///
    /// # Errors
    /// [`CallersError`] for the first rule that is broken.
    pub fn parse(text: &str, methods: &[&str]) -> Result<Self, CallersError> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| CallersError::Malformed(error.message().to_owned()))?;
        let mut callers = Self::default();
        for (name, entry) in &table {
            let rule = |rule: String| CallersError::Entry { caller: name.clone(), rule };
            let (caller, credentials) = parse_entry(name, entry, methods).map_err(rule)?;
            callers.add(caller, credentials).map_err(rule)?;
        }
        if table.is_empty() { Err(CallersError::Empty) } else { Ok(callers) }
    }

    fn add(&mut self, caller: Caller, credentials: Credentials) -> Result<(), String> {
        let caller = Arc::new(caller);
        for hash in credentials.hashes {
            if self.by_token.insert(hash, Arc::clone(&caller)).is_some() {
                return Err("a token hash is listed twice, here or for another caller".to_owned());
            }
        }
        for name in credentials.certificates {
            if self.by_certificate.insert(name.clone(), Arc::clone(&caller)).is_some() {
                let rule = format!("the certificate name {name} is listed twice, here or for another caller");
                return Err(rule);
            }
        }
        Ok(())
    }
}

/// The credentials of one caller.
struct Credentials {
    hashes: Vec<TokenHash>,
    certificates: Vec<String>,
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
    if RESERVED_NAMES.contains(&name) {
        Err("the name is reserved for the audit trail".to_owned())
    } else {
        Ok(())
    }
}

fn parse_entry(name: &str, entry: &Value, methods: &[&str]) -> Result<(Caller, Credentials), String> {
    check_name(name)?;
    let entry = entry.as_table().ok_or("must be a table")?;
    if let Some(unknown) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key {unknown}; the keys are {}", KEYS.join(", ")));
    }
    let patterns = string_list(entry, "methods")?
        .into_iter()
        .map(|text| method_pattern(text, methods))
        .collect::<Result<_, _>>()?;
    let fields = user_fields(&string_list(entry, "user-fields")?)?;
    let (tells_client, receives_mail_tokens) =
        (optional_bool(entry, "tells-client")?, optional_bool(entry, "receives-mail-tokens")?);
    let calls_max = match entry.get("calls-max") {
        None => CALLS_MAX_DEFAULT,
        Some(max) => max
            .as_integer()
            .and_then(|max| usize::try_from(max).ok())
            .filter(|max| *max > 0)
            .ok_or("calls-max must be a whole number of at least 1")?,
    };
    let rights = Rights { methods: patterns, fields, tells_client, receives_mail_tokens, calls_max };
    Ok((Caller::new(name, rights), credentials(entry)?))
}

/// The value of a key; false if the key is missing.
fn optional_bool(entry: &Table, key: &str) -> Result<bool, String> {
    let Some(value) = entry.get(key) else { return Ok(false) };
    value.as_bool().ok_or_else(|| format!("{key} must be true or false"))
}

fn credentials(entry: &Table) -> Result<Credentials, String> {
    let optional = |key| if entry.contains_key(key) { string_list(entry, key) } else { Ok(Vec::new()) };
    let (hashes, certificates) = (optional("token-hashes")?, optional("certificates")?);
    if hashes.is_empty() && certificates.is_empty() {
        return Err("must have token-hashes or certificates".to_owned());
    }
    if hashes.len() > TOKENS_MAX {
        return Err(format!("token-hashes must have at most {TOKENS_MAX} entries, not {}", hashes.len()));
    }
    let hashes: Option<Vec<_>> = hashes.into_iter().map(TokenHash::parse).collect();
    let hashes = hashes.ok_or(
        "a token hash must be \"sha256:\" and 64 hexadecimal digits, as `kairos-identity caller token` prints it",
    )?;
    let certificates = certificates.into_iter().map(certificate_name).collect::<Result<_, _>>()?;
    Ok(Credentials { hashes, certificates })
}

/// Checks a certificate name, and returns it in the form in which the server reads it from a certificate.
fn certificate_name(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("uri" | "cn", name)) if !name.is_empty() => Ok(text.to_owned()),
        Some(("dns", name)) if !name.is_empty() && !name.contains('*') => Ok(text.to_ascii_lowercase()),
        _ => Err(format!("certificates: \"{text}\" must be uri:NAME, cn:NAME or dns:NAME without *")),
    }
}

/// The strings of a required list.
fn string_list<'a>(entry: &'a Table, key: &str) -> Result<Vec<&'a str>, String> {
    let list = entry.get(key).and_then(Value::as_array);
    let strings: Option<Vec<_>> = list.and_then(|list| list.iter().map(Value::as_str).collect());
    strings.ok_or_else(|| format!("{key} must be a list of strings"))
}

fn method_pattern(text: &str, methods: &[&str]) -> Result<MethodPattern, String> {
    let pattern = MethodPattern(text.to_owned());
    if text == "*" || methods.iter().any(|path| pattern.matches(path)) {
        return Ok(pattern);
    }
    Err(format!("methods: \"{text}\" matches no method; use Service/Method, Service/* or *"))
}

fn user_fields(names: &[&str]) -> Result<UserFields, String> {
    let mut fields = UserFields::default();
    for name in names {
        match *name {
            "*" => fields = UserFields::ALL,
            "username" => fields.username = true,
            "email" => fields.email = true,
            "is_verified" => fields.is_verified = true,
            "created_at" => fields.created_at = true,
            "updated_at" => fields.updated_at = true,
            "auth_token" => {}
            other => return Err(format!("user-fields: User has no field {other}")),
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::{super::ServiceToken, *};

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
            (&format!("{}mtls = true\n", entry(&one, star, star)), "unknown key mtls"),
        ] {
            let error = Callers::parse(text, &METHODS).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
