//! The SQLSTATE of an error of PostgreSQL, and what follows from it.
//!
//! diesel does not keep the code, and the server translates the message (`lc_messages`). So `postgres_errors`
//! writes the code before the message while it reads from the server, and [`SqlState::of`] takes it from
//! there.

/// The code of an error, and whether the server closes the connection with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqlState {
    code: [u8; CODE_BYTES],
    is_fatal: bool,
}

/// What has to be done before a failed transaction may succeed. Nothing of it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It can be repeated on the same connection: it lost against another transaction.
    Repeat,
    /// It needs a new connection: the prepared statements of this one no longer fit the tables, or are gone.
    NewConnection,
}

const CODE_BYTES: usize = 5;

/// Precedes the code in a message.
const MARK: &str = "SQLSTATE ";

/// Follows the code if the server closes the connection.
const FATAL: &str = " FATAL";

impl SqlState {
    /// Creates the state of an error with this code and severity (`ERROR`, `FATAL` or `PANIC`); `None` if the
    /// code is not one of five letters and digits.
    pub(super) fn new(code: &[u8], severity: &[u8]) -> Option<Self> {
        let is_fatal = matches!(severity, b"FATAL" | b"PANIC");
        let code: [u8; CODE_BYTES] = code.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(Self { code, is_fatal })
    }

    /// Returns the state at the beginning of a message; `None` for an error that is not the server's.
    pub(super) fn of(message: &str) -> Option<Self> {
        let rest = message.strip_prefix(MARK)?;
        let (code, rest) = rest.split_at_checked(CODE_BYTES)?;
        Self::new(code.as_bytes(), if rest.starts_with(FATAL) { b"FATAL" } else { b"ERROR" })
    }

    /// Returns the first state in a text, which may put other words before it.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split_once(MARK).and_then(|(before, _)| Self::of(text.get(before.len()..)?))
    }

    /// True if one of the states in a text says that the server has no free connection.
    pub(super) fn has_no_free_connection(text: &str) -> bool {
        let states = text.match_indices(MARK).filter_map(|(at, _)| Self::of(text.get(at..)?));
        states.into_iter().any(|state| &state.code == b"53300") // too_many_connections
    }

    /// Returns the text to put before a message.
    pub(super) fn prefix(self) -> Vec<u8> {
        let fatal = if self.is_fatal { FATAL } else { "" };
        [MARK.as_bytes(), &self.code, fatal.as_bytes(), b": "].concat()
    }

    /// True if the server closes the connection, or a pooler has lost the server.
    pub(super) fn is_connection_lost(self) -> bool {
        self.is_fatal || self.code.starts_with(b"08") || self.code.starts_with(b"57P0")
    }

    /// True if the database cannot do its work now, and a later call may succeed.
    pub(super) fn is_unavailable(self) -> bool {
        self.is_connection_lost()
            || self.code.starts_with(b"40")     // transaction rollback: serialization failure, deadlock
            || self.code.starts_with(b"53")     // insufficient resources: disk full, out of memory, connections
            || matches!(
                &self.code,
                b"25006"        // read_only_sql_transaction
                    | b"25P03"  // idle_in_transaction_session_timeout
                    | b"25P04"  // transaction_timeout
                    | b"55P03"  // lock_not_available: lock_timeout
                    | b"57014"  // query_canceled: statement_timeout
                    | b"58000" // system_error
            )
    }

    /// True if a page cannot be read or written, or is invalid.
    pub(super) fn is_damage(self) -> bool {
        // data_corrupted, index_corrupted, io_error, undefined_file: a file of a table is missing
        matches!(&self.code, b"XX001" | b"XX002" | b"58030" | b"58P01")
    }

    /// True if the disk of the server is full.
    pub(super) fn is_disk_full(self) -> bool {
        &self.code == b"53100"
    }

    /// True if a stored text has no equivalent in UTF-8, or is not valid in the encoding of its database.
    pub(super) fn is_text_unconvertible(self) -> bool {
        // character_not_in_repertoire, untranslatable_character
        matches!(&self.code, b"22021" | b"22P05")
    }

    /// True if the role of the connection lacks a right.
    pub(super) fn is_insufficient_privilege(self) -> bool {
        &self.code == b"42501"
    }

    /// True if the server accepts only reads.
    pub(super) fn is_read_only(self) -> bool {
        &self.code == b"25006"
    }

    /// Returns what has to be done before the same transaction may succeed; `None` if it would fail again, or
    /// if the server closed the connection, because then it may have been committed.
    pub(super) fn remedy(self) -> Option<Remedy> {
        match &self.code {
            _ if self.is_fatal => None,
            b"40001" | b"40P01" => Some(Remedy::Repeat), // serialization_failure, deadlock_detected
            // feature_not_supported: "cached plan must not change result type"; invalid_sql_statement_name: a
            // prepared statement that a pooler or an operator has deallocated.
            b"0A000" | b"26000" => Some(Remedy::NewConnection),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_in_a_message_of_any_language() {
        let message = "SQLSTATE 57014: storniere Anfrage wegen Zeitüberschreitung der Anfrage";
        assert_eq!(SqlState::of(message), SqlState::new(b"57014", b"ERROR"));
        let fatal = SqlState::new(b"57P01", b"FATAL").unwrap();
        let text = format!("connect: {}arrêt des connexions", String::from_utf8(fatal.prefix()).unwrap());
        assert_eq!(SqlState::find(&text), Some(fatal));
        for other in ["database is locked", "SQLSTATE ", "SQLSTATE 5701", "SQLSTATE é570: x"] {
            assert_eq!(SqlState::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_full_server_is_recognized_behind_the_errors_of_other_hosts() {
        let of_one = "10.0.0.1: SQLSTATE 57P03 FATAL: starting up";
        assert!(!SqlState::has_no_free_connection(of_one));
        assert!(SqlState::has_no_free_connection(&format!("{of_one}; 10.0.0.2: SQLSTATE 53300 FATAL: x")));
    }

    #[test]
    fn a_transaction_is_repeated_only_after_an_error_that_rolled_it_back() {
        let remedy = |code: &[u8], severity: &[u8]| SqlState::new(code, severity).unwrap().remedy();
        for (code, expected) in [
            (b"40001", Some(Remedy::Repeat)),
            (b"40P01", Some(Remedy::Repeat)),
            (b"0A000", Some(Remedy::NewConnection)),
            (b"26000", Some(Remedy::NewConnection)),
            (b"23505", None),
            (b"40003", None), // statement_completion_unknown
        ] {
            assert_eq!(remedy(code, b"ERROR"), expected, "{}", String::from_utf8_lossy(code));
            assert_eq!(remedy(code, b"FATAL"), None, "it may have been committed");
        }
    }

    #[test]
    fn only_errors_that_may_pass_are_unavailable() {
        let is_unavailable = |code: &[u8]| SqlState::new(code, b"ERROR").unwrap().is_unavailable();
        for code in [b"57014", b"53100", b"53300", b"40P01", b"57P03", b"08006", b"25006"] {
            assert!(is_unavailable(code), "{}", String::from_utf8_lossy(code));
        }
        for code in [b"42P01", b"23505", b"22P02", b"0A000", b"XX001", b"P0001"] {
            assert!(!is_unavailable(code), "{}", String::from_utf8_lossy(code));
        }
        assert!(SqlState::new(b"XX000", b"PANIC").unwrap().is_connection_lost());
    }
}
