//! Rules about unsafe values, and about settings that depend on each other.

use std::net::SocketAddr;

use super::{database_url::DatabaseUrl, mail_url::MailUrl, settings::Settings, sources::Sources};

/// The lowest safe bcrypt cost: with a lower one a password is guessed too fast from a stolen hash (OWASP,
/// Password Storage Cheat Sheet).
const COST_MIN: u32 = 10;

const LOW_COST: &str = "password.cost: below 10, passwords could be guessed too fast from stolen hashes: use 10 or more; \
                        tests may allow less with --insecure-low-cost";

/// The passwords that a command hashes could be guessed too fast from stolen hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{LOW_COST}")]
pub struct LowCost;

/// A rule about the values of settings. `serve` does not start while one of [`Settings::error_rules`] is
/// broken, and warns of one of its warning rules.
struct Rule {
    holds: bool,
    /// The message if it does not hold.
    text: &'static str,
    /// The keys of the settings whose values the message shows.
    shown: &'static [&'static str],
    /// The keys of the other settings on which the rule depends.
    others: &'static [&'static str],
}

/// Returns a rule that depends only on the settings that its message shows.
const fn rule(holds: bool, text: &'static str, shown: &'static [&'static str]) -> Rule {
    Rule { holds, text, shown, others: &[] }
}

impl Rule {
    /// Adds the keys of settings on which the rule depends and whose values say nothing to the reader.
    const fn depends_on(self, others: &'static [&'static str]) -> Self {
        Self { others, ..self }
    }

    /// Returns the message if the rule is broken, with the values that it compares and who set them. A rule
    /// about a setting without a valid value is not broken.
    fn broken(&self, sources: &Sources) -> Option<String> {
        let is_decided =
            || [self.shown, self.others].iter().all(|keys| sources.first_invalid(keys).is_none());
        (!self.holds && is_decided()).then(|| format!("{} [{}]", self.text, sources.describe(self.shown)))
    }
}

impl Settings {
    /// Returns what keeps `serve` from starting: each setting without a valid value, and each broken rule
    /// about the others. A finding names the keys with their values and sources, and the flag that allows the
    /// exception if there is one. `sources` are those from which the settings were read.
    #[must_use]
    pub fn findings(&self, sources: &Sources) -> Vec<String> {
        let invalid = sources.errors().iter().map(ToString::to_string);
        invalid.chain(self.error_rules().filter_map(|rule| rule.broken(sources))).collect()
    }

    /// Returns warnings about settings that are valid but most likely a mistake.
    #[must_use]
    pub fn warnings(&self, sources: &Sources) -> Vec<String> {
        let rules = self.mail_warning_rules(sources).into_iter().chain(self.effect_warning_rules(sources));
        rules.filter_map(|rule| rule.broken(sources)).collect()
    }

    /// Returns each warning rule about mails, and about what users and other services see of this one.
    fn mail_warning_rules(&self, sources: &Sources) -> [Rule; 4] {
        let is_production = !self.server.listen.ip().is_loopback() || !self.mail.public_base_url.is_local();
        let mails_to_folder = matches!(self.mail.url, MailUrl::Folder(_));
        // What reaches users or other machines needs names of its own.
        let is_default = |key| sources.is_default(key) && (is_production || !mails_to_folder);
        [
            rule(
                !(is_production && mails_to_folder),
                "mails are only written to a folder and reach no user: set mail.url to smtp://user:password@host:port",
                &["mail.url", "mail.public-base-url"],
            ).depends_on(&["server.listen"]),
            rule(
                !is_default("mail.from"),
                "mails come from the default sender, whose domain does not exist: set mail.from",
                &["mail.from"],
            ).depends_on(&["mail.url", "mail.public-base-url", "server.listen"]),
            rule(
                !is_default("mail.public-base-url"),
                "the links in mails lead to this machine, which no user can reach: set mail.public-base-url to the https \
                 URL of the pages",
                &["mail.public-base-url", "mail.url"],
            ).depends_on(&["server.listen"]),
            rule(
                !is_default("session.issuer"),
                "access tokens have the default issuer, which every installation has: set session.issuer to your own URL",
                &["session.issuer"],
            ).depends_on(&["mail.url", "mail.public-base-url", "server.listen"]),
        ]
    }

