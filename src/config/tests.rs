use std::{ffi::OsString, fs};

use tempfile::TempDir;

use super::{section_list::settings, *};

/// Settings from the text of a file, variables and flags.
struct Input {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
    flags: Vec<(&'static str, &'static str, String)>,
}

impl Input {
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
        Sources::gather(Some(&file), self.variables.clone(), self.flags.clone())?.require_valid()
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::read(&self.sources()?)
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn every_default_is_valid() {
    let settings = Input::file("").load().unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.password.cost.get(), 12);
}

#[test]
fn flags_override_variables_which_override_the_file_which_overrides_defaults() {
    let input = Input::file("[password]\ncost = 10\nthreads = 3\n[server]\nreflection = false");
    let input = input
        .variable("KAIROS_IDENTITY_PASSWORD_COST", "11")
        .variable("KAIROS_IDENTITY_SERVER_LISTEN", "127.0.0.1:1");
    let settings = input.flag("server.listen", "127.0.0.1:2").load().unwrap();

    assert_eq!(settings.password.threads.get(), 3);
    assert_eq!(settings.password.cost.get(), 11);
    assert_eq!(settings.server.listen.port(), 2);
    assert!(!settings.server.reflection);
}

#[test]
fn an_unknown_key_is_refused_and_the_error_suggests_a_known_one() {
    let refusal = Input::file("[server]\nlisen = \"x\"").refusal();
    assert!(refusal.contains("server.lisen") && refusal.contains("did you mean server.listen?"), "{refusal}");
    assert!(refusal.contains("kairos.toml"), "{refusal}");

    assert!(Input::file("[sever]\nlisten = \"x\"").refusal().contains("did you mean server.listen?"));
    assert!(Input::file("listen = \"x\"").refusal().contains("listen is not a setting"));
    assert!(Input::file("[\"\"]\n\"\" = 1").refusal().contains("\".\" is not a setting"));
    assert!(Input::file("[log]\n\"level \" = 1").refusal().contains("\"log.level \" is not a setting"));
    let refusal = Input::file("").variable("KAIROS_IDENTITY_PASSWORD_COTS", "12").refusal();
    assert!(refusal.contains("did you mean KAIROS_IDENTITY_PASSWORD_COST?"), "{refusal}");
}

#[test]
fn a_name_without_its_section_suggests_the_first_setting_of_that_name() {
    for (variable, expected) in [
        ("KAIROS_IDENTITY_LISTEN", "KAIROS_IDENTITY_SERVER_LISTEN"),
        ("KAIROS_IDENTITY_LISEN", "KAIROS_IDENTITY_SERVER_LISTEN"),
        ("KAIROS_IDENTITY_TLS_CERT", "KAIROS_IDENTITY_SERVER_TLS_CERT"),
        ("KAIROS_IDENTITY_HTTP_LISEN", "KAIROS_IDENTITY_HTTP_LISTEN"),
        ("KAIROS_IDENTITY_DATABASE_URI", "KAIROS_IDENTITY_DATABASE_URL"),
        ("KAIROS_IDENTITY_DATABASE", "KAIROS_IDENTITY_DATABASE_URL"),
        ("KAIROS_IDENTITY_TLS", "KAIROS_IDENTITY_SERVER_TLS_CERT"),
        ("KAIROS_IDENTITY_ISSUER", "KAIROS_IDENTITY_SESSION_ISSUER"),
        // In the words of other programs.
        ("KAIROS_IDENTITY_PORT", "KAIROS_IDENTITY_SERVER_LISTEN"),
        ("KAIROS_IDENTITY_HOST", "KAIROS_IDENTITY_SERVER_LISTEN"),
        ("KAIROS_IDENTITY_HTTP_PORT", "KAIROS_IDENTITY_HTTP_LISTEN"),
        ("KAIROS_IDENTITY_METRICS_ADDR", "KAIROS_IDENTITY_TELEMETRY_LISTEN"),
        ("KAIROS_IDENTITY_DB_URL", "KAIROS_IDENTITY_DATABASE_URL"),
        ("KAIROS_IDENTITY_SMTP_URL", "KAIROS_IDENTITY_MAIL_URL"),
        ("KAIROS_IDENTITY_DEBUG", "KAIROS_IDENTITY_LOG_LEVEL"),
    ] {
        let refusal = Input::file("").variable(variable, "x").refusal();
        assert!(refusal.contains(&format!("did you mean {expected}?")), "{refusal}");
    }
    assert!(Input::file("listen = \"x\"").refusal().contains("did you mean server.listen?"));
    assert!(Input::file("[http]\nport = 1").refusal().contains("did you mean http.listen?"));
    // What resembles no setting gets no suggestion.
    for name in ["USER", "TOKEN_X", "REGION", "PASSWORD_HASHER_NAME"] {
        let refusal = Input::file("").variable(&format!("KAIROS_IDENTITY_{name}"), "x").refusal();
        assert!(!refusal.contains("did you mean"), "{refusal}");
    }
}

