//! Parses the callers file: a TOML file with one table per caller.
//!
//! ```toml
//! [bff]
//! # At least one of token-hashes and certificates is required.
//! token-hashes = ["sha256:..."]      # printed by `kairos-identity caller token bff`; two during a rotation
//! certificates = ["uri:spiffe://kairos/bff"] # names in the client certificate: uri:..., dns:... or cn:...
//! methods = ["IdentityService/*"]
//! user-fields = ["username", "email", "is_verified", "created_at", "updated_at", "state"]
//! tells-client = true                # optional; default false
//! receives-mail-tokens = true        # optional; default false
//! calls-max = 200                    # optional; default 1000
//! ```

use std::sync::Arc;

use toml::de::{DeString, DeTable};

use super::{
    caller::Caller,
    entry::{Credentials, Violation, parse_entry},
    registry::Callers,
    token::PREFIX as TOKEN_PREFIX,
};
use crate::domain::Numbered;

/// An error in a callers file. It contains no service token, wherever one is in the file.
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
    /// Several rules are broken, in the order of the lines.
    #[error("{}", Numbered(_0))]
    Several(Vec<Self>),
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
    /// [`CallersError`] with every rule that is broken. Of the rules about the keys of an entry and the types
    /// of their values, it names the first, and then nothing else about the entry.
    pub fn parse(text: &str, methods: &[&str]) -> Result<Self, CallersError> {
        let entries = DeTable::parse(text).map_err(|error| CallersError::Malformed {
            line: line(text, error.span().unwrap_or_default().start),
            rule: error.message().to_owned(),
        })?;
        let mut callers = Self::default();
        let mut violations = Vec::new();
        for (name, entry) in entries.get_ref() {
            let added = parse_entry(name, entry, methods)
                .and_then(|(caller, credentials)| add(&mut callers, caller, credentials));
            violations.extend(added.err().into_iter().flatten().map(|violation| (name.get_ref(), violation)));
        }
        violations.sort_by_key(|(_, violation)| violation.at);
        let in_entry = |(name, Violation { at, rule }): (&DeString<'_>, _)| CallersError::Entry {
            caller: without_tokens(name),
            line: line(text, at),
            rule: without_tokens(&rule),
        };
        let mut errors: Vec<_> = violations.into_iter().map(in_entry).collect();
        match errors.len() {
            0 if entries.get_ref().is_empty() => Err(CallersError::Empty),
            0 => Ok(callers),
            1 => Err(errors.remove(0)),
            _ => Err(CallersError::Several(errors)),
        }
    }
}

/// Replaces the service tokens in a text of an error, which is printed and logged. An operator may have
/// written a token into the wrong place of the file.
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
fn add(callers: &mut Callers, caller: Caller, credentials: Credentials) -> Result<(), Vec<Violation>> {
    let caller = Arc::new(caller);
    let mut violations = Vec::new();
    for hash in credentials.hashes {
        if !callers.add_token(*hash.get_ref(), &caller) {
            let rule = "token-hashes: a token hash is listed twice, here or for another caller";
            violations.push(Violation::new(&hash.span(), rule));
        }
    }
    for name in credentials.certificates {
        if !callers.add_certificate(name.get_ref().clone(), &caller) {
            let rule = format!(
                "certificates: the certificate name {} is listed twice, here or for another caller",
                name.get_ref()
            );
            violations.push(Violation::new(&name.span(), rule));
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{rights::UserFields, token::ServiceToken},
        *,
    };

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
            (
                "[callers.bff]\nmethods = []",
                "caller callers: the entry of a caller is a table of its own: write [bff]",
            ),
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
            (
                agent("methods = [\"*\", \"Log\", \"Out\"]\nuser-fields = [\"password\"]\n[nobody]\n"),
                "5 findings: (1) line 8: caller agent: must have token-hashes or certificates; (2) line 9: caller \
                 agent: methods: \"Log\" matches no method; use Service/Method, Service/* or *; (3) line 9: caller \
                 agent: methods: \"Out\" matches no method; use Service/Method, Service/* or *; (4) line 10: \
                 caller agent: user-fields: User has no field password; (5) line 11: caller nobody: the name is",
            ),
            (
                agent(&format!("{valid}token-hashes = [{}, \"x\", \"y\"]\n", hash(1))),
                "(2) line 11: caller agent: token-hashes must have at most 2 entries, not 3; (3) line 11",
            ),
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
    fn an_error_shows_no_token() {
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