    /// Returns each warning rule about a setting that has no effect or a bad one.
    fn effect_warning_rules(&self, sources: &Sources) -> [Rule; 7] {
        let is_public = |address: SocketAddr| !address.ip().is_loopback();
        let (server, http) = (&self.server, &self.http);
        // The system chooses another port for port 0.
        let is_port_of_links = |listen: SocketAddr| {
            listen.port() == 0 || self.mail.public_base_url.port() == Some(listen.port())
        };
        [
            rule(
                self.verification.token_lifetime.get() <= self.verification.unverified_kept.get(),
                "verification.unverified-kept is shorter than verification.token-lifetime: users are deleted while the \
                 link in their mail is still valid",
                &["verification.token-lifetime", "verification.unverified-kept"],
            ),
            rule(
                self.callers.file.is_none() || !self.callers.insecure_none,
                "callers.insecure-none has no effect while callers.file is set: leave one of them out",
                &["callers.file", "callers.insecure-none"],
            ),
            rule(
                !self.telemetry.listen.is_some_and(is_public),
                "every client that reaches telemetry.listen can read the metrics, without a token and without TLS: let only \
                 the monitoring reach the port",
                &["telemetry.listen"],
            ),
            rule(
                http.listen.is_some() || self.pages.templates.is_none(),
                "pages.templates has no effect while http.listen is empty: nothing serves the pages",
                &["pages.templates", "http.listen"],
            ),
            rule(
                !sources.is_default("mail.public-base-url") || http.listen.is_none_or(is_port_of_links),
                "the links in mails lead to another port than http.listen: set mail.public-base-url",
                &["mail.public-base-url", "http.listen"],
            ),
            rule(
                server.connections_per_peer_max.get() <= server.connections_max.get()
                    || sources.is_default("server.connections-per-peer-max"),
                "server.connections-per-peer-max has no effect: it is more than server.connections-max",
                &["server.connections-per-peer-max", "server.connections-max"],
            ),
            rule(
                http.connections_per_peer_max.get() <= http.connections_max.get()
                    || sources.is_default("http.connections-per-peer-max"),
                "http.connections-per-peer-max has no effect: it is more than http.connections-max",
                &["http.connections-per-peer-max", "http.connections-max"],
            ),
        ]
    }

    /// Returns each rule without which `serve` does not start.
    fn error_rules(&self) -> impl Iterator<Item = Rule> {
        self.network_rules()
            .into_iter()
            .chain(self.exposure_rules())
            .chain(self.number_rules())
            .chain(self.lifetime_rules())
            .chain(self.memory_rules())
            .chain(self.database_rules())
    }

    /// Returns each rule about ports and TLS.
    fn network_rules(&self) -> [Rule; 5] {
        let is_port_of_metrics =
            |other| self.telemetry.listen.is_some_and(|metrics| same_port(metrics, other));
        [
            rule(
                self.server.tls_cert.is_some() == self.server.tls_key.is_some(),
                "server.tls-cert and server.tls-key depend on each other: set both or neither",
                &["server.tls-cert", "server.tls-key"],
            ),
            rule(
                self.server.tls_client_ca.is_none() || self.serves_tls(),
                "server.tls-client-ca needs TLS: set --tls-cert and --tls-key too",
                &["server.tls-client-ca"],
            ).depends_on(&["server.tls-cert", "server.tls-key"]),
            rule(
                !self.http.listen.is_some_and(|http| same_port(self.server.listen, http)),
                "server.listen and http.listen are the same port: choose another one with --http-listen",
                &["server.listen", "http.listen"],
            ),
            rule(
                !is_port_of_metrics(self.server.listen) && !self.http.listen.is_some_and(is_port_of_metrics),
                "telemetry.listen is the port of server.listen or http.listen: choose another one with --telemetry-listen",
                &["telemetry.listen", "server.listen", "http.listen"],
            ),
            rule(
                self.server.listen.ip().is_loopback()
                    || self.callers.file.is_some()
                    || self.callers.insecure_none,
                "server.listen is not loopback and callers.file is not set: set --callers FILE (docs/CALLERS.md), or \
                 allow every client that reaches the port to call every method with --insecure-no-callers",
                &["server.listen"],
            ).depends_on(&["callers.file", "callers.insecure-none"]),
        ]
    }