#[test]
fn a_bad_value_is_refused_and_the_error_names_the_expectation_and_the_origin() {
    let refusal = Input::file("[password]\ncost = 99").refusal();
    assert!(refusal.contains("password.cost: expected a whole number from 4 to 15, not \"99\""), "{refusal}");
    assert!(refusal.contains("kairos.toml"), "{refusal}");

    let refusal = Input::file("").variable("KAIROS_IDENTITY_MAIL_TIMEOUT", "soon").refusal();
    assert!(
        refusal.contains("mail.timeout") && refusal.contains("variable KAIROS_IDENTITY_MAIL_TIMEOUT"),
        "{refusal}"
    );
    let refusal = Input::file("[server]\nlisten = [1]").refusal();
    assert!(refusal.contains("server.listen: expected ") && refusal.contains(", not a list"), "{refusal}");
}

/// Texts of which every setting but a path refuses at least one: out of range, empty, too long, malformed.
const WRONG: [&str; 4] = ["-1", "", "99999999999999999999", "a b\u{1}"];

#[test]
fn every_setting_refuses_what_it_is_not_and_names_itself_its_source_and_what_it_expects() {
    for setting in settings() {
        let (key, variable, expects) = (setting.key(), setting.variable(), (setting.expects)());
        let line = |value: &str| {
            Input::file(&format!("[{}]\n{} = {value}", setting.section, setting.field.replace('_', "-")))
        };
        let assert_named = |input: Input, source: &str| {
            let refusal = input.refusal();
            for part in [&key, source, &expects] {
                assert!(refusal.contains(part), "{part}: {refusal}");
            }
        };
        for (value, found) in
            [("[1]", "a list"), ("{ a = 1 }", "a table"), ("1.5", "a number"), ("1979-05-27", "a date")]
        {
            assert!(line(value).refusal().contains(found), "{key} = {value}");
            assert_named(line(value), "kairos.toml");
        }
        let wrong: Vec<&str> = WRONG.into_iter().filter(|text| !(setting.accepts)(text)).collect();
        assert!(!wrong.is_empty() || expects.contains("path"), "{key}");
        for text in wrong {
            assert_named(line(&toml::Value::from(text).to_string()), "kairos.toml");
            assert_named(Input::file("").variable(&variable, text), &format!("variable {variable}"));
            if setting.flag.is_some() {
                let mut input = Input::file("");
                input.flags.push((key.clone().leak(), "some-flag", text.to_owned()));
                assert_named(input, "flag --some-flag");
            }
        }
    }
}

/// Returns the bounds that a number, a number of bytes or a duration expects, and the unit of them.
fn bounds(expects: &str) -> Option<(u64, u64, &'static str)> {
    let is_number = expects.starts_with("a whole number") || expects.starts_with("a number of bytes");
    let is_duration = expects.starts_with("a duration");
    let range = expects.split_once(" from ").filter(|_| is_number || is_duration)?.1;
    let (least, most) = range.split(',').next()?.split_once(" to ")?;
    let number = |text: &str| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            _ => 1,
        };
        digits.parse::<u64>().unwrap() * factor
    };
    Some((number(least), number(most), if is_duration { "ms" } else { "" }))
}

