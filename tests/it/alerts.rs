//! The alert rules: checked and tested by promtool, and raised by real faults in a real Prometheus.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use kairos_identity::proto::ResolveTokenRequest;
use serde_json::Value;

use crate::support::{
    daemon::free_port,
    engine::Engine,
    http,
    people::{PASSWORD, login, registration},
    postgres::Postgres,
    prometheus::{self, Prometheus},
    server::TestServer,
    tools::repository,
    wait::until,
};

/// Time limit for an alert, which fires some 5 s after its fault; late mails are counted every 15 s.
const LIMIT: Duration = Duration::from_mins(1);

/// How long only the expected alert may fire.
const OBSERVED: Duration = Duration::from_secs(4);

/// Runs promtool in the folder of the rules.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new(prometheus::program("promtool"));
    let output =
        command.args(arguments).current_dir(repository().join("deploy/prometheus")).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("SUCCESS"), "{text}{errors}");
}

#[test]
fn the_rules_are_valid_and_pass_their_tests() {
    promtool(&["check", "rules", "kairos-identity.rules.yml"]);
    promtool(&["test", "rules", "kairos-identity.test.yml"]);
}

/// Returns what follows `start` in each line of the rules that has it.
fn after<'a>(rules: &'a str, start: &str) -> Vec<&'a str> {
    rules.lines().filter_map(|line| line.trim_start().strip_prefix(start)).collect()
}

#[test]
fn each_alert_has_a_test_and_a_section_of_the_document() {
    let rules = prometheus::rules();
    let document = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let tests = fs::read_to_string(repository().join("deploy/prometheus/kairos-identity.test.yml")).unwrap();
    let alerts = after(&rules, "- alert: ");
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
        let (_, section) = document.split_once(&format!("\n### {alert}\n\n**")).expect("a section");
        let link = format!("docs/operations.md#{}", alert.to_lowercase());
        assert!(rules.contains(&format!("runbook: {link}\n")), "{link}");
        let (_, rule) = rules.split_once(&format!("- alert: {alert}\n")).unwrap();
        let (_, severity) = rule.split_once("severity: ").unwrap();
        let severity = severity.split_whitespace().next().unwrap();
        assert!(section.to_lowercase().starts_with(severity), "{alert} is {severity}");
    }
    assert_eq!(document.matches("\n### ").count(), alerts.len(), "a section without an alert");
}