    /// Returns each rule about what may cross the network unencrypted.
    fn exposure_rules(&self) -> [Rule; 3] {
        [
            rule(
                self.server.listen.ip().is_loopback() || self.serves_tls() || self.server.insecure_plaintext,
                "server.listen is not loopback and TLS is off: set --tls-cert and --tls-key, or allow passwords to cross \
                 the network unencrypted with --insecure-plaintext",
                &["server.listen"],
            ).depends_on(&["server.tls-cert", "server.tls-key", "server.insecure-plaintext"]),
            rule(
                self.http.listen.is_none_or(|listen| listen.ip().is_loopback())
                    || self.serves_tls()
                    || self.server.insecure_plaintext,
                "http.listen is not loopback and TLS is off: set --tls-cert and --tls-key, or allow new passwords and \
                 links to cross the network unencrypted with --insecure-plaintext",
                &["http.listen"],
            ).depends_on(&["server.tls-cert", "server.tls-key", "server.insecure-plaintext"]),
            rule(
                self.mail.public_base_url.is_confidential() || self.server.insecure_plaintext,
                "mail.public-base-url is an http URL of another machine: use https, or allow links and new passwords to \
                 cross the network unencrypted with --insecure-plaintext",
                &["mail.public-base-url"],
            ).depends_on(&["server.insecure-plaintext"]),
        ]
    }

    /// True if the passwords that a command hashes could be guessed too fast from stolen hashes.
    fn has_low_cost(&self) -> bool {
        self.password.cost.get() < COST_MIN && !self.password.insecure_low_cost
    }

    /// Checks what a command that hashes passwords needs.
    ///
    /// # Errors
    /// [`LowCost`].
    pub fn check_for_hashing(&self) -> Result<(), LowCost> {
        if self.has_low_cost() { Err(LowCost) } else { Ok(()) }
    }

    /// Returns each rule about numbers and waits.
    fn number_rules(&self) -> [Rule; 5] {
        [
            rule(!self.has_low_cost(), LOW_COST, &["password.cost"])
                .depends_on(&["password.insecure-low-cost"]),
            rule(
                self.login.failures_max.get() <= self.login.failures_in_a_row_max.get(),
                "login.failures-max must not be more than login.failures-in-a-row-max",
                &["login.failures-max", "login.failures-in-a-row-max"],
            ),
            rule(
                self.login.wait_first.get() <= self.login.wait_max.get(),
                "login.wait-first must not be longer than login.wait-max",
                &["login.wait-first", "login.wait-max"],
            ),
            rule(
                self.mail.retry_first.get() <= self.mail.retry_max.get(),
                "mail.retry-first must not be longer than mail.retry-max",
                &["mail.retry-first", "mail.retry-max"],
            ),
            rule(
                self.server.request_timeout_default.get() <= self.server.request_timeout_max.get(),
                "server.request-timeout-default must not be longer than server.request-timeout-max",
                &["server.request-timeout-default", "server.request-timeout-max"],
            ),
        ]
    }

