//! The file of callers: TOML, a table a caller.
//!
//! ```toml
//! [bff]
//! token-hashes = ["sha256:…"]          # of `kairos-identity caller token bff`; two while one replaces the other
//! certificates = ["uri:spiffe://kairos/bff"]   # names in its certificate, also dns:… and cn:…; one of the two must be there
//! methods = ["IdentityService/*"]
//! user-fields = ["username", "email", "is_verified", "created_at", "updated_at"]
//! tells-client = true                  # may be left out: false
//! receives-mail-tokens = true          # may be left out: false
//! calls-max = 200                      # may be left out: 1000
//! ```

use std::sync::Arc;

use toml::{Table, Value};

use super::{
    ANYBODY, CALLERS_FILE, COMMAND_LINE, Caller, Callers, MethodPattern, NOBODY, PAGES, Rights, SERVICE,
    TokenHash, UserFields,
};

/// Two, so that a token can be replaced without a moment in which neither is valid.
const TOKENS_MAX: usize = 2;

/// Enough for any caller's look-ups, and few enough that others' find room.
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

/// What is wrong with a file of callers. Holds no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallersError {
    /// The file is not TOML.
    #[error("it is not TOML: {0}")]
    Malformed(String),
    /// An entry that is not as it should be.
    #[error("caller {caller}: {rule}")]
    Entry {
        /// Whose.
        caller: String,
        /// What should be.
        rule: String,
    },
    /// A file that would let nobody in.
    #[error("it names no caller")]
    Empty,
}

impl Callers {
    /// Reads the text of a file. `methods` are the paths of all methods there are, so that a misspelt one is found here and
    /// not by the caller that it keeps out.
    ///
    /// # Errors
    /// [`CallersError`] for the first thing that is not as it should be.
    pub fn parse(text: &str, methods: &[&str]) -> Result<Self, CallersError> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| CallersError::Malformed(error.message().to_owned()))?;
        let mut callers = Self::default();
        for (name, entry) in &table {
            let rule = |rule: String| CallersError::Entry { caller: name.clone(), rule };
            let (caller, proofs) = parse_entry(name, entry, methods).map_err(rule)?;
            callers.add(caller, proofs).map_err(rule)?;
        }
        if table.is_empty() { Err(CallersError::Empty) } else { Ok(callers) }
    }

    fn add(&mut self, caller: Caller, proofs: Proofs) -> Result<(), String> {
        let caller = Arc::new(caller);
        for hash in proofs.hashes {
            if self.by_token.insert(hash, Arc::clone(&caller)).is_some() {
                return Err("has a token that another caller has too, or the same one twice".to_owned());
            }
        }
        for name in proofs.certificates {
            if self.by_certificate.insert(name.clone(), Arc::clone(&caller)).is_some() {
                return Err(format!("the certificate name {name} is another caller's too, or there twice"));
            }
        }
        Ok(())
    }
}

/// What proves a caller.
struct Proofs {
    hashes: Vec<TokenHash>,
    certificates: Vec<String>,
}

/// Names that stand for something else in the audit trail.
const RESERVED: [&str; 6] = [ANYBODY, NOBODY, COMMAND_LINE, CALLERS_FILE, SERVICE, PAGES];

const NAME_CHARACTERS_MAX: usize = 64;

/// Whether a caller may be named so; the rule if not.
///
/// # Errors
/// The rule, to be read behind the name.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=NAME_CHARACTERS_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err(format!("a name has 1 to {NAME_CHARACTERS_MAX} letters, digits, - and _"));
    }
    if RESERVED.contains(&name) { Err("this name stands for something else".to_owned()) } else { Ok(()) }
}

fn parse_entry(name: &str, entry: &Value, methods: &[&str]) -> Result<(Caller, Proofs), String> {
    check_name(name)?;
    let entry = entry.as_table().ok_or("is not a table")?;
    if let Some(unknown) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("{unknown} is not known; there are {}", KEYS.join(", ")));
    }
    let patterns =
        texts(entry, "methods")?.into_iter().map(|text| pattern(text, methods)).collect::<Result<_, _>>()?;
    let fields = user_fields(&texts(entry, "user-fields")?)?;
    let (tells_client, receives_mail_tokens) =
        (right(entry, "tells-client")?, right(entry, "receives-mail-tokens")?);
    let calls_max = match entry.get("calls-max") {
        None => CALLS_MAX_DEFAULT,
        Some(max) => max
            .as_integer()
            .and_then(|max| usize::try_from(max).ok())
            .filter(|max| *max > 0)
            .ok_or("calls-max must be a whole number from 1")?,
    };
    let rights = Rights { methods: patterns, fields, tells_client, receives_mail_tokens, calls_max };
    Ok((Caller::new(name, rights), proofs(entry)?))
}

/// A right that a caller has only where it says so.
fn right(entry: &Table, key: &str) -> Result<bool, String> {
    let Some(given) = entry.get(key) else { return Ok(false) };
    given.as_bool().ok_or_else(|| format!("{key} must be true or false"))
}

