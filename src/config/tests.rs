use std::{ffi::OsString, fs};

use tempfile::TempDir;

use super::*;

/// Settings from a file's text, variables and flags.
struct Given {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
    flags: Vec<(&'static str, &'static str, String)>,
}

impl Given {
    fn file(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kairos.toml"), text).unwrap();
        Self { folder, variables: Vec::new(), flags: Vec::new() }
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.variables.push((name.into(), text.into()));
        self
    }

    fn flag(mut self, key: &'static str, text: &str) -> Self {
        self.flags.push((key, "some-flag", text.to_owned()));
        self
    }

    fn sources(&self) -> Result<Sources, ConfigError> {
        let file = self.folder.path().join("kairos.toml");
        Sources::gather(Some(&file), self.variables.clone(), self.flags.clone())
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::read(&self.sources()?)
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn every_default_is_a_value() {
    let settings = Given::file("").load().unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.password.cost.get(), 12);
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let given = Given::file("[password]\ncost = 10\nthreads = 3\n[server]\nreflection = false");
    let given = given
        .variable("KAIROS_IDENTITY_PASSWORD_COST", "11")
        .variable("KAIROS_IDENTITY_SERVER_LISTEN", "127.0.0.1:1");
    let settings = given.flag("server.listen", "127.0.0.1:2").load().unwrap();

    assert_eq!(settings.password.threads.get(), 3);
    assert_eq!(settings.password.cost.get(), 11);
    assert_eq!(settings.server.listen.port(), 2);
    assert!(!settings.server.reflection);
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let refusal = Given::file("[server]\nlisen = \"x\"").refusal();
    assert!(refusal.contains("server.lisen") && refusal.contains("did you mean server.listen?"), "{refusal}");
    assert!(refusal.contains("kairos.toml"), "{refusal}");

    assert!(Given::file("[sever]\nlisten = \"x\"").refusal().contains("did you mean server.listen?"));
    assert!(Given::file("listen = \"x\"").refusal().contains("listen is not a setting"));
    let refusal = Given::file("").variable("KAIROS_IDENTITY_PASSWORD_COTS", "12").refusal();
    assert!(refusal.contains("did you mean KAIROS_IDENTITY_PASSWORD_COST?"), "{refusal}");
}

#[test]
fn a_bad_value_is_refused_with_what_was_expected_and_who_said_it() {
    let refusal = Given::file("[password]\ncost = 99").refusal();
    assert!(refusal.contains("password.cost: expected a whole number from 4 to 15, not \"99\""), "{refusal}");
    assert!(refusal.contains("kairos.toml"), "{refusal}");

    let refusal = Given::file("").variable("KAIROS_IDENTITY_MAIL_TIMEOUT", "soon").refusal();
    assert!(
        refusal.contains("mail.timeout") && refusal.contains("variable KAIROS_IDENTITY_MAIL_TIMEOUT"),
        "{refusal}"
    );
    assert!(Given::file("[server]\nlisten = [1]").refusal().contains("server.listen must be a text"));
}

#[test]
fn other_peoples_variables_are_none_of_our_business() {
    assert!(Given::file("").variable("PATH", "/bin").variable("KAIROS_IDENTITY_CONFIG", "x").load().is_ok());
}

#[test]
fn no_error_shows_a_password() {
    let url = "postgres://kairos:hunter2@[bad/x";
    let refusals = [
        Given::file(&format!("[database]\nurl = \"{url}\"")).refusal(),
        Given::file("[mail]\nurl = \"smtp://a:hunter2@host/path\"").refusal(),
        Given::file("[mail]\nurl = \"smtp://a:hunter2@host\n").refusal(),
    ];
    for refusal in refusals {
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_url_may_be_in_a_file_of_its_own() {
    let given = Given::file("");
    let secret = given.folder.path().join("url");
    fs::write(&secret, "postgres://a:hunter2@b/c\n").unwrap();
    let given = given.variable("KAIROS_IDENTITY_DATABASE_URL_FILE", secret.to_str().unwrap());

    assert_eq!(given.load().unwrap().database.url, DatabaseUrl::Postgres("postgres://a:hunter2@b/c".into()));
    assert!(given.flag("database.url", "sqlite://x").refusal().contains("both set"));
}

#[test]
fn what_is_printed_is_a_file_that_loads_again() {
    let given = Given::file("[mail]\nfrom = \"\\\"Q\\\" <q@example.com>\"").flag("password.cost", "13");
    let printed = Settings::print(&given.sources().unwrap());
    assert!(printed.contains("cost = \"13\"  # flag --some-flag"), "{printed}");

    let again = Given::file(&printed);
    assert_eq!(format!("{:?}", again.load().unwrap()), format!("{:?}", given.load().unwrap()));
}

#[test]
fn what_is_printed_has_no_password() {
    let given =
        Given::file("[database]\nurl = \"postgres://a:hunter2@b/c\"\n[mail]\nurl = \"smtp://a:hunter2@b\"");
    let printed = Settings::print(&given.sources().unwrap());
    assert!(printed.contains("postgres://a:***@b/c") && !printed.contains("hunter2"), "{printed}");
}