#[test]
fn every_number_accepts_its_bounds_and_refuses_what_is_just_beyond_them() {
    let mut checked = 0;
    for setting in settings() {
        let expects = (setting.expects)();
        let Some((least, most, unit)) = bounds(&expects) else { continue };
        checked += 1;
        for bound in [least, most] {
            assert!((setting.accepts)(&format!("{bound}{unit}")), "{}: {bound}{unit}", setting.key());
        }
        for beyond in least.checked_sub(1).into_iter().chain([most + 1]) {
            let text = format!("{beyond}{unit}");
            let refusal = Input::file("").variable(&setting.variable(), &text).refusal();
            let source = format!("not \"{text}\" (variable {})", setting.variable());
            for part in [&format!("{}: expected {expects}", setting.key()), &source] {
                assert!(refusal.contains(part), "{part}: {refusal}");
            }
        }
    }
    assert!(checked > 60, "only {checked} settings have bounds");
}

#[test]
fn a_finding_about_a_setting_says_who_set_it() {
    let sources = Input::file("").variable("KAIROS_IDENTITY_CALLERS_FILE", "c.toml").sources().unwrap();
    let found = sources.with_origin("callers.file: c.toml: No such file");
    let origin = "[callers.file is c.toml (variable KAIROS_IDENTITY_CALLERS_FILE)]";
    assert_eq!(found, format!("callers.file: c.toml: No such file {origin}"));
    assert_eq!(sources.with_origin(&found), found);
    let both = sources.with_origin("server.tls-cert and server.tls-key: they do not match");
    assert!(
        both.ends_with("[server.tls-cert is not set (default), server.tls-key is not set (default)]"),
        "{both}"
    );
    assert_eq!(sources.with_origin("no user: ada"), "no user: ada");
}

#[test]
fn a_misspelling_of_every_setting_is_refused_and_suggests_that_setting() {
    for setting in settings() {
        let name = format!("{}x", setting.field.replace('_', "-"));
        let refusal = Input::file(&format!("[{}]\n{name} = 1", setting.section)).refusal();
        let misspelt = format!("{}.{name} is not a setting (file ", setting.section);
        assert!(refusal.contains(&misspelt), "{refusal}");
        assert!(refusal.contains(&format!("did you mean {}?", setting.key())), "{refusal}");
        let variable = format!("{}X", setting.variable());
        let refusal = Input::file("").variable(&variable, "1").refusal();
        assert!(refusal.contains(&format!("did you mean {}?", setting.variable())), "{refusal}");
    }
}

#[test]
fn every_missing_file_of_a_secret_is_named_with_its_setting_and_source() {
    for setting in settings().filter(|setting| setting.redact.is_some()) {
        let variable = format!("{}_FILE", setting.variable());
        let refusal = Input::file("").variable(&variable, "/does/not/exist").refusal();
        let key = format!("{}-file", setting.key());
        for part in [&key, "/does/not/exist", &format!("variable {variable}")] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }
}

#[test]
fn variables_of_other_programs_and_the_one_of_the_settings_file_are_no_settings() {
    assert!(Input::file("").variable("PATH", "/bin").variable("KAIROS_IDENTITY_CONFIG", "x").load().is_ok());
}

