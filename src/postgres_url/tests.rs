//! What a URL means, as `psql` reads it.

use super::*;

fn parsed(url: &str) -> PostgresUrl {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn tls(url: &str) -> TlsMode {
    parsed(url).tls
}

fn refusal(url: &str) -> String {
    url.parse::<PostgresUrl>().unwrap_err().to_string()
}

#[test]
fn a_remote_server_is_verified_unless_sslmode_is_disable() {
    assert_eq!(tls("postgres://a@db.example/x"), TlsMode::Verified { roots: None });
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("postgres://a@db.example/x?sslmode={mode}");
        assert_eq!(tls(&url), TlsMode::Verified { roots: None }, "{mode}");
    }
    assert_eq!(tls("postgres://a@127.0.0.1,db.example/x"), TlsMode::Verified { roots: None });
    assert_eq!(
        tls("postgres://a@db.example/x?sslmode=verify-full&sslrootcert=%2Fca.pem"),
        TlsMode::Verified { roots: Some("/ca.pem".into()) }
    );
    assert_eq!(tls("postgres://a@db.example/x?sslmode=disable"), TlsMode::Disabled);
}

#[test]
fn a_local_server_needs_no_tls() {
    assert_eq!(tls("postgres://a@127.0.0.1:5433/x"), TlsMode::Disabled);
    assert_eq!(tls("postgres://a@localhost/x?application_name=k"), TlsMode::Disabled);
    assert_eq!(tls("postgres:///x?host=/run/postgresql"), TlsMode::Disabled);
}

#[test]
fn an_sslmode_that_may_fall_back_is_refused_and_the_error_has_no_password() {
    for mode in ["prefer", "allow"] {
        let error = refusal(&format!("postgres://a:hunter2@db/x?sslmode={mode}"));
        assert!(error.contains(&format!("not {mode}")) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn hosts_are_those_that_psql_would_try() {
    for (url, addresses) in [
        ("postgres://a@h1:1,h2:2/x", "h1:1,h2:2"),
        ("postgres://a@h1,h2:2,[::1]:3/x", "h1:5432,h2:2,[::1]:3"),
        ("postgresql://h1,h2/x?port=7", "h1:7,h2:7"),
        ("postgres:///x?host=h1,h2&port=1,2", "h1:1,h2:2"),
        ("postgres://ignored/x?host=h1", "h1:5432"),
        ("postgres:///x?host=%2Frun%2Fpg", "/run/pg"),
        ("postgres://%2Frun%2Fpg/x", "/run/pg"),
        ("postgres:///x", "/var/run/postgresql"),
        ("postgres://a@/x?host=/run/pg&port=5", "/run/pg"),
        // `address` shows the names, also where `hostaddr` sets the addresses to connect to.
        ("postgres:///x?hostaddr=10.0.0.1,10.0.0.2&host=h1,h2", "h1:5432,h2:5432"),
    ] {
        assert_eq!(parsed(url).address(), addresses, "{url}");
    }
}

#[test]
fn escapes_are_resolved_in_every_part() {
    let url = parsed("postgres://a%40b:p%2Fw%3A%20@h/my%20db?application_name=my%20app&options=-c%20a%3Db+c");
    let host = &url.hosts[0];
    assert_eq!(host.get_user(), Some("a@b"));
    assert_eq!(host.get_password(), Some("p/w: ".as_bytes()));
    assert_eq!(host.get_dbname(), Some("my db"));
    assert_eq!(host.get_application_name(), Some("my app"));
    assert_eq!(host.get_options(), Some("-c a=b+c"));
    let quoted = parsed("postgres://h/x?application_name=it's%20a%5Cb@c");
    assert_eq!(quoted.hosts[0].get_application_name(), Some("it's a\\b@c"));
}

#[test]
fn the_session_attributes_are_those_of_libpq() {
    assert_eq!(parsed("postgres://h/x").target, TargetSession::Any);
    assert_eq!(parsed("postgres://h1,h2/x").target, TargetSession::ReadWrite);
    assert_eq!(parsed("postgres://h1,h2/x?target_session_attrs=any").target, TargetSession::Any);
    for (value, target) in [
        ("read-write", TargetSession::ReadWrite),
        ("read-only", TargetSession::ReadOnly),
        ("primary", TargetSession::Primary),
        ("standby", TargetSession::Standby),
        ("prefer-standby", TargetSession::PreferStandby),
    ] {
        assert_eq!(parsed(&format!("postgres://h/x?target_session_attrs={value}")).target, target);
    }
    assert!(refusal("postgres://h/x?target_session_attrs=master").contains("not master"));
}

#[test]
fn an_error_names_what_is_wrong_and_no_password() {
    for (url, reason) in [
        ("mysql://a:hunter2@h/x", "postgres://"),
        ("postgres://a:hunter2@h:x/x", "the port of a host"),
        ("postgres://a:b@hunter2@h/x", "write an @ in the password as %40"),
        ("postgres://a:hunter2@h:70000/x", "the port of a host"),
        ("postgres://a:hunter2@h1,h2,h3/x?port=1,2", "2 ports do not match 3 hosts"),
        ("postgres://a:hunter2@h1,h2/x?hostaddr=10.0.0.1", "do not match 2 servers"),
        ("postgres://a:hunter2@[::1/x", "brackets"),
        ("postgres://a:b@hunter2/x@db/x", "%2F and %40"),
        ("postgres://a:hunter2]c/x", "the port of a host"),
        ("postgres://a:b@c:hunter2?d", "the port of a host"),
        ("postgres://a:/hunter2@db/x", "%2F and %40"),
        ("postgres://a:hunter2%zz@h/x", "the password contains a %"),
        ("postgres://a:hunter2@h/x?sslmode", "has no value"),
        ("postgres://a:hunter2@h/x?colour=red", "parameter colour is unknown"),
        ("postgres://a:hunter2@h/x?keepalives=maybe", "value of the parameter keepalives"),
        ("postgres://a:hunter2/x", "the port of a host"),
        ("postgres://a:hunter2@h/x?options=-c%20a=b", "value of options"),
    ] {
        let refusal = refusal(url);
        assert!(refusal.contains(reason) && !refusal.contains("hunter2"), "{url}: {refusal}");
    }
}
