//! Rules about unsafe values, and about settings that depend on each other.

use super::{database_url::DatabaseUrl, error::ConfigError, settings::Settings};

/// The lowest safe bcrypt cost: with a lower one a password is guessed too fast from a stolen hash (OWASP,
/// Password Storage Cheat Sheet).
const COST_MIN: u32 = 10;

impl Settings {
    /// Checks the rules that `serve` requires.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] for the first broken rule. It names the keys, and the flag that allows the
    /// exception if there is one.
    pub fn check_for_serve(&self) -> Result<(), ConfigError> {
        let mut rules =
            self.network_rules().into_iter().chain(self.number_rules()).chain(self.database_rules());
        match rules.find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConfigError::Rule(rule.to_owned())),
            None => Ok(()),
        }
    }

    /// Returns each rule about ports and URLs: whether it holds, and the error message if it does not.
    fn network_rules(&self) -> [(bool, &'static str); 6] {
        [
            (
                self.server.tls_cert.is_some() == self.server.tls_key.is_some(),
                "server.tls-cert and server.tls-key depend on each other: set both or neither",
            ),
            (
                self.server.tls_client_ca.is_none() || self.serves_tls(),
                "server.tls-client-ca needs TLS: set --tls-cert and --tls-key too",
            ),
            (
                self.server.listen.ip().is_loopback() || self.serves_tls() || self.server.insecure_plaintext,
                "server.listen is not loopback and TLS is off: set --tls-cert and --tls-key, or allow passwords to cross \
                 the network unencrypted with --insecure-plaintext",
            ),
            (
                self.http.listen.is_none_or(|listen| listen.ip().is_loopback())
                    || self.serves_tls()
                    || self.server.insecure_plaintext,
                "http.listen is not loopback and TLS is off: set --tls-cert and --tls-key, or allow new passwords and \
                 links to cross the network unencrypted with --insecure-plaintext",
            ),
            (
                self.mail.public_base_url.is_confidential() || self.server.insecure_plaintext,
                "mail.public-base-url is an http URL of another machine: use https, or allow links and new passwords to \
                 cross the network unencrypted with --insecure-plaintext",
            ),
            (
                self.server.listen.ip().is_loopback()
                    || self.callers.file.is_some()
                    || self.callers.insecure_none,
                "server.listen is not loopback and callers.file is not set: set --callers FILE (docs/CALLERS.md), or \
                 allow every client that reaches the port to call every method with --insecure-no-callers",
            ),
        ]
    }

    /// Returns each rule about numbers and durations, as [`Settings::network_rules`].
    fn number_rules(&self) -> [(bool, &'static str); 6] {
        [
            (
                self.password.cost.get() >= COST_MIN || self.password.insecure_low_cost,
                "password.cost is below 10, so passwords could be guessed too fast from stolen hashes: use 10 or more; \
                 tests may allow less with --insecure-low-cost",
            ),
            (
                self.login.failures_max.get() <= self.login.failures_in_a_row_max.get(),
                "login.failures-max must not be more than login.failures-in-a-row-max",
            ),
            (
                self.login.wait_first.get() <= self.login.wait_max.get(),
                "login.wait-first must not be longer than login.wait-max",
            ),
            (
                self.session.idle.get() <= self.session.lifetime.get(),
                "session.idle must not be longer than session.lifetime",
            ),
            (
                self.session.key_lead.get() < self.session.key_rotation.get(),
                "session.key-lead must be shorter than session.key-rotation: otherwise a key is replaced before it signs",
            ),
            (
                self.server.request_timeout_default.get() <= self.server.request_timeout_max.get(),
                "server.request-timeout-default must not be longer than server.request-timeout-max",
            ),
        ]
    }

    /// Returns each rule about the database, as [`Settings::network_rules`].
    fn database_rules(&self) -> [(bool, &'static str); 2] {
        [
            (
                self.database.read_urls.as_slice().is_empty()
                    || matches!(self.database.url, DatabaseUrl::Postgres(_)),
                "database.read-urls needs PostgreSQL: set database.url to a postgres:// URL, or leave read-urls empty",
            ),
            (
                self.secret.key_file.is_some() || matches!(self.database.url, DatabaseUrl::Sqlite(_)),
                "secret.key-file must be set when database.url is PostgreSQL: create a key with `openssl rand -base64 32` \
                 and give it to every instance (--secret-key-file FILE)",
            ),
        ]
    }

    fn serves_tls(&self) -> bool {
        self.server.tls_cert.is_some() && self.server.tls_key.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::Sources;

    fn refusal(flags: &[(&'static str, &str)]) -> Option<String> {
        let flags = flags.iter().map(|(key, text)| (*key, "flag", (*text).to_owned())).collect();
        let settings = Settings::read(&Sources::gather(None, [], flags).unwrap()).unwrap();
        settings.check_for_serve().err().map(|error| error.to_string())
    }

    #[test]
    fn the_defaults_pass_the_checks() {
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn each_unsafe_setting_is_refused_and_the_error_names_the_fix() {
        let postgres = ("database.url", "postgres://a@b/c");
        for (flags, fix) in [
            (vec![("server.listen", "0.0.0.0:1")], "--insecure-plaintext"),
            (vec![("server.listen", "[::]:1")], "--insecure-plaintext"),
            (vec![("http.listen", "0.0.0.0:1")], "--insecure-plaintext"),
            (vec![("mail.public-base-url", "http://kairos.example")], "--insecure-plaintext"),
            (
                vec![("server.listen", "0.0.0.0:1"), ("server.insecure-plaintext", "true")],
                "--insecure-no-callers",
            ),
            (vec![("server.tls-client-ca", "ca.pem")], "--tls-cert"),
            (vec![("server.tls-cert", "c.pem")], "server.tls-key"),
            (vec![("password.cost", "9")], "--insecure-low-cost"),
            (vec![("server.request-timeout-default", "2m")], "server.request-timeout-max"),
            (vec![("login.failures-in-a-row-max", "9")], "login.failures-max"),
            (vec![("login.wait-max", "1m")], "login.wait-first"),
            (vec![("session.lifetime", "6d")], "session.idle"),
            (vec![("session.key-rotation", "1h")], "session.key-lead"),
            (vec![postgres], "--secret-key-file"),
        ] {
            assert!(refusal(&flags).is_some_and(|refusal| refusal.contains(fix)), "{flags:?}");
        }
    }

    #[test]
    fn each_unsafe_setting_can_be_allowed() {
        let anywhere = ("server.listen", "0.0.0.0:1");
        let plaintext = ("server.insecure-plaintext", "true");
        assert_eq!(refusal(&[anywhere, plaintext, ("callers.insecure-none", "true")]), None);
        assert_eq!(
            refusal(&[
                anywhere,
                ("server.tls-cert", "c"),
                ("server.tls-key", "k"),
                ("callers.file", "callers.toml")
            ]),
            None
        );
        assert_eq!(refusal(&[("password.cost", "4"), ("password.insecure-low-cost", "true")]), None);
        assert_eq!(refusal(&[("database.url", "postgres://a@b/c"), ("secret.key-file", "k")]), None);
    }
}