fn proofs(entry: &Table) -> Result<Proofs, String> {
    let optional = |key| if entry.contains_key(key) { texts(entry, key) } else { Ok(Vec::new()) };
    let (hashes, certificates) = (optional("token-hashes")?, optional("certificates")?);
    if hashes.is_empty() && certificates.is_empty() {
        return Err("must have token-hashes or certificates".to_owned());
    }
    if hashes.len() > TOKENS_MAX {
        return Err(format!("token-hashes must hold at most {TOKENS_MAX}, not {}", hashes.len()));
    }
    let hashes: Option<Vec<_>> = hashes.into_iter().map(TokenHash::parse).collect();
    let hashes = hashes.ok_or(
        "a token hash is \"sha256:\" and 64 hexadecimal digits, as `kairos-identity caller token` prints it",
    )?;
    let certificates = certificates.into_iter().map(certificate_name).collect::<Result<_, _>>()?;
    Ok(Proofs { hashes, certificates })
}

/// A name as the server tells it of a certificate.
fn certificate_name(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("uri" | "cn", name)) if !name.is_empty() => Ok(text.to_owned()),
        Some(("dns", name)) if !name.is_empty() && !name.contains('*') => Ok(text.to_ascii_lowercase()),
        _ => Err(format!("certificates: \"{text}\" must begin with uri:, dns: or cn:, and be one name")),
    }
}

/// A list of texts that must be there.
fn texts<'a>(entry: &'a Table, key: &str) -> Result<Vec<&'a str>, String> {
    let list = entry.get(key).and_then(Value::as_array);
    let texts: Option<Vec<_>> = list.and_then(|list| list.iter().map(Value::as_str).collect());
    texts.ok_or_else(|| format!("{key} must be a list of texts"))
}

fn pattern(text: &str, methods: &[&str]) -> Result<MethodPattern, String> {
    let pattern = MethodPattern(text.to_owned());
    if text == "*" || methods.iter().any(|path| pattern.matches(path)) {
        return Ok(pattern);
    }
    Err(format!("methods: \"{text}\" is no method; write Service/Method, Service/* or *"))
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
            other => return Err(format!("user-fields: User has no {other}")),
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
    fn a_caller_may_what_its_entry_says() {
        let both = format!("{}, {}", hash(1), hash(2));
        let text = entry(&both, "\"IdentityService/ResolveToken\"", "\"username\", \"auth_token\"");
        let callers = Callers::parse(&text, &METHODS).unwrap();
        for number in [1, 2] {
            let agent = callers.with_token(&ServiceToken::from_random([number; 32])).unwrap();
            assert_eq!(agent.name(), "agent");
            assert_eq!((agent.may_call(METHODS[0]), agent.may_call(METHODS[1])), (false, true));
            assert_eq!(agent.fields(), UserFields { username: true, ..UserFields::default() });
        }
        assert_eq!(callers.names(), ["agent"]);
    }

    #[test]
    fn a_certificate_proves_whose_name_it_bears_and_never_two() {
        let text = "[bff]\ncertificates = [\"uri:spiffe://kairos/bff\", \"dns:BFF.internal\"]\nmethods = [\"*\"]\nuser-fields = []\n\
                    [agent]\ncertificates = [\"cn:agent\"]\nmethods = [\"*\"]\nuser-fields = []\n";
        let callers = Callers::parse(text, &METHODS).unwrap();
        let proven = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            callers.with_certificate(&names).map(|caller| caller.name().to_owned())
        };
        assert_eq!(proven(&["dns:bff.internal", "cn:whatever"]).as_deref(), Some("bff"));
        assert_eq!(proven(&["uri:spiffe://kairos/bff", "dns:bff.internal"]).as_deref(), Some("bff"));
        assert_eq!(proven(&["cn:agent"]).as_deref(), Some("agent"));
        for names in [&[][..], &["cn:bff"], &["dns:agent"], &["cn:agent", "dns:bff.internal"]] {
            assert_eq!(proven(names), None, "{names:?}");
        }
        assert!(callers.need_certificates());
    }

    #[test]
    fn what_is_not_as_it_should_be_is_named() {
        let (one, three) = (hash(1), format!("{}, {}, {}", hash(1), hash(2), hash(3)));
        let star = "\"*\"";
        for (text, words) in [
            ("[agent", "not TOML"),
            ("", "no caller"),
            ("agent = 1", "caller agent: is not a table"),
            (&entry("", star, star), "must have token-hashes or certificates"),
            (&entry(&three, star, star), "at most 2, not 3"),
            (&format!("{}certificates = [\"bff\"]\n", entry(&one, star, star)), "must begin with uri:"),
            (&format!("{}certificates = [\"dns:*.x\"]\n", entry(&one, star, star)), "be one name"),
            (&entry("\"sha256:1\"", star, star), "64 hexadecimal digits"),
            (&entry(&format!("{one}, {one}"), star, star), "the same one twice"),
            ("[nobody]", "caller nobody: this name stands for something else"),
            ("[\"a b\"]", "caller a b: a name has 1 to 64 letters"),
            (&entry(&one, "\"IdentityService/Logon\"", star), "\"IdentityService/Logon\" is no method"),
            (&entry(&one, star, "\"password\""), "User has no password"),
            (&entry(&one, star, "1"), "user-fields must be a list of texts"),
            (&format!("{}tells-client = 1\n", entry(&one, star, star)), "tells-client must be true or false"),
            (
                &format!("{}receives-mail-tokens = \"yes\"\n", entry(&one, star, star)),
                "receives-mail-tokens must be true or false",
            ),
            (
                &format!("{}calls-max = 0\n", entry(&one, star, star)),
                "calls-max must be a whole number from 1",
            ),
            (&format!("{}mtls = true\n", entry(&one, star, star)), "mtls is not known"),
        ] {
            let error = Callers::parse(text, &METHODS).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