#[test]
fn each_metric_in_the_rules_exists() {
    let document = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let rules = prometheus::rules();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names =
        rules.lines().filter(|line| !line.trim_start().starts_with(['#', '-']) && !line.contains("summary:"));
    let names: BTreeSet<&str> = names.flat_map(|line| line.split(|c| !is_part(c))).collect();
    let metrics: Vec<_> = names
        .into_iter()
        .filter(|name| {
            ["rpc_server_", "kairos_identity_", "process_"].iter().any(|start| name.starts_with(start))
        })
        .collect();
    assert!(metrics.len() > 20, "{metrics:?}");
    for name in metrics {
        let name = name.trim_end_matches("_bucket").trim_end_matches("_count");
        assert!(document.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
}

/// Waits until an alert fires, and asserts that no other one does so before or for a while after.
async fn only_this_fires(prometheus: &Prometheus, alert: &str) {
    let expected = BTreeSet::from([alert.to_owned()]);
    until(&format!("{alert} fires"), LIMIT, async || {
        let firing = prometheus.firing();
        assert!(firing.is_subset(&expected), "{firing:?}");
        (firing == expected).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < OBSERVED {
        assert_eq!(prometheus.firing(), expected);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_database_raises_its_alert() {
    let cluster = Postgres::own();
    let database = cluster.create_database();
    let server = TestServer::on_url(database.url().to_owned()).start().await;
    let prometheus = Prometheus::start(&[server.metrics_address()], &[]);

    // Each recorded expression has data while the service works.
    let ada = server.member("ada").await;
    let mut client = server.client().await;
    client.login(login("ada", "a wrong password")).await.unwrap_err();
    let rules = prometheus::rules();
    let records = after(&rules, "- record: ");
    until("each recorded expression has data", LIMIT, async || {
        let request = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
        client.resolve_token(request).await.unwrap();
        records.iter().all(|name| !prometheus.query(name).is_empty()).then_some(())
    })
    .await;
    assert_eq!(prometheus.firing(), BTreeSet::new());

    cluster.stop_immediate();
    only_this_fires(&prometheus, "KairosIdentityNothingServed").await;
    cluster.start();
    until("the alert ends", LIMIT, async || prometheus.firing().is_empty().then_some(())).await;
}

/// Returns the expressions of the Grafana board, with the times of a test.
fn expressions_of_the_board() -> Vec<String> {
    let text = fs::read_to_string(repository().join("deploy/grafana/kairos-identity.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    expressions
        .map(|text| {
            text.replace("$job", "kairos-identity").replace("$__rate_interval", "6s").replace("[1h]", "[12s]")
        })
        .collect()
}

/// Metrics of the board that need what this test does not have: replicas, TLS, connections that were refused,
/// and a refresh token that was used again.
const NOT_SERVED: &[&str] = &["replicas", "tls_certificate", "closed_early", "authn_token_reuse"];

#[tokio::test(flavor = "multi_thread")]
async fn each_panel_of_the_board_has_data() {
    let expressions = expressions_of_the_board();
    assert!(expressions.len() > 30, "{expressions:?}");
    let mut servers = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let builder = TestServer::builder(engine).with_env("KAIROS_IDENTITY_LOGIN_FAILURES_MAX", "1");
        servers.push(builder.start().await);
    }
    let addresses: Vec<_> = servers.iter().map(TestServer::metrics_address).collect();
    let prometheus = Prometheus::start(&addresses, &[]);
    let ada = servers[0].member("ada").await;
    let mut client = servers[0].client().await;

    // What has no data is asked again after more calls.
    let mut missing: Vec<_> = expressions
        .iter()
        .filter(|expression| !NOT_SERVED.iter().any(|name| expression.contains(name)))
        .collect();
    let began = Instant::now();
    while !missing.is_empty() {
        assert!(began.elapsed() < LIMIT, "no data: {missing:#?}");
        let request = ResolveTokenRequest { auth_token: ada.auth_token.clone() };
        client.resolve_token(request).await.unwrap();
        client.login(login("ada", "a wrong password")).await.unwrap_err();
        http::get(servers[0].address(), "/");
        tokio::time::sleep(Duration::from_millis(200)).await;
        missing.retain(|expression| prometheus.query(expression).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_smtp_server_raises_its_alert() {
    let url = format!("smtp://127.0.0.1:{}", free_port());
    let server = TestServer::builder(Engine::Sqlite)
        .with_mail_url(&url)
        .with_env("KAIROS_IDENTITY_MAIL_INSECURE_PLAINTEXT", "true")
        .start()
        .await;
    let prometheus = Prometheus::start(&[server.metrics_address()], &[("> 900", "> 3")]);
    server.client().await.register(registration("ada")).await.unwrap();
    only_this_fires(&prometheus, "KairosIdentityMailsLate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessed_passwords_raise_their_alert() {
    let server = TestServer::start(Engine::Sqlite).await;
    for number in 0..4 {
        server.member(&format!("user{number}")).await;
    }
    let prometheus = Prometheus::start(&[server.metrics_address()], &[]);
    let mut client = server.client().await;
    let guess = tokio::spawn(async move {
        for number in 0.. {
            client
                .login(login(&format!("user{}", number % 4), &format!("{PASSWORD}{number}")))
                .await
                .unwrap_err();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    only_this_fires(&prometheus, "KairosIdentityLoginsGuessed").await;
    guess.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_raises_its_alert() {
    let server = TestServer::start(Engine::Sqlite).await;
    let text = http::get(server.metrics_address(), "/metrics").body;
    let free = text.lines().find_map(|line| line.strip_prefix("kairos_identity_sqlite_disk_free_bytes "));
    let free: f64 = free.expect("the metric").parse().unwrap();
    // The rule with the size of this disk, on which other tests write some hundred MiB at the same time.
    let threshold = format!("< {}", free - 1_073_741_824.0);
    let prometheus = Prometheus::start(&[server.metrics_address()], &[("< 1073741824", &threshold)]);
    assert_eq!(prometheus.firing(), BTreeSet::new());

    let path = server.database_url().trim_start_matches("sqlite://");
    let ballast = format!("{path}.ballast");
    let filled = Command::new("fallocate").args(["--length", "2GiB", &ballast]).status().unwrap();
    assert!(filled.success(), "the disk has room for 2 GiB");
    only_this_fires(&prometheus, "KairosIdentityDiskNearlyFull").await;
    fs::remove_file(ballast).unwrap();
}