#[test]
fn no_error_shows_a_password() {
    let url = "postgres://kairos:hunter2@[bad/x";
    let refusals = [
        Input::file(&format!("[database]\nurl = \"{url}\"")).refusal(),
        Input::file("[mail]\nurl = \"smtp://a:hunter2@host/path\"").refusal(),
        Input::file("[mail]\nurl = \"smtp://a:hunter2@host\n").refusal(),
    ];
    for refusal in refusals {
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_url_can_be_read_from_a_separate_file() {
    let input = Input::file("");
    let secret = input.folder.path().join("url");
    fs::write(&secret, "postgres://a:hunter2@b/c\n").unwrap();
    let input = input.variable("KAIROS_IDENTITY_DATABASE_URL_FILE", secret.to_str().unwrap());

    assert_eq!(input.load().unwrap().database.url, DatabaseUrl::Postgres("postgres://a:hunter2@b/c".into()));
    assert!(input.flag("database.url", "sqlite://x").refusal().contains("both set"));
}

#[test]
fn a_url_and_its_file_override_the_other_one_in_the_settings_file() {
    let in_file = |key: &str, value: &str| Input::file(&format!("[database]\n{key} = \"{value}\""));
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("url");
    fs::write(&secret, "sqlite://secret\n").unwrap();
    let path = secret.to_str().unwrap();
    let database = |input: Input| input.load().unwrap().database.url.to_string();

    assert_eq!(database(in_file("url-file", path).flag("database.url", "sqlite://x")), "sqlite://x");
    let variable = in_file("url-file", path).variable("KAIROS_IDENTITY_DATABASE_URL", "sqlite://x");
    assert_eq!(database(variable), "sqlite://x");
    let variable = in_file("url", "sqlite://x").variable("KAIROS_IDENTITY_DATABASE_URL_FILE", path);
    assert_eq!(database(variable), "sqlite://secret");
    let both = Input::file(&format!("[database]\nurl = \"sqlite://x\"\nurl-file = \"{path}\""));
    assert!(both.refusal().contains("both set"));
}

#[test]
fn the_printed_settings_load_to_the_same_settings() {
    let input = Input::file("[mail]\nfrom = \"\\\"Q\\\" <q@example.com>\"").flag("password.cost", "13");
    let printed = Settings::print(&input.sources().unwrap());
    assert!(printed.contains("cost = \"13\"  # flag --some-flag"), "{printed}");

    let again = Input::file(&printed);
    assert_eq!(format!("{:?}", again.load().unwrap()), format!("{:?}", input.load().unwrap()));
}

#[test]
fn the_printed_settings_contain_no_password() {
    let input =
        Input::file("[database]\nurl = \"postgres://a:hunter2@b/c\"\n[mail]\nurl = \"smtp://a:hunter2@b\"");
    let printed = Settings::print(&input.sources().unwrap());
    assert!(printed.contains("postgres://a:***@b/c") && !printed.contains("hunter2"), "{printed}");

    // A service that starts with what was printed would log in with the password `***`.
    let refused = Input::file(&printed).refusal();
    for part in ["database.url", "mail.url", "*** is shown instead of a password"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

#[test]
fn a_setting_is_secret_exactly_if_a_file_can_contain_it() {
    let keys: Vec<String> = settings().map(Setting::key).collect();
    for setting in settings() {
        let has_file = keys.contains(&format!("{}-file", setting.key()));
        assert_eq!(setting.redact.is_some(), has_file, "{}", setting.key());
    }
}

#[test]
fn a_flag_sets_its_setting_and_its_help_shows_the_default() {
    use clap::{Args, FromArgMatches};
    let mut command = StoreFlags::augment_args(ServeFlags::augment_args(clap::Command::new("serve")));
    let help = command.render_help().to_string();
    for shown in ["--listen <ADDR>", "[default: 127.0.0.1:50051]", "--insecure-plaintext", "[default: info]"]
    {
        assert!(help.contains(shown), "{shown}: {help}");
    }
    // A switch takes no value.
    assert!(!help.contains("--insecure-plaintext <"), "{help}");
    let flags = ["serve", "--listen", "127.0.0.1:1", "--insecure-plaintext", "--log-level", "warn"];
    let matches = command.try_get_matches_from(flags).unwrap();
    let mut serve = ServeFlags::from_arg_matches(&matches).unwrap();
    serve.set("secret.key-file", "secret-key-file", "key");

    let (settings, sources) =
        Settings::load(&StoreFlags::from_arg_matches(&matches).unwrap(), &serve).unwrap();

    assert_eq!(settings.server.listen.port(), 1);
    assert!(settings.server.insecure_plaintext && !settings.mail.insecure_plaintext);
    assert_eq!(settings.log.level.as_str(), "warn");
    let printed = Settings::print(&sources);
    assert!(printed.contains("key-file = \"key\"  # flag --secret-key-file"), "{printed}");
}