    /// Returns each rule about the lifetimes of sessions and keys.
    fn lifetime_rules(&self) -> [Rule; 3] {
        [
            rule(
                self.session.idle.get() <= self.session.lifetime.get(),
                "session.idle must not be longer than session.lifetime",
                &["session.idle", "session.lifetime"],
            ),
            rule(
                self.session.access_token_lifetime.get() <= self.session.idle.get(),
                "session.access-token-lifetime must not be longer than session.idle: otherwise a session ends before its \
                 client refreshes it",
                &["session.access-token-lifetime", "session.idle"],
            ),
            rule(
                self.session.key_lead.get() < self.session.key_rotation.get(),
                "session.key-lead must be shorter than session.key-rotation: otherwise a key is replaced before it signs",
                &["session.key-lead", "session.key-rotation"],
            ),
        ]
    }

    /// Returns each rule about the memory of requests.
    fn memory_rules(&self) -> [Rule; 2] {
        let server = &self.server;
        let per_peer = server.unfinished_bytes_per_peer_max.count().get();
        [
            rule(
                server.message_bytes_max.count().get() <= per_peer,
                "server.message-bytes-max must not be more than server.unfinished-bytes-per-peer-max: otherwise the \
                 longest messages are always refused",
                &["server.message-bytes-max", "server.unfinished-bytes-per-peer-max"],
            ),
            rule(
                per_peer <= server.unfinished_bytes_max.count().get(),
                "server.unfinished-bytes-per-peer-max must not be more than server.unfinished-bytes-max, which is for all \
                 peers together",
                &["server.unfinished-bytes-per-peer-max", "server.unfinished-bytes-max"],
            ),
        ]
    }

    /// Returns each rule about the database.
    fn database_rules(&self) -> [Rule; 2] {
        [
            rule(
                self.database.read_urls.as_slice().is_empty()
                    || matches!(self.database.url, DatabaseUrl::Postgres(_)),
                "database.read-urls needs PostgreSQL: set database.url to a postgres:// URL, or leave read-urls empty",
                &["database.url", "database.read-urls"],
            ),
            rule(
                self.secret.key_file.is_some() || matches!(self.database.url, DatabaseUrl::Sqlite(_)),
                "secret.key-file must be set when database.url is PostgreSQL: create a key with `openssl rand -base64 32` \
                 and give it to every instance (--secret-key-file FILE)",
                &["database.url"],
            ).depends_on(&["secret.key-file"]),
        ]
    }

    fn serves_tls(&self) -> bool {
        self.server.tls_cert.is_some() && self.server.tls_key.is_some()
    }
}

