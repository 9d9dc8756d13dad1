//! Rules that more than one setting has a part in.

use super::{ConfigError, Settings, database_url::DatabaseUrl};

/// Below it, a stolen hash is guessed too fast (OWASP, Password Storage Cheat Sheet).
const COST_MIN: u32 = 10;

impl Settings {
    /// What must hold before the service may serve.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] that names the keys, and the flag that gives leave where there is one.
    pub fn check_for_serve(&self) -> Result<(), ConfigError> {
        let mut rules = self
            .rules_of_the_port()
            .into_iter()
            .chain(self.rules_of_numbers())
            .chain(self.rules_of_the_database());
        match rules.find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConfigError::Rule(rule.to_owned())),
            None => Ok(()),
        }
    }

    fn rules_of_the_port(&self) -> [(bool, &'static str); 6] {
        [
            (
                self.server.tls_cert.is_some() == self.server.tls_key.is_some(),
                "server.tls-cert and server.tls-key belong together: give both or none",
            ),
            (
                self.server.tls_client_ca.is_none() || self.serves_tls(),
                "server.tls-client-ca needs TLS: give --tls-cert and --tls-key too",
            ),
            (
                self.server.listen.ip().is_loopback() || self.serves_tls() || self.server.insecure_plaintext,
                "server.listen is not loopback and there is no TLS: give --tls-cert and --tls-key, or allow passwords \
                 to cross the network in the clear with --insecure-plaintext",
            ),
            (
                self.http.listen.is_none_or(|listen| listen.ip().is_loopback())
                    || self.serves_tls()
                    || self.server.insecure_plaintext,
                "http.listen is not loopback and there is no TLS: give --tls-cert and --tls-key, or allow new passwords and links \
                 to cross the network in the clear with --insecure-plaintext",
            ),
            (
                self.mail.public_base_url.is_confidential() || self.server.insecure_plaintext,
                "mail.public-base-url is http and not local: give https, or allow links and new passwords to cross the network in \
                 the clear with --insecure-plaintext",
            ),
            (
                self.server.listen.ip().is_loopback()
                    || self.callers.file.is_some()
                    || self.callers.insecure_none,
                "server.listen is not loopback and there are no callers: give --callers FILE (docs/CALLERS.md), or allow \
                 whoever reaches the port to do everything with --insecure-no-callers",
            ),
        ]
    }

    fn rules_of_numbers(&self) -> [(bool, &'static str); 6] {
        [
            (
                self.password.cost.get() >= COST_MIN || self.password.insecure_low_cost,
                "password.cost is below 10: stolen hashes would be guessed too fast; tests may allow it with \
                 --insecure-low-cost",
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
                "session.key-lead must be shorter than session.key-rotation: a key would be replaced before it signs",
            ),
            (
                self.server.request_timeout_default.get() <= self.server.request_timeout_max.get(),
                "server.request-timeout-default must not be longer than server.request-timeout-max",
            ),
        ]
    }

    fn rules_of_the_database(&self) -> [(bool, &'static str); 2] {
        [
            (
                self.database.read_urls.as_slice().is_empty()
                    || matches!(self.database.url, DatabaseUrl::Postgres(_)),
                "database.read-urls names replicas, which only PostgreSQL has: database.url must be PostgreSQL too",
            ),
            (
                self.secret.key_file.is_some() || matches!(self.database.url, DatabaseUrl::Sqlite(_)),
                "secret.key-file must be set when database.url is PostgreSQL: make one with \
                 `openssl rand -base64 32` and give it to every instance (--secret-key-file FILE)",
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
    fn the_defaults_may_serve() {
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn each_danger_is_refused_and_names_its_way_out() {
        let postgres = ("database.url", "postgres://a@b/c");
        for (flags, word) in [
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
            assert!(refusal(&flags).is_some_and(|refusal| refusal.contains(word)), "{flags:?}");
        }
    }

    #[test]
    fn each_danger_may_be_allowed() {
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