/// True if a program cannot listen on both addresses. The system chooses another port for each port 0.
#[must_use]
pub fn same_port(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` is for IPv4 too.
    let contains =
        |all: SocketAddr, one: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let overlap = one.ip() == other.ip() || contains(one, other) || contains(other, one);
    one.port() == other.port() && one.port() != 0 && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(flags: &[(&str, &str)]) -> (Settings, Sources) {
        let flags = flags.iter().map(|(key, text)| ((*key).to_owned(), "flag", (*text).to_owned())).collect();
        let sources = Sources::gather(None, [], flags).unwrap();
        (Settings::read(&sources).unwrap(), sources)
    }

    fn refusal(flags: &[(&str, &str)]) -> Option<String> {
        let (settings, sources) = loaded(flags);
        Some(settings.findings(&sources)).filter(|found| !found.is_empty()).map(|found| found.join("; "))
    }

    #[test]
    fn the_defaults_pass_the_checks() {
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn each_unsafe_setting_is_refused_and_the_error_names_the_fix() {
        for (flags, fix) in contradictions() {
            assert!(refusal(&flags).is_some_and(|refusal| refusal.contains(fix)), "{flags:?}");
        }
    }

    #[test]
    fn every_rule_names_the_value_and_who_set_it() {
        let mut unbroken: Vec<&str> = loaded(&[]).0.error_rules().map(|rule| rule.text).collect();
        for (flags, _) in contradictions() {
            let (key, text) = flags[0];
            let refusal = refusal(&flags).unwrap();
            assert!(refusal.contains(&format!("{key} is {text} (flag --flag)")), "{refusal}");
            unbroken.retain(|text| !refusal.contains(text));
        }
        assert_eq!(unbroken, Vec::<&str>::new(), "no case breaks these rules");
    }

    /// Returns at least one case for each rule: settings that break it, the one to blame first, and the part
    /// of the error that names the way out.
    fn contradictions() -> Vec<(Vec<(&'static str, &'static str)>, &'static str)> {
        let postgres = ("database.url", "postgres://a@b/c");
        vec![
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
            (
                vec![("session.access-token-lifetime", "8h"), ("session.idle", "7h")],
                "must not be longer than session.idle",
            ),
            (vec![("mail.retry-first", "1h")], "mail.retry-max"),
            (vec![("http.listen", "127.0.0.1:50051")], "--http-listen"),
            (vec![("telemetry.listen", "127.0.0.1:50051")], "--telemetry-listen"),
            (vec![("telemetry.listen", "127.0.0.1:50080")], "--telemetry-listen"),
            (vec![("http.listen", "0.0.0.0:50051"), ("server.insecure-plaintext", "true")], "--http-listen"),
            (vec![("database.read-urls", "postgres://a@b/c")], "set database.url to a postgres:// URL"),
            (vec![postgres], "--secret-key-file"),
            (
                vec![("server.message-bytes-max", "4MiB"), ("server.unfinished-bytes-per-peer-max", "1MiB")],
                "unfinished-bytes-per-peer-max",
            ),
            (vec![("server.unfinished-bytes-max", "64KiB")], "not be more than server.unfinished-bytes-max"),
        ]
    }

    #[test]
    fn a_contradiction_names_both_values_and_who_set_them_and_all_are_reported_at_once() {
        let refusal = refusal(&[("session.idle", "40d"), ("login.wait-first", "2h")]).unwrap();
        for part in [
            "session.idle is 40d (flag --flag), session.lifetime is 30d (default)",
            "login.wait-first is 2h (flag --flag), login.wait-max is 1h (default)",
        ] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }

    fn warnings(flags: &[(&str, &str)]) -> String {
        let (settings, sources) = loaded(flags);
        settings.warnings(&sources).join("\n")
    }

    #[test]
    fn a_rule_names_every_setting_that_decides_it() {
        let more = [
            ("server.tls-cert", "c.pem"),
            ("server.tls-key", "k.pem"),
            ("callers.file", "callers.toml"),
            ("callers.insecure-none", "true"),
            ("server.insecure-plaintext", "true"),
            ("password.insecure-low-cost", "true"),
            ("secret.key-file", "secret.key"),
            ("mail.url", "smtp://mail.example"),
            ("mail.from", "a@kairos.example"),
            ("session.issuer", "https://kairos.example"),
            ("verification.unverified-kept", "1h"),
            ("verification.token-lifetime", "100d"),
            ("http.listen", ""),
            ("pages.templates", "/pages"),
            ("server.connections-max", "1"),
            ("http.connections-max", "1"),
        ];
        let cases: Vec<_> = contradictions().into_iter().map(|(flags, _)| flags).collect();
        let changes: Vec<_> = cases.iter().flatten().chain(&more).copied().collect();
        let all_rules = |flags: &[(&str, &str)]| -> Vec<Rule> {
            let (settings, sources) = loaded(flags);
            let warning_rules = settings
                .mail_warning_rules(&sources)
                .into_iter()
                .chain(settings.effect_warning_rules(&sources));
            settings.error_rules().chain(warning_rules).collect()
        };
        let alone = changes.iter().map(|change| vec![*change]);
        for case in cases.iter().cloned().chain(alone) {
            for change in &changes {
                let others: Vec<_> = case.iter().copied().filter(|(key, _)| *key != change.0).collect();
                let with_change = [others, vec![*change]].concat();
                for (before, after) in all_rules(&case).iter().zip(all_rules(&with_change)) {
                    let is_named = [after.shown, after.others].iter().any(|keys| keys.contains(&change.0));
                    assert!(before.holds == after.holds || is_named, "{change:?}: {}", after.text);
                }
            }
        }
    }

    #[test]
    fn a_setting_without_a_valid_value_hides_no_finding_about_the_others() {
        let invalid = ("mail.timeout", "30");
        for (flags, fix) in contradictions() {
            let found = refusal(&[flags.as_slice(), &[invalid]].concat()).unwrap();
            assert!(found.contains("mail.timeout: expected") && found.contains(fix), "{flags:?}: {found}");
        }
        // What is said of a setting without a valid value could be wrong.
        let found = refusal(&[("session.idle", "40d"), ("session.lifetime", "long")]).unwrap();
        assert!(!found.contains("session.idle"), "{found}");
    }

    #[test]
    fn each_likely_mistake_is_warned_of() {
        assert_eq!(warnings(&[]), "");
        let public = warnings(&[("mail.public-base-url", "https://kairos.example")]);
        assert!(public.contains("only written to a folder") && public.contains("set mail.from"), "{public}");
        let smtp = warnings(&[("mail.url", "smtp://mail.example")]);
        for setting in ["mail.from", "mail.public-base-url", "session.issuer"] {
            assert!(smtp.contains(&format!("set {setting}")), "{setting}: {smtp}");
        }
        assert!(
            public.contains("set session.issuer") && !public.contains("set mail.public-base-url"),
            "{public}"
        );
        assert!(
            warnings(&[("http.listen", "127.0.0.1:1")]).contains("lead to another port than http.listen")
        );
        let own_pages = [("http.listen", "127.0.0.1:1"), ("mail.public-base-url", "http://localhost:1")];
        assert_eq!(warnings(&own_pages), "");
        let no_port = warnings(&[("http.listen", ""), ("pages.templates", "/pages")]);
        assert!(no_port.contains("pages.templates has no effect while http.listen is empty"), "{no_port}");
        for section in ["server", "http"] {
            let all = format!("{section}.connections-max");
            let per_peer = format!("{section}.connections-per-peer-max");
            let warned = warnings(&[(&all, "100"), (&per_peer, "101")]);
            assert!(warned.contains(&format!("{per_peer} has no effect: it is more than {all}")), "{warned}");
            assert_eq!(warnings(&[(&all, "100"), (&per_peer, "100")]), "");
            assert_eq!(warnings(&[(&all, "100")]), "");
        }
        assert!(warnings(&[("verification.unverified-kept", "1h")]).contains("token-lifetime"));
        let both = warnings(&[("callers.file", "callers.toml"), ("callers.insecure-none", "true")]);
        assert!(both.contains("callers.insecure-none is true (flag --flag)"), "{both}");
        let exposed = warnings(&[("telemetry.listen", "0.0.0.0:50090")]);
        assert!(exposed.contains("every client that reaches telemetry.listen"), "{exposed}");
        assert_eq!(warnings(&[("telemetry.listen", "[::1]:50090")]), "");
    }

    #[test]
    fn two_ports_are_the_same_if_one_address_contains_the_other() {
        for (one, other, is_same) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:1", "[::1]:1", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let [one, other] = [one, other].map(|address| address.parse().unwrap());
            assert_eq!((same_port(one, other), same_port(other, one)), (is_same, is_same), "{one} {other}");
        }
    }

    #[test]
    fn each_unsafe_setting_can_be_allowed() {
        let anywhere = ("server.listen", "0.0.0.0:1");
        let plaintext = ("server.insecure-plaintext", "true");
        assert_eq!(refusal(&[anywhere, plaintext, ("callers.insecure-none", "true")]), None);
        let pages = ("http.listen", "0.0.0.0:1");
        let links = ("mail.public-base-url", "http://kairos.example");
        assert_eq!(refusal(&[pages, links, plaintext]), None);
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
